"""Training checkpoints: written in one step, with a checksum, and read without unpickling."""

from __future__ import annotations

import hashlib
import io
import os
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, cast

import torch

from zsbir_fast._files import write_atomically
from zsbir_fast._words import shortened
from zsbir_fast.encoders.weight_files import read_plain, require_tensors

LAST, PREVIOUS, BEST = "last.ckpt", "previous.ckpt", "best.ckpt"
"""Names in the folder ``checkpoints`` of a run: the newest, the one before it, the chosen one."""

_TAG = b"zsbir sha256 "
_COMMENT = len(_TAG) + 64
_END = b"PK\5\6"  # begins the last 22 bytes of an archive without a comment
_TRAILER = 2 + _COMMENT  # length and text of the zip archive's comment, at the very end


def write_checkpoint(
    path: str | Path, checkpoint: Mapping[str, Any], *, keep_as: str | None = None
) -> None:
    """Write a checkpoint in one step. Its SHA-256 is the comment of the zip archive that it is.

    Args:
        path: the file.
        checkpoint: tensors and plain values.
        keep_as: the checkpoint that was there before gets this name.
    """

    def write(stream: io.RawIOBase) -> None:
        archive = _HashedArchive(stream)
        torch.save(dict(checkpoint), cast(IO[bytes], archive))
        archive.finish()

    write_atomically(path, write, keep_as=keep_as)


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a training checkpoint onto the CPU; nothing in it can run code.

    Args:
        path: ``last.ckpt``, ``best.ckpt`` or a copy.

    Returns:
        The checkpoint: tensors and plain values.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is not a checkpoint, is damaged, or holds more than tensors and plain
            values.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(
            f"read_checkpoint: path must be an existing file, got {shortened(path)}"
        )
    expected = "read_checkpoint: path must be a checkpoint written by zsbir"
    fault = _fault(Path(path))
    if fault:
        raise ValueError(f"{expected}, got {path} ({fault})")
    loaded = read_plain(path, expected=expected)
    if not isinstance(loaded, dict) or not isinstance(loaded.get("zsbir"), dict):
        raise ValueError(f"{expected}, got {path} (it does not say which model it belongs to)")
    require_tensors(loaded.get("state_dict"), path, function="read_checkpoint")
    return loaded


def file_sha256(path: str | Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits.

    Args:
        path: the file.
    """
    with open(path, "rb") as stream:
        return _sha256(stream, Path(path).stat().st_size)


class _HashedArchive(io.RawIOBase):
    """Passes a zip archive on and hashes it; keeps back its last bytes, the comment's length."""

    def __init__(self, stream: io.RawIOBase) -> None:
        self.stream = stream
        self.sum = hashlib.sha256()
        self.kept = b""

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        if len(view) < 2:
            view = memoryview(self.kept + bytes(view))
        else:
            self._pass_on(self.kept)
        self._pass_on(view[:-2])
        self.kept = bytes(view[-2:])
        return memoryview(data).nbytes

    def finish(self) -> None:
        self.stream.write(struct.pack("<H", _COMMENT) + _TAG + self.sum.hexdigest().encode())

    def _pass_on(self, part: Any) -> None:
        self.sum.update(part)
        self.stream.write(part)


def _fault(path: Path) -> str:
    """Name the fault in the bytes of a file; empty if there is none."""
    size = path.stat().st_size
    if size == 0:
        return "it is empty"
    with path.open("rb") as stream:
        stream.seek(max(0, size - _TRAILER))
        trailer = stream.read()
        if trailer[2:].startswith(_TAG):
            stream.seek(0)
            found = _sha256(stream, size - _TRAILER)
            intact = trailer == struct.pack("<H", _COMMENT) + _TAG + found.encode()
            return "" if intact else "it is damaged: its checksum differs"
    # Saved again by other software, without our comment: archives have sums of their own.
    end = trailer[-len(_END) - 18 :]
    if not (end.startswith(_END) and end.endswith(b"\0\0")):
        return "it is no checkpoint, or its end is damaged"
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
    except Exception as error:  # damaged bytes can raise anything
        return f"it is damaged: {type(error).__name__}"
    return f"it is damaged: the checksum of {broken} differs" if broken else ""


def _sha256(stream: io.BufferedReader, size: int) -> str:
    found = hashlib.sha256()
    while size > 0 and (block := stream.read(min(size, 1 << 22))):
        found.update(block)
        size -= len(block)
    return found.hexdigest()
