"""Exact ranking metrics without sorting the gallery: the operators behind ``zsbir_fast.metrics``.

``batched_map`` evaluates a matrix of scores; ``relevant_items``, ``rank_counts`` and
``ranking_metrics`` are its three steps, apart, for galleries that come in shards: gather and sort
the relevant keys of each query, count the other items against them, turn the counts into metrics.
The counts of disjoint shards add up.

None of them is differentiable. All are deterministic: integer counts, sums in rank order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from zsbir_fast import _C
from zsbir_fast.ops._checks import as_kernel_input, check_one_device
from zsbir_fast.ops._library import LIB, current_stream, register
from zsbir_fast.ops.batched_map.inputs import (
    GalleryClasses,
    RelevantInput,
    ScoresInput,
    check_counts,
    check_definition,
    check_ks,
    check_offsets,
    check_range,
    check_scores,
    cut_offs,
    definition_struct,
)
from zsbir_fast.reference import batched_map as reference
from zsbir_fast.reference.definitions import COLUMNS_AT_K, FIXED_COLUMNS, Definition


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
        scores: float32 or float64, [Q, G]; copied unless columns are contiguous. A column whose
            score is NaN takes no part in that query's ranking (callers in ``zsbir_fast.metrics``
            exclude by it, and refuse NaN in what users give).
        query_class: int32, [Q], a class number of the gallery, -1 if none is relevant.
        gallery: The classes of the columns.
        larger_is_closer: Whether scores are similarities.
        ks: Cut-offs, each at least 1.
        definition: What the metrics mean.

    Returns:
        float64 [Q, 5 + 4 * len(ks)], columns as in ``reference.definitions``; NaN but for the
        number of relevant items where that is 0.

    Raises:
        ValueError: On mismatched shapes or devices, class numbers or columns out of range, k < 1.
        TypeError: If scores are not float32 or float64, or the others not of the type they must be.

    Cost: O(G + R log R) per query, scores read once; extra memory O(R) per thread on the CPU and
    O(Q R) on CUDA.
    """
    check_scores("batched_map", scores, query_class, gallery)
    check_ks("batched_map", ks)
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
    check_scores("relevant_items", scores, query_class, gallery)
    counts = (gallery.offsets[1:] - gallery.offsets[:-1])[query_class.clamp(min=0).long()]
    counts = torch.where(query_class >= 0, counts, 0)
    # Rows padded to the longest, so that one batched sort does: NaN, for padding and for what takes
    # no part, comes last in a row, and equal keys keep the order of `columns`, which is that of the
    # gallery index.
    slot = torch.arange(int(counts.max()) if len(counts) else 0, device=scores.device)
    own = slot < counts[:, None]
    first = gallery.offsets[query_class.clamp(min=0).long()]
    column = gallery.columns[torch.where(own, first[:, None] + slot, 0)].long()
    key = scores.gather(1, column)
    key = torch.where(own, -key if larger_is_closer else key, torch.nan)
    key, order = torch.sort(key, dim=1, stable=True)
    real = ~torch.isnan(key)
    offsets = torch.zeros(len(counts) + 1, dtype=torch.int64, device=scores.device)
    offsets[1:] = real.sum(1).cumsum(0)
    column = column.gather(1, order)[real]
    index = column.to(torch.int32) if gallery.index is None else gallery.index[column]
    return offsets, key[real], index


def rank_counts(
    scores: Tensor,
    query_class: Tensor,
    gallery: GalleryClasses,
    offsets: Tensor,
    key: Tensor,
    index: Tensor,
    *,
    larger_is_closer: bool,
    out: Tensor | None = None,
) -> Tensor:
    """Non-relevant columns against every relevant item of their query.

    Args:
        scores: As for :func:`batched_map`.
        query_class: int32, [Q].
        gallery: The classes of the columns.
        offsets: int64, [Q + 1], as from :func:`relevant_items`. The relevant items may be those of
            a larger gallery of which ``scores`` are a shard.
        key: [nnz], ascending within each query, of the dtype of ``scores``.
        index: int32, [nnz].
        larger_is_closer: Whether scores are similarities (``key`` is negated already).
        out: int32, [3, nnz]: where the counts are added; None: to zeros.

    Returns:
        int32 [3, nnz]: columns strictly closer; tied; tied with a smaller gallery index.

    Raises:
        ValueError, TypeError: As :func:`batched_map`.
    """
    check_scores("rank_counts", scores, query_class, gallery)
    counts = torch.zeros(3, len(key), dtype=torch.int32, device=key.device) if out is None else out
    torch.ops.zsbir.rank_counts(
        counts,
        scores,
        query_class,
        gallery.of_column,
        gallery.index,
        offsets,
        key,
        index,
        larger_is_closer,
    )
    return counts


