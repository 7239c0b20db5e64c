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
from zsbir_fast._words import options_of
from zsbir_fast.metrics.scores import GallerySide
from zsbir_fast.ops.row_products import row_squares
from zsbir_fast.ranking.cluster_count import choose_clusters
from zsbir_fast.ranking.codebooks import Codebooks, Covariance, Inside, Model, fit_codebooks
from zsbir_fast.ranking.graph import gallery_fingerprint
from zsbir_fast.ranking.ranker import EmbeddingRanker, Ranker, Scorer
from zsbir_fast.ranking.reranker import check_embeddings, unit_rows

_TILE = 4096
_WITHIN_A_PLACE = 0.25  # distances of unit vectors are at most 2, and places 1 apart


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
        starts: starts of the clusters, of which the best is kept: 1 as in the public code; 10
            make the result depend less on the seed.

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
        starts: int = 1,
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
        self.starts = as_integer(function, "starts", starts, least=1)
        if self.fuse and inside == "distance":
            raise ValueError(
                f"{function}: fuse must be 0 with inside='distance', which orders the photos of a "
                f"cluster already, got {fuse}"
            )
        self._last: tuple[str, Codebooks] | None = None

    @property
    def name(self) -> str:  # type: ignore[override]
        """All settings; with a K that is chosen, that of the last gallery, once there is one."""
        model = "k-means" if self.model == "kmeans" else f"{self.covariance} Gaussian mixtures"
        chosen = f" {self._last[1].codewords.shape[1]}" if self._last else ""
        parts = [
            f"K{chosen} chosen without labels" if self.clusters is None else f"K {self.clusters}",
            f"M {self.blocks}",
        ]
        if self.fuse:
            parts.append(f"fused with {self.fuse:g} of the distance")
        elif self.inside == "distance":
            parts.append("by distance inside a cluster")
        else:
            parts.append("photos of a cluster tie")
        if self.starts > 1:
            parts.append(f"best of {self.starts} starts")
        return f"clusters by {model} ({', '.join(parts)}, seed {self.seed})"

    def __repr__(self) -> str:
        """Show all options."""
        return f"ClusterRanker({options_of(self)})"

    def require_size(self, photos: int) -> None:
        """Raise ValueError if a gallery of that many photos is too small for the options."""
        function = type(self).__name__
        if self.clusters is not None:
            as_integer(function, "clusters", self.clusters, least=1, most=photos)
        if self.model == "gmm" and photos < 2:
            raise ValueError(
                f"{function}: gallery must have at least 2 photos for model='gmm', got {photos}"
            )

    def codebooks(self, gallery: Tensor) -> Codebooks:
        """Cluster a gallery; the clusters of the last one are kept.

        Args:
            gallery: float [G, D].

        Returns:
            The centres and the photos' clusters, of the L2-normalised gallery.

        Raises:
            ValueError: the gallery is not finite or smaller than K, its width is no multiple of M,
                clusters stay empty as photos are equal, or a covariance is singular.
        """
        function = type(self).__name__
        check_embeddings(function, "gallery", gallery)
        self.require_size(len(gallery))
        if gallery.shape[1] % self.blocks:
            raise ValueError(
                f"{function}: blocks must divide the width of the features, {gallery.shape[1]}, "
                f"got {self.blocks}"
            )
        fingerprint = gallery_fingerprint(gallery)
        if self._last is None or self._last[0] != fingerprint:
            photos = unit_rows(gallery)
            found = fit_codebooks(
                function,
                photos,
                model=self.model,
                clusters=self.clusters or choose_clusters(gallery, seed=self.seed),
                blocks=self.blocks,
                covariance=self.covariance,
                seed=self.seed,
                starts=self.starts,
            )
            self._last = fingerprint, found
        return self._last[1].to(gallery.device)

    def scorer(self, gallery: Tensor) -> Scorer:
        """Make a gallery ready: cluster it.

        Args:
            gallery: float [G, D].

        Returns:
            A function from queries [q, D] to scores [q, G], smaller is closer: float32, or with
            ``inside="distance"`` float64, where the whole part is the place of the clusters.

        Raises:
            ValueError: as :meth:`codebooks`; from the function, if queries are not finite or have
                another width.

        Cost: for a query the products with M K centres of width D / M, and M additions for a
        photo; with ``fuse`` or ``inside="distance"`` also the product with every photo.
        """
        function = type(self).__name__
        books = self.codebooks(gallery)
        in_places = self.inside == "distance"
        clusters = _in_places(books) if in_places else _sums(books.codewords, books.codes)
        distances: Scorer | None = None
        if in_places or self.fuse:
            distances = EmbeddingRanker("euclidean").scorer(unit_rows(gallery))

        def score(queries: Tensor) -> Tensor:
            check_embeddings(function, "queries", queries)
            if queries.shape[1] != gallery.shape[1]:
                raise ValueError(
                    f"{function}: queries must be [q, {gallery.shape[1]}] like the gallery, got "
                    f"{list(queries.shape)}"
                )
            rows = unit_rows(queries)
            found = clusters(rows)
            if distances is None:
                return found
            if in_places:
                return found.add_(distances(rows), alpha=_WITHIN_A_PLACE)
            return found.mul_(1 - self.fuse).add_(distances(rows), alpha=self.fuse)

        return score


def _sums(codewords: Tensor, codes: Tensor) -> Scorer:
    """Sum the squared distances of queries to one codeword of every block.

    Args:
        codewords: float32 [M, K, D / M].
        codes: int32 [M, n].

    Returns:
        A function from queries [q, D] to sums, float32 [q, n].
    """
    blocks, clusters, width = codewords.shape
    sides = [GallerySide.of(words, "euclidean", torch.float32) for words in codewords]
    first = torch.arange(blocks, device=codes.device, dtype=codes.dtype) * clusters
    bags = (codes + first[:, None]).T.contiguous()

    def score(queries: Tensor) -> Tensor:
        table = queries.new_empty(blocks * clusters, len(queries))
        found = queries.new_empty(len(queries), len(bags))
        if not len(queries):
            return found
        for m, (side, block) in enumerate(
            zip(sides, torch.split(queries, width, dim=1), strict=True)
        ):
            part = side.scores(block, block.new_empty(len(block), clusters))
            part += row_squares(block)[:, None].to(part.dtype)
            table[m * clusters : (m + 1) * clusters] = part.clamp_min_(0).T
        # The table stays in the cache, and the sums of a tile until they are turned.
        for start in range(0, len(bags), _TILE):
            tile = F.embedding_bag(bags[start : start + _TILE], table, mode="sum")
            found[:, start : start + _TILE] = tile.T
        return found

    return score


def _in_places(books: Codebooks) -> Scorer:
    """Say at which place the clusters of a photo stand for a query, from 0; equal ones share it."""
    different, of_photo = torch.unique(books.codes, dim=1, return_inverse=True)
    sums = _sums(books.codewords, different)

    def score(queries: Tensor) -> Tensor:
        values, order = sums(queries).sort(dim=1)
        steps = torch.zeros_like(values, dtype=torch.float64)
        steps[:, 1:] = (values[:, 1:] > values[:, :-1]).cumsum(1)
        return torch.empty_like(steps).scatter_(1, order, steps).index_select(1, of_photo)

    return score
