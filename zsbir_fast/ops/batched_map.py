"""Exact ranking metrics without sorting the gallery: the operators behind ``zsbir_fast.metrics``.

``torch.ops.zsbir.batched_map`` evaluates a matrix of scores; ``relevant_items``, ``rank_counts`` and
``ranking_metrics`` are its three steps, apart, for galleries that come in shards: gather and sort the
relevant keys of each query, count the other items against them, turn the counts into metrics. The
counts of disjoint shards add up.

None of them is differentiable. All are deterministic: integer counts, sums in rank order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from zsbir_fast import _C
from zsbir_fast.ops._library import (
    LIB,
    address,
    check_one_device,
    current_stream,
    notice_fallback,
)
from zsbir_fast.reference import batched_map as reference
from zsbir_fast.reference.definitions import COLUMNS_AT_K, FIXED_COLUMNS, Definition

_INDEX_LIMIT = 2**31 - 1  # gallery positions are int32


@dataclass(frozen=True)
class GalleryClasses:
    """Which gallery columns belong to which class.

    Attributes:
        of_column: int32 [G], a class number from 0 for each column.
        offsets: int64 [classes + 1] into ``columns``.
        columns: int32 [G], the columns of each class, ascending by gallery index.
        index: int32 [G], each column's place in the user's gallery; None: the column number.
    """

    of_column: Tensor
    offsets: Tensor
    columns: Tensor
    index: Tensor | None = None

    @staticmethod
    def of(classes: Tensor, count: int, index: Tensor | None = None) -> GalleryClasses:
        """Group columns by class.

        Args:
            classes: Integer, [G], in [0, count).
            count: Number of classes.
            index: int32 [G], as the attribute.
        """
        if len(classes) > _INDEX_LIMIT:
            raise ValueError(f"GalleryClasses: at most 2^31 - 1 gallery items, got {len(classes)}")
        order = torch.arange(len(classes), device=classes.device)
        if index is not None:
            order = torch.argsort(index)
        columns = order[torch.argsort(classes[order], stable=True)]
        offsets = torch.zeros(count + 1, dtype=torch.int64, device=classes.device)
        offsets[1:] = torch.bincount(classes, minlength=count).cumsum(0)
        return GalleryClasses(classes.to(torch.int32), offsets, columns.to(torch.int32), index)


def batched_map(
    scores: Tensor,
    query_class: Tensor,
    gallery: GalleryClasses,
    *,
    larger_is_closer: bool,
    ks: Sequence[int],
    definition: Definition,
) -> Tensor:
    """Per-query metrics of a matrix of scores.

    Args:
        scores: float32 or float64, [Q, G], columns contiguous, no NaN (checked by the callers in
            ``zsbir_fast.metrics``, which see the data once).
        query_class: int32, [Q], a class number of the gallery, -1 if none is relevant.
        gallery: The classes of the columns.
        larger_is_closer: Whether scores are similarities.
        ks: Cut-offs, each at least 1.
        definition: What the metrics mean.

    Returns:
        float64 [Q, 5 + 4 * len(ks)], columns as in ``reference.definitions``; NaN but for the
        number of relevant items where that is 0.

    Raises:
        ValueError: On mismatched shapes or devices, or k < 1.
        TypeError: If scores are not float32 or float64.

    Cost: O(G + R log R) per query, scores read once; extra memory O(R) per thread on the CPU and
    O(Q R) on CUDA.
    """
    _check_scores("batched_map", scores, query_class, gallery)
    _check_ks("batched_map", ks)
    out: Tensor = torch.ops.zsbir.batched_map(
        scores,
        query_class,
        gallery.of_column,
        gallery.index,
        gallery.offsets,
        gallery.columns,
        larger_is_closer,
        list(ks),
        list(definition.codes()),
    )
    return out


def relevant_items(
    scores: Tensor, query_class: Tensor, gallery: GalleryClasses, *, larger_is_closer: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The relevant items of every query, ascending by (key, gallery index).

    Returns:
        offsets int64 [Q + 1], key [nnz] of the dtype of ``scores`` (a negated score if larger is
        closer), index int32 [nnz].
    """
    _check_scores("relevant_items", scores, query_class, gallery)
    counts = (gallery.offsets[1:] - gallery.offsets[:-1])[query_class.clamp(min=0).long()]
    counts = torch.where(query_class >= 0, counts, 0)
    offsets = torch.zeros(len(counts) + 1, dtype=torch.int64, device=scores.device)
    offsets[1:] = counts.cumsum(0)
    nnz = int(offsets[-1])
    row = torch.repeat_interleave(counts, output_size=nnz)
    within = torch.arange(nnz, device=scores.device) - offsets[row]
    first = gallery.offsets[query_class.clamp(min=0).long()]
    column = gallery.columns[first[row] + within].long()
    key = scores[row, column]
    key = -key if larger_is_closer else key
    index = column.to(torch.int32) if gallery.index is None else gallery.index[column]
    # Two stable sorts: by key, then by row. Equal keys keep the order of `columns`, by index.
    order = torch.argsort(key, stable=True)
    order = order[torch.argsort(row[order], stable=True)]
    return offsets, key[order], index[order]


