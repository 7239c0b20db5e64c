"""Evaluate a retrieval in one call, from embeddings or from a matrix of scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from zsbir_fast.metrics.checks import (
    as_kernel_float,
    check_finite,
    check_ks,
    check_labels,
    check_matrix,
)
from zsbir_fast.metrics.gallery import (
    LabelIndex,
    Metric,
    PreparedGallery,
    check_metric,
    larger_is_closer,
    query_side,
)
from zsbir_fast.metrics.protocols import Protocol, get_protocol
from zsbir_fast.metrics.result import RetrievalResult
from zsbir_fast.ops.batched_map import GalleryClasses, batched_map
from zsbir_fast.ops.product import Precision, matmul_into
from zsbir_fast.reference.definitions import Ties

_WORKSPACE_MIB = {"cpu": 40, "cuda": 512}  # one block of scores; small enough to be counted in cache


def evaluate_retrieval(
    queries: Any,
    gallery: Any,
    query_labels: Any,
    gallery_labels: Any,
    *,
    metric: Metric = "cosine",
    protocol: str | Protocol = "standard",
    ks: Sequence[int] = (100, 200),
    ties: Ties | None = None,
    precision: Precision = "float32",
    workspace_mib: int | None = None,
    progress: bool = False,
) -> RetrievalResult:
    """Exact ranking metrics of query embeddings against gallery embeddings, without a sort.

    Args:
        queries: [Q, D], floating tensor or array; half precision is computed in float32.
        gallery: [G, D].
        query_labels: Integers, [Q].
        gallery_labels: Integers, [G]; an item is relevant to a query if the labels are equal.
        metric: ``cosine``, ``euclidean`` (both rank L2-normalised embeddings alike) or ``dot``.
        protocol: A preset (``standard``, ``sake``, ``zse``, ``sem_pcyc``, ``torchmetrics``,
            ``eccv18``) or a :class:`Protocol` of your own.
        ks: Cut-offs of mAP@k, Prec@k, Recall@k; beyond G the ranking ends at G, with one warning.
        ties: Replaces the protocol's tie mode.
        precision: Of the product; see ``docs/metrics.md``.
        workspace_mib: Memory for one block of scores, MiB; default 40 on the CPU, 512 on a GPU.
        progress: Show a progress bar.

    Returns:
        The result; ``print`` it, or see its attributes.

    Raises:
        ValueError: On mismatched shapes or devices, empty or non-finite input (the row is named),
            k < 1, an unknown metric or protocol, no shared label.
        TypeError: On labels that are not integers, or input that is no array of numbers.

    Cost: the product of Q x G x D, and O(G + R log R) per query for the ranks; extra memory is the
    prepared gallery and one workspace, whatever Q is.

    Example:
        >>> import torch, zsbir_fast as zf
        >>> photos = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]])
        >>> result = zf.evaluate_retrieval(photos[:1], photos, [7], [7, 1, 7], ks=(2,))
        >>> round(result.map, 4)
        0.8333
    """
    caller = "evaluate_retrieval"
    protocol = get_protocol(protocol, ties=ties)
    check_metric(caller, metric)
    g = check_gallery(caller, gallery)
    prepared_labels = check_labels(caller, "gallery_labels", gallery_labels, len(g), of="gallery")
    ks = check_ks(caller, ks, len(g))
    q, labels = check_queries(caller, queries, query_labels, g)
    g, q = common_dtype(g, q)
    prepared = PreparedGallery.of(g, prepared_labels, metric)
    return evaluate_prepared(
        q,
        labels,
        prepared,
        protocol=protocol,
        ks=ks,
        precision=precision,
        workspace_mib=workspace_mib,
        progress=progress,
    )


def evaluate_ranking(
    scores: Any,
    query_labels: Any,
    gallery_labels: Any,
    *,
    larger_is_closer: bool,
    protocol: str | Protocol = "standard",
    ks: Sequence[int] = (100, 200),
    ties: Ties | None = None,
) -> RetrievalResult:
    """Exact ranking metrics of a matrix of distances or similarities, without a sort.

    Args:
        scores: [Q, G], floating or integer; any sign, no NaN or infinity.
        query_labels: Integers, [Q].
        gallery_labels: Integers, [G].
        larger_is_closer: True for similarities, False for distances.
        protocol: As for :func:`evaluate_retrieval`.
        ks: Cut-offs.
        ties: Replaces the protocol's tie mode.

    Returns:
        The result, bit-identical whatever the number of threads, and for any split of the rows.

    Raises:
        ValueError: On mismatched shapes, empty or non-finite input, k < 1, an unknown protocol, no
            shared label.
        TypeError: On labels that are not integers, or a missing ``larger_is_closer``.

    Cost: O(G + R log R) per query; half and integer scores are copied to a wider type.
    """
    caller = "evaluate_ranking"
    if not isinstance(larger_is_closer, bool):
        raise TypeError(f"{caller}: larger_is_closer must be True or False, got {larger_is_closer!r}")
    protocol = get_protocol(protocol, ties=ties)
    matrix = check_matrix(caller, "scores", scores, shape="[Q, G]")
    labels = check_labels(caller, "query_labels", query_labels, len(matrix), of="scores")
    columns = check_labels(
        caller, "gallery_labels", gallery_labels, matrix.shape[1], of="the gallery (columns)"
    )
    ks = check_ks(caller, ks, matrix.shape[1])
    check_finite(caller, "scores", matrix)
    index = LabelIndex.of(columns)
    rows = batched_map(
        as_kernel_float(caller, "scores", matrix),
        index.classes_of(labels).to(matrix.device),
        GalleryClasses.of(index.classes_of(columns).to(matrix.device), len(index.labels)),
        larger_is_closer=larger_is_closer,
        ks=ks,
        definition=protocol.definition(),
    )
    return RetrievalResult(protocol, ks, labels, matrix.shape[1], rows.cpu())


def check_gallery(caller: str, gallery: Any) -> Tensor:
    """Gallery embeddings [G, D] as a finite float32 or float64 tensor."""
    g = check_matrix(caller, "gallery", gallery, shape="[G, D]")
    check_finite(caller, "gallery", g)
    return as_kernel_float(caller, "gallery", g)


def check_queries(caller: str, queries: Any, labels: Any, gallery: Tensor) -> tuple[Tensor, Tensor]:
    """Query embeddings [Q, D] and labels that fit the gallery."""
    q = check_matrix(caller, "queries", queries, shape="[Q, D]")
    if q.shape[1] != gallery.shape[1]:
        raise ValueError(
            f"{caller}: queries and gallery must have the same width D, "
            f"got {q.shape[1]} and {gallery.shape[1]}"
        )
    if q.device != gallery.device:
        raise ValueError(
            f"{caller}: queries must be on {gallery.device} like the gallery, got {q.device}"
        )
    query_labels = check_labels(caller, "query_labels", labels, len(q), of="queries")
    check_finite(caller, "queries", q)
    return as_kernel_float(caller, "queries", q), query_labels


def common_dtype(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Both in the wider of their types."""
    dtype = torch.promote_types(a.dtype, b.dtype)
    return a.to(dtype), b.to(dtype)


