"""Re-ranking by name: the settings of a config, and the ranker that they describe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from zsbir_fast._arguments import check_choice
from zsbir_fast.ranking.expansion import ExpandedRanker
from zsbir_fast.ranking.iterative import IterativeRanker
from zsbir_fast.ranking.ranker import EmbeddingRanker, Ranker

Kind = Literal["none", "expansion", "icfrr"]


@dataclass(frozen=True)
class RerankOptions:
    """How the gallery itself re-ranks what is found; the plain ranking is always reported, too.

    Attributes:
        kind: ``"none"``; ``"expansion"``: database augmentation and query expansion, see
            :class:`zsbir_fast.ExpandedRanker`; ``"icfrr"``: see
            :class:`zsbir_fast.IterativeRanker`.
        augment: of ``"expansion"``: photos in the mean that replaces a photo; 0: none.
        expand: of ``"expansion"``: photos that are added to a query; 0: none.
        power: of ``"expansion"``: the weight of a photo is its cosine to this power.
        rounds: of ``"icfrr"``.
        gallery_k: of ``"icfrr"``: neighbours of a photo that it lifts.
        query_k: of ``"icfrr"``: photos of a ranking that lift others.
        beta: of ``"icfrr"``: factor of the weights.

    Raises:
        ValueError: an unknown kind.
    """

    kind: Kind = "none"
    augment: int = 10
    expand: int = 20
    power: float = 3.0
    rounds: int = 5
    gallery_k: int = 50
    query_k: int = 50
    beta: float = 0.5

    def __post_init__(self) -> None:
        """Refuse another kind."""
        check_choice("RerankOptions", "kind", self.kind, Kind)

    def ranker(self, plain: Ranker, *, photos: int) -> Ranker | None:
        """Make the ranker that re-ranks what another one finds.

        It needs no embeddings, so that a long run can ask before it begins.

        Args:
            plain: how embeddings are ranked without it.
            photos: size of the gallery.

        Returns:
            The ranker, or None for the kind ``"none"``.

        Raises:
            ValueError: an option is out of range or too large for the gallery, or ``plain`` ranks
                by something else than the directions of embeddings, which re-ranking compares.
        """
        if self.kind == "none":
            return None
        if not isinstance(plain, EmbeddingRanker) or plain.metric == "dot":
            raise ValueError(
                "RerankOptions: kind must be none where embeddings are not ranked by cosine or "
                f"euclidean, got {self.kind!r} for a ranking by {plain.name}"
            )
        made: ExpandedRanker | IterativeRanker
        if self.kind == "expansion":
            made = ExpandedRanker(augment=self.augment, expand=self.expand, power=self.power)
        else:
            made = IterativeRanker(
                rounds=self.rounds, gallery_k=self.gallery_k, query_k=self.query_k, beta=self.beta
            )
        made.require_size(photos)
        return made
