"""k-reciprocal re-ranking: two images are close if they share the photos that they are close to.

Source: Zhong, Zheng, Cao and Li, "Re-ranking person re-identification with k-reciprocal encoding",
CVPR 2017, arXiv 1701.08398: reciprocal neighbours (eqs. 2 to 5), Gaussian weights (eq. 7), Jaccard
distance (eq. 10), local query expansion (eq. 11), and the final distance (eq. 12).

The original ranks all queries and photos as one set, so that a result depends on the other queries,
and sketches have sketches as neighbours. Here every query stands alone before the gallery. Three
things follow, which are our reading:

- the neighbours and the vectors of photos are those within the gallery, computed once;
- a photo and the query are reciprocal neighbours if the photo is among the ``k1`` nearest to the
  query and the query would be among the ``k1`` nearest to the photo, which compares their cosine
  with that of the photo's neighbour number ``k1``. Sketches seldom are, so that most of what
  re-ranks is the local expansion;
- local expansion takes the mean of the query's vector and of its ``k2 - 1`` nearest photos'.

The distance is 1 minus the cosine, half the squared distance of unit vectors. A query keeps the
weight of itself, which no photo shares.
"""

from __future__ import annotations

import torch
from torch import Tensor

from zsbir_fast._arguments import as_integer, as_share
from zsbir_fast.ranking.graph import NeighbourGraph, is_mutual, nearest_of_block
from zsbir_fast.ranking.ranker import EmbeddingRanker, Scorer
from zsbir_fast.ranking.reranker import Reranker, check_embeddings, unit_rows
from zsbir_fast.ranking.sparse_rows import SparseRows, runs

_BLOCK_BYTES = 64 << 20
_PAIRS = 2 << 20  # pairs of shared neighbours at a time


class ReciprocalRanker(Reranker):
    """Ranks by the k-reciprocal neighbours that a query and a photo share, and by their distance.

    The score is minus the distance ``(1 - lam) * Jaccard + lam * (1 - cosine)``. It uses the
    gallery and the query alone, where the original also uses all other queries: see the source of
    this module, and docs/metrics.md.

    Args:
        k1: neighbours of an image, itself left out, that may be reciprocal ones.
        k2: images in the mean of local expansion, the image itself among them; 1: no expansion.
        lam: weight of the distance, in [0, 1]; the paper's lambda.
        graph: neighbours of the gallery, at least ``max(k1 + 1, k2)`` of each photo, if they were
            computed before.

    Raises:
        ValueError: an option is out of range.
        TypeError: an option is no number, or ``graph`` is none.

    Cost: when the gallery is made ready, its graph, O(G k1^2) and one pass over blocks of G x G
    marks; memory is the vectors of the photos, 8 bytes for each of about 2 k1 + k1 k2 numbers per
    photo at most, and blocks of 64 MiB. A query costs its scores and the photos that share a
    neighbour with it.
    """

    def __init__(
        self,
        *,
        k1: int = 20,
        k2: int = 6,
        lam: float = 0.3,
        graph: NeighbourGraph | None = None,
    ) -> None:
        super().__init__(graph)
        self.k1 = as_integer(self._function, "k1", k1, least=1)
        self.k2 = as_integer(self._function, "k2", k2, least=1)
        self.lam = as_share(self._function, "lam", lam)
        self.name = (
            f"cosine, re-ranked (k-reciprocal, {k1} neighbours, expansion by {k2}, "
            f"lambda {self.lam:g})"
        )

    @property
    def graph_size(self) -> int:
        """Neighbours of a photo that the options need, itself among them."""
        return max(self.k1 + 1, self.k2)

    def require_size(self, photos: int) -> None:
        """Raise ValueError if a gallery of that many photos is too small for the options."""
        self._require_option("k1", photos, least=1, others=True)
        self._require_option("k2", photos, least=1)

    def scorer(self, gallery: Tensor) -> Scorer:
        """Make a gallery ready: the weighted reciprocal neighbours of all photos."""
        photos, graph = self._ready(gallery)
        assert graph is not None
        rows = graph.rows[:, : self.graph_size].to(gallery.device)
        closeness = graph.cosines[:, self.k1].to(gallery.device)  # of the last one that counts
        half = _reciprocal(rows[:, : round(self.k1 / 2) + 1])
        own = _vectors(photos, _reciprocal(rows[:, : self.k1 + 1]), half)
        expanded = own if self.k2 == 1 else _local_means(own, rows[:, : self.k2])
        shared = expanded.by_column()
        plain = EmbeddingRanker("cosine").scorer(photos)

        def score(queries: Tensor) -> Tensor:
            check_embeddings(self._function, "queries", queries)
            cosines = plain(unit_rows(queries))
            values, found = nearest_of_block(cosines, min(len(photos), self.graph_size))
            near = found[:, : self.k1]
            mutual = values[:, : self.k1] > closeness[near]
            marks = _expanded_marks(near, mutual, half, len(photos))
            weights = torch.where(marks, (cosines - 1).exp(), 0)
            weights /= weights.sum(1, keepdim=True) + 1  # the query itself has the weight 1
            if self.k2 > 1:
                own.add_to(weights, found[:, : self.k2 - 1])
                weights /= self.k2
            overlap = _overlaps(weights, shared)
            jaccard = 1 - overlap / (2 - overlap)
            return -((1 - self.lam) * jaccard + self.lam * (1 - cosines))

        return score


