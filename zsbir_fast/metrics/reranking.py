"""Evaluate a ranking by an object that re-ranks: what such an object must have, and its scores.

Rankers lie above the metrics (``zsbir_fast/ranking/``), so that nothing is imported from there:
any object with the members of :class:`Scores` will do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any
from typing import Protocol as Structure

import torch
from torch import Tensor

from zsbir_fast._progress import with_progress
from zsbir_fast._words import shown
from zsbir_fast.metrics.gallery import GroupedLabels
from zsbir_fast.metrics.processes import Processes
from zsbir_fast.metrics.protocols import Protocol
from zsbir_fast.metrics.result import RetrievalResult
from zsbir_fast.metrics.score_blocks import evaluate_blocks
from zsbir_fast.metrics.shards import empty_rows


class Scores(Structure):
    """What ``rerank=`` takes: :class:`zsbir_fast.ExpandedRanker`, for example.

    Attributes:
        name: its name in results.
        larger_is_closer: whether scores are similarities.
    """

    name: str
    larger_is_closer: bool

    def scorer(self, gallery: Tensor) -> Callable[[Tensor], Tensor]:
        """Make a gallery [G, D] ready, and return a function from queries [q, D] to [q, G]."""
        ...


def check_rerank(caller: str, rerank: Any, metric: str, *, excluded: bool = False) -> None:
    """Raise unless an evaluation can be re-ranked like that.

    Args:
        caller: public function, for the message.
        rerank: what was given; None is fine.
        metric: what orders the gallery without it.
        excluded: whether gallery items are left out for some queries.

    Raises:
        TypeError: it is no such object.
        ValueError: it does not go together with the other arguments.
    """
    if rerank is None:
        return
    members = ("scorer", "name", "larger_is_closer")
    if isinstance(rerank, type) or not all(hasattr(rerank, member) for member in members):
        raise TypeError(
            f"{caller}: rerank must be None or a ranker such as zsbir_fast.ExpandedRanker(), got "
            f"{shown(rerank)}"
        )
    if metric == "dot":
        raise ValueError(
            f"{caller}: metric must be cosine or euclidean with rerank, which compares directions, "
            "got 'dot'"
        )
    if excluded:
        raise ValueError(
            f"{caller}: rerank must be None where gallery items are left out (exclude_self or "
            f"ids), as they would still re-rank the others, got {rerank.name!r}"
        )


def evaluate_reranked(
    caller: str,
    rerank: Scores,
    embeddings: tuple[Tensor, Tensor],
    labels: Tensor,
    grouped: GroupedLabels,
    *,
    protocols: Sequence[Protocol],
    ks: tuple[int, ...],
    workspace: int,
    progress: bool,
) -> list[RetrievalResult]:
    """Evaluate re-ranked scores, under several protocols; all arguments are checked.

    Args:
        caller: public function, for error messages.
        rerank: gives the scores.
        embeddings: queries [Q, D] and the whole gallery [G, D].
        labels: int64 [Q].
        grouped: the labels of the gallery.
        protocols: at least one.
        ks: cut-offs.
        workspace: bytes of a block of scores.
        progress: show a progress bar.

    Returns:
        A result for each protocol, which names the ranker.

    Raises:
        ValueError: an option does not fit the gallery, or a score is not finite.
    """
    with torch.no_grad():
        results = evaluate_blocks(
            caller,
            _blocks(rerank, *embeddings, workspace, progress),
            labels,
            grouped,
            larger_is_closer=rerank.larger_is_closer,
            protocols=protocols,
            ks=ks,
        )
    return [replace(result, reranked_by=rerank.name) for result in results]


@dataclass(frozen=True)
class Held:
    """What this process holds of a gallery.

    Attributes:
        parts: [n, D] each; none is a process without a part.
        labels: int64 [n] each.
    """

    parts: Sequence[Tensor]
    labels: Sequence[Tensor]


def evaluate_held(
    caller: str,
    rerank: Scores,
    held: Held,
    queries: Tensor,
    labels: Tensor,
    processes: Processes,
    *,
    protocol: Protocol,
    ks: tuple[int, ...],
    workspace: int,
    progress: bool,
) -> RetrievalResult:
    """:func:`evaluate_reranked` of a gallery in parts, which processes may hold together.

    Every photo may change the place of every other one, so that each process gets the whole
    gallery. The queries are shared out among the processes.

    Args:
        caller: public function, for error messages.
        rerank: gives the scores.
        held: the part of this process.
        queries: [Q, D], the same in all processes.
        labels: int64 [Q], likewise.
        processes: who holds the gallery.
        protocol: definition.
        ks: cut-offs.
        workspace: bytes of a block of scores.
        progress: show a progress bar.

    Returns:
        The result, the same in all processes.
    """
    mine = None
    if held.parts:
        mine = torch.cat([part.cpu() for part in held.parts]), torch.cat(list(held.labels))
    everyone = [part for part in processes.gather(mine) if part is not None]
    gallery = torch.cat([part for part, _ in everyone]).to(queries.device)
    grouped = GroupedLabels.of(torch.cat([labels for _, labels in everyone]))
    share = torch.arange(len(queries)).tensor_split(processes.size)[processes.rank]

    def evaluate() -> Tensor:
        if len(share) == 0:
            return empty_rows(0, ks)
        (result,) = evaluate_reranked(
            caller,
            rerank,
            (queries[share.to(queries.device)], gallery),
            labels[share],
            grouped,
            protocols=[protocol],
            ks=ks,
            workspace=workspace,
            progress=progress,
        )
        return result.columns

    columns = torch.cat(processes.gather(processes.together(caller, evaluate)))
    result = RetrievalResult.of(protocol, ks, labels, len(gallery), columns)
    return replace(result, reranked_by=rerank.name)


def _blocks(
    rerank: Scores, queries: Tensor, gallery: Tensor, workspace: int, progress: bool
) -> Iterator[Tensor]:
    score = rerank.scorer(gallery)
    parts = torch.split(queries, max(1, workspace // (4 * len(gallery))))
    steps = with_progress(parts, len(parts), "evaluating", unit="blocks") if progress else parts
    for part in steps:
        yield score(part)
