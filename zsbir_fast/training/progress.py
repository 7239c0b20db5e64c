"""How far a run is: a bar on a terminal, lines elsewhere, a line an epoch if asked to be quiet."""

from __future__ import annotations

import sys
import time
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import TQDMProgressBar

from zsbir_fast._progress import SECONDS_BETWEEN_LINES
from zsbir_fast.training.callbacks import AfterSteps, ValidateAndSave
from zsbir_fast.training.module import MethodModule


class RunProgressBar(TQDMProgressBar):
    """One bar over the batches of the whole run, with the epoch and the newest validation.

    Args:
        validation: where the newest validation is found.
    """

    def __init__(self, validation: ValidateAndSave) -> None:
        super().__init__()
        self.validation = validation

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Name the epoch; Lightning calls this."""
        assert isinstance(pl_module, MethodModule)
        run = pl_module.run
        epoch = pl_module.steps // run.steps_per_epoch + 1
        self.train_progress_bar.set_description(f"epoch {epoch}/{run.epochs}", refresh=False)

    def get_metrics(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """Return the values beside the bar; Lightning calls this."""
        assert isinstance(pl_module, MethodModule)
        shown: dict[str, int | str | float | dict[str, float]] = {}
        if "train/loss" in pl_module.latest:
            shown["loss"] = f"{float(pl_module.latest['train/loss']):.3f}"
        if self.validation.latest:
            shown["val_map"] = f"{self.validation.latest[self.validation.monitor]:.3f}"
        return shown


class ProgressLines(AfterSteps):
    """Writes a line with step, loss and validation to standard error.

    Args:
        validation: where the newest validation is found.
        every_epoch_only: a line when an epoch ends, and no other.
    """

    def __init__(self, validation: ValidateAndSave, *, every_epoch_only: bool) -> None:
        self.validation = validation
        self.every_epoch_only = every_epoch_only
        self.said = time.monotonic()

    def after_step(self, trainer: pl.Trainer, module: MethodModule) -> None:
        """Write a line where one is due."""
        epoch_ended = module.steps % module.run.steps_per_epoch == 0
        late = time.monotonic() - self.said >= SECONDS_BETWEEN_LINES
        if trainer.is_global_zero and (epoch_ended or (late and not self.every_epoch_only)):
            self.said = time.monotonic()
            sys.stderr.write(self._line(module, epoch_ended) + "\n")

    def _line(self, module: MethodModule, epoch_ended: bool) -> str:
        run = module.run
        epoch = (module.steps - 1) // run.steps_per_epoch + 1
        parts = [f"epoch {epoch}/{run.epochs}", f"step {module.steps}/{run.total_steps}"]
        parts += [
            f"{name.removeprefix('train/')} {float(value):.3f}"
            for name, value in module.latest.items()
            if name.startswith("train/loss")
        ]
        if epoch_ended and self.validation.latest:
            parts.append(
                f"validation mAP@all {self.validation.latest[self.validation.monitor]:.3f}"
            )
        return f"zsbir: {', '.join(parts)}"
