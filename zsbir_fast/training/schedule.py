"""The learning rate over a run."""

from __future__ import annotations

import math

from zsbir_fast.methods.settings import OptimConfig


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
    if optim.schedule == "exponential":
        return float(optim.final_lr_ratio ** min(1.0, done))
    cosine = 0.5 * (1.0 + math.cos(math.pi * min(1.0, done)))
    return optim.final_lr_ratio + (1.0 - optim.final_lr_ratio) * cosine