def rank_counts(
    scores: Tensor,
    query_class: Tensor,
    gallery: GalleryClasses,
    offsets: Tensor,
    key: Tensor,
    index: Tensor,
    *,
    larger_is_closer: bool,
) -> Tensor:
    """Non-relevant columns against every relevant item: int32 [3, nnz], see the reference.

    The relevant items may be those of a larger gallery of which ``scores`` are a shard.
    """
    _check_scores("rank_counts", scores, query_class, gallery)
    out: Tensor = torch.ops.zsbir.rank_counts(
        scores,
        query_class,
        gallery.of_column,
        gallery.index,
        offsets,
        key,
        index,
        larger_is_closer,
    )
    return out


def ranking_metrics(
    offsets: Tensor, key: Tensor, counts: Tensor, *, ks: Sequence[int], definition: Definition
) -> Tensor:
    """Per-query metrics from counts: float64 [Q, 5 + 4 * len(ks)], as :func:`batched_map`."""
    _check_ks("ranking_metrics", ks)
    out: Tensor = torch.ops.zsbir.ranking_metrics(
        offsets, key, counts, list(ks), list(definition.codes())
    )
    return out


def _check_scores(op: str, scores: Tensor, query_class: Tensor, gallery: GalleryClasses) -> None:
    if scores.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"{op}: scores must be float32 or float64, got {scores.dtype}")
    expected = (len(query_class), len(gallery.of_column))
    if tuple(scores.shape) != expected:
        raise ValueError(
            f"{op}: scores must be [Q, G] = {list(expected)}, got {list(scores.shape)}"
        )
    check_one_device(
        op,
        scores=scores,
        query_class=query_class,
        gallery_class=gallery.of_column,
        gallery_index=gallery.index,
    )


def _check_ks(op: str, ks: Sequence[int]) -> None:
    for k in ks:
        if k < 1:
            raise ValueError(f"{op}: every k of ks must be at least 1, got {k}")


# --- operators ------------------------------------------------------------------------------------

LIB.define(
    "batched_map(Tensor scores, Tensor query_class, Tensor gallery_class, Tensor? gallery_index, "
    "Tensor class_offsets, Tensor class_columns, bool larger_is_closer, int[] ks, int[] definition)"
    " -> Tensor"
)
LIB.define(
    "rank_counts(Tensor scores, Tensor query_class, Tensor gallery_class, Tensor? gallery_index, "
    "Tensor offsets, Tensor key, Tensor index, bool larger_is_closer) -> Tensor"
)
LIB.define(
    "ranking_metrics(Tensor offsets, Tensor key, Tensor counts, int[] ks, int[] definition)"
    " -> Tensor"
)


def _width(ks: Sequence[int]) -> int:
    return len(FIXED_COLUMNS) + len(COLUMNS_AT_K) * len(ks)


