from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from zsbir_fast.data.benchmarks import load_benchmark
from zsbir_fast.ranking.ranker import EmbeddingRanker
from zsbir_fast.report.retrieval import retrieval_rows
from zsbir_fast.runs.outcome import Outcome
from zsbir_fast.runs.results import result_table, table_text, write_metrics, write_per_class
from zsbir_fast.runs.run_report import training_curves, write_run_report
from zsbir_fast.runs.unseen import Embedded


@pytest.fixture(scope="module")
def benchmark():
    whole = load_benchmark("qd_caltech")
    return replace(
        whole,
        test_sketches=whole.test_sketches.subset(torch.arange(0, 233, 6)),
        test_photos=whole.test_photos.subset(torch.arange(0, 621, 9)),
    )


@pytest.fixture(scope="module")
def embedded(benchmark):
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(len(benchmark.unseen), 8, generator=generator)
    queries, gallery = (
        centres[images.labels] + torch.randn(len(images), 8, generator=generator)
        for images in (benchmark.test_sketches, benchmark.test_photos)
    )
    return Embedded(
        queries,
        gallery,
        benchmark.test_sketches.labels,
        benchmark.test_photos.labels,
        dict(enumerate(benchmark.unseen)),
        EmbeddingRanker(),
        benchmark.test_sketches,
        benchmark.test_photos,
    )


@pytest.fixture(scope="module")
def result(embedded):
    return embedded.evaluate(ks=(5, 10))


def test_rows_show_best_typical_and_worst_queries(benchmark, embedded, result):
    ap = result.ap
    rows = retrieval_rows(
        ap,
        embedded.queries,
        embedded.gallery,
        benchmark.test_sketches,
        benchmark.test_photos,
        ranker=embedded.ranker,
        per_group=2,
        top=4,
    )
    groups = [row.group.partition(" ")[0] for row in rows]
    assert groups == ["Best", "Best", "Typical", "Typical", "Worst", "Worst"]
    assert rows[0].ap == float(ap.max())
    assert rows[4].ap == float(ap.min())
    assert abs(rows[2].ap - float(ap.median())) < 0.1
    assert rows[0].label != rows[1].label
    for row in rows:
        assert len(row.results) == 4
        assert all(item.hit == (item.label == row.label) for item in row.results)


def test_rows_show_the_nearest_photos(benchmark, embedded):
    queries = embedded.gallery[:3]  # as if photos 0..2 were the queries: each finds itself
    sketches = benchmark.test_photos.subset(torch.arange(3))
    rows = retrieval_rows(
        torch.tensor([0.9, 0.5, 0.1]),
        queries,
        embedded.gallery,
        sketches,
        benchmark.test_photos,
        ranker=embedded.ranker,
        per_group=1,
        top=1,
    )
    assert [row.ap for row in rows] == pytest.approx([0.9, 0.5, 0.1])
    for row in rows:
        assert (row.query == row.results[0].image).all()


def test_rows_of_other_lengths(benchmark, embedded):
    with pytest.raises(ValueError, match="must agree in length, got 3, 39, 39 and 69, 69"):
        retrieval_rows(
            torch.ones(3),
            embedded.queries,
            embedded.gallery,
            benchmark.test_sketches,
            benchmark.test_photos,
            ranker=embedded.ranker,
        )


def test_report_holds_all_parts(tmp_path, embedded, result):
    outcome = Outcome(
        title="a title",
        lead="a lead",
        of_what="Zero-shot retrieval",
        results={"raw": result, "trained": result},
        embedded=embedded,
        curves={"train/loss": [(0.0, 2.0), (1.0, 1.0)], "val/map": [(1.0, 0.5)]},
        settings={"run.seed": 0},
        baseline="raw",
    )
    path = write_run_report(tmp_path / "report.html", outcome)
    html = path.read_text(encoding="utf-8")
    for name in embedded.names.values():
        assert name.replace("_", " ") in html
    for text in (
        "a title",
        "Training loss",
        "Held-out seen classes",
        "run.seed",
        "standard AP",
        "raw features",
    ):
        assert text in html
    assert path.stat().st_size < 6e6


def test_curves_only_of_what_was_logged():
    assert training_curves({"train/cls": [(0.0, 1.0)]}) == []


def test_results_as_files(tmp_path, benchmark, result):
    results = {"chance": result, "trained": result}
    metrics = write_metrics(tmp_path / "metrics.json", results, seconds=1.5)
    assert list(metrics) == ["definition", "chance", "trained", "seconds"]
    assert metrics["trained"]["map"] == result.map
    assert set(metrics["trained"]["map_at"]) == {"5", "10"}
    assert "tie_spread" in metrics["trained"]
    assert "tie_spread" not in metrics["chance"]
    assert json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8")) == metrics
    write_per_class(tmp_path / "per_class.csv", result, dict(enumerate(benchmark.unseen)))
    lines = (tmp_path / "per_class.csv").read_text(encoding="utf-8").splitlines()
    at = "map_at_5,map_at_10,precision_at_5,precision_at_10"
    assert lines[0] == f"class,queries,relevant,map,{at}"
    assert len(lines) == 11
    values = [float(line.split(",")[3]) for line in lines[1:]]
    assert values == sorted(values, reverse=True)


def test_table_as_text(result):
    text = table_text(result_table("", {"one": result, "another": result}))
    head, rule, one, another = text.splitlines()
    assert head.split() == ["mAP@all", "mAP@5", "mAP@10", "Prec@5", "Prec@10"]
    assert set(rule) == {"-"}
    assert one.split()[1] == another.split()[1] == f"{result.map:.3f}"
