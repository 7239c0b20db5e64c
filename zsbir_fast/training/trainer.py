"""Run Lightning's trainer so that a killed run can be taken up again exactly."""

from __future__ import annotations

import ctypes
import os
import sys
import warnings
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import CSVLogger, Logger

from zsbir_fast.methods.checkpoint_files import AtomicCheckpointIO
from zsbir_fast.runs.settings import OptimConfig, RunConfig
from zsbir_fast.training.callbacks import RunProgressBar, StepSeeds, ValidateAndSave
from zsbir_fast.training.interrupts import InterruptBetweenSteps

Validate = Callable[[pl.Trainer], dict[str, float]]


@dataclass(frozen=True)
class Fitted:
    """What a finished fit leaves.

    Attributes:
        steps: optimizer steps done.
        best: best validation value, None without validation.
        best_step: optimizer step of it.
        device: where this process trained.
        is_first: whether this process is the one that writes files.
    """

    steps: int
    best: float | None
    best_step: int
    device: torch.device
    is_first: bool


def run_trainer(
    module: pl.LightningModule,
    datamodule: pl.LightningDataModule,
    optim: OptimConfig,
    run: RunConfig,
    *,
    validate: Validate | None = None,
    resume_from: Path | None = None,
) -> Fitted:
    """Run Lightning's trainer over all steps that are left.

    The whole run is one Lightning epoch: our epochs are stretches of it, so that every checkpoint
    is the same kind of checkpoint and can be resumed exactly.

    Args:
        module: the model and its optimizer.
        datamodule: gives a resumable loader over the whole run.
        optim: gradient clipping and accumulation.
        run: length, place, hardware.
        validate: called after each epoch; its ``"val/map"`` chooses ``best.ckpt``.
        resume_from: checkpoint to take up; None starts at step 0.

    Returns:
        How far it came and what was best.

    Raises:
        FileNotFoundError: ``resume_from`` does not exist.
        ValueError: it belongs to another model, or is damaged.
        KeyboardInterrupt: Ctrl-C, after the step that was under way; at once the second time.
        SystemExit: SIGTERM, after the step that was under way; the code is 143.
    """
    out = Path(run.out)
    keeper = ValidateAndSave(
        out / "checkpoints",
        epoch_batches=run.steps_per_epoch * optim.accumulate,
        save_batches=run.checkpoint_every * optim.accumulate,
        validate=validate,
    )
    interrupts = InterruptBetweenSteps()
    callbacks: list[pl.Callback] = [interrupts, StepSeeds(run.seed), keeper]
    if run.progress:
        epoch_batches = run.steps_per_epoch * optim.accumulate
        callbacks.append(
            RunProgressBar(epoch_batches=epoch_batches, epochs=run.epochs, validation=keeper)
        )
    with _calm():
        trainer = pl.Trainer(
            **_hardware(run),
            precision=run.precision,
            max_epochs=1,
            max_steps=run.total_steps,
            limit_val_batches=0,
            gradient_clip_val=optim.gradient_clip or None,
            accumulate_grad_batches=optim.accumulate,
            use_distributed_sampler=False,
            logger=_loggers(out),
            log_every_n_steps=min(run.log_every, run.total_steps),
            callbacks=callbacks,
            plugins=[AtomicCheckpointIO()],
            enable_checkpointing=False,
            enable_progress_bar=run.progress,
            enable_model_summary=False,
            default_root_dir=out,
        )
        with interrupts.installed():
            trainer.fit(module, datamodule=datamodule, ckpt_path=resume_from)
    return Fitted(
        steps=trainer.global_step,
        best=keeper.best,
        best_step=keeper.best_step,
        device=trainer.strategy.root_device,
        is_first=trainer.is_global_zero,
    )


def keep_freed_memory() -> None:
    """Tell glibc to keep freed memory for the next step, where the system has it (Linux).

    Otherwise every activation of every step is mapped and unmapped anew, and on a CPU a large
    part of the time goes into page faults. Only speed changes.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        trim_threshold, mmap_threshold = -1, -3  # names in malloc.h
        mallopt(mmap_threshold, 1 << 30)
        mallopt(trim_threshold, 2**31 - 1)


def _hardware(run: RunConfig) -> dict[str, Any]:
    """Under torchrun its processes are taken; otherwise what the settings say."""
    local = int(os.environ.get("LOCAL_WORLD_SIZE", run.devices))
    world = int(os.environ.get("WORLD_SIZE", local))
    return {
        "accelerator": run.accelerator,
        "devices": local,
        "num_nodes": max(1, world // local),
        "strategy": "ddp" if world > 1 and run.strategy == "auto" else run.strategy,
    }


def _loggers(out: Path) -> list[Logger]:
    loggers: list[Logger] = [CSVLogger(out, name="logs")]
    if find_spec("tensorboard") is not None:
        from lightning.pytorch.loggers import TensorBoardLogger

        loggers.append(TensorBoardLogger(out, name="tensorboard", version=""))
    return loggers


@contextmanager
def _calm() -> Any:
    """Hide Lightning's advice on what the settings decide, and its calls of deprecated names."""
    import logging

    talker = logging.getLogger("lightning.pytorch")
    level = talker.level
    talker.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*does not have many workers.*")
            warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
            yield
    finally:
        talker.setLevel(level)