def _scores_struct(
    scores: Tensor,
    query_class: Tensor,
    gallery_class: Tensor,
    gallery_index: Tensor | None,
    larger_is_closer: bool,
) -> _C.Scores:
    return _C.Scores(
        data=scores.data_ptr(),
        float64=scores.dtype == torch.float64,
        queries=scores.shape[0],
        gallery=scores.shape[1],
        row_stride=scores.stride(0),
        larger_is_closer=larger_is_closer,
        query_class=query_class.data_ptr(),
        gallery_class=gallery_class.data_ptr(),
        gallery_index=address(gallery_index),
    )


def _definition_struct(definition: Sequence[int], ks: Tensor) -> _C.Definition:
    ap, normaliser, precision, ties = definition
    return _C.Definition(
        ap=ap,
        normaliser=normaliser,
        precision=precision,
        ties=ties,
        ks=ks.data_ptr(),
        n_ks=len(ks),
    )


def _with_contiguous_rows(scores: Tensor) -> Tensor:
    return scores if scores.stride(-1) == 1 or scores.shape[1] <= 1 else scores.contiguous()


def _batched_map_cpu(
    scores: Tensor,
    query_class: Tensor,
    gallery_class: Tensor,
    gallery_index: Tensor | None,
    class_offsets: Tensor,
    class_columns: Tensor,
    larger_is_closer: bool,
    ks: list[int],
    definition: list[int],
) -> Tensor:
    scores = _with_contiguous_rows(scores)
    query_class, gallery_class = query_class.contiguous(), gallery_class.contiguous()
    ks_tensor = torch.tensor(ks, dtype=torch.int64)
    out = torch.empty(len(scores), _width(ks), dtype=torch.float64)
    _C.batched_map_cpu(
        _scores_struct(scores, query_class, gallery_class, gallery_index, larger_is_closer),
        class_offsets.data_ptr(),
        class_columns.data_ptr(),
        len(class_offsets) - 1,
        _definition_struct(definition, ks_tensor),
        out.data_ptr(),
    )
    return out


def _batched_map_cuda(
    scores: Tensor,
    query_class: Tensor,
    gallery_class: Tensor,
    gallery_index: Tensor | None,
    class_offsets: Tensor,
    class_columns: Tensor,
    larger_is_closer: bool,
    ks: list[int],
    definition: list[int],
) -> Tensor:
    gallery = GalleryClasses(gallery_class, class_offsets, class_columns, gallery_index)
    offsets, key, index = relevant_items(
        scores, query_class, gallery, larger_is_closer=larger_is_closer
    )
    counts = _rank_counts_native(
        scores, query_class, gallery_class, gallery_index, offsets, key, index, larger_is_closer
    )
    return _ranking_metrics_native(offsets, key, counts, ks, definition)


def _rank_counts_native(
    scores: Tensor,
    query_class: Tensor,
    gallery_class: Tensor,
    gallery_index: Tensor | None,
    offsets: Tensor,
    key: Tensor,
    index: Tensor,
    larger_is_closer: bool,
) -> Tensor:
    scores = _with_contiguous_rows(scores)
    query_class, gallery_class = query_class.contiguous(), gallery_class.contiguous()
    offsets, key, index = offsets.contiguous(), key.contiguous(), index.contiguous()
    counts = torch.zeros(3, len(key), dtype=torch.int32, device=scores.device)
    arguments = (
        _scores_struct(scores, query_class, gallery_class, gallery_index, larger_is_closer),
        _C.Relevant(offsets=offsets.data_ptr(), key=key.data_ptr(), index=index.data_ptr()),
        counts.data_ptr(),
    )
    if scores.is_cuda:
        _C.rank_counts_cuda(*arguments, scores.get_device(), current_stream(scores.device))
    else:
        _C.rank_counts_cpu(*arguments)
    return counts


