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
from benchmarks.machine import busy_core_seconds
from zsbir_fast.ranking.choose import choose_rerank
from zsbir_fast.ranking.ranker import EmbeddingRanker
from zsbir_fast.ranking.rerank import RerankOptions
from zsbir_fast.retrieval.embed import embed_with
from zsbir_fast.runs.baselines import remove_domain_mean
from zsbir_fast.runs.quickstart import quickstart
from zsbir_fast.runs.rerank_choice import RerankSetting, settle_rerank
from zsbir_fast.runs.unseen import Embedded, embed_unseen

HELD_OUT = 10  # classes of a split, as many as the benchmark's own test has
SPLITS = (1, 2, 3)  # seeds of `hold_out`
ENCODERS = ("mobilenet_v2", "efficientnet_lite0")


@dataclass(frozen=True)
class RankingRow:
    """One ranking of one test, plain and re-ranked.

    ``plain`` and ``expansion`` are mAP@all by cosine and by expansion with its default options.
    ``reranked`` is that of the setting ``by``, which was chosen on seen classes or belongs to the
    method. ``worst_class`` is the change from plain to ``reranked`` of the class that gains least.
    It is None where it was not measured, as ``expansion`` may be. ``seconds`` is the time of all
    that the row needs, from images to result, and ``other_load`` the number of cores that other
    processes used meanwhile. ``targets`` are (column, bound): seconds at most, the
    others at least.
    """

    group: str
    what: str
    seed: int | None
    plain: float
    expansion: float | None
    reranked: float
    by: str
    worst_class: float | None
    seconds: float
    targets: tuple[tuple[str, float], ...] = ()
    other_load: float = 0.0

    @property
    def gain(self) -> float:
        """What re-ranking adds."""
        return self.reranked - self.plain

    @property
    def remark(self) -> str:
        """What other processes took, if it was enough to slow the row down."""
        taken = f" (other processes took {self.other_load:.1f} cores)"
        return taken if self.other_load > 0.2 else ""

    @property
    def missed(self) -> list[str]:
        """The targets that the row does not reach, in words."""
        values = {
            "plain": self.plain,
            "expansion": self.expansion,
            "expansion gain": None if self.expansion is None else self.expansion - self.plain,
            "re-ranked": self.reranked,
            "gain": self.gain,
            "worst class": self.worst_class,
            "seconds": self.seconds,
        }
        return [
            f"{what} {value:.3f}, not {bound:g}{self.remark * (what == 'seconds')}"
            for what, bound in self.targets
            if (value := values[what]) is not None
            and (value > bound if what == "seconds" else value < bound)
        ]


def row_of(
    group: str,
    what: str,
    seed: int | None,
    test: Embedded,
    setting: RerankSetting,
    *,
    clock: Callable[[], tuple[float, float]],
    targets: tuple[tuple[str, float], ...],
) -> RankingRow:
    """Rank the gallery of a test by cosine, by expansion, and by a setting.

    The clock is asked after that.
    """
    plain, again = test.evaluate(), test.rerank(setting)
    expansion = test.rerank(RerankSetting(RerankOptions(kind="expansion")))
    assert again is not None
    assert expansion is not None
    before, after = plain.per_class, again.result.per_class
    worst = min(after[label]["map"] - before[label]["map"] for label in before)
    seconds, other_load = clock()
    return RankingRow(
        group,
        what,
        seed,
        plain.map,
        expansion.result.map,
        again.result.map,
        again.by,
        worst,
        seconds,
        targets,
        other_load,
    )


def chosen_on(seen: Embedded, *, photos: int) -> RerankSetting:
    """Choose how to re-rank on embedded seen classes, as `rerank.kind: auto` does.

    As in a run of a model that was trained on them, it looks at ``HELD_OUT`` of them, evenly
    spread. ``photos`` is the size of the gallery that will be re-ranked.
    """
    labels = torch.unique(seen.gallery_labels)
    labels = labels[torch.linspace(0, len(labels) - 1, HELD_OUT).round().long()]
    queries, gallery = (torch.isin(of, labels) for of in (seen.query_labels, seen.gallery_labels))
    choice = choose_rerank(
        seen.queries[queries],
        seen.gallery[gallery],
        seen.query_labels[queries],
        seen.gallery_labels[gallery],
        photos=photos,
    )
    return RerankSetting(choice.options, choice)


