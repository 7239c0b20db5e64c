"""Re-ranking by name: in one call, or as the settings of a config."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch

from zsbir_fast._arguments import as_integer, check_choice
from zsbir_fast._words import did_you_mean, shown
from zsbir_fast.metrics.checks import check_finite, check_matrix
from zsbir_fast.metrics.evaluate import check_same_device
from zsbir_fast.ranking.diffusion import DiffusionRanker
from zsbir_fast.ranking.expansion import ExpandedRanker
from zsbir_fast.ranking.graph import NeighbourGraph
from zsbir_fast.ranking.iterative import IterativeRanker
from zsbir_fast.ranking.ranker import EmbeddingRanker, Neighbours, Ranker
from zsbir_fast.ranking.reciprocal import ReciprocalRanker
from zsbir_fast.ranking.reranker import Reranker

Rule = Literal["expansion", "icfrr", "k-reciprocal", "diffusion"]
Kind = Literal["none", "auto", "expansion", "icfrr", "k-reciprocal", "diffusion"]

# Rule -> its ranker, and the options that it takes.
_RULES: dict[str, tuple[type[Reranker], tuple[str, ...]]] = {
    "expansion": (ExpandedRanker, ("augment", "expand", "weight", "power")),
    "icfrr": (IterativeRanker, ("rounds", "gallery_k", "query_k", "beta")),
    "k-reciprocal": (ReciprocalRanker, ("k1", "k2", "lam")),
    "diffusion": (DiffusionRanker, ("graph_k", "start_k", "alpha", "power")),
}


def rerank(
    queries: Any,
    gallery: Any,
    k: int | None = None,
    by: Rule = "expansion",
    graph: NeighbourGraph | None = None,
    **options: Any,
) -> Neighbours:
    """Rank a gallery for queries by what the gallery itself knows.

    No label is used, and no query sees another one.

    Args:
        queries: [Q, D], a tensor or array of real numbers; computed in float32.
        gallery: [G, D], on the device of the queries.
        k: photos per query, at most G; None: all of them.
        by: the rule: ``"expansion"`` (:class:`zsbir_fast.ExpandedRanker`), ``"icfrr"``
            (:class:`zsbir_fast.IterativeRanker`), ``"k-reciprocal"``
            (:class:`zsbir_fast.ReciprocalRanker`) or ``"diffusion"``
            (:class:`zsbir_fast.DiffusionRanker`).
        graph: neighbours of the gallery, if they were computed before.
        options: those of the rule's class.

    Returns:
        Rows int64 and scores float32, both [Q, k]; larger scores are closer, of equals the first
        in the gallery comes first.

    Raises:
        ValueError: an unknown rule or option, an option out of range or too large for the gallery,
            mismatched shapes or devices, empty or non-finite input (the row is named), the graph
            of another gallery or one with too few neighbours.
        TypeError: input that is no array of numbers, an option or a graph that is none.

    Cost: as the rule's class says, and O(G log G) per query.

    Example:
        >>> import torch, zsbir_fast as zf
        >>> photos = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
        >>> zf.rerank(photos[:1], photos, k=2, augment=2, expand=1).rows
        tensor([[0, 2]])
    """
    check_choice("rerank", "by", by, tuple(_RULES))
    make, names = _RULES[by]
    for name in options:
        if name not in names:
            raise ValueError(
                f"rerank: options of {by} must be among {', '.join(names)}, got "
                f"{shown(name)}{did_you_mean(name, names)}"
            )
    g = check_matrix("rerank", "gallery", gallery, shape="[G, D]")
    q = check_matrix("rerank", "queries", queries, shape="[Q, D]")
    if q.shape[1] != g.shape[1]:
        raise ValueError(
            f"rerank: queries and gallery must have the same width D, got {q.shape[1]} and "
            f"{g.shape[1]}"
        )
    check_same_device("rerank", q, g.device)
    for name, matrix in (("queries", q), ("gallery", g)):
        check_finite("rerank", name, matrix)
    k = len(g) if k is None else as_integer("rerank", "k", k, least=1, most=len(g))
    with torch.no_grad():
        return make(**options, graph=graph).search(q, g, k)


@dataclass(frozen=True)
class RerankOptions:
    """How the gallery itself re-ranks what is found; the plain ranking is always reported, too.

    Attributes:
        kind: ``"none"``; ``"auto"``: chosen on held-out seen classes among the settings of
            :func:`zsbir_fast.choose_rerank`; ``"expansion"``: database augmentation and query
            expansion, see :class:`zsbir_fast.ExpandedRanker`; ``"icfrr"``: see
            :class:`zsbir_fast.IterativeRanker`; ``"k-reciprocal"``: see
            :class:`zsbir_fast.ReciprocalRanker`; ``"diffusion"``: see
            :class:`zsbir_fast.DiffusionRanker`.
        augment: of ``"expansion"``: photos in the mean that replaces a photo; 0: none.
        expand: of ``"expansion"``: photos that are added to a query; 0: none.
        weight: of ``"expansion"``: length of the mean that is added to a query of length 1.
        power: of ``"expansion"`` and ``"diffusion"``: the weight of a photo is its cosine to this
            power.
        rounds: of ``"icfrr"``.
        gallery_k: of ``"icfrr"``: neighbours of a photo that it lifts.
        query_k: of ``"icfrr"``: photos of a ranking that lift others.
        beta: of ``"icfrr"``: factor of the weights.
        k1: of ``"k-reciprocal"``: neighbours that may be reciprocal ones.
        k2: of ``"k-reciprocal"``: images in the mean of local expansion.
        lam: of ``"k-reciprocal"``: weight of the plain distance.
        graph_k: of ``"diffusion"``: neighbours of a photo.
        start_k: of ``"diffusion"``: photos that the walk begins at.
        alpha: of ``"diffusion"``: share of the walk that goes on.

    Raises:
        ValueError: an unknown kind.
    """

    kind: Kind = "none"
    augment: int = 20
    expand: int = 20
    weight: float = 0.5
    power: float = 3.0
    rounds: int = 5
    gallery_k: int = 50
    query_k: int = 50
    beta: float = 0.5
    k1: int = 20
    k2: int = 6
    lam: float = 0.3
    graph_k: int = 20
    start_k: int = 10
    alpha: float = 0.99

    def __post_init__(self) -> None:
        """Refuse another kind."""
        check_choice("RerankOptions", "kind", self.kind, Kind)

    def require_possible(self, plain: Ranker, *, photos: int) -> None:
        """Refuse options that cannot re-rank what a ranker finds, before a long run begins.

        Args:
            plain: how embeddings are ranked without re-ranking.
            photos: size of the gallery.

        Raises:
            ValueError: an option is out of range or too large for the gallery, or ``plain`` ranks
                by something else than the directions of embeddings, which re-ranking compares.
        """
        if self.kind == "auto":
            self._require_directions(plain)
        else:
            self.ranker(plain, photos=photos)

    def ranker(
        self, plain: Ranker, *, photos: int, graph: NeighbourGraph | None = None
    ) -> Reranker | None:
        """Make the ranker that re-ranks what another one finds.

        It needs no embeddings.

        Args:
            plain: how embeddings are ranked without it.
            photos: size of the gallery.
            graph: neighbours of the gallery, if they were computed before.

        Returns:
            The ranker, or None for the kind ``"none"``.

        Raises:
            ValueError: an option is out of range or too large for the gallery, ``plain`` ranks
                by something else than the directions of embeddings, which re-ranking compares, or
                the kind is ``"auto"``, which has to be chosen first.
        """
        if self.kind == "none":
            return None
        self._require_directions(plain)
        if self.kind == "auto":
            raise ValueError(
                "RerankOptions: kind must be a rule, got 'auto', for which choose_rerank finds one"
            )
        make, names = _RULES[self.kind]
        made = make(**{name: getattr(self, name) for name in names}, graph=graph)
        made.require_size(photos)
        return made

    def _require_directions(self, plain: Ranker) -> None:
        if not isinstance(plain, EmbeddingRanker) or plain.metric == "dot":
            raise ValueError(
                "RerankOptions: kind must be none where embeddings are not ranked by cosine or "
                f"euclidean, got {self.kind!r} for a ranking by {plain.name}"
            )