def workspace_rows(gallery: int, device: torch.device, dtype: torch.dtype, mib: int | None) -> int:
    """How many rows of scores fit in the workspace; at least one."""
    if mib is None:
        mib = _WORKSPACE_MIB.get(device.type, 512)
    if mib < 1:
        raise ValueError(f"workspace_mib must be at least 1, got {mib}")
    return max(1, mib * 2**20 // (gallery * dtype.itemsize))


def evaluate_prepared(
    queries: Tensor,
    query_labels: Tensor,
    gallery: PreparedGallery,
    *,
    protocol: Protocol,
    ks: tuple[int, ...],
    precision: Precision,
    workspace_mib: int | None,
    progress: bool,
) -> RetrievalResult:
    """:func:`evaluate_retrieval` with arguments checked and the gallery prepared."""
    query_class = gallery.labels.classes_of(query_labels).to(queries.device)
    size = min(
        len(queries), workspace_rows(len(gallery), queries.device, queries.dtype, workspace_mib)
    )
    workspace = queries.new_empty(size, len(gallery))
    rows = []
    for start in progress_over(range(0, len(queries), size), progress, "evaluate"):
        block = query_side(queries[start : start + size], gallery.metric)
        scores = workspace[: len(block)]
        matmul_into(scores, block, gallery.transposed, precision=precision)
        rows.append(
            batched_map(
                scores,
                query_class[start : start + size],
                gallery.classes,
                larger_is_closer=larger_is_closer(gallery.metric),
                ks=ks,
                definition=protocol.definition(),
            )
        )
    return RetrievalResult(protocol, ks, query_labels, len(gallery), torch.cat(rows).cpu())


def progress_over(blocks: range, show: bool, what: str) -> Any:
    """The blocks, behind a progress bar if asked and if there is more than one."""
    if not show or len(blocks) < 2:
        return blocks
    from tqdm.auto import tqdm

    return tqdm(blocks, desc=what, unit="block", leave=False)
