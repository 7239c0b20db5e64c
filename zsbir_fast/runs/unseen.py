"""The test of a run: sketches of unseen classes search photos of unseen classes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from zsbir_fast._words import shown
from zsbir_fast.data.benchmarks import Benchmark
from zsbir_fast.data.images import ImageSet
from zsbir_fast.data.names import listing, same_names
from zsbir_fast.methods.contract import Method
from zsbir_fast.metrics.protocols import Protocol
from zsbir_fast.metrics.result import RetrievalResult
from zsbir_fast.ranking.ranker import EmbeddingRanker, Ranker
from zsbir_fast.retrieval.embed import embed_images
from zsbir_fast.runs.baselines import usual_ks
from zsbir_fast.runs.leaks import NO_LEAK, Leak, check_unseen
from zsbir_fast.runs.rerank_choice import RerankSetting


@dataclass(frozen=True)
class Reranked:
    """A re-ranked result, which is reported beside the plain one.

    Attributes:
        by: name of the ranker.
        result: its result.
        setting: how the ranker was chosen.
        ranker: the ranker; that of the plain row where nothing was to be gained.
    """

    by: str
    result: RetrievalResult
    setting: RerankSetting
    ranker: Ranker

    @property
    def text(self) -> str:
        """Say in one line by what it was re-ranked, and how that was chosen."""
        return f"{self.by}{', ' * bool(self.setting.note)}{self.setting.note}"


@dataclass(frozen=True)
class Embedded:
    """Queries and a gallery as a model sees them, and how it ranks them.

    Attributes:
        queries: float32 [Q, D].
        gallery: float32 [G, D].
        query_labels: int64 [Q].
        gallery_labels: int64 [G].
        names: label -> class name.
        ranker: ranks the gallery for the queries.
        sketches: the images of the queries; None where only embeddings are known.
        photos: the images of the gallery, likewise.
        leak: classes of the test that the model knows; none in a zero-shot test.
    """

    queries: Tensor
    gallery: Tensor
    query_labels: Tensor
    gallery_labels: Tensor
    names: dict[int, str]
    ranker: Ranker
    sketches: ImageSet | None = None
    photos: ImageSet | None = None
    leak: Leak = NO_LEAK

    def evaluate(
        self,
        *,
        protocol: str | Protocol = "standard",
        ks: Iterable[int] | None = None,
        progress: bool = False,
    ) -> RetrievalResult:
        """Evaluate the ranking.

        Args:
            protocol: as for :func:`zsbir_fast.evaluate_retrieval`.
            ks: cut-offs; default: ``usual_ks``.
            progress: show progress.

        Returns:
            The result.

        Raises:
            ValueError: no query has a relevant photo, or an unknown protocol.
        """
        return self.ranker.evaluate(
            self.queries,
            self.gallery,
            self.query_labels,
            self.gallery_labels,
            protocol=protocol,
            ks=usual_ks(len(self.gallery)) if ks is None else ks,
            progress=progress,
        )

    def rows(
        self,
        row: str,
        *,
        protocol: str | Protocol = "standard",
        ks: Iterable[int] | None = None,
        progress: bool = False,
    ) -> dict[str, RetrievalResult]:
        """Evaluate the ranking, and beside a ranking of another kind the plain one.

        Args:
            row: name of the row of the ranking, see ``Outcome``.
            protocol: as for :meth:`evaluate`.
            ks: as for :meth:`evaluate`.
            progress: show progress.

        Returns:
            That row, after the row ``"cosine"`` where embeddings are ranked by something else than
            their own distance.
        """
        options: dict[str, Any] = {"protocol": protocol, "ks": ks, "progress": progress}
        plain = {}
        if not isinstance(self.ranker, EmbeddingRanker):
            plain["cosine"] = replace(self, ranker=EmbeddingRanker("cosine")).evaluate(**options)
        return {**plain, row: self.evaluate(**options)}

    def rerank(
        self,
        setting: RerankSetting,
        *,
        protocol: str | Protocol = "standard",
        ks: Iterable[int] | None = None,
    ) -> Reranked | None:
        """Re-rank by what the gallery itself knows, and evaluate that.

        Args:
            setting: how.
            protocol: as for :meth:`evaluate`.
            ks: as for :meth:`evaluate`.

        Returns:
            The result, or None where nothing is to be re-ranked. Where a choice among settings
            found none that helps, the result is the plain one, and says so.

        Raises:
            ValueError: an option does not fit the gallery or the ranker.
        """
        ranker = setting.options.ranker(self.ranker, photos=len(self.gallery))
        if ranker is None and setting.choice is None:
            return None
        by = f"{self.ranker.name}, not re-ranked" if ranker is None else ranker.name
        again = replace(self, ranker=ranker or self.ranker)
        return Reranked(by, again.evaluate(protocol=protocol, ks=ks), setting, again.ranker)


def embed_unseen(
    model: Method,
    benchmark: Benchmark,
    *,
    chosen_by: Sequence[str] = (),
    allow_seen: bool = False,
    **options: Any,
) -> Embedded:
    """Embed the test images of a benchmark.

    Args:
        model: the method; its ``classes`` are those that it was trained on.
        benchmark: its test sketches are the queries, its test photos the gallery.
        chosen_by: classes that were held out of training and chose the model's checkpoint.
        allow_seen: go on where the model knows classes of the test; ``leak`` names them.
        options: ``batch_size``, ``workers``, ``device`` and ``progress`` of ``embed_images``.

    Returns:
        Embeddings, labels and the model's ranker.

    Raises:
        ValueError: sketches and photos have other classes, the model knows some of them, or a set
            is empty.
        TypeError: the model's ranker is none.
    """
    sketches, photos = benchmark.test_sketches, benchmark.test_photos
    if not same_names(sketches.classes, photos.classes):
        raise ValueError(
            "embed_unseen: sketches and photos must have the same classes, got "
            f"{listing(sketches.classes, limit=3)} and {listing(photos.classes, limit=3)}"
        )
    leak = check_unseen(
        "embed_unseen",
        photos.classes,
        trained=model.classes,
        chosen_by=chosen_by,
        allow_seen=allow_seen,
    )
    ranker = _checked_ranker(model)
    queries, gallery = (embed_images(model, images, **options) for images in (sketches, photos))
    return Embedded(
        queries=queries,
        gallery=gallery,
        query_labels=sketches.labels,
        gallery_labels=photos.labels,
        names=dict(enumerate(photos.classes)),
        ranker=ranker,
        sketches=sketches,
        photos=photos,
        leak=leak,
    )


def _checked_ranker(model: Method) -> Ranker:
    ranker: object = model.ranker()
    said = all(hasattr(ranker, member) for member in ("name", "larger_is_closer"))
    if not isinstance(ranker, Ranker) or not said:
        raise TypeError(
            f"{type(model).__name__}.ranker must give a zsbir_fast.Ranker with name and "
            f"larger_is_closer, got {shown(ranker)}"
        )
    return ranker
