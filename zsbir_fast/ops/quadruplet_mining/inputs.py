"""The checks of mining and of the losses over quadruplets before any kernel runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from zsbir_fast._arguments import as_number
from zsbir_fast.ops._checks import (
    check_dtype,
    check_finite,
    check_floating,
    check_one_device,
    check_shape,
    check_tensor,
    unseen,
)
from zsbir_fast.reference.quadruplet_mining import Five


def five_numbers(
    function: str, argument: str, values: float | Sequence[float] | None, default: Five
) -> Five:
    """One number five times, five numbers, or the default.

    Raises:
        TypeError: there is something else than numbers.
        ValueError: they are not five, or one is negative or not finite.
    """
    if values is None:
        return default
    given = values if isinstance(values, (list, tuple)) else (values,) * 5
    try:
        five = tuple(as_number(function, argument, value) for value in given)
    except TypeError:
        raise TypeError(
            f"{function}: {argument} must be a number or five, got {values!r}"
        ) from None
    if len(five) != 5 or not all(0 <= value < math.inf for value in five):
        raise ValueError(
            f"{function}: {argument} must be five finite numbers, none negative, got {values}"
        )
    return five


def check_rows(
    function: str, argument: str, rows: Any, count: int, dtype: torch.dtype = torch.int64
) -> None:
    """Raise unless it is a tensor [count] of a dtype."""
    check_tensor(function, argument, rows)
    check_dtype(function, argument, rows, dtype)
    check_shape(function, argument, rows, (count,))


def check_beside(
    function: str,
    argument: str,
    rows: Any,
    first: str,
    features: Tensor,
    dtype: torch.dtype = torch.int64,
) -> None:
    """Raise unless every row of ``features``, called ``first``, has one entry on its device."""
    check_rows(function, argument, rows, len(features), dtype)
    check_one_device(function, **{first: features, argument: rows})


def check_weights(function: str, weights: Any, count: int) -> None:
    """Raise unless they are finite floating-point factors [count]."""
    check_tensor(function, "weights", weights)
    check_floating(function, "weights", weights)
    check_shape(function, "weights", weights, (count,))
    check_finite(function, "weights", weights)


def check_uniforms(
    function: str, argument: str, uniforms: Any, mode: str, first: str, features: Tensor
) -> None:
    """Raise unless they are random numbers in [0, 1), one for every row of ``features``.

    Where they are unseen, the mining takes those beyond 1 and NaN as the largest below 1, and
    negative ones as 0.
    """
    if uniforms is None or (isinstance(uniforms, Tensor) and uniforms.shape != (len(features),)):
        got = None if uniforms is None else list(uniforms.shape)
        raise ValueError(f"{function}: {argument} must be [{len(features)}] for {mode}, got {got}")
    check_tensor(function, argument, uniforms)
    check_floating(function, argument, uniforms)
    check_one_device(function, **{first: features, argument: uniforms})
    if unseen(uniforms):
        return
    outside = (~((uniforms >= 0) & (uniforms < 1))).nonzero()
    if len(outside):
        row = int(outside[0])
        raise ValueError(
            f"{function}: {argument} must be in [0, 1), got {float(uniforms[row])} in row {row}"
        )


def check_paired(function: str, paired: Tensor, photos: int) -> None:
    """Raise for a row that does not exist; where it is unseen it counts as none."""
    if unseen(paired):
        return
    outside = paired[(paired < -1) | (paired >= photos)]
    if len(outside):
        raise ValueError(f"{function}: paired must be in [-1, {photos}), got {int(outside[0])}")
