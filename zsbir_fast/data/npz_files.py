"""Reading .npz files of any origin: no pickles, no array larger than its file says it holds."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zsbir_fast._words import reason, shortened

_HEADER = 16 << 10  # more than numpy writes before the values of an array


def read_npz(path: str | Path, names: Sequence[str], *, expected: str) -> dict[str, NDArray[Any]]:
    """Read arrays of an .npz file.

    Args:
        path: an existing file.
        names: the arrays to read; empty: all of them.
        expected: how the error text begins, up to ``got``.

    Returns:
        Name -> array.

    Raises:
        ValueError: the file is none, is damaged, lacks an array, or an array claims more values
            than are there.
    """
    try:
        with open(path, "rb") as stream:
            if os.fstat(stream.fileno()).st_size == 0:
                raise ValueError("an empty file")
            if stream.read(6) == b"\x93NUMPY":
                raise ValueError("it holds a single array")
        with zipfile.ZipFile(path) as archive:
            there = {entry.filename.removesuffix(".npy"): entry for entry in archive.infolist()}
            absent = [name for name in names if name not in there]
            if absent:
                has = shortened(", ".join(there), limit=80) or "no array"
                raise ValueError(f"it has {has} and lacks {', '.join(absent)}")
            chosen = {name: there[name] for name in names or there}
            size = sum(entry.file_size for entry in chosen.values())
            if size > _memory():  # a packed file can be a thousand times smaller
                raise ValueError(f"its arrays need {size:,} bytes, more than this machine has")
            return {name: _read_array(archive, entry) for name, entry in chosen.items()}
    except Exception as error:  # damaged bytes raise many kinds
        raise ValueError(f"{expected}, got {shortened(path)}: {reason(error)}") from error


def _memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _read_array(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> NDArray[Any]:
    with archive.open(entry) as stream:
        version = np.lib.format.read_magic(stream)
        read = (
            np.lib.format.read_array_header_1_0
            if version == (1, 0)
            else np.lib.format.read_array_header_2_0
        )
        shape, _, dtype = read(stream)
    size = dtype.itemsize
    for length in shape:
        size *= int(length)
    if not 0 <= entry.file_size - size <= _HEADER:
        raise ValueError(
            f"{entry.filename} says {dtype} {list(shape)}, which is not what its "
            f"{entry.file_size:,} bytes hold"
        )
    with archive.open(entry) as stream:
        array: NDArray[Any] = np.lib.format.read_array(stream, allow_pickle=False)
    return array
