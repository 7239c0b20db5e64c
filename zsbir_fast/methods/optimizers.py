"""Optimizers over the parameters of a method, in groups for backbone and head."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from zsbir_fast.methods.settings import OptimConfig


def adamw(model: nn.Module, optim: OptimConfig, *, backbone: nn.Module | None) -> torch.optim.AdamW:
    """Make AdamW over all trainable parameters of a model.

    Args:
        model: the model.
        optim: learning rates and weight decay.
        backbone: the part of it that trains at ``lr_backbone``; None: nothing does.

    Returns:
        The optimizer.

    Raises:
        ValueError: nothing is trainable.
    """
    return torch.optim.AdamW(parameter_groups(model.parameters(), optim, backbone=backbone))


def parameter_groups(
    parameters: Iterable[nn.Parameter], optim: OptimConfig, *, backbone: nn.Module | None
) -> list[dict[str, Any]]:
    """Split trainable parameters: backbone or head, with or without weight decay.

    Args:
        parameters: the parameters; those that are not trainable are left out.
        optim: the learning rates and the weight decay.
        backbone: its parameters train at ``lr_backbone``, all others at ``lr_head``.

    Returns:
        Up to four groups for a torch optimizer; vectors and scalars have no weight decay.

    Raises:
        ValueError: nothing is trainable.
    """
    below = set() if backbone is None else {id(parameter) for parameter in backbone.parameters()}
    groups: dict[tuple[str, bool], list[nn.Parameter]] = {}
    for parameter in parameters:
        if parameter.requires_grad:
            part = "backbone" if id(parameter) in below else "head"
            groups.setdefault((part, parameter.ndim > 1), []).append(parameter)
    if not groups:
        raise ValueError(
            "parameter_groups: model must have a trainable parameter, got none: nothing of the "
            "encoder is trained, and nothing on top of it"
        )
    rates = {"backbone": optim.lr_backbone, "head": optim.lr_head}
    return [
        {
            "params": held,
            "lr": rates[part],
            "weight_decay": optim.weight_decay if decays else 0.0,
            "name": f"{part}{'' if decays else ' (no decay)'}",
        }
        for (part, decays), held in groups.items()
    ]
