"""Rankers order a gallery for queries: by a metric of embeddings, or by scores of a method."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from zsbir_fast._arguments import check_choice
from zsbir_fast._progress import with_progress
from zsbir_fast.metrics.checks import check_finite, work_dtype
from zsbir_fast.metrics.evaluate import evaluate_retrieval
from zsbir_fast.metrics.protocols import Protocol
from zsbir_fast.metrics.result import RetrievalResult
from zsbir_fast.metrics.score_blocks import evaluate_score_blocks
from zsbir_fast.metrics.scores import METRICS, GallerySide, Metric, larger_is_closer, query_side
from zsbir_fast.ops.row_products import row_squares

_BLOCK_BYTES = 40 << 20
"""One block of scores; small enough to stay near the cache."""


Scorer = Callable[[Tensor], Tensor]


class Neighbours(NamedTuple):
    """The photos nearest to each query, nearest first; of equals the first in the gallery.

    Attributes:
        rows: int64 [Q, k], rows of the gallery.
        scores: float [Q, k], as the ranker gives them.
    """

    rows: Tensor
    scores: Tensor


class Ranker(ABC):
    """Ranks a gallery [G, D] for queries [Q, D].

    A ranker makes a gallery ready and gives the scores of a few queries; evaluation and search
    follow from it, in blocks of queries, so that no matrix of all scores is ever made.

    Attributes:
        name: its name in tables and reports.
        larger_is_closer: whether scores are similarities.
    """

    name: str
    larger_is_closer: bool

    @abstractmethod
    def scorer(self, gallery: Tensor) -> Scorer:
        """Make a gallery ready, once for all queries.

        Args:
            gallery: [G, D].

        Returns:
            A function from a block of queries [q, D] to their scores, float [q, G].
        """

    def evaluate(
        self,
        queries: Tensor,
        gallery: Tensor,
        query_labels: Any,
        gallery_labels: Any,
        *,
        protocol: str | Protocol = "standard",
        ks: int | Iterable[int] = (100, 200),
        progress: bool = False,
    ) -> RetrievalResult:
        """Evaluate this ranking exactly.

        Args:
            queries: [Q, D].
            gallery: [G, D].
            query_labels: integers [Q].
            gallery_labels: integers [G].
            protocol: as for :func:`zsbir_fast.evaluate_retrieval`.
            ks: cut-offs.
            progress: show progress.

        Returns:
            The result.

        Raises:
            ValueError, TypeError: as :func:`zsbir_fast.evaluate_ranking`.
        """
        return evaluate_score_blocks(
            f"{type(self).__name__}.evaluate",
            self._blocks(queries, gallery, progress=progress),
            query_labels,
            gallery_labels,
            larger_is_closer=self.larger_is_closer,
            protocol=protocol,
            ks=ks,
        )

    def search(self, queries: Tensor, gallery: Tensor, k: int) -> Neighbours:
        """Find the ``k`` photos nearest to each query.

        Args:
            queries: [Q, D].
            gallery: [G, D].
            k: photos per query; beyond G all of them.

        Returns:
            Rows and scores [Q, min(k, G)].

        Raises:
            ValueError: ``k`` is less than 1, or a score is not finite.

        Cost: O(G log G) per query beside the scores.
        """
        if k < 1:
            raise ValueError(f"{type(self).__name__}.search: k must be at least 1, got {k}")
        found = []
        for block in self._blocks(queries, gallery):
            check_finite(f"{type(self).__name__}.search", "scores", block)
            found.append(torch.sort(block, dim=1, descending=self.larger_is_closer, stable=True))
        rows = [order.indices[:, :k] for order in found] or [torch.empty(0, 0, dtype=torch.int64)]
        scores = [order.values[:, :k] for order in found] or [torch.empty(0, 0)]
        return Neighbours(torch.cat(rows), torch.cat(scores))

    def _blocks(
        self, queries: Tensor, gallery: Tensor, *, progress: bool = False
    ) -> Iterator[Tensor]:
        parts = torch.split(queries, max(1, _BLOCK_BYTES // max(1, 4 * len(gallery))))
        score = self.scorer(gallery)
        for part in (
            with_progress(parts, len(parts), "ranking", unit="blocks") if progress else parts
        ):
            yield score(part)


def cosines_of(side: GallerySide, queries: Tensor, out: Tensor) -> Tensor:
    """Give cosines, where the scores of a gallery have the length of the query in them.

    Args:
        side: the gallery under ``"cosine"``.
        queries: [q, D], from ``query_side``.
        out: [q, G]; overwritten.

    Returns:
        ``out``.
    """
    found = side.scores(queries, out)
    found /= torch.linalg.vector_norm(queries, dim=1, keepdim=True).clamp_min(1e-30)
    return found


class EmbeddingRanker(Ranker):
    """Ranks by the distance of embeddings: the usual way, and the fastest.

    Args:
        metric: ``"cosine"``, ``"euclidean"`` or ``"dot"``.

    Raises:
        ValueError: another metric.
    """

    def __init__(self, metric: Metric = "cosine") -> None:
        check_choice("EmbeddingRanker", "metric", metric, METRICS)
        self.metric = metric
        self.name = metric
        self.larger_is_closer = larger_is_closer(metric)

    def __repr__(self) -> str:
        """Show the metric."""
        return f"EmbeddingRanker({self.metric!r})"

    def scorer(self, gallery: Tensor) -> Scorer:
        """Give cosines, Euclidean distances or dot products [q, G]."""
        dtype = work_dtype(gallery.dtype)
        side = GallerySide.of(gallery, self.metric, dtype)

        def score(queries: Tensor) -> Tensor:
            rows = query_side(queries, self.metric, dtype)
            out = rows.new_empty(len(rows), len(gallery))
            if self.metric == "cosine":
                return cosines_of(side, rows, out)
            found = side.scores(rows, out)
            if self.metric == "euclidean":  # until here the square of that length is missing
                found += row_squares(rows)[:, None].to(dtype)
                found.clamp_min_(0).sqrt_()
            return found

        return score

    def evaluate(
        self,
        queries: Tensor,
        gallery: Tensor,
        query_labels: Any,
        gallery_labels: Any,
        *,
        protocol: str | Protocol = "standard",
        ks: int | Iterable[int] = (100, 200),
        progress: bool = False,
    ) -> RetrievalResult:
        """Evaluate by :func:`zsbir_fast.evaluate_retrieval`, which prepares the gallery once."""
        return evaluate_retrieval(
            queries,
            gallery,
            query_labels,
            gallery_labels,
            metric=self.metric,
            protocol=protocol,
            ks=ks,
            progress=progress,
        )


class ScoreRanker(Ranker):
    """Ranks by scores that a method computes, such as those of a relation network.

    Args:
        score: ``(queries [q, D], gallery [G, D]) -> float [q, G]``; called block by block, without
            gradients, with embeddings where they are, which is the CPU in runs and reports.
        name: its name in tables and reports.
        larger_is_closer: whether scores are similarities.
    """

    def __init__(
        self,
        score: Callable[[Tensor, Tensor], Tensor],
        *,
        name: str,
        larger_is_closer: bool = True,
    ) -> None:
        self.score = score
        self.name = name
        self.larger_is_closer = larger_is_closer

    def __repr__(self) -> str:
        """Show the name."""
        return f"ScoreRanker({self.name!r}, larger_is_closer={self.larger_is_closer})"

    def scorer(self, gallery: Tensor) -> Scorer:
        """Give the method's scores [q, G].

        Raises:
            ValueError: the method gave no tensor, or one of another shape.
        """

        def score(queries: Tensor) -> Tensor:
            with torch.no_grad():
                found = self.score(queries, gallery)
            expected = [len(queries), len(gallery)]
            if not isinstance(found, Tensor) or list(found.shape) != expected:
                got = (
                    list(found.shape) if isinstance(found, Tensor) else f"a {type(found).__name__}"
                )
                raise ValueError(
                    f"ScoreRanker: score must give a tensor {expected} for the scores "
                    f"{self.name!r}, got {got}"
                )
            return found

        return score
