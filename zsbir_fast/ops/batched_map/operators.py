"""The operators of the ranking metrics: schema, kernels, reference and fake tensors."""

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
    cut_offs,
    definition_struct,
)
from zsbir_fast.ops.batched_map.relevant import relevant_items
from zsbir_fast.reference import batched_map as reference
from zsbir_fast.reference.definitions import COLUMNS_AT_K, FIXED_COLUMNS, Definition

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
