"""Re-ranking by what the gallery knows: smooth its photos, expand the query by those it finds.

Database augmentation replaces a photo by the weighted mean of the photos nearest to it, once, when
the gallery is made ready. Query expansion adds to a query the weighted mean of the photos that it
finds. No label and no other query is used.

Sources: Arandjelovic and Zisserman, "Three things everyone should know to improve object
retrieval", CVPR 2012 (augmentation); Chum et al., "Total recall", ICCV 2007 (expansion); Radenovic
et al., "Fine-tuning CNN image retrieval with no human annotation", TPAMI 2018 (weights by a power
of the cosine). Weights relative to the photo that is found first, and a mean whose length beside
the query is chosen, are our reading. The papers add the sum of what is found. That sum outweighs
the query, and it leads the query to another class if most of the photos found are wrong.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from zsbir_fast._arguments import as_integer, as_number
from zsbir_fast.ranking.graph import NeighbourGraph, nearest_of_block
from zsbir_fast.ranking.ranker import EmbeddingRanker, Scorer
from zsbir_fast.ranking.reranker import Reranker, as_power, check_embeddings, unit_rows

_BLOCK_BYTES = 64 << 20


def augment_gallery(
    gallery: Tensor, graph: NeighbourGraph, *, k: int = 10, power: float = 3.0
) -> Tensor:
    """Smooth a gallery: every photo becomes the weighted mean of the photos nearest to it.

    Args:
        gallery: float [G, D]; rows are L2-normalised first.
        graph: its neighbours, at least ``k`` of each photo.
        k: photos in a mean, the photo itself among them.
        power: the weight of a photo is its cosine to this power, 0 for negative cosines.

    Returns:
        The means, float [G, D], L2-normalised.

    Raises:
        ValueError: the graph is that of another gallery or has fewer than ``k`` neighbours, or an
            option is out of range.
    """
    name = "augment_gallery"
    k = as_integer(name, "k", k, least=1, most=graph.k)
    power = as_power(name, power)
    graph.require_gallery(name, gallery)
    return _augmented(unit_rows(gallery), graph, k, power)


class ExpandedRanker(Reranker):
    """Ranks by cosine after database augmentation, query expansion, or both.

    Args:
        augment: photos in the mean that replaces a photo; 0: no augmentation.
        expand: photos that are added to a query; 0: no expansion.
        weight: length of the mean that is added to a query of length 1. A small one is careful: of
            classes whose queries find mostly other photos, it takes little.
        power: the weight of a photo is its cosine to this power.
        graph: neighbours of the gallery, if they were computed before.

    Raises:
        ValueError: an option is out of range, or both numbers are 0.
    """

    def __init__(
        self,
        *,
        augment: int = 20,
        expand: int = 20,
        weight: float = 0.5,
        power: float = 3.0,
        graph: NeighbourGraph | None = None,
    ) -> None:
        super().__init__(graph)
        function = self._function
        self.augment = as_integer(function, "augment", augment, least=0)
        self.expand = as_integer(function, "expand", expand, least=0)
        self.weight = as_number(function, "weight", weight)
        if not 0 < self.weight < float("inf"):
            raise ValueError(f"{function}: weight must be finite and above 0, got {self.weight}")
        self.power = as_power(function, power)
        if not self.augment and not self.expand:
            raise ValueError(f"{function}: augment and expand must not both be 0, got 0 and 0")
        parts = [f"augmentation by {augment}"] if augment else []
        parts += [f"expansion by {expand} with weight {self.weight:g}"] if expand else []
        self.name = f"cosine, re-ranked ({' and '.join(parts)}, power {self.power:g})"

    @property
    def graph_size(self) -> int:
        """Neighbours of a photo that the options need, itself among them."""
        return self.augment

    def require_size(self, photos: int) -> None:
        """Raise ValueError if a gallery of that many photos is too small for the options."""
        self._require_option("augment", photos, least=0)
        self._require_option("expand", photos, least=0)

    def scorer(self, gallery: Tensor) -> Scorer:
        """Make a gallery ready: its graph unless it was given, its augmented photos."""
        photos, graph = self._ready(gallery)
        if self.augment:
            assert graph is not None
            photos = _augmented(photos, graph, self.augment, self.power)
        plain = EmbeddingRanker("cosine").scorer(photos)

        def score(queries: Tensor) -> Tensor:
            check_embeddings(self._function, "queries", queries)
            unit = unit_rows(queries)
            found = plain(unit)
            if not self.expand:
                return found
            cosines, rows = nearest_of_block(found, self.expand)
            # Cosines between modalities are small: the first photo counts as much as the query.
            relative = cosines / cosines[:, :1].clamp_min(torch.finfo(cosines.dtype).tiny)
            added = F.normalize(_weighted_mean(photos, rows, relative, self.power), dim=1)
            return plain(F.normalize(unit + self.weight * added, dim=1))

        return score


def _augmented(unit: Tensor, graph: NeighbourGraph, k: int, power: float) -> Tensor:
    """Replace photos of length 1 by the means of their neighbours, block by block."""
    size = max(1, _BLOCK_BYTES // (k * unit.shape[1] * unit.element_size()))
    means = [
        _weighted_mean(unit, graph.rows[start : start + size, :k],
                       graph.cosines[start : start + size, :k], power)
        for start in range(0, len(unit), size)
    ]  # fmt: skip
    return F.normalize(torch.cat(means), dim=1)


def _weighted_mean(photos: Tensor, rows: Tensor, cosines: Tensor, power: float) -> Tensor:
    """Sum of ``photos[rows]`` [q, k, D] by powers of their cosines; 0 for negative ones."""
    weights = torch.where(cosines > 0, cosines.clamp_min(0) ** power, 0)
    return torch.einsum("qk,qkd->qd", weights.to(photos), photos[rows])
