"""Gradients: finite from finite input, and those of the oracle away from kinks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from case import as_float64, close
from inputs import EXTREMES, Features
from torch import Tensor

_STEPS = {torch.float16: 2e-3, torch.bfloat16: 1e-2, torch.float64: 1e-12}
_LARGEST_HALF = 3e4  # half of the largest float16
#: From float64 leaves and a shift of all margins to the value.
Oracle = Callable[[Sequence[Tensor], float], Tensor]


def compared(
    result: Tensor,
    function: Callable[..., Tensor],
    arguments: dict[str, Any],
    features: dict[str, Features],
    oracle: Oracle,
    near: float,
) -> str | None:
    """Compare a loss and its gradients with the oracle's.

    Hinges are kinked: the oracle is asked with margins a little smaller and larger, too. The value
    must be between, and gradients are compared where both sides have the same.

    Args:
        result: what the function returned.
        function: the public function.
        arguments: its arguments.
        features: those of them that are features, by name.
        oracle: the same in float64.
        near: what rounding may move a distance by.
    """
    values, slopes = [], []
    for shift in (0.0, -near, near):
        leaves = [torch.from_numpy(f.values).requires_grad_() for f in features.values()]
        value = oracle(leaves, shift)
        values.append(value.detach())
        slopes.append(_slopes(value, leaves))
    slack = 2 * (values[2] - values[1]).abs() + abs(values[0]) * 1e-5 + 1e-7
    complaint = close("loss", result, values[0], rtol=0, atol=as_float64(slack))
    if complaint is not None:
        return complaint
    plain = near < 1e-3 and not any(f.kind in EXTREMES for f in features.values())
    found = {name: arguments[name].detach().clone().requires_grad_() for name in features}
    again = function(**{**fresh(arguments), **found})
    if not again.requires_grad:
        return "no gradient: the result has no graph"
    again.sum().backward()
    for i, (name, leaf) in enumerate(found.items()):
        if leaf.grad is None:
            return f"no gradient: of {name}"
        below, above, here = slopes[1][i], slopes[2][i], slopes[0][i]
        if leaf.dtype == torch.float16 and bool((here.abs() > _LARGEST_HALF).any()):
            continue
        if not bool(torch.isfinite(leaf.grad).all()):
            return f"NaN: gradient by {name} from finite input"
        scale = float(here.abs().max()) if here.numel() else 0.0
        # At a kink, steps of both signs may cancel in the sum: below and above alike, not here.
        steady = all(torch.allclose(below, x, rtol=1e-3, atol=1e-3 * scale) for x in (here, above))
        if plain and steady:
            # Rounding counts by the length of a row that is normalised; zero rows have no other.
            lengths = np.linalg.norm(features[name].values, axis=1, keepdims=True)
            step = _STEPS.get(leaf.dtype, 1e-6)
            noise = step * (1 + float(values[0].abs().sum())) * np.maximum(1, 4 / (lengths + 1e-9))
            step = max(2e-3, 4 * step) * scale + noise
            complaint = close(
                f"gradient by {name}", leaf.grad, here, rtol=0, atol=step, where=lengths > 0
            )
            if complaint is not None:
                return complaint
    return None


def fresh(arguments: dict[str, Any]) -> dict[str, Any]:
    """Tensors as copies: torch takes no gradient beside inference tensors."""
    return {k: v.detach().clone() if isinstance(v, Tensor) else v for k, v in arguments.items()}


def beyond_range(
    result: Tensor, oracle: Oracle, features: dict[str, Features], near: float
) -> str | None:
    """Where squares leave the range of float32: the result may show it, but must not be wrong."""
    if not bool(torch.isfinite(result).all()):
        return None
    leaves = [torch.from_numpy(f.values) for f in features.values()]
    want, low, high = (oracle(leaves, shift) for shift in (0.0, -near, near))
    slack = 2 * (high - low).abs() + 1e-2 * want.abs() + 1e-2
    return close("loss beyond the range", result, want, rtol=0, atol=as_float64(slack))


def _slopes(value: Tensor, leaves: list[Tensor]) -> list[Tensor]:
    if not value.requires_grad:
        return [torch.zeros_like(leaf) for leaf in leaves]
    found = torch.autograd.grad(value.sum(), leaves, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for x, g in zip(leaves, found, strict=True)]
