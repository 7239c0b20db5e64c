"""The table of rankings: its numbers, its page, its records. Nothing is trained."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import zsbir_fast as zf
from benchmarks import ranking_rows, ranking_table
from benchmarks.ranking_rows import FrozenFeatures, RankingRow, row_of
from benchmarks.ranking_table import Record, main, page, parse_args, table
from zsbir_fast.ranking.rerank import RerankOptions
from zsbir_fast.runs.rerank_choice import RerankSetting

RESULTS = Path(ranking_table.__file__).parent / "results" / "rankings"
FACTS = {
    "versions": {"torch": "2.14"},
    "cpu": "A CPU",
    "cpu_family_model": "6/1",
    "simd": ["avx2"],
    "cores": 2,
    "threads": 2,
    "memory_GiB": 8,
    "date": "2026-01-02T03:04:05",
    "commit": "abc",
}


def row(group="quickstart", seed=0, plain=0.5, reranked=0.59, worst=-0.01, seconds=100.0, **more):
    return RankingRow(
        group, "a model", seed, plain, plain + 0.1, reranked, "a rule", worst, seconds, **more
    )


def test_a_row_measures_both_rankings_and_the_class_that_gains_least():
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(4, 16))
    photo_labels = np.repeat(np.arange(4), 30)
    sketch_labels = np.repeat(np.arange(4), 5)
    photos, sketches = (
        (centres[labels] + 1.6 * rng.normal(size=(len(labels), 16))).astype(np.float32)
        for labels in (photo_labels, sketch_labels)
    )
    test = ranking_rows._embedded(
        (torch.from_numpy(sketches), torch.from_numpy(sketch_labels)),
        (torch.from_numpy(photos), torch.from_numpy(photo_labels)),
        ("a", "b", "c", "d"),
    )
    setting = RerankSetting(RerankOptions(kind="expansion", augment=5, expand=0))
    targets = (("gain", 9.0),)
    found = row_of("frozen", "it", None, test, setting, clock=lambda: (3.0, 0.1), targets=targets)

    def average_precisions(queries, gallery):
        scores = queries @ gallery.T
        result = []
        for scored, label in zip(scores, sketch_labels, strict=True):
            hits = photo_labels[np.argsort(-scored)] == label
            result.append((np.cumsum(hits) / np.arange(1, len(hits) + 1))[hits].mean())
        return np.array(result)

    def unit(x):
        return x / np.linalg.norm(x, axis=1, keepdims=True)

    def mean_of_nearest(scores, rows, k):  # cosines to the power of 3 are the weights
        near = np.argsort(-scores, axis=1)[:, :k]
        weights = np.take_along_axis(scores, near, 1).clip(0) ** 3
        return np.einsum("nk,nkd->nd", weights, rows[near])

    q, g = unit(sketches.astype(np.float64)), unit(photos.astype(np.float64))
    augmented = unit(mean_of_nearest(g @ g.T, g, 20))
    cosines = q @ augmented.T
    relative = cosines / cosines.max(1, keepdims=True)
    expanded = unit(q + 0.5 * unit(mean_of_nearest(relative, augmented, 20)))
    before, default = average_precisions(q, g), average_precisions(expanded, augmented)
    after = average_precisions(q, unit(mean_of_nearest(g @ g.T, g, 5)))
    changes = [(after - before)[sketch_labels == c].mean() for c in range(4)]
    assert found.plain == pytest.approx(before.mean(), abs=1e-6)
    assert found.expansion == pytest.approx(default.mean(), abs=1e-5)
    assert found.reranked == pytest.approx(after.mean(), abs=1e-5)
    assert found.worst_class == pytest.approx(min(changes), abs=1e-5)
    assert found.seconds == 3.0
    assert found.missed == [f"gain {found.gain:.3f}, not 9"]


def test_held_out_classes_are_centred_by_the_others(monkeypatch):
    benchmark = zf.load_benchmark()
    sets = {
        name: getattr(benchmark, name)
        for name in ("train_sketches", "train_photos", "test_sketches", "test_photos")
    }
    features = FrozenFeatures.__new__(FrozenFeatures)
    features.benchmark = benchmark
    rng = np.random.default_rng(0)
    features.parts = {
        name: torch.from_numpy(rng.normal(size=(len(images), 3))) for name, images in sets.items()
    }
    test, seen = features.held_out(2)
    _, held = benchmark.hold_out(classes=10, seed=2)
    assert (len(test.queries), len(test.gallery)) == (
        len(held.test_sketches),
        len(held.test_photos),
    )
    assert {test.names[label] for label in test.gallery_labels.tolist()} == set(held.unseen)
    own = [benchmark.seen[label] in held.unseen for label in benchmark.train_photos.labels.tolist()]
    whole = features.parts["train_photos"].numpy()
    whole = whole / np.linalg.norm(whole, axis=1, keepdims=True)
    centred = whole[own] - whole[~np.array(own)].mean(0)
    centred /= np.linalg.norm(centred, axis=1, keepdims=True)
    np.testing.assert_allclose(test.gallery.numpy(), centred, atol=1e-6)
    assert {seen.names[label] for label in seen.query_labels.tolist()} == set(held.seen)
    assert len(seen.gallery) + len(test.gallery) == len(benchmark.train_photos)
    test, seen = features.unseen()
    assert len(test.gallery) == len(benchmark.test_photos)
    assert len(seen.gallery) == len(benchmark.train_photos)
    np.testing.assert_allclose(seen.gallery.norm(dim=1), 1, atol=1e-6)


def test_targets_are_least_values_and_most_seconds():
    reached = row(targets=(("plain", 0.5), ("re-ranked", 0.59), ("seconds", 100.0)))
    assert reached.missed == []
    missed = row(targets=(("plain", 0.51), ("gain", 0.1), ("worst class", 0.0), ("seconds", 99.0)))
    assert missed.missed == [
        "plain 0.500, not 0.51",
        "gain 0.090, not 0.1",
        "worst class -0.010, not 0",
        "seconds 100.000, not 99",
    ]


def test_seconds_under_the_load_of_others_say_so():
    late = row(targets=(("seconds", 99.0),), other_load=1.23)
    assert late.missed == ["seconds 100.000, not 99 (other processes took 1.2 cores)"]
    assert table([late]).endswith("| 100 (!) |")


def test_the_table_ends_several_seeds_with_their_mean():
    lines = table([row(), row(seed=1, plain=0.52, reranked=0.65, worst=0.02, seconds=110.0)])
    assert lines.splitlines()[2:] == [
        "| a model | 0 | 0.500 | 0.600 | 0.590 | +0.090 | -0.010 | 100 |",
        "| a model | 1 | 0.520 | 0.620 | 0.650 | +0.130 | +0.020 | 110 |",
        "| a model | mean | 0.510 | 0.610 | 0.620 | +0.110 | -0.010 | 105 |",
    ]
    assert "mean" not in table([row(seed=None)])


def test_a_record_keeps_the_groups_that_were_not_measured_again(tmp_path, monkeypatch, capsys):
    stem, docs = tmp_path / "ranking", tmp_path / "page.md"
    monkeypatch.setattr(ranking_table, "machine_facts", lambda device, packages: FACTS)
    groups = {
        "quickstart": lambda seeds: iter([row(seed=seed) for seed in seeds]),
        "frozen": lambda seeds: iter([row("frozen", None, targets=(("plain", 0.6),))]),
    }
    monkeypatch.setattr(ranking_table, "GROUPS", groups)
    assert main(["--seeds", "3,4", "--out", str(stem)]) == 0
    groups["frozen"] = lambda seeds: iter([row("frozen", None, plain=0.55)])
    assert main(["--only", "frozen", "--out", str(stem), "--docs", str(docs)]) == 0
    stored = Record.read(stem.with_suffix(".json"))
    assert [(r.group, r.seed, r.plain) for r in stored.rows] == [
        ("quickstart", 3, 0.5),
        ("quickstart", 4, 0.5),
        ("frozen", None, 0.55),
    ]
    text = docs.read_text()
    assert text == page(stored)
    assert "## The quickstart" in text
    assert "| a model |  | 0.550 |" in text
    assert "All are reached." in text
    assert "A CPU (family/model 6/1, avx2)" in text
    assert main(["--show", str(stem.with_suffix(".json"))]) == 0
    assert text in capsys.readouterr().out


def test_missed_targets_are_told():
    record = Record({"quickstart": FACTS}, [row(seed=2, targets=(("plain", 0.55),))])
    assert "- a model, seed 2: plain 0.500, not 0.55" in page(record)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--only", "frozen,none"], "--only must be of quickstart, frozen, splits, "),
        (["--seeds", "1,x"], "--seeds must be whole numbers with commas, got '1,x'"),
    ],
)
def test_wrong_arguments_are_named(argv, message, capsys):
    with pytest.raises(SystemExit):
        parse_args(argv)
    assert message in capsys.readouterr().err


def test_quickstart_rows_take_the_numbers_of_the_command(monkeypatch):
    asked = []
    monkeypatch.setattr(ranking_rows, "Clock", lambda: lambda: (12.0, 0.5))
    monkeypatch.setattr(ranking_rows, "quickstart", lambda out, seed, **more: asked.append(seed))
    identity = SimpleNamespace(arguments={"encoder": {"name": "e"}}, chosen_by=())
    monkeypatch.setattr(ranking_rows.zf, "load_model", lambda path: (None, identity))
    monkeypatch.setattr(ranking_rows, "embed_unseen", lambda *a, **k: SimpleNamespace(ranker=1))
    monkeypatch.setattr(ranking_rows, "settle_rerank", lambda *a: None)
    monkeypatch.setattr(ranking_rows, "row_of", lambda *a, **k: (*a[:3], k["clock"]()))
    rows = list(ranking_rows.quickstart_rows([5, 6]))
    assert asked == [5, 6]
    assert rows[1] == ("quickstart", "`zsbir quickstart`, e", 6, (12.0, 0.5))


def test_the_committed_page_is_that_of_its_record():
    record = RESULTS / "bundled_cpu.json"
    assert record.with_suffix(".md").read_text() == page(Record.read(record))
