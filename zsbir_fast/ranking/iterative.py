"""Iterative cluster-free re-ranking: photos near the photos that were found rise, round by round.

Source: Hudson and Smith, "If at first you don't succeed: test-time re-ranking for zero-shot,
cross-domain retrieval", arXiv 2303.17703 (the rule and its defaults, as in its public code).
"""

from __future__ import annotations

import torch
from torch import Tensor

from zsbir_fast._arguments import as_integer, as_number
from zsbir_fast.ranking.graph import NeighbourGraph, without_self
from zsbir_fast.ranking.ranker import EmbeddingRanker, Scorer
from zsbir_fast.ranking.reranker import Reranker, check_embeddings, unit_rows


class IterativeRanker(Reranker):
    """Ranks by distance, then lets the photos found first lift the photos nearest to them.

    A photo that stands at place r (from 0) among the neighbours of another one, itself left out,
    gets the weight 1 - r / (G - 1) from it, up to ``gallery_k`` places. In each round the mean of
    the weights from the ``query_k`` photos that stand first, times ``beta``, is added to the sorted
    negative distances of the query, place by place, and the photos are sorted anew. Those distances
    stay at their places: a photo that rose has the distance of its new place.

    Args:
        rounds: rounds, at most 1000.
        gallery_k: neighbours of a photo that it lifts.
        query_k: photos of a ranking that lift others.
        beta: factor of the weights.
        graph: neighbours of the gallery, at least ``gallery_k + 1`` of each photo, if they were
            computed before.

    Raises:
        ValueError: an option is out of range.
    """

    def __init__(
        self,
        *,
        rounds: int = 5,
        gallery_k: int = 50,
        query_k: int = 50,
        beta: float = 0.5,
        graph: NeighbourGraph | None = None,
    ) -> None:
        super().__init__(graph)
        function = self._function
        self.rounds = as_integer(function, "rounds", rounds, least=1, most=1000)
        self.gallery_k = as_integer(function, "gallery_k", gallery_k, least=1)
        self.query_k = as_integer(function, "query_k", query_k, least=1)
        self.beta = as_number(function, "beta", beta)
        if not 0 < self.beta < float("inf"):
            raise ValueError(f"{function}: beta must be positive and finite, got {beta}")
        self.name = (
            f"distance, re-ranked (ICFRR, {rounds} rounds, {gallery_k} and {query_k} neighbours, "
            f"beta {self.beta:g})"
        )

    @property
    def graph_size(self) -> int:
        """Neighbours of a photo that the options need, itself among them."""
        return self.gallery_k + 1

    def require_size(self, photos: int) -> None:
        """Raise ValueError if a gallery of that many photos is too small for the options."""
        self._require_option("gallery_k", photos, least=1, others=True)
        self._require_option("query_k", photos, least=1)

    def scorer(self, gallery: Tensor) -> Scorer:
        """Make a gallery ready: the weights that each photo gives to its neighbours."""
        photos, graph = self._ready(gallery)
        assert graph is not None
        count = len(photos)
        lifted = without_self(graph)[0][:, : self.gallery_k].to(gallery.device)
        weights = 1 - torch.arange(self.gallery_k, device=gallery.device) / (count - 1)
        distances = EmbeddingRanker("euclidean").scorer(photos)

        def score(queries: Tensor) -> Tensor:
            check_embeddings(self._function, "queries", queries)
            found = -distances(unit_rows(queries))
            places, order = torch.sort(found, dim=1, descending=True, stable=True)
            for _ in range(self.rounds):
                first = order[:, : self.query_k]
                rows = lifted[first].flatten(1)
                each = weights.repeat(self.query_k).expand(len(rows), -1)
                lift = torch.zeros_like(found).scatter_add_(1, rows, each) / self.query_k
                scores = places + self.beta * lift.gather(1, order)
                found = torch.empty_like(found).scatter_(1, order, scores)
                again = torch.sort(scores, dim=1, descending=True, stable=True)
                order = order.gather(1, again.indices)
            return found

        return score
