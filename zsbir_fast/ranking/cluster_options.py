"""Ranking by clusters as a group of settings: what methods that rank so take from a config."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from zsbir_fast.ranking.clusters import ClusterRanker
from zsbir_fast.ranking.codebooks import Covariance, Inside, Model


@dataclass(frozen=True)
class ClusterOptions:
    """How a gallery is clustered to be ranked, see :class:`zsbir_fast.ClusterRanker`.

    Attributes:
        model: ``"kmeans"`` or ``"gmm"``: Gaussian mixtures.
        clusters: K, clusters in every block of the features; None: chosen without labels.
        blocks: M, contiguous blocks of the features.
        covariance: of ``"gmm"``: ``"full"``, ``"diag"`` or ``"spherical"``.
        fuse: share of the distance between query and photo in the score.
        inside: ``"tie"``: photos of a cluster tie; ``"distance"``: they are ordered by distance.
        seed: of the starts of the clusters.
        starts: starts of the clusters, of which the best is kept.

    Raises:
        TypeError, ValueError: as :class:`zsbir_fast.ClusterRanker`.
    """

    model: Model = "kmeans"
    clusters: int | None = 25
    blocks: int = 1
    covariance: Covariance = "full"
    fuse: float = 0.0
    inside: Inside = "tie"
    seed: int = 123
    starts: int = 1

    def __post_init__(self) -> None:
        """Refuse what the ranker refuses, before a model is built."""
        self.ranker()

    def ranker(self) -> ClusterRanker:
        """Make the ranker."""
        return ClusterRanker(**asdict(self))
