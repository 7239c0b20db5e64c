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

HELD_OUT = 10  # classes of a split, as many as the benchmark's own test has
SPLITS = (1, 2, 3)  # seeds of `hold_out`
ENCODERS = ("mobilenet_v2", "efficientnet_lite0")


@dataclass(frozen=True)
class RankingRow:
    """One ranking of one test, plain and re-ranked.

    ``worst_class`` is the mAP@all of the class that gains least by re-ranking, minus its plain
    mAP@all; None where it was not measured. ``seconds`` is the time of all that the row needs,
    from images to result. ``targets`` are (what, at least) over the columns.
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
            "seconds": -self.seconds,
            "worst class": self.worst_class,
        }
        return [
            f"{what} {abs(value):.3f}, not {abs(least):g}"
            for what, least in self.targets
            if (value := values[what]) is not None and value < least
        ]


@dataclass(frozen=True)
class Test:
    """Embedded sketches and photos of the classes that are searched."""

    queries: Tensor
    gallery: Tensor
    query_labels: Tensor
    gallery_labels: Tensor


def quickstart_rows(seeds: Sequence[int]) -> Iterator[RankingRow]:
    """What `zsbir quickstart` gives, which trains on all seen classes."""
    import zsbir_fast as zf
    from zsbir_fast.runs.quickstart import quickstart
    from zsbir_fast.runs.unseen import embed_unseen

    for seed in seeds:
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "run"
            found = quickstart(out, seed=seed, say=lambda line: None, progress=False)
            model, identity = zf.load_model(out / "model")
        embedded = embed_unseen(model, zf.load_benchmark(), chosen_by=identity.chosen_by)
        test = Test(
            embedded.queries, embedded.gallery, embedded.query_labels, embedded.gallery_labels
        )
        yield RankingRow(
            "quickstart",
            f"`zsbir quickstart`: {identity.arguments['encoder']['name']}, trained",
            seed,
            found["trained"]["map"],
            found["re-ranked"]["map"],
            found["reranked_by"],
            _worst_class(test),
            found["seconds"],
            (("plain", 0.50), ("re-ranked", 0.60), ("seconds", -150.0)),
        )


def frozen_rows(seeds: Sequence[int]) -> Iterator[RankingRow]:
    """Features of ImageNet without any training, the mean of each modality taken away."""
    del seeds
    least = {"mobilenet_v2": 0.38, "efficientnet_lite0": 0.45}
    for name in ENCODERS:
        start = time.perf_counter()
        features = frozen_features(name)
        test = features.unseen()
        plain, reranked, by = _evaluate(test)
        yield RankingRow(
            "frozen",
            f"bundled:{name}, untrained, centred",
            None,
            plain,
            reranked,
            by,
            _worst_class(test),
            time.perf_counter() - start,
            (("re-ranked", least[name]), ("seconds", -30.0)),
        )


def split_rows(seeds: Sequence[int]) -> Iterator[RankingRow]:
    """The same features on other classes: seen ones that are held out, as test of the gain."""
    del seeds
    for name in ENCODERS:
        features = frozen_features(name)
        for split in SPLITS:
            start = time.perf_counter()
            test = features.held_out(split)
            plain, reranked, by = _evaluate(test)
            yield RankingRow(
                "splits",
                f"bundled:{name}, untrained, centred, {HELD_OUT} seen classes held out",
                split,
                plain,
                reranked,
                by,
                _worst_class(test),
                time.perf_counter() - start,
                (("gain", 0.08),),
            )


GROUPS: dict[str, Callable[[Sequence[int]], Iterator[RankingRow]]] = {
    "quickstart": quickstart_rows,
    "frozen": frozen_rows,
    "splits": split_rows,
}
"""Name -> what makes its rows, given the seeds of trainings."""


class FrozenFeatures:
    """Features of all images of the bundled benchmark by an untrained encoder.

    Args:
        name: bundled encoder.
    """

    def __init__(self, name: str) -> None:
        import zsbir_fast as zf
        from zsbir_fast.retrieval.embed import embed_with

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

    def unseen(self) -> Test:
        """The test of the benchmark; means are those of all seen classes."""
        from zsbir_fast.runs.baselines import remove_domain_mean

        queries, gallery = (
            remove_domain_mean(self.parts[f"test_{of}"], self.parts[f"train_{of}"])
            for of in ("sketches", "photos")
        )
        sets = self.benchmark
        return Test(queries, gallery, sets.test_sketches.labels, sets.test_photos.labels)

    def held_out(self, seed: int) -> Test:
        """Seen classes as the test; means are those of the other seen classes."""
        from zsbir_fast.runs.baselines import remove_domain_mean

        _, held = self.benchmark.hold_out(classes=HELD_OUT, seed=seed)
        classes = torch.tensor([self.benchmark.seen.index(name) for name in held.unseen])
        found = []
        for of in ("sketches", "photos"):
            labels = getattr(self.benchmark, f"train_{of}").labels
            features, chosen = self.parts[f"train_{of}"], torch.isin(labels, classes)
            found += [remove_domain_mean(features[chosen], features[~chosen]), labels[chosen]]
        queries, query_labels, gallery, gallery_labels = found
        return Test(queries, gallery, query_labels, gallery_labels)


@cache
def frozen_features(name: str) -> FrozenFeatures:
    """Features of an encoder, computed once."""
    return FrozenFeatures(name)
