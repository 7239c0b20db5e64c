"""Run Lightning's trainer so that a killed run can be taken up again exactly."""

from __future__ import annotations

import ctypes
import os
import sys
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import CSVLogger, Logger

from zsbir_fast.training.callbacks import LogSteps, StepSeeds, Validate, ValidateAndSave
from zsbir_fast.training.checkpoint_io import AtomicCheckpointIO
from zsbir_fast.training.interrupts import InterruptBetweenSteps
from zsbir_fast.training.module import MethodModule
from zsbir_fast.training.progress import ProgressLines, RunProgressBar
from zsbir_fast.training.run_config import RunConfig


@dataclass(frozen=True)
class Fitted:
    """How a finished fit went.

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
    module: MethodModule,
    datamodule: pl.LightningDataModule,
    *,
    validate: Validate | None = None,
    resume_from: Path | None = None,
) -> Fitted:
    """Run Lightning's trainer over all steps that are left.

    The whole run is one Lightning epoch: our epochs are stretches of it, so that every checkpoint
    is the same kind of checkpoint and can be resumed exactly. It ends with the last batch of its
    loader; Lightning's own counting of steps, which adds those of all optimizers, is not used.

    Args:
        module: the method and the settings of its run.
        datamodule: gives a resumable loader over the whole run.
        validate: called after each epoch; its ``"val/map"`` chooses ``best.ckpt``.
        resume_from: checkpoint to take up; None starts at step 0.

    Returns:
        The steps that are done, and the best validation.

    Raises:
        FileNotFoundError: ``resume_from`` does not exist.
        ValueError: it belongs to another model, or is damaged.
        KeyboardInterrupt: Ctrl-C, after the step that was under way; at once the second time.
        SystemExit: SIGTERM, after the step that was under way; the code is 143.
    """
    run = module.run
    out = Path(run.out)
    keeper = ValidateAndSave(out / "checkpoints", validate=validate)
    interrupts = InterruptBetweenSteps()
    shows_bar = run.progress and sys.stderr.isatty()
    progress: pl.Callback = (
        RunProgressBar(keeper)
        if shows_bar
        else ProgressLines(keeper, every_epoch_only=not run.progress)
    )
    with _calm():
        trainer = pl.Trainer(
            **_hardware(run),
            precision=run.precision,
            max_epochs=1,
            limit_val_batches=0,
            log_every_n_steps=1,  # of Lightning's own logs, which are empty
            use_distributed_sampler=False,
            logger=_loggers(out),
            callbacks=[interrupts, StepSeeds(run.seed), LogSteps(), keeper, progress],
            plugins=[AtomicCheckpointIO()],
            enable_checkpointing=False,
            enable_progress_bar=shows_bar,
            enable_model_summary=False,
            default_root_dir=out,
        )
        with interrupts.installed():
            trainer.fit(module, datamodule=datamodule, ckpt_path=resume_from)
    return Fitted(
        steps=module.steps,
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
    """Under torchrun its processes are taken; otherwise those of the settings."""
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
    """Hide Lightning's advice on matters of the settings, and its calls of deprecated names."""
    import logging

    talker = logging.getLogger("lightning.pytorch")
    level = talker.level
    talker.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*does not have many workers.*")
            warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
            # Frozen batch norm is meant to be so.
            warnings.filterwarnings("ignore", message=r"Found \d+ module\(s\) in eval mode.*")
            yield
    finally:
        talker.setLevel(level)
