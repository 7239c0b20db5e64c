"""Iterative cluster-free re-ranking: photos near the photos that were found rise, round by round.

Source: Hudson and Smith, "If at first you don't succeed: test-time re-ranking for zero-shot,
cross-domain retrieval", arXiv 2303.17703 (the rule and its defaults, as in its public code).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from zsbir_fast._arguments import as_integer, as_number
from zsbir_fast.ranking.graph import NeighbourGraph
from zsbir_fast.ranking.ranker import EmbeddingRanker, Ranker, Scorer


class IterativeRanker(Ranker):
    """Ranks by distance, then lets the photos found first lift the photos nearest to them.

    A photo that stands at place r (from 0) among the neighbours of another one, itself left out,
    gets the weight 1 - r / (G - 1) from it, up to ``gallery_k`` places. In each round the mean of
    the weights from the ``query_k`` photos that stand first, times ``beta``, is added to the sorted
    negative distances of the query, place by place, and the photos are sorted anew. Those distances
    stay at their places: a photo that rose has the distance of its new place.

    Args:
        rounds: rounds.
        gallery_k: neighbours of a photo that it lifts.
        query_k: photos of a ranking that lift others.
        beta: factor of the weights.
        graph: neighbours of the gallery, at least ``gallery_k + 1`` of each photo, if they were
            computed before.

    Raises:
        ValueError: an option is out of range.
    """

    larger_is_closer = True

    def __init__(
        self,
        *,
        rounds: int = 5,
        gallery_k: int = 50,
        query_k: int = 50,
        beta: float = 0.5,
        graph: NeighbourGraph | None = None,
    ) -> None:
        function = type(self).__name__
        self.rounds = as_integer(function, "rounds", rounds, least=1)
        self.gallery_k = as_integer(function, "gallery_k", gallery_k, least=1)
        self.query_k = as_integer(function, "query_k", query_k, least=1)
        self.beta = as_number(function, "beta", beta)
        if not 0 < self.beta < float("inf"):
            raise ValueError(f"{function}: beta must be positive and finite, got {beta}")
        self.graph = graph
        self.name = (
            f"distance, re-ranked (ICFRR, {rounds} rounds, {gallery_k} and {query_k} neighbours, "
            f"beta {self.beta:g})"
        )

    def require_size(self, photos: int) -> None:
        """Raise ValueError if a gallery of that many photos is too small for the options."""
        function = type(self).__name__
        as_integer(function, "gallery_k", self.gallery_k, least=1, most=photos - 1)
        as_integer(function, "query_k", self.query_k, least=1, most=photos)

    def scorer(self, gallery: Tensor) -> Scorer:
        """Make a gallery ready: the weights that each photo gives to its neighbours."""
        function, count = type(self).__name__, len(gallery)
        self.require_size(count)
        graph = self.graph or NeighbourGraph.of(gallery, self.gallery_k + 1)
        graph.require_gallery(function, gallery)
        as_integer(function, "gallery_k", self.gallery_k, least=1, most=graph.k - 1)
        lifted = _without_self(graph)[:, : self.gallery_k].to(gallery.device)
        weights = 1 - torch.arange(self.gallery_k, device=gallery.device) / (count - 1)
        distances = EmbeddingRanker("euclidean").scorer(F.normalize(gallery.float(), dim=1))

        def score(queries: Tensor) -> Tensor:
            found = -distances(F.normalize(queries.float(), dim=1))
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


def _without_self(graph: NeighbourGraph) -> Tensor:
    """Leave out the photo itself, which equal photos may stand before; int64 [G, k - 1]."""
    own = graph.rows == torch.arange(len(graph), device=graph.rows.device)[:, None]
    last = torch.full_like(own[:, :1], graph.k - 1, dtype=torch.int64)
    # Where the photo itself is not among them, k photos are equal to it: the last one goes.
    place = torch.where(own.any(1, keepdim=True), own.int().argmax(1, keepdim=True), last)
    keep = torch.ones_like(own).scatter_(1, place, False)
    return graph.rows[keep].view(len(graph), graph.k - 1)