def ranking_metrics(
    offsets: Tensor, key: Tensor, counts: Tensor, *, ks: Sequence[int], definition: Definition
) -> Tensor:
    """Per-query metrics from the counts of :func:`rank_counts`.

    Args:
        offsets: int64, [Q + 1].
        key: float32 or float64, [nnz].
        counts: int32, [3, nnz], of the whole gallery.
        ks: Cut-offs, each at least 1.
        definition: What the metrics mean.

    Returns:
        float64 [Q, 5 + 4 * len(ks)], as :func:`batched_map`.

    Raises:
        ValueError, TypeError: As :func:`batched_map`.
    """
    check_ks("ranking_metrics", ks)
    out: Tensor = torch.ops.zsbir.ranking_metrics(
        offsets, key, counts, list(ks), list(definition.codes())
    )
    return out


# --- operators ------------------------------------------------------------------------------------

LIB.define(
    "batched_map(Tensor scores, Tensor query_class, Tensor gallery_class, Tensor? gallery_index, "
    "Tensor class_offsets, Tensor class_columns, bool larger_is_closer, int[] ks, int[] definition)"
    " -> Tensor"
)
LIB.define(
    "rank_counts(Tensor(a!) counts, Tensor scores, Tensor query_class, Tensor gallery_class, "
    "Tensor? gallery_index, Tensor offsets, Tensor key, Tensor index, bool larger_is_closer) -> ()"
)
LIB.define(
    "ranking_metrics(Tensor offsets, Tensor key, Tensor counts, int[] ks, int[] definition)"
    " -> Tensor"
)


