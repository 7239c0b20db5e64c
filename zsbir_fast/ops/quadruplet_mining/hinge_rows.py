"""Sums over all triplets of each row of distances, and counts of quadruplets, as operators."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from zsbir_fast import _C
from zsbir_fast.ops._checks import (
    as_kernel_input,
    check_dimensions,
    check_margins,
    check_one_device,
)
from zsbir_fast.ops._library import (
    LIB,
    address,
    current_stream,
    register,
)
from zsbir_fast.ops.quadruplet_mining.pair_distances import check_kernel_rows, is_double


class HingeSums(NamedTuple):
    """All triplets of every row.

    Attributes:
        sums: float64 [R], differentiable: sum of weight times hinge.
        active: float64 [R], sum of weights of the non-zero terms: without weights their number.
        by_threshold: [R, T], non-zero terms of each threshold (weighted), where its column is of
            the row's class; without separate values, elsewhere minus that of each value.
    """

    sums: Tensor
    active: Tensor
    by_threshold: Tensor


def hinge_rows(
    thresholds: Tensor,
    values: Tensor | None,
    row_labels: Tensor,
    threshold_labels: Tensor,
    value_labels: Tensor,
    *,
    margin: float,
    exclude_self: bool = False,
    row_weights: Tensor | None = None,
    value_weights: Tensor | None = None,
) -> HingeSums:
    """For each row all ``max(0, t + margin - x)``: t of the row's class, x of other classes.

    Args:
        thresholds: [R, T], float32 or float64: distances of which those of the row's class count.
        values: [R, X], of the same dtype: distances of which those of other classes count; None:
            ``thresholds``.
        row_labels: int64 [R].
        threshold_labels: int64 [T].
        value_labels: int64 [X].
        margin: added to the thresholds, in their dtype.
        exclude_self: column r of row r is no threshold.
        row_weights: int32 [R], with ``value_weights``: term (r, x) counts ``row_weights[r] -
            value_weights[x]`` times.
        value_weights: int32 [X].

    Cost: every row is read once; R X log of the thresholds in a row.
    """
    out = torch.ops.zsbir.hinge_rows(
        thresholds,
        values,
        row_labels,
        threshold_labels,
        value_labels,
        row_weights,
        value_weights,
        margin,
        exclude_self,
    )
    return HingeSums(*out[:3])


def union_counts(
    pairs: Tensor,
    first: Tensor,
    second: Tensor,
    row_labels: Tensor,
    column_labels: Tensor,
    value_labels: Tensor,
    margins: tuple[float, float],
) -> Tensor:
    """Values of other classes below one of two thresholds at least, for each pair of a class.

    Args:
        pairs: [R, T], distances; the thresholds of pair (r, t) are this plus each margin.
        first: [R, X], compared with the first threshold.
        second: [T, X], compared with the second one.
        row_labels: int64 [R].
        column_labels: int64 [T].
        value_labels: int64 [X].
        margins: two.

    Returns:
        [R, T] of the dtype of ``pairs``, 0 for pairs of two classes.
    """
    out: Tensor = torch.ops.zsbir.union_counts(
        pairs, first, second, row_labels, column_labels, value_labels, *margins
    )
    return out


# --- operators ------------------------------------------------------------------------------------

LIB.define(
    "hinge_rows(Tensor thresholds, Tensor? values, Tensor row_labels, Tensor threshold_labels, "
    "Tensor value_labels, Tensor? row_weights, Tensor? value_weights, float margin, "
    "bool exclude_self) -> (Tensor, Tensor, Tensor, Tensor)"
)
LIB.define(
    "union_counts(Tensor pairs, Tensor first, Tensor second, Tensor row_labels, "
    "Tensor column_labels, Tensor value_labels, float first_margin, float second_margin) -> Tensor"
)


def _checked(
    thresholds: Tensor,
    values: Tensor | None,
    others: tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None],
    margin: float,
) -> tuple[Tensor, Tensor | None, list[Tensor], list[Tensor | None]]:
    """Thresholds, values, labels and weights, ready for their addresses to be taken."""
    op, (row_labels, threshold_labels, value_labels, row_weights, value_weights) = (
        "hinge_rows",
        others,
    )
    check_one_device(
        op,
        thresholds=thresholds,
        values=values,
        row_labels=row_labels,
        threshold_labels=threshold_labels,
        value_labels=value_labels,
        row_weights=row_weights,
        value_weights=value_weights,
    )
    (thresholds,) = check_kernel_rows(op, thresholds=thresholds)
    rows, columns = thresholds.shape
    check_margins(op, margin=margin)
    check_dimensions(op, 2, values=values)
    own_values = None
    if values is not None:
        shape = rows, values.shape[-1]
        own_values = as_kernel_input(op, "values", values, thresholds.dtype, shape)
    given = thresholds if own_values is None else own_values
    if (row_weights is None) != (value_weights is None):
        raise ValueError(f"{op}: value_weights must be given with row_weights, and the reverse")
    labels = [
        as_kernel_input(op, name, x, torch.int64, (n,))
        for name, x, n in (
            ("row_labels", row_labels, rows),
            ("threshold_labels", threshold_labels, columns),
            ("value_labels", value_labels, given.shape[1]),
        )
    ]
    weights = [
        None if x is None else as_kernel_input(op, name, x, torch.int32, (n,))
        for name, x, n in (
            ("row_weights", row_weights, rows),
            ("value_weights", value_weights, given.shape[1]),
        )
    ]
    return thresholds, own_values, labels, weights


def _native(
    thresholds: Tensor,
    values: Tensor | None,
    row_labels: Tensor,
    threshold_labels: Tensor,
    value_labels: Tensor,
    row_weights: Tensor | None,
    value_weights: Tensor | None,
    margin: float,
    exclude_self: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    labels_and_weights = (row_labels, threshold_labels, value_labels, row_weights, value_weights)
    thresholds, own_values, labels, weights = _checked(
        thresholds, values, labels_and_weights, margin
    )
    given = thresholds if own_values is None else own_values
    rows = len(thresholds)
    sums = thresholds.new_empty(rows, dtype=torch.float64)
    active = torch.empty_like(sums)
    by_threshold = torch.empty_like(thresholds)
    by_value = thresholds.new_empty(0) if own_values is None else torch.empty_like(own_values)
    struct = _C.HingeRows(
        thresholds=thresholds.data_ptr(),
        values=given.data_ptr(),
        rows=rows,
        threshold_columns=thresholds.shape[1],
        value_columns=given.shape[1],
        row_labels=labels[0].data_ptr(),
        threshold_labels=labels[1].data_ptr(),
        value_labels=labels[2].data_ptr(),
        row_weights=address(weights[0]),
        value_weights=address(weights[1]),
        margin=margin,
        exclude_self=exclude_self,
    )
    out = (sums.data_ptr(), active.data_ptr(), by_threshold.data_ptr())
    arguments = (is_double(thresholds), struct, *out, 0 if values is None else by_value.data_ptr())
    if thresholds.is_cuda:
        _C.hinge_rows_cuda(*arguments, thresholds.get_device(), current_stream(thresholds.device))
    else:
        _C.hinge_rows_cpu(*arguments)
    return sums, active, by_threshold, by_value


def _reference(
    thresholds: Tensor,
    values: Tensor | None,
    row_labels: Tensor,
    threshold_labels: Tensor,
    value_labels: Tensor,
    row_weights: Tensor | None,
    value_weights: Tensor | None,
    margin: float,
    exclude_self: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    given = thresholds if values is None else values
    own = row_labels[:, None] == threshold_labels[None, :]
    if exclude_self:
        own = own & ~torch.eye(*own.shape, dtype=torch.bool, device=own.device)
    weights = (row_labels[:, None] != value_labels[None, :]).double()
    if row_weights is not None and value_weights is not None:
        weights = weights * (row_weights[:, None] - value_weights[None, :])
    rows = []
    for r in range(len(thresholds)):
        gap = (thresholds[r] + margin)[:, None] - given[r][None, :]
        counted = own[r][:, None] * weights[r][None, :] * (gap > 0)
        rows.append(((counted * gap).sum(), counted.sum(), counted.sum(1), -counted.sum(0)))
    if not rows:
        nothing = thresholds.new_zeros(0, dtype=torch.float64)
        by_value = thresholds.new_zeros(0) if values is None else torch.zeros_like(given)
        return nothing, nothing.clone(), torch.zeros_like(thresholds), by_value
    sums, active, by_threshold, by_value = (torch.stack(x) for x in zip(*rows, strict=True))
    if values is None:
        by_threshold, by_value = by_threshold + by_value, thresholds.new_zeros(0)
    dtype = thresholds.dtype
    return sums, active, by_threshold.to(dtype), by_value.to(dtype)


def _fake(
    thresholds: Tensor,
    values: Tensor | None,
    row_labels: Tensor,
    threshold_labels: Tensor,
    value_labels: Tensor,
    row_weights: Tensor | None,
    value_weights: Tensor | None,
    margin: float,
    exclude_self: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    del exclude_self
    labels_and_weights = (row_labels, threshold_labels, value_labels, row_weights, value_weights)
    _checked(thresholds, values, labels_and_weights, margin)
    sums = thresholds.new_empty(len(thresholds), dtype=torch.float64)
    by_value = thresholds.new_empty(0 if values is None else values.shape)
    by_threshold = thresholds.new_empty(thresholds.shape)
    return sums, torch.empty_like(sums), by_threshold, by_value


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.separate = inputs[1] is not None
    ctx.save_for_backward(*output[2:])
    ctx.mark_non_differentiable(*output[1:])


def _autograd(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    # Linear between the kinks: the saved derivatives do not change, and the second ones are 0.
    by_threshold, by_value = ctx.saved_tensors
    scale = grad.to(by_threshold.dtype)[:, None]
    grad_values = scale * by_value if ctx.separate else None
    return scale * by_threshold, grad_values, *(None,) * 7


def _union_checked(
    pairs: Tensor,
    first: Tensor,
    second: Tensor,
    all_labels: tuple[Tensor, Tensor, Tensor],
    first_margin: float,
    second_margin: float,
) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
    """Distances and labels, ready for their addresses to be taken."""
    row_labels, column_labels, value_labels = all_labels
    op = "union_counts"
    check_one_device(
        op,
        pairs=pairs,
        first=first,
        second=second,
        row_labels=row_labels,
        column_labels=column_labels,
        value_labels=value_labels,
    )
    (pairs,) = check_kernel_rows(op, pairs=pairs)
    check_margins(op, first_margin=first_margin, second_margin=second_margin)
    check_dimensions(op, 2, first=first, second=second)
    (rows, columns), values = pairs.shape, first.shape[1]
    first = as_kernel_input(op, "first", first, pairs.dtype, (rows, values))
    second = as_kernel_input(op, "second", second, pairs.dtype, (columns, values))
    labels = [
        as_kernel_input(op, name, x, torch.int64, (n,))
        for name, x, n in (
            ("row_labels", row_labels, rows),
            ("column_labels", column_labels, columns),
            ("value_labels", value_labels, values),
        )
    ]
    return pairs, first, second, labels


def _union_native(
    pairs: Tensor,
    first: Tensor,
    second: Tensor,
    row_labels: Tensor,
    column_labels: Tensor,
    value_labels: Tensor,
    first_margin: float,
    second_margin: float,
) -> Tensor:
    pairs, first, second, labels = _union_checked(
        pairs, first, second, (row_labels, column_labels, value_labels), first_margin, second_margin
    )
    out = torch.empty_like(pairs)
    struct = _C.UnionRows(
        pairs=pairs.data_ptr(),
        first=first.data_ptr(),
        second=second.data_ptr(),
        rows=pairs.shape[0],
        columns=pairs.shape[1],
        values=first.shape[1],
        row_labels=labels[0].data_ptr(),
        column_labels=labels[1].data_ptr(),
        value_labels=labels[2].data_ptr(),
        first_margin=first_margin,
        second_margin=second_margin,
    )
    arguments = (is_double(pairs), struct, out.data_ptr())
    if pairs.is_cuda:
        _C.union_counts_cuda(*arguments, pairs.get_device(), current_stream(pairs.device))
    else:
        _C.union_counts_cpu(*arguments)
    return out


def _union_reference(
    pairs: Tensor,
    first: Tensor,
    second: Tensor,
    row_labels: Tensor,
    column_labels: Tensor,
    value_labels: Tensor,
    first_margin: float,
    second_margin: float,
) -> Tensor:
    out = torch.zeros_like(pairs)
    other = row_labels[:, None] != value_labels[None, :]
    for r in range(len(pairs)):
        inside = first[r][None, :] < (pairs[r] + first_margin)[:, None]
        inside = inside | (second < (pairs[r] + second_margin)[:, None])
        out[r] = (inside & other[r][None, :]).sum(1)
    return out * (row_labels[:, None] == column_labels[None, :])


def _union_fake(
    pairs: Tensor,
    first: Tensor,
    second: Tensor,
    row_labels: Tensor,
    column_labels: Tensor,
    value_labels: Tensor,
    first_margin: float,
    second_margin: float,
) -> Tensor:
    labels = (row_labels, column_labels, value_labels)
    _union_checked(pairs, first, second, labels, first_margin, second_margin)
    return torch.empty_like(pairs, memory_format=torch.contiguous_format)


register("hinge_rows", _native, _fake, _reference)
register("union_counts", _union_native, _union_fake, _union_reference)
torch.library.register_autograd(
    "zsbir::hinge_rows", _autograd, setup_context=_setup_context, lib=LIB
)
