"""Callbacks around training steps: seeds, logs, validation and checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback

from zsbir_fast.methods.checkpoint_files import BEST, LAST
from zsbir_fast.training.module import MethodModule
from zsbir_fast.training.streams import derive_seed, seed_everything

Validate = Callable[[pl.Trainer], dict[str, float]]
_STEP_SEEDS = 1  # keeps these seeds apart from the augmentation's, which have four numbers


class StepSeeds(Callback):
    """Seeds all generators before every batch from (seed, rank, batch number).

    Dropout and all else that is random in a step then need no stored generator state: a resumed
    run, on one process or many, draws the numbers that the uninterrupted one would have drawn.

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


class AfterSteps(Callback):
    """Base of callbacks that act once a step is done, and not between its batches."""

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Call ``after_step`` where a step is done; Lightning calls this."""
        assert isinstance(pl_module, MethodModule)
        if (batch_idx + 1) % pl_module.optim.accumulate == 0:
            self.after_step(trainer, pl_module)

    def after_step(self, trainer: pl.Trainer, module: MethodModule) -> None:
        """Act; ``module.steps`` says how many steps are done."""
        raise NotImplementedError


class LogSteps(AfterSteps):
    """Writes losses and their parts to the loggers every ``log_every`` steps.

    A line stands at the number of steps that were done before its losses were computed.
    """

    def after_step(self, trainer: pl.Trainer, module: MethodModule) -> None:
        """Write a line where one is due."""
        if module.steps % min(module.run.log_every, module.run.total_steps):
            return
        values = {name: float(value) for name, value in module.latest.items()}
        for logger in trainer.loggers:
            logger.log_metrics(values, step=module.steps - 1)
            logger.save()  # a run that is killed keeps its lines


class ValidateAndSave(AfterSteps):
    """Validates after each epoch and keeps ``last.ckpt``, the one before it, and ``best.ckpt``.

    Order inside a step: train, validate, save. So ``last.ckpt`` always holds the validation of
    its own epoch, and a run that is killed at any moment resumes without doing one twice or
    leaving one out.

    ``best.ckpt`` holds the weights only, ``last.ckpt`` all that resuming needs.

    Args:
        folder: where the checkpoints go.
        validate: returns the metrics of the held-out seen classes, on every process alike; None
            without validation.
        monitor: key of the metric that chooses ``best.ckpt``; larger is better.

    Attributes:
        best: best value of the metric so far.
        best_step: optimizer step of it.
        latest: newest metrics.
    """

    def __init__(
        self, folder: str | Path, *, validate: Validate | None = None, monitor: str = "val/map"
    ) -> None:
        self.folder = Path(folder)
        self.validate = validate
        self.monitor = monitor
        self.best: float | None = None
        self.best_step = 0
        self.latest: dict[str, float] = {}

    def after_step(self, trainer: pl.Trainer, module: MethodModule) -> None:
        """Validate and save where due.

        Raises:
            ValueError: a weight is not finite; the checkpoints are those before.
        """
        steps, run = module.steps, module.run
        epoch_ended = steps % run.steps_per_epoch == 0
        due = epoch_ended or steps % run.checkpoint_every == 0
        if due:
            _require_finite_weights(module)
        if epoch_ended and self.validate is not None:
            metrics = self.validate(trainer)
            for logger in trainer.loggers:
                logger.log_metrics(metrics, step=steps)
                logger.save()
            self.latest = metrics
            if self.best is None or metrics[self.monitor] > self.best:
                self.best, self.best_step = metrics[self.monitor], steps
                trainer.save_checkpoint(self.folder / BEST, weights_only=True)
        if due:
            trainer.save_checkpoint(self.folder / LAST, weights_only=False)

    def state_dict(self) -> dict[str, Any]:
        """Return the best value so far; Lightning stores it in checkpoints."""
        return {"best": self.best, "best_step": self.best_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the best value so far; Lightning calls this."""
        self.best, self.best_step = state_dict["best"], state_dict["best_step"]


def _require_finite_weights(module: MethodModule) -> None:
    for name, parameter in module.model.named_parameters():
        if not torch.isfinite(parameter).all():
            raise ValueError(
                f"train: weights must stay finite, got others in {name} after step "
                f"{module.steps}; no checkpoint was written of them. Lower learning rates "
                "(optim.lr_head, optim.lr_backbone) may help"
            )
