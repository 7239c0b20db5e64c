"""Evaluate a ranking whose scores come block by block, so that they are never all in memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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
from zsbir_fast.metrics.gallery import GroupedLabels
from zsbir_fast.metrics.protocols import Protocol, get_protocol
from zsbir_fast.metrics.result import RetrievalResult
from zsbir_fast.ops.batched_map import batched_map


def evaluate_score_blocks(
    caller: str,
    blocks: Iterable[Tensor],
    query_labels: Any,
    gallery_labels: Any,
    *,
    larger_is_closer: bool,
    protocol: str | Protocol = "standard",
    ks: int | Iterable[int] = (100, 200),
) -> RetrievalResult:
    """:func:`zsbir_fast.evaluate_ranking` of a matrix [Q, G] that is given as blocks of its rows.

    Args:
        caller: public function, for error messages.
        blocks: rows of scores, [q, G] each, in the order of the queries; drawn one by one.
        query_labels: integers, [Q].
        gallery_labels: integers, [G].
        larger_is_closer: True for similarities, False for distances.
        protocol: as for :func:`zsbir_fast.evaluate_retrieval`.
        ks: cut-offs.

    Returns:
        The result; its bits do not depend on the blocks.

    Raises:
        ValueError: the blocks are not Q rows of G finite scores; else as ``evaluate_ranking``.
        TypeError: as ``evaluate_ranking``.
    """
    protocol = get_protocol(protocol, ties=None, caller=caller)
    columns = check_labels(
        caller, "gallery_labels", gallery_labels, len(gallery_labels), of="gallery"
    )
    labels = check_labels(caller, "query_labels", query_labels, len(query_labels), of="queries")
    ks = check_ks(caller, ks, len(columns), stacklevel=4)
    grouped = GroupedLabels.of(columns)
    protocol.check_relevant(caller, grouped.index.classes_of(labels))
    (result,) = evaluate_blocks(
        caller,
        blocks,
        labels,
        grouped,
        larger_is_closer=larger_is_closer,
        protocols=[protocol],
        ks=ks,
    )
    return result


def evaluate_blocks(
    caller: str,
    blocks: Iterable[Tensor],
    labels: Tensor,
    grouped: GroupedLabels,
    *,
    larger_is_closer: bool,
    protocols: Sequence[Protocol],
    ks: tuple[int, ...],
) -> list[RetrievalResult]:
    """:func:`evaluate_score_blocks` under several protocols, with labels and cut-offs checked.

    Args:
        caller: public function, for error messages.
        blocks: rows of scores, [q, G] each, in the order of the queries; drawn one by one.
        labels: int64 [Q].
        grouped: the labels of the gallery.
        larger_is_closer: True for similarities, False for distances.
        protocols: at least one.
        ks: cut-offs.

    Returns:
        A result for each protocol.

    Raises:
        ValueError: the blocks are not Q rows of G finite scores.
    """
    gallery = len(grouped.order)
    classes = grouped.index.classes_of(labels)
    rows: list[list[Tensor]] = [[] for _ in protocols]
    done = 0
    for block in blocks:
        scores = as_kernel_float(
            caller, "scores", check_matrix(caller, "scores", block, shape="[Q, G]")
        )
        if scores.shape[1] != gallery or done + len(scores) > len(labels):
            raise ValueError(
                f"{caller}: scores must be [{len(labels)}, {gallery}] in all, got "
                f"{list(scores.shape)} after {done} rows"
            )
        check_finite(caller, "scores", scores)
        for protocol, out in zip(protocols, rows, strict=True):
            out.append(
                batched_map(
                    scores,
                    classes[done : done + len(scores)].to(scores.device),
                    grouped.as_given(scores.device),
                    larger_is_closer=larger_is_closer,
                    ks=ks,
                    definition=protocol.definition(),
                ).cpu()
            )
        done += len(scores)
    if done != len(labels):
        raise ValueError(f"{caller}: scores must have {len(labels)} rows in all, got {done}")
    return [
        RetrievalResult.of(protocol, ks, labels, gallery, torch.cat(out))
        for protocol, out in zip(protocols, rows, strict=True)
    ]
