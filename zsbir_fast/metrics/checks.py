"""Argument checks shared by every entrance of the metrics: one clear error before any work."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

_FLOATING = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def as_tensor(caller: str, name: str, value: Any) -> Tensor:
    """Tensors as they are, NumPy arrays and sequences of numbers as tensors, detached."""
    if isinstance(value, Tensor):
        return value.detach()
    if isinstance(value, np.ndarray) and not value.flags.writeable:
        value = value.view()  # a read-only memory map: only ever read here
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            return torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(
            f"{caller}: {name} must be a tensor or an array of numbers, got {type(value).__name__}"
        ) from error


def check_matrix(caller: str, name: str, value: Any, *, shape: str) -> Tensor:
    """A floating or integer matrix with at least one row and column."""
    tensor = as_tensor(caller, name, value)
    if tensor.dim() != 2:
        raise ValueError(f"{caller}: {name} must be {shape}, got shape {list(tensor.shape)}")
    if tensor.is_complex() or tensor.dtype == torch.bool:
        raise TypeError(f"{caller}: {name} must be numbers, got {tensor.dtype}")
    if 0 in tensor.shape:
        raise ValueError(f"{caller}: {name} must not be empty, got shape {list(tensor.shape)}")
    return tensor


def check_labels(caller: str, name: str, value: Any, length: int, *, of: str) -> Tensor:
    """Integer labels, one for each row of ``of``; returned as int64 on the CPU."""
    labels = as_tensor(caller, name, value)
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise TypeError(f"{caller}: {name} must be integers, got {labels.dtype}")
    if labels.dim() != 1 or len(labels) != length:
        raise ValueError(
            f"{caller}: {name} must be [{length}], one label for each row of {of}, "
            f"got shape {list(labels.shape)}"
        )
    return labels.to("cpu", torch.int64)


def check_ks(caller: str, ks: Sequence[int], gallery: int | None = None) -> tuple[int, ...]:
    """Cut-offs as a tuple without repeats; warns once if some exceed the gallery."""
    if isinstance(ks, int):
        ks = (ks,)
    out: list[int] = []
    for k in ks:
        if isinstance(k, bool) or not isinstance(k, (int, np.integer)):
            raise TypeError(f"{caller}: ks must be integers, got {k!r}")
        if k < 1:
            raise ValueError(f"{caller}: every k of ks must be at least 1, got {k}")
        if int(k) not in out:
            out.append(int(k))
    if gallery is not None and any(k > gallery for k in out):
        beyond = [k for k in out if k > gallery]
        warnings.warn(
            f"{caller}: k = {beyond} exceeds the gallery of {gallery} items: the ranking ends there, "
            "Prec@k keeps its denominator (docs/metrics.md, 'k beyond the gallery')",
            UserWarning,
            stacklevel=3,
        )
    return tuple(out)


def check_finite(caller: str, name: str, matrix: Tensor, first_row: int = 0) -> None:
    """Raise, naming the first bad row, unless every number is finite."""
    if not matrix.is_floating_point():
        return
    # One pass without a temporary: NaN and infinity survive a sum in float64. The sum of finite
    # float64 numbers may overflow, so a bad sum is a suspicion, not a verdict.
    if bool(torch.isfinite(matrix.sum(dtype=torch.float64))):
        return
    bad = ~torch.isfinite(matrix)
    if not bool(bad.any()):
        return
    rows = torch.nonzero(bad.any(dim=1))[:, 0]
    row = int(rows[0])
    value = matrix[row][bad[row]][0].item()
    raise ValueError(
        f"{caller}: {name} must be finite, got {value} in row {first_row + row} "
        f"({len(rows)} such row{'s' if len(rows) > 1 else ''})"
    )


def as_kernel_float(caller: str, name: str, matrix: Tensor) -> Tensor:
    """The matrix in a type that the kernels take, without changing the order of its values."""
    if matrix.dtype in (torch.float32, torch.float64):
        return matrix
    if matrix.dtype in _FLOATING or matrix.dtype in (torch.uint8, torch.int8, torch.int16):
        return matrix.to(torch.float32)
    if matrix.dtype == torch.int64 and int(matrix.abs().max()) > 2**53:
        raise ValueError(f"{caller}: {name} must fit in float64 exactly (|x| <= 2^53), got larger integers")
    return matrix.to(torch.float64)
