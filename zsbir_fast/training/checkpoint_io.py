"""Lightning's way to the disk: our checkpoint files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.fabric.plugins import TorchCheckpointIO
from lightning.fabric.utilities.types import _PATH

from zsbir_fast.methods.checkpoint_files import LAST, PREVIOUS, read_checkpoint, write_checkpoint


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's way to the disk, written in one step, read without unpickling."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: _PATH, storage_options: Any | None = None
    ) -> None:
        """Write a checkpoint and keep the one before ``last.ckpt``; Lightning calls this."""
        keep_as = PREVIOUS if Path(path).name == LAST else None
        write_checkpoint(path, checkpoint, keep_as=keep_as)

    def load_checkpoint(
        self, path: _PATH, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint, always with ``weights_only=True``; Lightning calls this."""
        return read_checkpoint(path)
