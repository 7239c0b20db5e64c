"""Files that are whole or absent: checkpoints, written atomically and read without unpickling."""

from __future__ import annotations

import os
import pickle
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.fabric.utilities.types import _PATH


def write_atomically(path: str | Path, write: Callable[[str], object]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, then put it in place in one step.

    A reader, or a run that is killed meanwhile, sees the old file or the new one, never a part.

    Args:
        path: the file to write; its folder is made if needed.
        write: gets the name of the temporary file.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    os.close(handle)
    try:
        write(name)
        with open(name, "rb+") as stream:
            os.fsync(stream.fileno())
        os.chmod(name, 0o644)  # mkstemp makes it private
        os.replace(name, target)
    except BaseException:
        os.unlink(name)
        raise


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
    if not Path(path).is_file():
        raise FileNotFoundError(f"read_checkpoint: path must be an existing file, got {path}")
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise ValueError(
            f"read_checkpoint: path must be a checkpoint written by zsbir, got {path} "
            f"({str(error).splitlines()[0]})"
        ) from error
    if not isinstance(loaded, dict) or "zsbir" not in loaded:
        raise ValueError(
            f"read_checkpoint: path must be a checkpoint written by zsbir, got {path}"
        )
    return loaded


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's way to the disk, through the two functions above."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: _PATH, storage_options: Any | None = None
    ) -> None:
        """Write a checkpoint in one step; Lightning calls this."""
        write_atomically(path, lambda name: torch.save(checkpoint, name))

    def load_checkpoint(
        self, path: _PATH, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint with ``weights_only=True``, whatever is asked; Lightning calls this."""
        return read_checkpoint(path)
