"""Evaluate a retrieval in one call, from embeddings or from a matrix of scores."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from zsbir_fast._arguments import as_integer, check_choice, check_flag
from zsbir_fast._progress import with_progress
from zsbir_fast.metrics.checks import (
    as_kernel_float,
    check_finite,
    check_ks,
    check_labels,
    check_matrix,
    check_product_range,
    largest_norm,
    work_dtype,
)
from zsbir_fast.metrics.exclude import ColumnIds, check_ids, check_something_left
from zsbir_fast.metrics.gallery import GroupedLabels, PreparedGallery
from zsbir_fast.metrics.protocols import Protocol, get_protocol
from zsbir_fast.metrics.reranking import Scores, check_rerank, evaluate_reranked
from zsbir_fast.metrics.result import RetrievalResult
from zsbir_fast.metrics.scores import METRICS, Metric, larger_is_closer, query_side
from zsbir_fast.ops.batched_map import batched_map
from zsbir_fast.reference.definitions import Ties

_WORKSPACE_MIB = {
    "cpu": 40,
    "cuda": 512,
}  # one block of scores; small enough to be counted in cache


def evaluate_retrieval(
    queries: Any,
    gallery: Any,
    query_labels: Any,
    gallery_labels: Any,
    *,
    metric: Metric = "cosine",
    protocol: str | Protocol = "standard",
    ks: int | Iterable[int] = (100, 200),
    ties: Ties | None = None,
    exclude_self: bool = False,
    query_ids: Any = None,
    gallery_ids: Any = None,
    rerank: Scores | None = None,
    workspace_mib: int | None = None,
    progress: bool = False,
) -> RetrievalResult:
    """Exact ranking metrics of query embeddings against gallery embeddings, without a sort.

    Args:
        queries: [Q, D], a tensor or array of real numbers; a type narrower than float32 is
            computed in float32, float64 and wide integers in float64.
        gallery: [G, D], on the device of the queries.
        query_labels: integers, [Q].
        gallery_labels: integers, [G]; an item is relevant to a query if the labels are equal.
        metric: ``cosine``, ``euclidean`` (both rank L2-normalised embeddings alike) or ``dot``.
        protocol: a preset (``standard``, ``sake``, ``zse``, ``sem_pcyc``, ``torchmetrics``,
            ``eccv18``) or a :class:`Protocol` of your own.
        ks: cut-offs of mAP@k, Prec@k, Recall@k; beyond G the ranking ends at G, with one warning.
        ties: replaces the protocol's tie mode.
        exclude_self: the queries are the gallery, row by row, and none is compared with itself
            (leave-one-out).
        query_ids: integers, [Q]: gallery items with a query's id are neither relevant to it nor in
            its way. Together with ``gallery_ids``.
        gallery_ids: integers, [G].
        rerank: a ranker that re-ranks by what the gallery itself knows, such as
            ``zsbir_fast.ExpandedRanker()``, or any object with ``name``, ``larger_is_closer`` and
            ``scorer(gallery)``; it takes the place of ``metric``, which must not be ``dot``. The
            result says by what it was re-ranked. None: the plain ranking.
        workspace_mib: memory for one block of scores, MiB; default 40 on the CPU, 512 on a GPU.
        progress: show a progress bar.

    Returns:
        The result; ``print`` it, or see its attributes.

    Raises:
        ValueError: mismatched shapes or devices, empty or non-finite input (the row is named),
            embeddings so large that scores overflow, k < 1, an unknown metric, protocol or tie
            mode, a workspace below 1 MiB, no shared label, ids that do not fit, no relevant item
            left; ``rerank`` with ids, with ``exclude_self`` or with options that do not fit the
            gallery.
        TypeError: labels or ks that are not integers, input that is no array of numbers, or
            ``rerank`` that is no ranker.

    Cost: the product of Q x G x D, and O(G + R log R) per query for the ranks; extra memory is one
    copy of the gallery and one workspace, for any Q. With ``rerank`` also what its class says.

    Example:
        >>> import torch, zsbir_fast as zf
        >>> photos = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]])
        >>> result = zf.evaluate_retrieval(photos[:1], photos, [7], [7, 1, 7], ks=(2,))
        >>> round(result.map, 4)
        0.8333
    """
    (result,) = evaluate_under(
        "evaluate_retrieval",
        (queries, gallery, query_labels, gallery_labels),
        protocols=[get_protocol(protocol, ties=ties, caller="evaluate_retrieval")],
        metric=metric,
        ks=ks,
        excluded=(exclude_self, query_ids, gallery_ids),
        rerank=rerank,
        workspace_mib=workspace_mib,
        progress=progress,
    )
    return result


def evaluate_ranking(
    scores: Any,
    query_labels: Any,
    gallery_labels: Any,
    *,
    larger_is_closer: bool,
    protocol: str | Protocol = "standard",
    ks: int | Iterable[int] = (100, 200),
    ties: Ties | None = None,
    exclude_self: bool = False,
    query_ids: Any = None,
    gallery_ids: Any = None,
) -> RetrievalResult:
    """Exact ranking metrics of a matrix of distances or similarities, without a sort.

    Args:
        scores: [Q, G], real numbers of any sign, no NaN or infinity. Whether they are distances or
            similarities cannot be seen from them: say so by ``larger_is_closer``.
        query_labels: integers, [Q].
        gallery_labels: integers, [G].
        larger_is_closer: True for similarities, False for distances.
        protocol: as for :func:`evaluate_retrieval`.
        ks: cut-offs.
        ties: replaces the protocol's tie mode.
        exclude_self: the queries are the gallery, row by row, and none is compared with itself
            (leave-one-out).
        query_ids: integers, [Q]: gallery items with a query's id are neither relevant to it nor in
            its way. Together with ``gallery_ids``.
        gallery_ids: integers, [G].

    Returns:
        The result, bit-identical for any number of threads and for any split of the rows.

    Raises:
        ValueError: mismatched shapes, empty or non-finite input, integers beyond 2^53, k < 1, an
            unknown protocol or tie mode, no shared label, ids that do not fit, no relevant item
            left.
        TypeError: labels or ks that are not integers, or ``larger_is_closer`` that is no bool.

    Cost: O(G + R log R) per query; scores other than float32 and float64, with columns that are not
    side by side, or of which some are excluded, are copied.
    """
    caller = "evaluate_ranking"
    check_flag(caller, "larger_is_closer", larger_is_closer)
    protocol = get_protocol(protocol, ties=ties, caller=caller)
    matrix = check_matrix(caller, "scores", scores, shape="[Q, G]")
    labels = check_labels(caller, "query_labels", query_labels, len(matrix), of="scores")
    columns = check_labels(
        caller, "gallery_labels", gallery_labels, matrix.shape[1], of="the gallery (columns)"
    )
    ks = check_ks(caller, ks, matrix.shape[1], stacklevel=3)
    ids = _check_excluded(caller, (exclude_self, query_ids, gallery_ids), *matrix.shape)
    matrix = as_kernel_float(caller, "scores", matrix)
    check_finite(caller, "scores", matrix)
    grouped = GroupedLabels.of(columns)
    classes = grouped.index.classes_of(labels)
    protocol.check_relevant(caller, classes)
    if ids is not None:
        matrix = ColumnIds.of(ids[1]).exclude_(matrix.clone(), ids[0])
    rows = batched_map(
        matrix,
        classes.to(matrix.device),
        grouped.as_given(matrix.device),
        larger_is_closer=larger_is_closer,
        ks=ks,
        definition=protocol.definition(),
    )
    if ids is not None:
        check_something_left(caller, protocol, rows[:, 0].cpu())
    return RetrievalResult.of(protocol, ks, labels, matrix.shape[1], rows.cpu())


def evaluate_under(
    caller: str,
    data: tuple[Any, Any, Any, Any],
    *,
    protocols: Sequence[Protocol],
    metric: Metric,
    ks: int | Iterable[int],
    excluded: tuple[Any, Any, Any] = (False, None, None),
    rerank: Scores | None = None,
    workspace_mib: int | None = None,
    progress: bool = False,
) -> list[RetrievalResult]:
    """:func:`evaluate_retrieval` under several protocols, with one product.

    Args:
        caller: public function, for error messages; its own caller is where warnings point.
        data: queries, gallery, query labels, gallery labels.
        protocols: at least one; the others as for :func:`evaluate_retrieval`.
        metric: what orders the gallery.
        ks: cut-offs.
        excluded: exclude_self, query_ids, gallery_ids.
        rerank: what re-ranks, or None.
        workspace_mib: memory for one block of scores.
        progress: show a progress bar.

    Raises:
        ValueError, TypeError: as :func:`evaluate_retrieval`.
    """
    queries, gallery, query_labels, gallery_labels = data
    check_options(caller, metric, workspace_mib)
    g = check_matrix(caller, "gallery", gallery, shape="[G, D]")
    columns = check_labels(caller, "gallery_labels", gallery_labels, len(g), of="gallery")
    ks = check_ks(caller, ks, len(g), stacklevel=4)
    q, labels = check_queries(caller, queries, query_labels, g.shape[1])
    check_same_device(caller, q, g.device)
    ids = _check_excluded(caller, excluded, len(q), len(g))
    check_finite(caller, "gallery", g)
    dtype = work_dtype(q.dtype, g.dtype)
    if metric != "cosine":
        check_product_range(caller, metric, dtype, largest_norm(q), largest_norm(g))
    check_rerank(caller, rerank, metric, excluded=ids is not None)
    grouped = GroupedLabels.of(columns)
    for protocol in protocols:
        protocol.check_relevant(caller, grouped.index.classes_of(labels))
    if rerank is not None:
        return evaluate_reranked(
            caller,
            rerank,
            (q, g),
            labels,
            grouped,
            protocols=protocols,
            ks=ks,
            workspace=workspace_bytes(q.device, workspace_mib),
            progress=progress,
        )
    results = evaluate_prepared(
        q,
        labels,
        PreparedGallery.of_parts([g], grouped, metric, dtype),
        protocols=protocols,
        ks=ks,
        ids=None if ids is None else (ids[0], ids[1][grouped.order]),
        workspace_mib=workspace_mib,
        progress=progress,
    )
    if ids is not None:
        for protocol, result in zip(protocols, results, strict=True):
            check_something_left(caller, protocol, result.columns[:, 0])
    return results


def _check_excluded(
    caller: str, excluded: tuple[Any, Any, Any], queries: int, gallery: int
) -> tuple[Tensor, Tensor] | None:
    exclude_self, query_ids, gallery_ids = excluded
    return check_ids(
        caller, query_ids, gallery_ids, exclude_self=exclude_self, queries=queries, gallery=gallery
    )


def check_options(caller: str, metric: Any, workspace_mib: Any) -> None:
    """Raise unless the options of an evaluation are known ones."""
    check_choice(caller, "metric", metric, METRICS)
    if workspace_mib is not None:
        as_integer(caller, "workspace_mib", workspace_mib, least=1)


def check_queries(
    caller: str, queries: Any, labels: Any, width: int | None
) -> tuple[Tensor, Tensor]:
    """Finite query embeddings [Q, D] and int64 labels [Q] that fit a gallery of that width."""
    q = check_matrix(caller, "queries", queries, shape="[Q, D]")
    if width is not None and q.shape[1] != width:
        raise ValueError(
            f"{caller}: queries and gallery must have the same width D, "
            f"got {q.shape[1]} and {width}"
        )
    query_labels = check_labels(caller, "query_labels", labels, len(q), of="queries")
    check_finite(caller, "queries", q)
    return q, query_labels


def check_same_device(caller: str, queries: Tensor, device: torch.device) -> None:
    """Raise unless the queries are where the gallery is."""
    if queries.device != device:
        raise ValueError(
            f"{caller}: queries must be on {device} like the gallery, got {queries.device}"
        )


def workspace_bytes(device: torch.device, mib: int | None) -> int:
    """Memory for one block of scores."""
    return (mib or _WORKSPACE_MIB.get(device.type, 512)) * 2**20


def evaluate_prepared(
    queries: Tensor,
    query_labels: Tensor,
    gallery: PreparedGallery,
    *,
    protocols: Sequence[Protocol],
    ks: tuple[int, ...],
    ids: tuple[Tensor, Tensor] | None,
    workspace_mib: int | None,
    progress: bool,
) -> list[RetrievalResult]:
    """:func:`evaluate_under` with arguments checked and the gallery prepared.

    ``ids`` are those of the queries, and of the gallery in the order of its columns.
    """
    query_class = gallery.labels.classes_of(query_labels).to(queries.device)
    side, dtype = gallery.side, gallery.side.rows.dtype
    fitting = workspace_bytes(queries.device, workspace_mib) // (len(gallery) * dtype.itemsize)
    size = min(len(queries), max(1, fitting))
    workspace = torch.empty(size, len(gallery), dtype=dtype, device=queries.device)
    columns = None if ids is None else ColumnIds.of(ids[1])
    rows: list[list[Tensor]] = [[] for _ in protocols]
    blocks = range(0, len(queries), size)
    steps = with_progress(blocks, len(blocks), "evaluating", unit="blocks") if progress else blocks
    for start in steps:
        block = query_side(queries[start : start + size], side.metric, dtype)
        scores = side.scores(block, workspace[: len(block)])
        if ids is not None and columns is not None:
            columns.exclude_(scores, ids[0][start : start + size])
        for protocol, out in zip(protocols, rows, strict=True):
            out.append(
                batched_map(
                    scores,
                    query_class[start : start + size],
                    gallery.classes,
                    larger_is_closer=larger_is_closer(side.metric),
                    ks=ks,
                    definition=protocol.definition(),
                )
            )
    return [
        RetrievalResult.of(protocol, ks, query_labels, len(gallery), torch.cat(out).cpu())
        for protocol, out in zip(protocols, rows, strict=True)
    ]