def _reciprocal(rows: Tensor) -> Tensor:
    """Keep the neighbours that have the photo among their own; others become -1. int64 [G, k]."""
    return torch.where(is_mutual(rows), rows, -1)


def _expanded_marks(near: Tensor, mutual: Tensor, half: Tensor, photos: int) -> Tensor:
    """Mark the reciprocal neighbours of some images, and what these agree upon (eq. 5).

    Args:
        near: int64 [n, k], rows of neighbours.
        mutual: bool [n, k], which of them are reciprocal.
        half: int64 [G, h], reciprocal neighbours of every photo among its k1 / 2 nearest; -1: none.
        photos: G.

    Returns:
        bool [n, G].
    """
    marks = torch.zeros(len(near), photos + 1, dtype=torch.bool, device=near.device)
    marks.scatter_(1, torch.where(mutual, near, photos), True)  # the last column takes the others
    marks[:, photos] = False
    theirs = half[near]  # [n, k, h]
    theirs = torch.where((theirs >= 0) & mutual[:, :, None], theirs, photos)
    size = (theirs < photos).sum(2)
    common = marks.gather(1, theirs.flatten(1)).view_as(theirs).sum(2)
    joins = 3 * common > 2 * size
    theirs = torch.where(joins[:, :, None], theirs, photos)
    return marks.scatter_(1, theirs.flatten(1), True)[:, :photos]


def _vectors(photos: Tensor, reciprocal: Tensor, half: Tensor) -> SparseRows:
    """Give every photo weights of its expanded reciprocal neighbours, of sum 1 (eq. 7)."""
    count, width = photos.shape
    size = max(1, _BLOCK_BYTES // max(count, 8 * reciprocal.shape[1] * half.shape[1]))
    parts = []
    for start in range(0, count, size):
        block = reciprocal[start : start + size]
        mutual = block >= 0
        marks = _expanded_marks(block.clamp_min(0), mutual, half, count)
        # A photo that equal ones push out of its own neighbourhood still knows itself.
        marks[torch.arange(len(block)), torch.arange(start, start + len(block))] = True
        row, column = torch.nonzero(marks, as_tuple=True)
        pairs = max(1, _BLOCK_BYTES // (8 * width))
        cosines = [
            (photos[start + r] * photos[c]).sum(1)
            for r, c in zip(torch.split(row, pairs), torch.split(column, pairs), strict=True)
        ]
        weights = (torch.cat(cosines) - 1).exp()
        totals = weights.new_zeros(len(block)).index_add_(0, row, weights)
        parts.append(SparseRows.of(row, column, weights / totals[row], (len(block), count)))
    return SparseRows.joined(parts)


def _local_means(vectors: SparseRows, near: Tensor) -> SparseRows:
    """Replace every vector by the mean of those of the nearest photos, itself among them."""
    count = len(near)
    size = max(1, _BLOCK_BYTES // (4 * count))
    parts = []
    for block in torch.split(near, size):
        dense = torch.zeros(len(block), count, device=near.device)
        vectors.add_to(dense, block)
        parts.append(SparseRows.of_dense(dense / near.shape[1]))
    return SparseRows.joined(parts)


def _overlaps(weights: Tensor, shared: SparseRows) -> Tensor:
    """Sum the smaller of two weights over all photos; float [q, G] (eq. 10).

    Args:
        weights: float [q, G], of the queries.
        shared: for every photo, those whose vectors hold it, with their weights.
    """
    found = torch.zeros_like(weights)
    row, column = torch.nonzero(weights, as_tuple=True)
    if len(row) == 0:
        return found
    lengths = shared.starts[column + 1] - shared.starts[column]
    batch = (lengths.cumsum(0) - lengths) // _PAIRS  # pairs that begin together are done together
    for part in torch.split(torch.arange(len(row)), torch.bincount(batch).tolist()):
        own, at = runs(shared.starts[column[part]], lengths[part])
        smaller = torch.minimum(shared.values[at], weights[row[part], column[part]][own])
        place = row[part][own] * weights.shape[1] + shared.columns[at]
        found.view(-1).index_add_(0, place, smaller)
    return found
