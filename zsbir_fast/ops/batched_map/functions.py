"""Exact ranking metrics without sorting the gallery: the operators behind ``zsbir_fast.metrics``.

``batched_map`` evaluates a matrix of scores; ``relevant_items``, ``rank_counts`` and
``ranking_metrics`` are its three steps, apart, for galleries that come in shards: gather and sort
the relevant keys of each query, count the other items against them, turn the counts into metrics.
The counts of disjoint shards add up.

None of them is differentiable. All are deterministic: integer counts, sums in rank order.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from zsbir_fast.ops.batched_map import operators  # noqa: F401  # registers them
from zsbir_fast.ops.batched_map.inputs import GalleryClasses, check_ks, check_scores
from zsbir_fast.reference.definitions import Definition


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
            exclude by it, and refuse NaN in the scores of users).
        query_class: int32, [Q], a class number of the gallery, -1 if none is relevant.
        gallery: the classes of the columns.
        larger_is_closer: whether scores are similarities.
        ks: cut-offs, each at least 1.
        definition: definition of the metrics.

    Returns:
        float64 [Q, 7 + 4 * len(ks)], columns as in ``reference.definitions``; NaN but for the
        number of relevant items where that is 0.

    Raises:
        ValueError: mismatched shapes or devices, class numbers or columns out of range, k < 1.
        TypeError: scores are not float32 or float64, or the others not of the type they must be.

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
        scores: as for :func:`batched_map`.
        query_class: int32, [Q].
        gallery: the classes of the columns.
        offsets: int64, [Q + 1], as from :func:`relevant_items`. The relevant items may be those of
            a larger gallery of which ``scores`` are a shard.
        key: [nnz], ascending within each query, of the dtype of ``scores``.
        index: int32, [nnz].
        larger_is_closer: whether scores are similarities (``key`` is negated already).
        out: int32, [3, nnz]: where the counts are added; None: to zeros.

    Returns:
        int32 [3, nnz]: columns strictly closer; tied; tied with a smaller gallery index.

    Raises:
        ValueError, TypeError: as :func:`batched_map`.
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
        ks: cut-offs, each at least 1.
        definition: definition of the metrics.

    Returns:
        float64 [Q, 7 + 4 * len(ks)], as :func:`batched_map`.

    Raises:
        ValueError, TypeError: as :func:`batched_map`.
    """
    check_ks("ranking_metrics", ks)
    out: Tensor = torch.ops.zsbir.ranking_metrics(
        offsets, key, counts, list(ks), list(definition.codes())
    )
    return out
