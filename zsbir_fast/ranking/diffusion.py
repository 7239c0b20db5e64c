"""Diffusion: the similarity of a query spreads over the photos along their neighbours.

Source: Iscen, Tolias, Avrithis, Furon and Chum, "Efficient diffusion on region manifolds:
recovering small objects with compact CNN representations", CVPR 2017, arXiv 1611.05113 (reciprocal
neighbours, powers of cosines, the query outside the graph, conjugate gradients); Donoser and
Bischof, "Diffusion processes for retrieval revisited", CVPR 2013.

Our reading for a query of another modality: the walk begins at the photos nearest to the query with
weights relative to the first one, so that the gap between the modalities does not matter, and
photos that the walk does not reach stand behind all others, in the order of their cosines.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from zsbir_fast._arguments import as_integer, as_number
from zsbir_fast.ranking.graph import NeighbourGraph, is_mutual, nearest_of_block, without_self
from zsbir_fast.ranking.ranker import EmbeddingRanker, Scorer
from zsbir_fast.ranking.reranker import Reranker, as_power, check_embeddings, unit_rows

_BLOCK_BYTES = 64 << 20
_TOLERANCE = 1e-8  # of the residual, relative to where the walk begins
_PART = 1e-4  # of it that a round in float32 leaves
_MOST_ROUNDS = 10
_REACHED = 1e-6  # share of the largest score below which a photo counts as not reached
_MOST_STEPS = 1000  # of a round


class DiffusionRanker(Reranker):
    """Ranks by where a random walk over the photos ends that begins at those nearest to the query.

    Two photos are joined if each is among the ``graph_k`` nearest to the other, by their cosine to
    the power ``power``; S is that matrix, normalised on both sides by the square roots of its sums.
    The walk begins at y, the ``start_k`` photos nearest to the query. The score is f of
    ``(I - alpha S) f = y``, relative to its maximum. Photos below a millionth of it stand behind
    all others, by their cosines minus 2.

    Args:
        graph_k: neighbours of a photo, itself left out.
        start_k: photos that the walk begins at.
        alpha: share of the walk that goes on, in (0, 1).
        power: weights are cosines to this power, 0 for negative cosines.
        graph: neighbours of the gallery, at least ``graph_k + 1`` of each photo, if they were
            computed before.

    Raises:
        ValueError: an option is out of range.
        TypeError: an option is no number, or ``graph`` is none.

    Cost: when the gallery is made ready, its graph; memory O(G graph_k). A query costs its scores
    and O(G graph_k) for each of about 100 steps of conjugate gradients at ``alpha`` 0.99;
    queries are solved in blocks of at most 64 MiB.
    """

    def __init__(
        self,
        *,
        graph_k: int = 20,
        start_k: int = 10,
        alpha: float = 0.99,
        power: float = 3.0,
        graph: NeighbourGraph | None = None,
    ) -> None:
        super().__init__(graph)
        self.graph_k = as_integer(self._function, "graph_k", graph_k, least=1)
        self.start_k = as_integer(self._function, "start_k", start_k, least=1)
        self.alpha = as_number(self._function, "alpha", alpha)
        if not 0 < self.alpha < 1:
            raise ValueError(f"{self._function}: alpha must be in (0, 1), got {alpha}")
        self.power = as_power(self._function, power)
        self.name = (
            f"cosine, re-ranked (diffusion, {graph_k} neighbours, from {start_k} photos, "
            f"alpha {self.alpha:g}, power {self.power:g})"
        )

    @property
    def graph_size(self) -> int:
        """Neighbours of a photo that the options need, itself among them."""
        return self.graph_k + 1

    def require_size(self, photos: int) -> None:
        """Raise ValueError if a gallery of that many photos is too small for the options."""
        self._require_option("graph_k", photos, least=1, others=True)
        self._require_option("start_k", photos, least=1)

    def scorer(self, gallery: Tensor) -> Scorer:
        """Make a gallery ready: the normalised weights between its photos."""
        photos, graph = self._ready(gallery)
        assert graph is not None
        rows, weights = _affinities(graph, self.graph_k, self.power)
        rows, weights = rows.to(gallery.device), self.alpha * weights.to(gallery.device)
        plain = EmbeddingRanker("cosine").scorer(photos)
        size = max(1, _BLOCK_BYTES // (8 * 5 * len(photos)))  # five vectors in float64

        def score(queries: Tensor) -> Tensor:
            check_embeddings(self._function, "queries", queries)
            cosines = plain(unit_rows(queries))
            for block in torch.split(cosines, size):  # changed in place
                values, found = nearest_of_block(block, self.start_k)
                relative = (
                    values / values[:, :1].clamp_min(torch.finfo(values.dtype).tiny)
                ).double()
                begin = torch.where(relative > 0, relative.clamp_min(0) ** self.power, 0)
                start = torch.zeros_like(block, dtype=torch.float64).scatter_(1, found, begin)
                spread = _solve(rows, weights, start.T.contiguous()).T
                spread = spread / spread.amax(1, keepdim=True).clamp_min(1e-300)
                block.copy_(torch.where(spread > _REACHED, spread.to(block), block - 2))
            return cosines

        return score


def _affinities(graph: NeighbourGraph, k: int, power: float) -> tuple[Tensor, Tensor]:
    """Give the rows of S as neighbours int64 [G, k] and weights float64 [G, k]."""
    rows, cosines = without_self(graph)
    rows, cosines = rows[:, :k], cosines[:, :k].double()
    weights = torch.where(is_mutual(rows) & (cosines > 0), cosines.clamp_min(0) ** power, 0)
    sums = weights.sum(1)
    roots = torch.where(sums > 0, sums, 1).rsqrt()
    return rows, roots[:, None] * weights * roots[rows]


def _solve(rows: Tensor, weights: Tensor, start: Tensor) -> Tensor:
    """Solve (I - A) f = y for each column of y [G, q], float64; A = alpha S is symmetric.

    Conjugate gradients run in float32, which is several times faster, for a part of the digits; the
    rest is solved anew for the residual in float64. A column that is exact enough is left alone, so
    that its result does not depend on the others.
    """
    found, residual, narrow = torch.zeros_like(start), start, weights.float()
    enough = _TOLERANCE * torch.linalg.vector_norm(start, dim=0)
    for _ in range(_MOST_ROUNDS):
        size = torch.linalg.vector_norm(residual, dim=0)
        size = torch.where(size > enough, size, 0)
        if not bool(size.any()):
            break
        part = torch.where(size > 0, residual / size.clamp_min(1e-300), 0).float()
        found = found + size * _conjugate_gradients(rows, narrow, part).double()
        residual = start - found + _product(rows, weights, found)
    return found


def _conjugate_gradients(rows: Tensor, weights: Tensor, start: Tensor) -> Tensor:
    """Solve (I - A) f = y roughly, for columns of length 1 or 0."""
    found = torch.zeros_like(start)
    residual, direction = start.clone(), start.clone()
    size = (residual * residual).sum(0)
    for _ in range(_MOST_STEPS):
        active = size > _PART**2
        if not bool(active.any()):
            break
        image = direction - _product(rows, weights, direction)
        step = torch.where(active, size / (direction * image).sum(0), 0)
        found += step * direction
        residual -= step * image
        smaller = torch.where(active, (residual * residual).sum(0), size)
        direction = residual + smaller / size.clamp_min(_PART**2 * 1e-6) * direction
        size = smaller
    return found


def _product(rows: Tensor, weights: Tensor, columns: Tensor) -> Tensor:
    """A times each column; row i of A has ``weights[i]`` at ``rows[i]``."""
    return F.embedding_bag(rows, columns, per_sample_weights=weights, mode="sum")
