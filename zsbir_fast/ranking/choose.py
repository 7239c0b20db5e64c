"""Choose how to re-rank on classes whose labels are known, and which are not those of the test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from zsbir_fast._arguments import as_number
from zsbir_fast.metrics.result import RetrievalResult
from zsbir_fast.ranking.graph import NeighbourGraph
from zsbir_fast.ranking.ranker import EmbeddingRanker, Ranker
from zsbir_fast.ranking.rerank import RerankOptions
from zsbir_fast.ranking.reranker import Reranker, check_embeddings

CANDIDATES: tuple[RerankOptions, ...] = (
    *(RerankOptions(kind="expansion", augment=augment, expand=0) for augment in (10, 20, 40)),
    *(
        RerankOptions(kind="expansion", augment=augment, expand=expand, weight=weight)
        for augment in (10, 20, 40)
        for expand, weight in ((20, 0.1), (20, 0.2), (50, 0.2))
    ),
)
"""The settings that :func:`choose_rerank` tries; their numbers of neighbours fit classes of about
8 to 100 photos.

All of them are careful. A bolder rule (a larger weight, k-reciprocal neighbours, ICFRR, diffusion)
harms some classes much more than others. A check on seen classes does not tell whether it will harm
an unseen one. ``docs/metrics.md`` has the numbers.
"""

_ANY_SIZE = 1 << 40
_KS = (1,)  # the choice looks at mAP@all alone


@dataclass(frozen=True)
class Trial:
    """A setting and what it changed.

    Attributes:
        options: the setting.
        by: name of its ranker.
        gain: change of mAP@all, the mean over the queries.
        worst: change of mAP@all of the class that it changed for the worst.
    """

    options: RerankOptions
    by: str
    gain: float
    worst: float


@dataclass(frozen=True)
class RerankChoice:
    """The setting that was chosen, and what it was chosen by.

    Attributes:
        options: the setting; of the kind ``"none"`` where none helped.
        plain: mAP@all without re-ranking.
        trials: all that were tried, in the order of the candidates.
    """

    options: RerankOptions
    plain: float
    trials: tuple[Trial, ...]

    @property
    def chosen(self) -> Trial | None:
        """The trial that was chosen, or None."""
        return next((trial for trial in self.trials if trial.options == self.options), None)


def choose_rerank(
    queries: Tensor,
    gallery: Tensor,
    query_labels: Any,
    gallery_labels: Any,
    *,
    candidates: Sequence[RerankOptions] = CANDIDATES,
    largest_loss: float = 0.02,
    plain: Ranker | None = None,
    photos: int | None = None,
) -> RerankChoice:
    """Choose the re-ranking that helps most on a labelled gallery and harms no class of it.

    The gallery must not be that of the test: give classes that are seen, best of all such as were
    held out of training. The setting with the largest gain in mAP@all is taken among those under
    which no class loses more than ``largest_loss``; if none gains, nothing is re-ranked.

    Numbers of neighbours are taken over as they are. What helps is decided by the photos per class,
    which a benchmark's seen and unseen classes have in common, and not by the size of the gallery
    or the number of its classes.

    Args:
        queries: float [Q, D].
        gallery: float [G, D].
        query_labels: integers [Q].
        gallery_labels: integers [G].
        candidates: settings to try; those for which a gallery is too small are left out.
        largest_loss: of mAP@all of a class, a fraction.
        plain: how embeddings are ranked without it; None: by cosine.
        photos: size of the gallery that will be re-ranked, which leaves out what is too large for
            it; None: any size.

    Returns:
        The choice.

    Raises:
        ValueError: ``largest_loss`` is negative, a candidate is of the kind ``"auto"`` or has an
            option out of range, ``plain`` ranks by something else than directions, embeddings are
            not finite, or no query has a relevant photo.

    Example:
        >>> import torch, zsbir_fast as zf
        >>> photos = torch.randn(200, 8)
        >>> labels = photos.argmax(1)
        >>> choice = zf.choose_rerank(photos[:50], photos, labels[:50], labels)
        >>> len(choice.trials)
        12
    """
    name = "choose_rerank"
    largest_loss = as_number(name, "largest_loss", largest_loss)
    if not largest_loss >= 0:
        raise ValueError(f"{name}: largest_loss must not be negative, got {largest_loss}")
    plain = EmbeddingRanker("cosine") if plain is None else plain
    RerankOptions(kind="auto").require_possible(plain, photos=_ANY_SIZE)
    for candidate in candidates:
        if candidate.kind == "auto":
            raise ValueError(f"{name}: candidates must be settings, got one of the kind 'auto'")
        candidate.ranker(plain, photos=_ANY_SIZE)  # raises where an option is out of range
    check_embeddings(name, "gallery", gallery)
    check_embeddings(name, "queries", queries)
    fitting = [c for c in candidates if _fits(c, plain, len(gallery), photos)]
    made = [(c, c.ranker(plain, photos=len(gallery))) for c in fitting]
    rankers = [(options, ranker) for options, ranker in made if ranker is not None]
    data = (queries, gallery, query_labels, gallery_labels)
    before = plain.evaluate(*data, ks=_KS)
    largest = max((ranker.graph_size for _, ranker in rankers), default=0)
    graph = NeighbourGraph.of(gallery, largest) if largest else None
    trials = []
    for options, ranker in rankers:
        ranker.graph = graph
        trials.append(_trial(options, ranker, before, ranker.evaluate(*data, ks=_KS)))
    allowed = [t for t in trials if t.worst >= -largest_loss and t.gain > 0]
    best = max(allowed, key=lambda trial: trial.gain, default=None)
    chosen = RerankOptions() if best is None else best.options
    return RerankChoice(chosen, before.map, tuple(trials))


def _fits(options: RerankOptions, plain: Ranker, *galleries: int | None) -> bool:
    try:
        for photos in galleries:
            if photos is not None:
                options.ranker(plain, photos=photos)
    except ValueError:
        return False
    return True


def _trial(
    options: RerankOptions, ranker: Reranker, before: RetrievalResult, after: RetrievalResult
) -> Trial:
    old, new = before.per_class, after.per_class
    changes = [new[label]["map"] - old[label]["map"] for label in old if old[label]["relevant"]]
    return Trial(options, ranker.name, after.map - before.map, min(changes))
