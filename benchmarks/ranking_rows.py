"""The rows of the ranking table: what is ranked, how well plain and re-ranked, and the targets."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

import zsbir_fast as zf
from zsbir_fast.ranking.ranker import EmbeddingRanker
from zsbir_fast.ranking.rerank import RerankOptions
from zsbir_fast.retrieval.embed import embed_with
from zsbir_fast.runs.baselines import remove_domain_mean
from zsbir_fast.runs.quickstart import quickstart
from zsbir_fast.runs.rerank_choice import RerankSetting
from zsbir_fast.runs.unseen import Embedded, embed_unseen

HELD_OUT = 10  # classes of a split, as many as the benchmark's own test has
SPLITS = (1, 2, 3)  # seeds of `hold_out`
ENCODERS = ("mobilenet_v2", "efficientnet_lite0")


@dataclass(frozen=True)
class RankingRow:
    """One ranking of one test, plain and re-ranked.

    ``worst_class`` is the mAP@all of the class that gains least by re-ranking, minus its plain
    mAP@all; None where it was not measured. ``seconds`` is the time of all that the row needs,
    from images to result. ``targets`` are (column, bound): seconds at most, the others at least.
    """

    group: str
    what: str
    seed: int | None
    plain: float
    reranked: float
    by: str
    worst_class: float | None
    seconds: float
    targets: tuple[tuple[str, float], ...] = ()

    @property
    def gain(self) -> float:
        """What re-ranking adds."""
        return self.reranked - self.plain

    @property
    def missed(self) -> list[str]:
        """The targets that the row does not reach, in words."""
        values = {
            "plain": self.plain,
            "re-ranked": self.reranked,
            "gain": self.gain,
            "worst class": self.worst_class,
            "seconds": self.seconds,
        }
        return [
            f"{what} {value:.3f}, not {bound:g}"
            for what, bound in self.targets
            if (value := values[what]) is not None
            and (value > bound if what == "seconds" else value < bound)
        ]


def row_of(
    group: str,
    what: str,
    seed: int | None,
    test: Embedded,
    *,
    seconds: Callable[[], float],
    targets: tuple[tuple[str, float], ...],
) -> RankingRow:
    """Rank the gallery of a test by cosine, and by expansion with its default options.

    ``seconds`` is asked after that.
    """
    plain, again = test.evaluate(), test.rerank(RerankSetting(RerankOptions(kind="expansion")))
    assert again is not None
    before, after = plain.per_class, again.result.per_class
    worst = min(after[label]["map"] - before[label]["map"] for label in before)
    return RankingRow(
        group, what, seed, plain.map, again.result.map, again.by, worst, seconds(), targets
    )


def quickstart_rows(seeds: Sequence[int]) -> Iterator[RankingRow]:
    """What `zsbir quickstart` gives, which trains on all seen classes."""
    for seed in seeds:
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "run"
            found = quickstart(out, seed=seed, say=lambda line: None, progress=False)
            model, identity = zf.load_model(out / "model")
        encoder = identity.arguments["encoder"]["name"]
        yield row_of(
            "quickstart",
            f"`zsbir quickstart`, {encoder}",
            seed,
            embed_unseen(model, zf.load_benchmark(), chosen_by=identity.chosen_by),
            seconds=lambda taken=found["seconds"]: taken,
            targets=(("plain", 0.50), ("re-ranked", 0.60), ("seconds", 150.0)),
        )


def frozen_rows(seeds: Sequence[int]) -> Iterator[RankingRow]:
    """Features of ImageNet without any training, the mean of each modality taken away."""
    del seeds
    least = {"mobilenet_v2": 0.38, "efficientnet_lite0": 0.45}
    for name in ENCODERS:
        frozen_features.cache_clear()
        clock = Clock()
        yield row_of(
            "frozen",
            f"bundled:{name}, centred",
            None,
            frozen_features(name).unseen(),
            seconds=clock,
            targets=(("re-ranked", least[name]), ("seconds", 30.0)),
        )


def split_rows(seeds: Sequence[int]) -> Iterator[RankingRow]:
    """The same features on other classes: seen ones that are held out, as test of the gain."""
    del seeds
    for name in ENCODERS:
        features = frozen_features(name)
        for split in SPLITS:
            clock = Clock()
            yield row_of(
                "splits",
                f"bundled:{name}, centred",
                split,
                features.held_out(split),
                seconds=clock,
                targets=(("gain", 0.08),),
            )


GROUPS: dict[str, Callable[[Sequence[int]], Iterator[RankingRow]]] = {
    "quickstart": quickstart_rows,
    "frozen": frozen_rows,
    "splits": split_rows,
}
"""Name -> what makes its rows, given the seeds of trainings."""


class Clock:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self.start = time.perf_counter()

    def __call__(self) -> float:
        """Read it."""
        return time.perf_counter() - self.start


class FrozenFeatures:
    """Features of all images of the bundled benchmark by an untrained encoder.

    Args:
        name: bundled encoder.
    """

    def __init__(self, name: str) -> None:
        self.benchmark = zf.load_benchmark()
        encoder = zf.build_encoder(f"bundled:{name}", weights="imagenet", image_size=128).eval()
        sets = self.benchmark
        self.parts = {
            part: embed_with(
                lambda batch, _: encoder(batch).global_,
                images,
                spec=encoder.spec,
                batch_size=64,
                workers=0,
                device="cpu",
            )
            for part, images in (
                ("train_sketches", sets.train_sketches),
                ("train_photos", sets.train_photos),
                ("test_sketches", sets.test_sketches),
                ("test_photos", sets.test_photos),
            )
        }

    def unseen(self) -> Embedded:
        """The test of the benchmark; means are those of all seen classes."""
        sets = self.benchmark
        found = [
            (remove_domain_mean(self.parts[f"test_{of}"], self.parts[f"train_{of}"]), images.labels)
            for of, images in (("sketches", sets.test_sketches), ("photos", sets.test_photos))
        ]
        return _embedded(*found, sets.unseen)

    def held_out(self, seed: int) -> Embedded:
        """Seen classes as the test; means are those of the other seen classes."""
        sets = self.benchmark
        _, held = sets.hold_out(classes=HELD_OUT, seed=seed)
        classes = torch.tensor([sets.seen.index(name) for name in held.unseen])
        found = []
        for of, images in (("sketches", sets.train_sketches), ("photos", sets.train_photos)):
            features, chosen = self.parts[f"train_{of}"], torch.isin(images.labels, classes)
            centred = remove_domain_mean(features[chosen], features[~chosen])
            found.append((centred, images.labels[chosen]))
        return _embedded(*found, sets.seen)


def _embedded(
    sketches: tuple[Tensor, Tensor], photos: tuple[Tensor, Tensor], classes: Sequence[str]
) -> Embedded:
    (queries, query_labels), (gallery, gallery_labels) = sketches, photos
    return Embedded(
        queries,
        gallery,
        query_labels,
        gallery_labels,
        dict(enumerate(classes)),
        EmbeddingRanker(),
    )


@cache
def frozen_features(name: str) -> FrozenFeatures:
    """Features of an encoder, computed once."""
    return FrozenFeatures(name)
