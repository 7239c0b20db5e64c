"""The nearest and farthest references of every anchor, by class, without a matrix of distances."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from zsbir_fast import _C
from zsbir_fast.ops._library import (
    LIB,
    address,
    as_kernel_input,
    check_one_device,
    current_stream,
    notice_fallback,
)
from zsbir_fast.ops.pair_distances import CODES, check_kernel_rows, is_double, rows_struct
from zsbir_fast.reference import quadruplet_mining as reference
from zsbir_fast.reference.quadruplet_mining import Distance

_CHOICES = 4


class Selected(NamedTuple):
    """What was chosen for every anchor.

    Attributes:
        index: int64 [A], row of the reference; -1: none.
        distance: [A], to it; 0 where there is none.
    """

    index: Tensor  # type: ignore[assignment]  # a tuple has a method of that name
    distance: Tensor


class Selection(NamedTuple):
    """The four choices: by distance, among references of the anchor's class or of others."""

    nearest_same: Selected
    farthest_same: Selected
    nearest_other: Selected
    farthest_other: Selected


def select_pairs(
    anchors: Tensor,
    references: Tensor,
    anchor_labels: Tensor,
    reference_labels: Tensor,
    *,
    distance: Distance,
    same_limit: int | None = None,
    forbidden: Tensor | None = None,
    low: Tensor | None = None,
    high: Tensor | None = None,
) -> Selection:
    """Choose among equal distances the lowest index.

    Args:
        anchors: [A, D], float32 or float64, from ``kernel_rows``.
        references: [R, D], of the same dtype.
        anchor_labels: int64 [A].
        reference_labels: int64 [R].
        distance: Which.
        same_limit: Only references before it count as of the same class.
        forbidden: int64 [A], a class that does not count as another.
        low: [A], only distances above it count.
        high: [A], only distances below it count.

    Cost: A R D multiply-adds and subtractions; extra memory O(R D) on the CPU (the references once
    more), and 4 numbers per anchor and slice on CUDA.
    """
    limit = len(references) if same_limit is None else same_limit
    index, chosen = torch.ops.zsbir.select_pairs(
        anchors,
        references,
        anchor_labels,
        reference_labels,
        limit,
        forbidden,
        low,
        high,
        CODES[distance],
    )
    return Selection(*(Selected(index[i], chosen[i]) for i in range(_CHOICES)))


# --- operators ------------------------------------------------------------------------------------

LIB.define(
    "select_pairs(Tensor anchors, Tensor references, Tensor anchor_labels, Tensor reference_labels,"
    " int same_limit, Tensor? forbidden, Tensor? low, Tensor? high, int distance) -> "
    "(Tensor, Tensor)"
)


def _native(
    anchors: Tensor,
    references: Tensor,
    anchor_labels: Tensor,
    reference_labels: Tensor,
    same_limit: int,
    forbidden: Tensor | None,
    low: Tensor | None,
    high: Tensor | None,
    distance: int,
) -> tuple[Tensor, Tensor]:
    op = "select_pairs"
    anchors, references = check_kernel_rows(op, anchors=anchors, references=references)
    given: dict[str, Tensor | None] = {
        "anchor_labels": anchor_labels,
        "reference_labels": reference_labels,
        "forbidden": forbidden,
        "low": low,
        "high": high,
    }
    check_one_device(op, anchors=anchors, **given)
    dtypes = (torch.int64, torch.int64, torch.int64, anchors.dtype, anchors.dtype)
    checked = []
    for (name, x), dtype in zip(given.items(), dtypes, strict=True):
        count = len(references) if name == "reference_labels" else len(anchors)
        checked.append(None if x is None else as_kernel_input(op, name, x, dtype, (count,)))
    index = anchor_labels.new_empty(_CHOICES, len(anchors))
    chosen = anchors.new_empty(_CHOICES, len(anchors))
    addresses = {name: address(x) for name, x in zip(given, checked, strict=True)}
    conditions = _C.SelectFilter(same_limit=same_limit, **addresses)
    rows = (is_double(anchors), rows_struct(anchors), rows_struct(references), conditions, distance)
    out = (index.data_ptr(), chosen.data_ptr())
    if not anchors.is_cuda:
        _C.select_pairs_cpu(*rows, *out)
        return index, chosen
    device = anchors.get_device()
    slices = _C.select_slices_cuda(len(anchors), len(references), device)
    partial_index = index.new_empty(slices, *index.shape)
    partial = chosen.new_empty(slices, *chosen.shape)
    scratch = (slices, partial_index.data_ptr(), partial.data_ptr())
    _C.select_pairs_cuda(*rows, *scratch, *out, device, current_stream(anchors.device))
    return index, chosen


def _reference(
    anchors: Tensor,
    references: Tensor,
    anchor_labels: Tensor,
    reference_labels: Tensor,
    same_limit: int,
    forbidden: Tensor | None,
    low: Tensor | None,
    high: Tensor | None,
    distance: int,
) -> tuple[Tensor, Tensor]:
    index = anchor_labels.new_full((_CHOICES, len(anchors)), -1)
    chosen = anchors.new_zeros(_CHOICES, len(anchors))
    if len(references) == 0:
        return index, chosen
    distances = reference.pair_distances(anchors, references, list(CODES)[distance])
    inside = torch.ones_like(distances, dtype=torch.bool)
    if low is not None:
        inside &= distances > low[:, None]
    if high is not None:
        inside &= distances < high[:, None]
    same = anchor_labels[:, None] == reference_labels[None, :]
    other = ~same
    if forbidden is not None:
        other = other & (reference_labels[None, :] != forbidden[:, None])
    same = same & (torch.arange(len(references), device=same.device) < same_limit)
    for i, (allowed, sign) in enumerate(((same, 1), (same, -1), (other, 1), (other, -1))):
        index[i] = reference.nearest_index(sign * distances, allowed & inside)
        taken = distances.gather(1, index[i].clamp_min(0)[:, None])[:, 0]
        chosen[i] = torch.where(index[i] >= 0, taken, 0)
    return index, chosen


def _fake(anchors: Tensor, references: Tensor, anchor_labels: Tensor, *_: object) -> object:
    shape = (_CHOICES, len(anchors))
    return anchor_labels.new_empty(shape), anchors.new_empty(shape)


LIB.impl("select_pairs", _native, "CPU")
LIB.impl("select_pairs", notice_fallback("select_pairs", _reference), "CompositeExplicitAutograd")
if _C.built_with_cuda:
    LIB.impl("select_pairs", _native, "CUDA")
torch.library.register_fake("zsbir::select_pairs", _fake, lib=LIB)
