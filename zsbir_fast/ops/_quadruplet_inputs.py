"""What the mining and the losses over quadruplets check before any kernel runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from zsbir_fast.reference.quadruplet_mining import Five

Impl = Literal["fused", "reference"]


def five_numbers(
    function: str, argument: str, values: float | Sequence[float] | None, default: Five
) -> Five:
    if values is None:
        return default
    five = (values,) * 5 if isinstance(values, (int, float)) else tuple(values)
    if len(five) != 5 or not all(math.isfinite(value) and value >= 0 for value in five):
        raise ValueError(
            f"{function}: {argument} must be five finite numbers, none negative, got {values}"
        )
    return five


def check_features(function: str, **features: Tensor) -> None:
    """Raise unless all are [B, D] on one device, equally wide, of one dtype and free of NaN."""
    (first, reference), *_ = features.items()
    for argument, rows in features.items():
        if rows.ndim != 2:
            raise ValueError(f"{function}: {argument} must be [B, D], got {tuple(rows.shape)}")
        if not rows.is_floating_point():
            raise TypeError(f"{function}: {argument} must be floating point, got {rows.dtype}")
        if rows.shape[1] != reference.shape[1]:
            raise ValueError(
                f"{function}: {argument} must be {reference.shape[1]} wide like {first}, "
                f"got {rows.shape[1]}"
            )
        if rows.dtype != reference.dtype:
            raise TypeError(
                f"{function}: {argument} must be {reference.dtype} like {first}, got {rows.dtype}"
            )
        check_device(function, argument, rows, first, reference)
    if torch.compiler.is_compiling():  # reading a value would break the graph
        return
    for argument, rows in features.items():
        check_not_nan(function, argument, rows)


def check_device(
    function: str, argument: str, tensor: Tensor, first: str, features: Tensor
) -> None:
    """The kernels take addresses: all must be where ``features``, called ``first``, are."""
    if tensor.device != features.device:
        raise ValueError(
            f"{function}: {argument} must be on {features.device} like {first}, got {tensor.device}"
        )


def check_not_nan(function: str, argument: str, values: Tensor) -> None:
    """Raise naming the first row with a NaN; not on CUDA, where looking would wait for the GPU."""
    if torch.compiler.is_compiling() or values.is_cuda:
        return
    if math.isfinite(float(values.detach().sum())):  # a NaN would be in the sum; one cheap pass
        return
    bad = values.detach().isnan()
    if bad.any():
        row = int(bad.reshape(len(bad), -1).any(1).nonzero()[0])
        raise ValueError(f"{function}: {argument} must not be NaN, got NaN in row {row}")


def check_rows(
    function: str, argument: str, rows: Tensor, count: int, dtype: torch.dtype = torch.int64
) -> None:
    if rows.dtype != dtype:
        wanted = str(dtype).removeprefix("torch.")
        raise TypeError(f"{function}: {argument} must be {wanted}, got {rows.dtype}")
    if rows.shape != (count,):
        raise ValueError(f"{function}: {argument} must be [{count}], got {tuple(rows.shape)}")


def check_beside(
    function: str,
    argument: str,
    rows: Tensor,
    first: str,
    features: Tensor,
    dtype: torch.dtype = torch.int64,
) -> None:
    """Raise unless there is one entry for every row of ``features``, called ``first``, there."""
    check_rows(function, argument, rows, len(features), dtype)
    check_device(function, argument, rows, first, features)


def check_paired(function: str, paired: Tensor, photos: int) -> None:
    """Raise for a row that does not exist; on CUDA and in compiled code it counts as none."""
    if torch.compiler.is_compiling() or paired.is_cuda:
        return
    outside = paired[(paired < -1) | (paired >= photos)]
    if len(outside):
        raise ValueError(f"{function}: paired must be in [-1, {photos}), got {int(outside[0])}")


def check_choice(function: str, argument: str, value: str, choices: Any) -> None:
    known = choices.__args__  # typing.get_args: torch 2.6 cannot compile it
    if value not in known:
        raise ValueError(f"{function}: {argument} must be one of {', '.join(known)}, got {value!r}")