def _width(ks: Sequence[int]) -> int:
    return len(FIXED_COLUMNS) + len(COLUMNS_AT_K) * len(ks)


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
    op = "batched_map"
    check_ks(op, ks)
    check_definition(op, definition)
    given = ScoresInput(op, scores, query_class, gallery_class, gallery_index, larger_is_closer)
    columns = scores.shape[1]
    class_columns = as_kernel_input(op, "class_columns", class_columns, torch.int32, (columns,))
    class_offsets = as_kernel_input(
        op, "class_offsets", class_offsets, torch.int64, (max(1, class_offsets.numel()),)
    )
    classes = len(class_offsets) - 1
    check_offsets(op, "class_offsets", class_offsets, columns)
    check_range(op, "class_columns", class_columns, 0, columns - 1)
    check_range(op, "query_class", query_class, -1, classes - 1)
    ks_tensor = cut_offs(ks, scores.device)
    out = torch.empty(len(scores), _width(ks), dtype=torch.float64, device="cpu")
    _C.batched_map_cpu(
        given.struct,
        class_offsets.data_ptr(),
        class_columns.data_ptr(),
        classes,
        definition_struct(definition, ks_tensor),
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
    check_ks("batched_map", ks)
    check_definition("batched_map", definition)
    gallery = GalleryClasses(gallery_class, class_offsets, class_columns, gallery_index)
    offsets, key, index = relevant_items(
        scores, query_class, gallery, larger_is_closer=larger_is_closer
    )
    counts = torch.zeros(3, len(key), dtype=torch.int32, device=key.device)
    _rank_counts_native(
        counts,
        scores,
        query_class,
        gallery_class,
        gallery_index,
        offsets,
        key,
        index,
        larger_is_closer,
    )
    return _ranking_metrics_native(offsets, key, counts, ks, definition)


def _rank_counts_native(
    counts: Tensor,
    scores: Tensor,
    query_class: Tensor,
    gallery_class: Tensor,
    gallery_index: Tensor | None,
    offsets: Tensor,
    key: Tensor,
    index: Tensor,
    larger_is_closer: bool,
) -> None:
    op = "rank_counts"
    given = ScoresInput(op, scores, query_class, gallery_class, gallery_index, larger_is_closer)
    relevant = RelevantInput(op, offsets, key, index)
    if len(offsets) != len(scores) + 1:
        raise ValueError(f"{op}: offsets must be [{len(scores) + 1}], got {list(offsets.shape)}")
    if key.dtype != scores.dtype:
        raise TypeError(f"{op}: key must be {scores.dtype} like scores, got {key.dtype}")
    if as_kernel_input(op, "counts", counts, torch.int32, (3, len(key))) is not counts:
        raise ValueError(f"{op}: counts must be contiguous, got strides {list(counts.stride())}")
    arguments = (given.struct, relevant.struct, counts.data_ptr())
    if scores.is_cuda:
        _C.rank_counts_cuda(*arguments, scores.get_device(), current_stream(scores.device))
    else:
        _C.rank_counts_cpu(*arguments)


def _ranking_metrics_native(
    offsets: Tensor, key: Tensor, counts: Tensor, ks: list[int], definition: list[int]
) -> Tensor:
    op = "ranking_metrics"
    check_ks(op, ks)
    check_definition(op, definition)
    relevant = RelevantInput(op, offsets, key, None)
    counts = as_kernel_input(op, "counts", counts, torch.int32, (3, len(key)))
    if not counts.is_cuda:  # on a GPU the look would wait for it
        check_counts(op, counts)
    queries = len(offsets) - 1
    ks_tensor = cut_offs(ks, key.device)
    out = torch.empty(queries, _width(ks), dtype=torch.float64, device=key.device)
    arguments = (
        key.dtype == torch.float64,
        queries,
        relevant.struct,
        counts.data_ptr(),
        definition_struct(definition, ks_tensor),
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
    counts: Tensor,
    scores: Tensor,
    query_class: Tensor,
    gallery_class: Tensor,
    gallery_index: Tensor | None,
    offsets: Tensor,
    key: Tensor,
    index: Tensor,
    larger_is_closer: bool,
) -> None:
    counts += reference.rank_counts(
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


def _batched_map_native(scores: Tensor, *rest: Any) -> Tensor:
    return (_batched_map_cuda if scores.is_cuda else _batched_map_cpu)(scores, *rest)


def _batched_map_fake(scores: Tensor, *rest: Any) -> Tensor:
    query_class, gallery_class, gallery_index, class_offsets, class_columns, _, ks, _ = rest
    check_ks("batched_map", ks)
    check_one_device(
        "batched_map",
        scores=scores,
        query_class=query_class,
        gallery_class=gallery_class,
        gallery_index=gallery_index,
        class_offsets=class_offsets,
        class_columns=class_columns,
    )
    return scores.new_empty(scores.shape[0], _width(ks), dtype=torch.float64)


def _rank_counts_fake(counts: Tensor, scores: Tensor, *rest: Any) -> None:
    names = ("query_class", "gallery_class", "gallery_index", "offsets", "key", "index")
    others = dict(zip(names, rest[:-1], strict=True))
    check_one_device("rank_counts", scores=scores, counts=counts, **others)


def _ranking_metrics_fake(
    offsets: Tensor, key: Tensor, counts: Tensor, ks: list[int], definition: list[int]
) -> Tensor:
    del definition
    check_ks("ranking_metrics", ks)
    check_one_device("ranking_metrics", key=key, offsets=offsets, counts=counts)
    return key.new_empty(offsets.shape[0] - 1, _width(ks), dtype=torch.float64)


register("batched_map", _batched_map_native, _batched_map_fake, _batched_map_reference)
register("rank_counts", _rank_counts_native, _rank_counts_fake, _rank_counts_reference)
register(
    "ranking_metrics", _ranking_metrics_native, _ranking_metrics_fake, _ranking_metrics_reference
)
