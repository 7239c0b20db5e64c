"""How long a run takes, where it goes and what it runs on: the ``run`` section of a config."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Precision = Literal["32-true", "16-mixed", "bf16-mixed", "64-true"]


@dataclass(frozen=True)
class RunConfig:
    """How long, where and on what.

    Attributes:
        out: folder of the run: checkpoints, logs, config, exported model.
        epochs: number of epochs.
        steps_per_epoch: optimizer steps per epoch; validation comes after each epoch.
        checkpoint_every: write ``last.ckpt`` every so many optimizer steps, and after each epoch.
        log_every: write a line of the logs every so many optimizer steps.
        seed: start of all randomness: weights, batches, augmentation, dropout.
        precision: ``32-true``, or mixed precision: ``bf16-mixed``, ``16-mixed``.
        accelerator: ``auto``, ``cpu`` or ``gpu``.
        devices: processes on this machine; under torchrun its number is taken instead.
        strategy: how several processes work together, a Lightning strategy name.
        progress: show a bar on a terminal, elsewhere a line every few seconds; without it there is
            a line an epoch.
    """

    out: str = "runs/zsbir"
    epochs: int = 10
    steps_per_epoch: int = 100
    checkpoint_every: int = 100
    log_every: int = 10
    seed: int = 0
    precision: Precision = "32-true"
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    devices: int = 1
    strategy: str = "auto"
    progress: bool = True

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self.epochs * self.steps_per_epoch
