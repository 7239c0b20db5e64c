"""List files of the field: ``relative/path label`` and ``class name label`` lines.

The form is that of SAKE and ZSE-SBIR: one entry per line, the last word is an integer label, and
the text before it may contain spaces.
"""

from __future__ import annotations

import codecs
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from zsbir_fast._files import reading, write_text
from zsbir_fast._words import reason, shown
from zsbir_fast.data.names import listing

_MOST_DIGITS = 18  # of a label, so that int64 holds it


class FileList(NamedTuple):
    """The content of a list of images.

    Attributes:
        paths: as written in the file.
        labels: class id of every path.
    """

    paths: tuple[str, ...]
    labels: tuple[int, ...]


def read_file_list(path: str | Path, *, classes: int | None = None) -> FileList:
    """Read a list of images.

    Args:
        path: the list file, see :func:`read_text`; empty lines are skipped.
        classes: number of classes; labels must be below it. None accepts any label from 0 on.

    Returns:
        Paths and labels in the order of the file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a line is not ``relative/path label``, a label is out of range, or the file
            has no entry; the message has file and line.
    """
    entries = _entries("read_file_list", path, "relative/path label")
    for number, name, label in entries:
        if label < 0 or (classes is not None and label >= classes):
            allowed = "from 0 on" if classes is None else f"in 0..{classes - 1} ({classes} classes)"
            raise ValueError(
                f"read_file_list: line {number} of {path} must have a label {allowed}, got {label} "
                f"for {shown(name)}"
            )
    return FileList(tuple(name for _, name, _ in entries), tuple(label for _, _, label in entries))


def write_file_list(path: str | Path, files: Iterable[str | Path], labels: Iterable[int]) -> None:
    """Write a list of images that :func:`read_file_list` reads back.

    Args:
        path: the list file; it is replaced in one step.
        files: paths, relative to the dataset's folder.
        labels: class id of every path.

    Raises:
        ValueError: lengths differ, a path has a line break, or a label is negative.
    """
    _write("write_file_list", path, [_posix(file) for file in files], list(labels))


def read_class_list(path: str | Path) -> tuple[str, ...]:
    """Read class names and ids (``cname_cid.txt``).

    Args:
        path: the list file, see :func:`read_text`; empty lines are skipped.

    Returns:
        Names in the order of their ids.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a line is not ``class name label``, or ids are not 0, 1, ... each once.
    """
    entries = _entries("read_class_list", path, "class name label")
    names: dict[int, str] = {}
    for number, name, label in entries:
        if label in names:
            raise ValueError(
                f"read_class_list: line {number} of {path} must have a new class id, got {label} "
                f"of {shown(names[label])} again for {shown(name)}"
            )
        names[label] = name
    if sorted(names) != list(range(len(names))):
        missing = sorted(set(range(len(names))) - set(names))
        raise ValueError(
            f"read_class_list: class ids of {path} must be 0..{len(names) - 1}, got none for "
            f"{listing(missing)}"
        )
    return tuple(names[i] for i in range(len(names)))


def read_names(path: str | Path) -> tuple[str, ...]:
    """Read class names, one a line, or a list of classes with ids (``cname_cid.txt``).

    Args:
        path: the file, see :func:`read_text`; empty lines are skipped.

    Returns:
        Names in the order of the lines; in that of the ids if every line ends in an integer.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file has no name, or is no text; or ids are not 0, 1, ... each once.
    """
    lines = [line.strip() for line in _lines("read_names", path) if line.strip()]
    if not lines:
        raise ValueError(f"read_names: {path} must have at least one name, got none")
    if all(" " in line and _is_integer(line.rsplit(maxsplit=1)[1]) for line in lines):
        return read_class_list(path)
    return tuple(lines)


def write_class_list(path: str | Path, names: Sequence[str]) -> None:
    """Write class names with their ids, as :func:`read_class_list` reads them back.

    Args:
        path: the list file; it is replaced in one step.
        names: class names; their ids are their places.

    Raises:
        ValueError: a name has a line break.
    """
    _write("write_class_list", path, list(names), list(range(len(names))))


def read_text(path: str | Path) -> str:
    """Read a text file as the editors of any system write it.

    Args:
        path: the file, UTF-8 with or without a byte order mark, or UTF-16 with one; may begin
            with ``~``.

    Returns:
        The text without the mark.

    Raises:
        OSError: the system's own, where the file cannot be read.
        ValueError: it is in another encoding.
    """
    raw = Path(os.path.expanduser(path)).read_bytes()
    utf16 = raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    text = raw.decode("utf-16" if utf16 else "utf-8-sig")
    if "\0" in text:
        raise ValueError("zero bytes, as in a binary file or in UTF-16 without a byte order mark")
    return text


def _entries(function: str, path: str | Path, form: str) -> list[tuple[int, str, int]]:
    found = []
    for number, line in enumerate(_lines(function, path), 1):
        if not line.strip():
            continue
        words = line.strip().rsplit(maxsplit=1)
        if len(words) != 2 or not _is_integer(words[1]):
            raise ValueError(
                f"{function}: line {number} of {path} must be {form!r}, got {shown(line)}"
            )
        if len(words[1].lstrip("-0")) > _MOST_DIGITS:
            raise ValueError(
                f"{function}: line {number} of {path} must end in a label of at most "
                f"{_MOST_DIGITS} digits, got {shown(words[1])}"
            )
        found.append((number, words[0], int(_without_zeros(words[1]))))
    if not found:
        raise ValueError(f"{function}: {path} must have at least one entry, got none")
    return found


def _lines(function: str, path: str | Path) -> list[str]:
    try:
        with reading(function, path, "list file"):
            return read_text(path).splitlines()
    except ValueError as error:
        raise ValueError(f"{function}: {path} must be UTF-8 text, got: {reason(error)}") from error


def _is_integer(word: str) -> bool:
    return word.removeprefix("-").isdecimal()


def _without_zeros(word: str) -> str:
    """Python reads no number of thousands of digits, be they zeros."""
    sign = "-" if word.startswith("-") else ""
    return sign + (word.removeprefix("-").lstrip("0") or "0")


def _posix(file: str | Path) -> str:
    return file.as_posix() if isinstance(file, Path) else file


def _write(function: str, path: str | Path, names: list[str], labels: list[int]) -> None:
    if len(names) != len(labels):
        raise ValueError(
            f"{function}: paths and labels must be of equal length, got {len(names)} and "
            f"{len(labels)}"
        )
    for name, label in zip(names, labels, strict=True):
        if len(name.splitlines()) != 1 or name != name.strip() or label < 0:
            raise ValueError(
                f"{function}: every entry must be one line without blanks at its ends and with a "
                f"label from 0 on, got {shown(name)} {shown(label)}"
            )
    text = "".join(f"{name} {label}\n" for name, label in zip(names, labels, strict=True))
    write_text(os.path.expanduser(path), text)
