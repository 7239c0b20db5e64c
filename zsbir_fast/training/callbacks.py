"""What happens around training steps: seeds, validation, checkpoints, the progress bar."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback, TQDMProgressBar

from zsbir_fast.methods.checkpoint_files import BEST, LAST
from zsbir_fast.training.streams import derive_seed, seed_everything

_STEP_SEEDS = 1  # keeps these seeds apart from the augmentation's, which have four numbers


class StepSeeds(Callback):
    """Seeds all generators before every batch from (seed, rank, batch number).

    Dropout and all else that is random in a step then need no stored generator state: a resumed
    run, on one process or many, draws what the uninterrupted one would have drawn.

    Args:
        seed: seed of the run.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Seed; Lightning calls this."""
        seed_everything(derive_seed(self.seed, trainer.global_rank, batch_idx, 0, _STEP_SEEDS))


class ValidateAndSave(Callback):
    """Validates after each epoch and keeps ``last.ckpt``, the one before it, and ``best.ckpt``.

    Order inside a step: train, validate, save. So ``last.ckpt`` always holds the validation of
    its own epoch, and a run that is killed at any moment resumes without doing one twice or
    leaving one out.

    ``best.ckpt`` holds the weights only, ``last.ckpt`` all that resuming needs.

    Args:
        folder: where the checkpoints go.
        epoch_batches: batches of an epoch.
        save_batches: write ``last.ckpt`` every so many batches.
        validate: returns the metrics of the held-out seen classes, on every process alike; None
            without validation.
        monitor: key of the metric that chooses ``best.ckpt``; larger is better.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        epoch_batches: int,
        save_batches: int,
        validate: Callable[[pl.Trainer], dict[str, float]] | None = None,
        monitor: str = "val/map",
    ) -> None:
        self.folder = Path(folder)
        self.epoch_batches = epoch_batches
        self.save_batches = save_batches
        self.validate = validate
        self.monitor = monitor
        self.best: float | None = None
        self.best_step = 0
        self.latest: dict[str, float] = {}

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Validate and save where due; Lightning calls this."""
        done = batch_idx + 1
        epoch_ended = done % self.epoch_batches == 0
        if epoch_ended and self.validate is not None:
            metrics = self.validate(trainer)
            for logger in trainer.loggers:
                logger.log_metrics(metrics, step=trainer.global_step)
            self.latest = metrics
            if self.best is None or metrics[self.monitor] > self.best:
                self.best, self.best_step = metrics[self.monitor], trainer.global_step
                trainer.save_checkpoint(self.folder / BEST, weights_only=True)
        if epoch_ended or done % self.save_batches == 0:
            trainer.save_checkpoint(self.folder / LAST, weights_only=False)

    def state_dict(self) -> dict[str, Any]:
        """Return the best value so far; Lightning stores it in checkpoints."""
        return {"best": self.best, "best_step": self.best_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the best value so far; Lightning calls this."""
        self.best, self.best_step = state_dict["best"], state_dict["best_step"]


class RunProgressBar(TQDMProgressBar):
    """One bar over the whole run, with the epoch and the newest validation.

    Args:
        epoch_batches: batches of an epoch.
        epochs: epochs of the run.
        validation: where the newest validation is found.
    """

    def __init__(self, *, epoch_batches: int, epochs: int, validation: ValidateAndSave) -> None:
        super().__init__()
        self.epoch_batches = epoch_batches
        self.epochs = epochs
        self.validation = validation

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Name the epoch; Lightning calls this."""
        epoch = batch_idx // self.epoch_batches + 1
        self.train_progress_bar.set_description(f"epoch {epoch}/{self.epochs}", refresh=False)

    def get_metrics(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """Return what stands beside the bar; Lightning calls this."""
        metrics = super().get_metrics(trainer, pl_module)
        shown: dict[str, int | str | float | dict[str, float]] = {}
        if "train/loss_now" in metrics:
            shown["loss"] = metrics["train/loss_now"]
        if self.validation.latest:
            shown["val_map"] = f"{self.validation.latest[self.validation.monitor]:.3f}"
        return shown