def quickstart_rows(seeds: Sequence[int]) -> Iterator[RankingRow]:
    """What `zsbir quickstart` gives, which trains on all seen classes."""
    for seed in seeds:
        with tempfile.TemporaryDirectory() as folder:
            out, clock = Path(folder) / "run", Clock()
            quickstart(out, seed=seed, say=lambda line: None, progress=False)
            taken = clock()
            model, identity = zf.load_model(out / "model")
        benchmark = zf.load_benchmark()
        test = embed_unseen(model, benchmark, chosen_by=identity.chosen_by)
        encoder = identity.arguments["encoder"]["name"]
        yield row_of(
            "quickstart",
            f"`zsbir quickstart`, {encoder}",
            seed,
            test,
            settle_rerank(RerankOptions(kind="auto"), model, benchmark, test.ranker),
            clock=lambda taken=taken: taken,
            targets=(
                ("plain", 0.50),
                ("expansion", 0.60),
                ("re-ranked", 0.60),
                ("worst class", -0.02),
            ),
        )


def frozen_rows(seeds: Sequence[int]) -> Iterator[RankingRow]:
    """Features of ImageNet without any training, the mean of each modality taken away."""
    del seeds
    least = {"mobilenet_v2": 0.38, "efficientnet_lite0": 0.45}
    for name in ENCODERS:
        frozen_features.cache_clear()
        clock = Clock()
        test, seen = frozen_features(name).unseen()
        yield row_of(
            "frozen",
            f"bundled:{name}, centred",
            None,
            test,
            chosen_on(seen, photos=len(test.gallery)),
            clock=clock,
            targets=(
                ("expansion", least[name]),
                ("re-ranked", least[name]),
                ("worst class", -0.02),
                ("seconds", 30.0),
            ),
        )


def split_rows(seeds: Sequence[int]) -> Iterator[RankingRow]:
    """The same features on other classes: seen ones that are held out, as test of the gain."""
    del seeds
    for name in ENCODERS:
        features = frozen_features(name)
        for split in SPLITS:
            clock = Clock()
            test, seen = features.held_out(split)
            yield row_of(
                "splits",
                f"bundled:{name}, centred",
                split,
                test,
                chosen_on(seen, photos=len(test.gallery)),
                clock=clock,
                targets=(("expansion gain", 0.08), ("gain", 0.08), ("worst class", -0.02)),
            )


GROUPS: dict[str, Callable[[Sequence[int]], Iterator[RankingRow]]] = {
    "quickstart": quickstart_rows,
    "frozen": frozen_rows,
    "splits": split_rows,
}
"""Name -> what makes its rows, given the seeds of trainings."""


class Clock:
    """Time since it was made, and what others took of it."""

    def __init__(self) -> None:
        self.start = (time.perf_counter(), time.process_time(), busy_core_seconds())

    def __call__(self) -> tuple[float, float]:
        """Seconds, and the cores that other processes used meanwhile."""
        now = (time.perf_counter(), time.process_time(), busy_core_seconds())
        seconds, own, all_of_them = (b - a for a, b in zip(self.start, now, strict=True))
        return seconds, max(0.0, all_of_them - own) / seconds


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

    def unseen(self) -> tuple[Embedded, Embedded]:
        """The test of the benchmark, and its seen classes; means are those of all seen classes."""
        sets = self.benchmark
        test, seen = [], []
        for of in ("sketches", "photos"):
            train, unseen = self.parts[f"train_{of}"], self.parts[f"test_{of}"]
            test.append((remove_domain_mean(unseen, train), getattr(sets, f"test_{of}").labels))
            seen.append((remove_domain_mean(train, train), getattr(sets, f"train_{of}").labels))
        return _embedded(*test, sets.unseen), _embedded(*seen, sets.seen)

    def held_out(self, seed: int) -> tuple[Embedded, Embedded]:
        """Some seen classes as the test, and the others, whose means are taken away."""
        sets = self.benchmark
        _, held = sets.hold_out(classes=HELD_OUT, seed=seed)
        classes = torch.tensor([sets.seen.index(name) for name in held.unseen])
        test, seen = [], []
        for of in ("sketches", "photos"):
            features, labels = self.parts[f"train_{of}"], getattr(sets, f"train_{of}").labels
            chosen = torch.isin(labels, classes)
            others = features[~chosen]
            test.append((remove_domain_mean(features[chosen], others), labels[chosen]))
            seen.append((remove_domain_mean(others, others), labels[~chosen]))
        return _embedded(*test, sets.seen), _embedded(*seen, sets.seen)


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
