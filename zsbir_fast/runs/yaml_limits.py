"""YAML from strangers: bounded in size, depth and expansion of its aliases."""

from __future__ import annotations

from typing import Any

import yaml

LONGEST = 256 << 10
"""Most characters of a config."""

_DEEPEST = 32
_MOST_VALUES = 10_000


class YamlLimitError(ValueError):
    """A text exceeds the limits."""


def require_modest(text: str) -> None:
    """Refuse YAML that is too long, too deep, or expands to too much.

    Aliases make a text of a hundred bytes stand for billions of values: what each one stands for
    is counted, without expanding it.

    Args:
        text: the YAML.

    Raises:
        YamlLimitError: a limit is exceeded; the message is one line.
        yaml.YAMLError: it is no YAML.
    """
    if len(text) > LONGEST:
        raise YamlLimitError(f"config must have at most {LONGEST:,} characters, got {len(text):,}")
    _Counter().count(yaml.parse(text, Loader=yaml.SafeLoader))


class _Counter:
    """Counts the values of a YAML text, aliases included, from its events."""

    def __init__(self) -> None:
        self.total = 0
        self.anchors: dict[str, int | None] = {}  # name -> values; None while it is open
        self.open: list[
            tuple[str | None, int]
        ] = []  # anchors of the collections around, and starts

    def count(self, events: Any) -> None:
        for event in events:
            if isinstance(event, yaml.AliasEvent):
                self._add(self._values_of(event.anchor))
            elif isinstance(event, yaml.ScalarEvent):
                self._add(1)
                if event.anchor:
                    self.anchors[event.anchor] = 1
            elif isinstance(event, yaml.CollectionStartEvent):
                self._enter(event.anchor)
            elif isinstance(event, yaml.CollectionEndEvent):
                anchor, start = self.open.pop()
                if anchor:
                    self.anchors[anchor] = self.total - start

    def _values_of(self, anchor: str) -> int:
        if anchor not in self.anchors:
            raise YamlLimitError(f"config must define what *{anchor:.40} stands for")
        values = self.anchors[anchor]
        if values is None:
            raise YamlLimitError(f"config must not contain itself, got the alias *{anchor:.40}")
        return values

    def _enter(self, anchor: str | None) -> None:
        self.open.append((anchor, self.total))
        self._add(1)
        if anchor:
            self.anchors[anchor] = None
        if len(self.open) > _DEEPEST:
            raise YamlLimitError(f"config must be nested at most {_DEEPEST} deep, got more")

    def _add(self, values: int) -> None:
        self.total += values
        if self.total > _MOST_VALUES:
            raise YamlLimitError(f"config must stand for at most {_MOST_VALUES:,} values, got more")
