"""Benchmarks, one module per kernel room: ``python -m benchmarks.bench_batched_map --quick``.

Run from the root of the repository with the package installed. Python would prefer the source
folder ``zsbir_fast/`` of the current directory to the installed package, so where that folder holds
no compiled module the root moves to the end of the search path.
"""

from __future__ import annotations

import os
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path


def _prefer_installed_package(root: Path, search_path: list[str]) -> list[str]:
    """``search_path``, with ``root`` last if it is there and its zsbir_fast/ is bare source."""
    others = [entry for entry in search_path if Path(entry or os.curdir).resolve() != root]
    compiled = (root / "zsbir_fast" / f"_C{suffix}" for suffix in EXTENSION_SUFFIXES)
    if len(others) == len(search_path) or any(module.exists() for module in compiled):
        return search_path
    return [*others, str(root)]


sys.path[:] = _prefer_installed_package(Path(__file__).resolve().parents[1], sys.path)
