"""Find files below a folder by paths that another system may have written."""

from __future__ import annotations

import os
import unicodedata
from collections import defaultdict
from functools import cache
from pathlib import Path, PureWindowsPath


class FileTree:
    """The files below a folder; every folder is listed once, however many files are asked for.

    A path is taken as it stands if there is such a file. Else it is read as Windows or another
    machine may have written it: with backslashes, in another case or Unicode composition (where
    that leaves one candidate), or absolute, with the folder at another place than here. All
    absolute paths must then start alike.

    Args:
        base: the folder.
    """

    def __init__(self, base: Path) -> None:
        self.base = base
        self._elsewhere: tuple[str, ...] | None = None  # the folder in place of base there
        self._names = cache(_names)
        self._alike = cache(_alike)
        self._folder = cache(self._find_folder)

    def find(self, written: str) -> Path | None:
        """Find a file.

        Args:
            written: its path, relative to the folder or absolute.

        Returns:
            The path here; None if there is no such file.
        """
        whole = self.base / written  # an absolute path stays as it is
        if whole.name in self._names(whole.parent):
            return whole
        foreign = PureWindowsPath(written)  # splits at both kinds of slashes
        parts = tuple(part for part in foreign.parts if part != foreign.anchor and part != ".")
        if not foreign.anchor:
            return self._below(parts)
        if self._elsewhere is None:
            cuts = range(len(parts))
            found = next((cut for cut in cuts if self._below(parts[cut:]) is not None), None)
            if found is None:
                return None
            self._elsewhere = parts[:found]
        cut = len(self._elsewhere)
        return self._below(parts[cut:]) if parts[:cut] == self._elsewhere else None

    def _below(self, parts: tuple[str, ...]) -> Path | None:
        folder = self._folder(parts[:-1]) if parts else None
        return None if folder is None else self._step(folder, parts[-1])

    def _find_folder(self, parts: tuple[str, ...]) -> Path | None:
        if not parts:
            return self.base
        parent = self._folder(parts[:-1])
        return None if parent is None else self._step(parent, parts[-1])

    def _step(self, folder: Path, name: str) -> Path | None:
        if name == "..":
            return folder.parent
        if name in self._names(folder):
            return folder / name
        alike = self._alike(folder).get(_folded(name), [])
        return folder / alike[0] if len(alike) == 1 else None


def _names(folder: Path) -> frozenset[str]:
    try:
        return frozenset(os.listdir(folder))
    except PermissionError:
        raise
    except OSError:  # no such folder, or a name that cannot be one
        return frozenset()


def _alike(folder: Path) -> dict[str, list[str]]:
    found = defaultdict(list)
    for name in _names(folder):
        found[_folded(name)].append(name)
    return dict(found)


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
