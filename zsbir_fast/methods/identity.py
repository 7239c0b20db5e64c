"""Which model a file belongs to: the method and the arguments that built it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from zsbir_fast._words import shortened, shown
from zsbir_fast.data.names import listing, same_names
from zsbir_fast.methods.arguments import flat_arguments, plain_arguments
from zsbir_fast.methods.registry import method_class

FORMAT_VERSION = 2
"""Format of the descriptions that are stored beside weights."""


@dataclass(frozen=True)
class ModelIdentity:
    """Method, constructor arguments and classes of a model.

    Attributes:
        method: name of the method.
        arguments: constructor arguments, plain values only.
        classes: names of the classes it was trained on.
        chosen_by: seen classes that were held out and chose its checkpoint.
        benchmark: name of the benchmark it was trained on; empty if unknown.
    """

    method: str
    arguments: Mapping[str, Any]
    classes: tuple[str, ...]
    chosen_by: tuple[str, ...] = ()
    benchmark: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, fit for JSON and for a checkpoint."""
        return {
            "format": FORMAT_VERSION,
            "method": self.method,
            "arguments": dict(self.arguments),
            "classes": list(self.classes),
            "chosen_by": list(self.chosen_by),
            "benchmark": self.benchmark,
        }

    @staticmethod
    def of(method: str, arguments: Mapping[str, Any], classes: Sequence[str]) -> ModelIdentity:
        """Make an identity from arguments as a config gives them.

        Arguments that are left out are stored with their defaults, and all are brought to the
        plain values that files can hold: the same model always has the same identity.

        Args:
            method: name of a method.
            arguments: constructor arguments; those that are left out keep their defaults.
            classes: class names.

        Returns:
            The identity.

        Raises:
            ValueError: no such method, or an argument is unknown or missing.
        """
        plain = plain_arguments(method, method_class(method), arguments)
        return ModelIdentity(method, plain, tuple(classes))

    @staticmethod
    def from_dict(stored: Any) -> ModelIdentity:
        """Read a description that ``to_dict`` wrote.

        Args:
            stored: the content of a file, of any kind.

        Returns:
            The identity. Its method and the values of its arguments are not checked.

        Raises:
            ValueError: it is no description of a model, or written in another format.
        """
        if not isinstance(stored, Mapping):
            raise ValueError(
                f"ModelIdentity: description must be an object, got {type(stored).__name__}"
            )
        if stored.get("format") != FORMAT_VERSION:
            raise ValueError(
                f"ModelIdentity: format must be {FORMAT_VERSION}, got {shown(stored.get('format'))}"
            )
        method, arguments, classes = (stored.get(key) for key in ("method", "arguments", "classes"))
        if not isinstance(method, str):
            raise ValueError(f"ModelIdentity: method must be text, got {shown(method)}")
        if not isinstance(arguments, Mapping):
            raise ValueError(f"ModelIdentity: arguments must be an object, got {shown(arguments)}")
        for name, value in arguments.items():
            _require_plain(str(name), value)
        if not isinstance(classes, (list, tuple)) or not classes or not all(map(_is_text, classes)):
            raise ValueError(
                f"ModelIdentity: classes must be a list of names, got {shown(classes)}"
            )
        chosen_by, benchmark = stored.get("chosen_by", ()), stored.get("benchmark", "")
        if not isinstance(chosen_by, (list, tuple)) or not all(map(_is_text, chosen_by)):
            raise ValueError(
                f"ModelIdentity: chosen_by must be a list of names, got {shown(chosen_by)}"
            )
        if not _is_text(benchmark):
            raise ValueError(f"ModelIdentity: benchmark must be text, got {shown(benchmark)}")
        return ModelIdentity(
            method=method,
            arguments=dict(arguments),
            classes=tuple(classes),
            chosen_by=tuple(chosen_by),
            benchmark=benchmark,
        )

    def _whole(self) -> Mapping[str, Any]:
        """The arguments, with the defaults of those that are newer than the file."""
        try:
            return plain_arguments(self.method, method_class(self.method), self.arguments)
        except ValueError:  # they do not fit: the comparison names what differs
            return self.arguments

    def require_same(self, stored: Mapping[str, Any] | None) -> None:
        """Refuse weights that belong to another model.

        Args:
            stored: the description in the checkpoint.

        Raises:
            ValueError: it was not written by zsbir, or its model differs from this one; the
                message names both.
        """
        if stored is None:
            raise ValueError("checkpoint must be one written by zsbir, got a file that is not")
        other = ModelIdentity.from_dict(stored)
        if other.method != self.method:
            raise ValueError(
                f"checkpoint must be of method {self.method!r}, "
                f"got one of method {shown(other.method)}"
            )
        ours, theirs = flat_arguments(self.arguments), flat_arguments(other._whole())
        for key in dict.fromkeys([*ours, *theirs]):
            if key in method_class(self.method).free_arguments:
                continue
            mine, its = ours.get(key), theirs.get(key)
            if mine != its:
                raise ValueError(
                    f"checkpoint must "
                    f"be of a {self.method} model with {shortened(key)}={shown(mine)}, "
                    f"got one with {shortened(key)}={shown(its)}"
                )
        if not same_names(other.classes, self.classes):
            raise ValueError(
                f"checkpoint must be of a {self.method} model trained on the same "
                f"{len(self.classes)} classes, got one trained on {len(other.classes)} classes "
                f"({listing(other.classes, limit=3)})"
            )
        if "chosen_by" in stored and not same_names(other.chosen_by, self.chosen_by):
            raise ValueError(
                "checkpoint must be of a run that holds out the classes "
                f"{listing(self.chosen_by) or 'none'}, got one that holds out "
                f"{listing(other.chosen_by) or 'none'}"
            )


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _require_plain(name: str, value: Any, *, depth: int = 2) -> None:
    """Take plain values, lists of them, and two levels of objects of these."""
    if isinstance(value, Mapping) and depth:
        for key, held in value.items():
            _require_plain(f"{name}.{key}", held, depth=depth - 1)
    elif not all(map(_is_plain, value if isinstance(value, (list, tuple)) else (value,))):
        raise ValueError(
            f"ModelIdentity: argument {shown(name)} must be a plain value or a list of such, got a "
            f"{type(value).__name__}"
        )


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, (bool, int, float, str))
