"""Training checkpoints: written atomically, read without unpickling."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.fabric.utilities.types import _PATH

from zsbir_fast._files import write_atomically


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
    except Exception as error:  # damaged bytes can raise anything in the unpickler
        raise ValueError(
            f"read_checkpoint: path must be a checkpoint written by zsbir, got {path} "
            f"({type(error).__name__}: {str(error).splitlines()[0]})"
        ) from error
    if not isinstance(loaded, dict) or "zsbir" not in loaded:
        raise ValueError(f"read_checkpoint: path must be a checkpoint written by zsbir, got {path}")
    return loaded


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's way to the disk, written in one step, read without unpickling."""

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
