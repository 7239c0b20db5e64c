"""The common parser of the commands: helpful errors, help with examples, configs by name."""

from __future__ import annotations

import argparse
import difflib
import os
import re
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, NoReturn

import jsonargparse
import yaml

from zsbir_fast._words import did_you_mean, reason, shortened, shown
from zsbir_fast.runs.yaml_limits import LONGEST, require_modest

_UNKNOWN_KEY = (
    r"[Gg]roup '(?P<group>[\w.]+)' does not accept option '(?P<key>[\w.-]+)'",
    r"[Kk]ey '(?P<key>[\w.-]+)' is not expected",
    r"does not accept nested key '(?P<key>[\w.-]+)'",
    r"[Oo]ption '(?P<key>[\w.-]+)' is not accepted",
    r"[Uu]nrecognized arguments: --(?P<key>[\w.-]+)",
)


# A wrong choice: the word, and the text that has the right ones in quotes.
_WRONG_CHOICE = (
    r"invalid choice: '(?P<word>[^']*)' \(choose from (?P<choices>.*)\)",
    r"Expected a (?:typing\.)?(?P<choices>[^.]*Literal\[.*\]).*\. Got value: (?P<word>.*)",
)
_BOUNDED_YAML = "zsbir-yaml"


def _load_bounded(text: str) -> Any:
    require_modest(text)
    return jsonargparse.get_loader("yaml")(text)


jsonargparse.set_loader(_BOUNDED_YAML, _load_bounded, exceptions=(yaml.YAMLError, ValueError))


class _Formatter(jsonargparse.DefaultHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keeps the line breaks of descriptions and examples."""


class Parser(jsonargparse.ArgumentParser):
    """A jsonargparse parser that teaches.

    Args:
        command: the command, e.g. ``"train"``.
        description: a sentence or two on the command.
        examples: shown under the options.
    """

    def __init__(self, command: str, *, description: str, examples: str) -> None:
        super().__init__(
            prog=f"zsbir {command}",
            usage=f"zsbir {command} [options]",
            description=description,
            epilog=f"examples:\n{examples}",
            formatter_class=_Formatter,
            allow_abbrev=False,
            parser_mode=_BOUNDED_YAML,
        )

    def parse(self, arguments: Sequence[str]) -> Any:
        """Parse arguments; a shipped config may be given by its name.

        Args:
            arguments: the command's arguments.

        Returns:
            The parsed values, by key.
        """
        try:
            return self.parse_args(with_config_paths(arguments))
        except ValueError as error:
            self.error(str(error))

    def section(self, parsed: Any, name: str) -> dict[str, Any]:
        """Return one section of a parsed config as keyword arguments.

        Args:
            parsed: the result of :meth:`parse`.
            name: the section, e.g. ``"data"``; one with nothing below it is a wrong argument.

        Returns:
            Key -> value.
        """
        if parsed[name] is None:
            self.error(f"--{name} must be a group of options, got nothing below it in the config")
        values: dict[str, Any] = parsed[name].as_dict()
        return values

    def keys(self) -> list[str]:
        """Return every key that can be set, with dots."""
        left_out = ("help", "config", "print_config")
        return [action.dest for action in self._actions if action.dest not in left_out]

    def require_known_keys(self, path: str, config: Any) -> None:
        """Refuse a config with a key that is none, of an older layout or of another method.

        jsonargparse passes over such keys where nothing stands below them, and names no file.

        Args:
            path: the config, for the message.
            config: its content, from ``read_config``.
        """
        known = self.keys()
        whole = {".".join(key.split(".")[:depth]) for key in known for depth in range(1, 6)}
        for key in _keys_of(config, depth=4):
            if key not in whole:
                near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
                hint = f"; did you mean {near[0]!r}?" if near else f"; see {self.prog} --help"
                self.error(
                    f"--config must have keys of this command, got {shown(key)} in {path}{hint}"
                )

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print one line, with the nearest valid key if a key was mistyped, and exit with 2."""
        text = " ".join(message.split())
        self.exit(2, f"{self.prog}: error: {shortened(text, limit=2000)}{self._hint(text)}\n")

    def _hint(self, message: str) -> str:
        for pattern in _WRONG_CHOICE:
            found = re.search(pattern, message)
            if found is not None:
                return did_you_mean(found["word"], re.findall(r"'([^']*)'", found["choices"]))
        for pattern in _UNKNOWN_KEY:
            found = re.search(pattern, message)
            if found is None:
                continue
            parts = found.groupdict()
            key = f"{parts['group']}.{parts['key']}" if parts.get("group") else parts["key"]
            near = difflib.get_close_matches(key, self.keys(), n=1, cutoff=0.5)
            return f"; did you mean {near[0]!r}?" if near else f"; see {self.prog} --help"
        return ""


def _keys_of(stored: Any, *, depth: int, prefix: str = "") -> Iterator[str]:
    if isinstance(stored, dict) and depth:
        for key, value in stored.items():
            yield f"{prefix}{key}"
            yield from _keys_of(value, depth=depth - 1, prefix=f"{prefix}{key}.")


def shipped_configs() -> list[str]:
    """Return the names of the configs that come with the package."""
    folder = resources.files("zsbir_fast.runs") / "configs"
    return sorted(file.name for file in folder.iterdir() if file.name.endswith(".yaml"))


def find_config(name: str) -> str:
    """Find a config file.

    Args:
        name: a path, or the name of a shipped config, with or without ``.yaml``.

    Returns:
        The path of the file.

    Raises:
        ValueError: neither a file nor a shipped name, and the message lists the shipped ones; or
            the file is too long or expands to too much.
    """
    if os.path.isfile(name):
        _require_modest_file(Path(name))
        return name
    shipped = shipped_configs()
    for candidate in (name, f"{name}.yaml"):
        if candidate in shipped:
            return str(resources.files("zsbir_fast.runs") / "configs" / candidate)
    raise ValueError(
        f"--config must be a file or one of {', '.join(shipped)}, got {shown(name)}"
        f"{did_you_mean(name, shipped)}"
    )


def _require_modest_file(path: Path) -> None:
    if path.stat().st_size > LONGEST:
        raise ValueError(
            f"--config must be a file of at most {LONGEST:,} bytes, got {path} of "
            f"{path.stat().st_size:,}"
        )
    try:
        require_modest(path.read_text(encoding="utf-8"))
    except (ValueError, yaml.YAMLError) as error:  # also text that is not UTF-8
        raise ValueError(f"--config must be a YAML config, got {path}: {reason(error)}") from error


def read_config(path: str) -> Any:
    """Read a config before its arguments can be parsed.

    Args:
        path: a config that ``find_config`` gave.

    Returns:
        Its content, of any kind.

    Raises:
        ValueError: it is no YAML.
    """
    try:
        return yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except Exception as error:  # tags of YAML raise many kinds
        raise ValueError(f"--config must be a YAML config, got {path}: {reason(error)}") from error


def with_config_paths(arguments: Sequence[str]) -> list[str]:
    """Replace config names after ``--config`` by paths.

    Args:
        arguments: the command's arguments.

    Returns:
        The same arguments with paths.

    Raises:
        ValueError: a name is unknown.
    """
    found = list(arguments)
    for index, argument in enumerate(found):
        if argument.startswith("--config="):
            found[index] = f"--config={find_config(argument.partition('=')[2])}"
        elif argument == "--config" and index + 1 < len(found):
            found[index + 1] = find_config(found[index + 1])
    return found
