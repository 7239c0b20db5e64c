"""The Lightning module: a method model, its optimizer and its learning-rate schedule."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Protocol

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from zsbir_fast.losses.cross_batch_memory import FeatureBank
from zsbir_fast.methods.identity import ModelIdentity
from zsbir_fast.runs.settings import OptimConfig


class MethodModel(Protocol):
    """What a model must offer to be trained and evaluated here."""

    def training_loss(self, batch: Any) -> dict[str, Tensor]:
        """Return the loss under ``"loss"`` and its parts under their own names."""

    def embed(self, images: Tensor, modality: str) -> Tensor:
        """Embed images [B, 3, H, W] of one modality as float32 [B, D]."""


class RetrievalModule(pl.LightningModule):
    """Trains a method model with AdamW.

    Args:
        model: an ``nn.Module`` with ``training_loss`` and ``embed`` (see ``MethodModel``).
        optim: optimizer settings.
        identity: method name and constructor arguments of ``model``, stored in every checkpoint.
        total_steps: optimizer steps of the whole run, for the schedule.
        course: settings to store in every checkpoint, see ``course_of``; plain values.
    """

    model: nn.Module

    def __init__(
        self,
        model: nn.Module,
        optim: OptimConfig,
        identity: ModelIdentity,
        *,
        total_steps: int,
        course: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.optim = optim
        self.identity = identity
        self.total_steps = total_steps
        self.course = dict(course or {})
        # The memory is the same on every process: DistributedDataParallel, which reads this name,
        # need not send it around before every step.
        self._ddp_params_and_buffers_to_ignore = [
            f"{path}.{name}"
            for path, part in self.named_modules()
            if isinstance(part, FeatureBank)
            for name, _ in part.named_buffers()
        ]

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Compute and log the losses of one batch; Lightning calls this."""
        model: Any = self.model
        parts: dict[str, Tensor] = model.training_loss(batch)
        values = {f"train/{name}": value.detach() for name, value in parts.items()}
        self.log_dict(values, batch_size=1)
        self.log("train/loss_now", values["train/loss"], prog_bar=True, logger=False, batch_size=1)
        return parts["loss"]

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Build AdamW and its schedule; Lightning calls this."""
        optimizer = torch.optim.AdamW(parameter_groups(self.model, self.optim))
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: lr_factor(step, self.optim, self.total_steps)
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Say in the checkpoint which model and run it belongs to; Lightning calls this."""
        checkpoint["zsbir"] = self.identity.to_dict()
        checkpoint["course"] = self.course

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse the checkpoint of another model, and make room for more steps.

        Lightning calls this. The whole run is one of its epochs, which ended with the last batch
        of a shorter run: without the correction it would not go on.
        """
        self.identity.require_same(checkpoint.get("zsbir"))
        if checkpoint["global_step"] < self.total_steps:
            progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
            progress["is_last_batch"] = False


def parameter_groups(model: nn.Module, optim: OptimConfig) -> list[dict[str, Any]]:
    """Split the trainable parameters: backbone or head, with or without weight decay.

    Args:
        model: the backbone is its attribute ``encoder``, everything else the head.
        optim: the learning rates and the weight decay.

    Returns:
        Up to four groups for a torch optimizer; vectors and scalars have no weight decay.

    Raises:
        ValueError: nothing is trainable.
    """
    groups: dict[tuple[str, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            part = "backbone" if name.startswith("encoder.") else "head"
            groups.setdefault((part, parameter.ndim > 1), []).append(parameter)
    if not groups:
        raise ValueError("parameter_groups: model must have a trainable parameter, got none")
    rates = {"backbone": optim.lr_backbone, "head": optim.lr_head}
    return [
        {
            "params": parameters,
            "lr": rates[part],
            "weight_decay": optim.weight_decay if decays else 0.0,
            "name": f"{part}{'' if decays else ' (no decay)'}",
        }
        for (part, decays), parameters in groups.items()
    ]


def lr_factor(step: int, optim: OptimConfig, total_steps: int) -> float:
    """Learning rate at a step, relative to its peak.

    Args:
        step: optimizer steps done, 0 at the start.
        optim: warm-up and schedule.
        total_steps: steps of the whole run; beyond it the last value stays.

    Returns:
        A factor in 0..1. The warm-up reaches 1 after ``warmup_steps`` steps.
    """
    if step < optim.warmup_steps:
        return (step + 1) / (optim.warmup_steps + 1)
    if optim.schedule == "constant":
        return 1.0
    done = (step - optim.warmup_steps) / max(1, total_steps - optim.warmup_steps)
    cosine = 0.5 * (1.0 + math.cos(math.pi * min(1.0, done)))
    return optim.final_lr_ratio + (1.0 - optim.final_lr_ratio) * cosine
