"""Cluster-then-retrieve and one-to-many matching: centres of clusters stand for their photos.

Sources: Wu et al., "Distribution aligned feature clustering for zero-shot sketch-based image
retrieval", arXiv 2301.06685, and Liu et al., "Symmetrical bidirectional knowledge alignment for
zero-shot sketch-based image retrieval", arXiv 2312.10320, as in their public code.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from zsbir_fast._arguments import as_integer, as_share, check_choice
from zsbir_fast.metrics.checks import check_finite
from zsbir_fast.metrics.scores import GallerySide
from zsbir_fast.ops.row_products import row_squares
from zsbir_fast.ranking.codebooks import Codebooks, Covariance, Inside, Model, fit_codebooks
from zsbir_fast.ranking.ranker import EmbeddingRanker, Ranker, Scorer


class ClusterRanker(Ranker):
    """Ranks photos by the distance of a query to the centres of their clusters.

    The features of the gallery, L2-normalised, are cut into M blocks, and each block is clustered
    on its own. The score of a photo is the sum over the blocks of the *squared* distance between
    query and centre; with ``fuse`` a share of it gives way to the distance (not squared) between
    query and photo. The clusters are made of the gallery to be ranked, without any label. Photos
    with the same clusters tie unless they are told apart by ``fuse`` or ``inside``.

    Args:
        model: ``"kmeans"``, or ``"gmm"``: Gaussian mixtures, whose means are the centres.
        clusters: K, clusters in every block; None: chosen without labels.
        blocks: M, contiguous blocks of the features; a divisor of their width.
        covariance: of ``"gmm"``.
        fuse: share of the distance between query and photo, in [0, 1].
        inside: order of photos with the same clusters: ``"tie"``, or ascending ``"distance"``,
            which leaves the order of the clusters alone; without ``fuse``.
        seed: of the starts of the clusters.

    Raises:
        TypeError: an option is of another type.
        ValueError: an option is out of range, or ``fuse`` and ``inside="distance"`` are combined.
    """

    larger_is_closer = False

    def __init__(
        self,
        *,
        model: Model = "kmeans",
        clusters: int | None = 25,
        blocks: int = 1,
        covariance: Covariance = "full",
        fuse: float = 0.0,
        inside: Inside = "tie",
        seed: int = 123,
    ) -> None:
        function = type(self).__name__
        check_choice(function, "model", model, Model)
        check_choice(function, "covariance", covariance, Covariance)
        check_choice(function, "inside", inside, Inside)
        self.model = model
        self.clusters = (
            None if clusters is None else as_integer(function, "clusters", clusters, least=1)
        )
        self.blocks = as_integer(function, "blocks", blocks, least=1)
        self.covariance = covariance
        self.fuse = as_share(function, "fuse", fuse)
        self.inside = inside
        self.seed = as_integer(function, "seed", seed, least=0, most=2**32 - 1)
        if self.fuse and inside == "distance":
            raise ValueError(
                f"{function}: fuse must be 0 with inside='distance', which orders the photos of a "
                f"cluster already, got {fuse}"
            )
        self.name = self._name()

    def _name(self) -> str:
        model = "k-means" if self.model == "kmeans" else f"{self.covariance} Gaussian mixtures"
        parts = [
            "K chosen without labels" if self.clusters is None else f"K {self.clusters}",
            f"M {self.blocks}",
        ]
        if self.fuse:
            parts.append(f"fused with {self.fuse:g} of the distance")
        elif self.inside == "distance":
            parts.append("by distance inside a cluster")
        else:
            parts.append("photos of a cluster tie")
        return f"clusters by {model} ({', '.join(parts)}, seed {self.seed})"

    def require_size(self, photos: int) -> None:
        """Raise ValueError if a gallery of that many photos is too small for the options."""
        function = type(self).__name__
        if self.clusters is not None:
            as_integer(function, "clusters", self.clusters, least=1, most=photos)
        if self.model == "gmm" and photos < 2:
            raise ValueError(
                f"{function}: gallery must have at least 2 photos for model='gmm', got {photos}"
            )

    def scorer(self, gallery: Tensor) -> Scorer:
        """Make a gallery ready: cluster it.

        Args:
            gallery: float [G, D].

        Returns:
            A function from queries [q, D] to scores, float [q, G], smaller is closer.

        Raises:
            ValueError: the gallery is not finite, is smaller than K, or has another number of
                different photos, its width is no multiple of M, or a covariance is singular.
        """
        function = type(self).__name__
        self.require_size(len(gallery))
        check_finite(function, "gallery", gallery)
        if gallery.shape[1] % self.blocks:
            raise ValueError(
                f"{function}: blocks must divide the width of the features, {gallery.shape[1]}, "
                f"got {self.blocks}"
            )
        photos = F.normalize(gallery.float(), dim=1)
        books = fit_codebooks(
            function,
            photos,
            model=self.model,
            clusters=self.clusters or min(25, len(photos)),
            blocks=self.blocks,
            covariance=self.covariance,
            seed=self.seed,
        )
        quantised = _quantised(books)
        plain = EmbeddingRanker("euclidean").scorer(photos) if self.fuse else None

        def score(queries: Tensor) -> Tensor:
            check_finite(function, "queries", queries)
            rows = F.normalize(queries.float(), dim=1)
            found = quantised(rows)
            if plain is not None:
                found.mul_(1 - self.fuse).add_(plain(rows), alpha=self.fuse)
            return found

        return score


def _quantised(books: Codebooks) -> Scorer:
    """Squared distances of queries to the centres of the photos' clusters, summed over blocks."""
    sides = [GallerySide.of(words, "euclidean", torch.float32) for words in books.codewords]
    width = books.codewords.shape[2]

    def score(queries: Tensor) -> Tensor:
        found: Tensor | None = None
        for side, codes, block in zip(sides, books.codes, queries.split(width, 1), strict=True):
            table = side.scores(block, block.new_empty(len(block), books.codewords.shape[1]))
            table += row_squares(block)[:, None].to(table.dtype)
            part = table.clamp_min_(0).index_select(1, codes)
            found = part if found is None else found.add_(part)
        assert found is not None
        return found

    return score
