"""Pairs of seen classes, explained by a model, and their place in the report."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from zsbir_fast.data.benchmarks import load_benchmark
from zsbir_fast.methods.dmwan.model import DMWAN
from zsbir_fast.ranking.ranker import EmbeddingRanker
from zsbir_fast.runs.explain import explain_seen_pairs
from zsbir_fast.runs.outcome import Outcome
from zsbir_fast.runs.run_report import write_run_report
from zsbir_fast.runs.unseen import Embedded


@pytest.fixture(scope="module")
def benchmark():
    return load_benchmark("qd_caltech")


def network(classes, **options):
    torch.manual_seed(0)
    defaults = {"weights": None, "image_size": 64, "width": 16}
    return DMWAN(classes, encoder="bundled:mobilenet_v2", **{**defaults, **options})


def test_one_pair_per_class_trained_on(benchmark):
    classes = benchmark.seen[5:20]  # as if the others were held out for validation
    model = network(classes)
    explained = explain_seen_pairs(model, benchmark)
    assert model.training
    assert explained.sketches.labels.tolist() == list(range(15))
    assert explained.photos.labels.tolist() == list(range(15))
    assert explained.sketches.classes == tuple(classes)
    seen = set(map(str, [*benchmark.train_sketches.paths, *benchmark.train_photos.paths]))
    assert set(map(str, [*explained.sketches.paths, *explained.photos.paths])) <= seen
    torch.testing.assert_close(explained.explanation.weights.mean(), torch.tensor(1.0))
    words = explained.explanation.answers.words
    assert words[0][0].replace("_", " ") == classes[0].replace("_", " ")


def test_of_many_classes_some_are_taken(benchmark):
    explained = explain_seen_pairs(network(benchmark.seen), benchmark, pairs=5)
    assert explained.sketches.labels.tolist() == [0, 9, 18, 27, 36]
    again = explain_seen_pairs(network(benchmark.seen), benchmark, pairs=5)
    assert again.photos.paths == explained.photos.paths
    other = explain_seen_pairs(network(benchmark.seen), benchmark, pairs=5, seed=1)
    assert other.photos.paths != explained.photos.paths


def test_a_class_without_photos_is_left_out(benchmark):
    kept = benchmark.train_photos.labels != 2
    fewer = replace(benchmark, train_photos=benchmark.train_photos.subset(kept.nonzero()[:, 0]))
    explained = explain_seen_pairs(network(benchmark.seen[:4]), fewer)
    assert explained.sketches.labels.tolist() == [0, 1, 3]


def test_models_that_explain_nothing(benchmark):
    model = network(benchmark.seen)
    model.explain = lambda sketches, photos, labels: None  # as the contract's default
    assert explain_seen_pairs(model, benchmark) is None


@pytest.mark.parametrize("weighting", ["text", "pairwise"])
def test_report_shows_them(benchmark, tmp_path, weighting):
    model = network(benchmark.seen, weighting=weighting)
    few = replace(
        benchmark,
        test_sketches=benchmark.test_sketches.subset(torch.arange(0, 233, 6)),
        test_photos=benchmark.test_photos.subset(torch.arange(0, 621, 9)),
    )
    embedded = Embedded(
        torch.randn(39, 4),
        torch.randn(69, 4),
        few.test_sketches.labels,
        few.test_photos.labels,
        dict(enumerate(few.unseen)),
        EmbeddingRanker(),
        few.test_sketches,
        few.test_photos,
    )
    outcome = Outcome(
        title="t",
        lead="",
        of_what="x",
        results={"trained": embedded.evaluate(ks=(5,))},
        embedded=embedded,
        explained=explain_seen_pairs(model, few, pairs=12),
    )
    path = write_run_report(tmp_path / "report.html", outcome)
    html = path.read_text(encoding="utf-8")
    for text in ("Which training pairs count", "Smallest weights", "Where the words look"):
        assert text in html
    assert ("best match" in html) == (weighting == "pairwise")
    assert "2 × 2 patches" in html
