"""Finds the compiled module and tells what it holds, without an import of torch."""

from __future__ import annotations

import importlib.util
from pathlib import Path

_NOT_BUILT = """\
zsbir_fast was imported from {place}, but its compiled module zsbir_fast._C is not there.
Build it first:  pip install .      (for development: pip install --no-build-isolation -e .)
If it is installed, leave the source folder: Python prefers the zsbir_fast/ that is here."""


def require_native() -> None:
    """Raise a clear error if the package is used without its compiled module.

    Raises:
        ImportError: ``zsbir_fast._C`` was not built, or does not fit this Python.
    """
    if importlib.util.find_spec("zsbir_fast._C") is None:
        raise ImportError(_NOT_BUILT.format(place=Path(__file__).resolve().parent))