def _ranking_metrics_native(
    offsets: Tensor, key: Tensor, counts: Tensor, ks: list[int], definition: list[int]
) -> Tensor:
    offsets, key, counts = offsets.contiguous(), key.contiguous(), counts.contiguous()
    queries = len(offsets) - 1
    ks_tensor = torch.tensor(ks, dtype=torch.int64).to(key.device)
    out = torch.empty(queries, _width(ks), dtype=torch.float64, device=key.device)
    arguments = (
        key.dtype == torch.float64,
        queries,
        _C.Relevant(offsets=offsets.data_ptr(), key=key.data_ptr(), index=0),
        counts.data_ptr(),
        _definition_struct(definition, ks_tensor),
        out.data_ptr(),
    )
    if key.is_cuda:
        _C.ranking_metrics_cuda(*arguments, key.get_device(), current_stream(key.device))
    else:
        _C.ranking_metrics_cpu(*arguments)
    return out


def _batched_map_reference(
    scores: Tensor,
    query_class: Tensor,
    gallery_class: Tensor,
    gallery_index: Tensor | None,
    class_offsets: Tensor,
    class_columns: Tensor,
    larger_is_closer: bool,
    ks: list[int],
    definition: list[int],
) -> Tensor:
    return reference.batched_map(
        scores,
        query_class,
        gallery_class,
        gallery_index,
        larger_is_closer=larger_is_closer,
        ks=ks,
        definition=Definition.from_codes(definition),
    )


def _rank_counts_reference(
    scores: Tensor,
    query_class: Tensor,
    gallery_class: Tensor,
    gallery_index: Tensor | None,
    offsets: Tensor,
    key: Tensor,
    index: Tensor,
    larger_is_closer: bool,
) -> Tensor:
    return reference.rank_counts(
        scores,
        query_class,
        gallery_class,
        gallery_index,
        offsets,
        key,
        index,
        larger_is_closer=larger_is_closer,
    )


def _ranking_metrics_reference(
    offsets: Tensor, key: Tensor, counts: Tensor, ks: list[int], definition: list[int]
) -> Tensor:
    return reference.ranking_metrics(
        offsets, key, counts, ks=ks, definition=Definition.from_codes(definition)
    )


for _name, _reference, _cpu, _cuda in (
    ("batched_map", _batched_map_reference, _batched_map_cpu, _batched_map_cuda),
    ("rank_counts", _rank_counts_reference, _rank_counts_native, _rank_counts_native),
    (
        "ranking_metrics",
        _ranking_metrics_reference,
        _ranking_metrics_native,
        _ranking_metrics_native,
    ),
):
    LIB.impl(_name, notice_fallback(_name, _reference), "CompositeExplicitAutograd")
    LIB.impl(_name, _cpu, "CPU")
    if _C.built_with_cuda:
        LIB.impl(_name, _cuda, "CUDA")


@torch.library.register_fake("zsbir::batched_map", lib=LIB)
def _(
    scores: Tensor,
    query_class: Tensor,
    gallery_class: Tensor,
    gallery_index: Tensor | None,
    class_offsets: Tensor,
    class_columns: Tensor,
    larger_is_closer: bool,
    ks: list[int],
    definition: list[int],
) -> Tensor:
    return scores.new_empty(scores.shape[0], _width(ks), dtype=torch.float64)


@torch.library.register_fake("zsbir::rank_counts", lib=LIB)
def _(
    scores: Tensor,
    query_class: Tensor,
    gallery_class: Tensor,
    gallery_index: Tensor | None,
    offsets: Tensor,
    key: Tensor,
    index: Tensor,
    larger_is_closer: bool,
) -> Tensor:
    return key.new_empty(3, key.shape[0], dtype=torch.int32)


@torch.library.register_fake("zsbir::ranking_metrics", lib=LIB)
def _(
    offsets: Tensor, key: Tensor, counts: Tensor, ks: list[int], definition: list[int]
) -> Tensor:
    return key.new_empty(offsets.shape[0] - 1, _width(ks), dtype=torch.float64)
