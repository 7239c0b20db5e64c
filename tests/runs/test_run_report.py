from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from zsbir_fast.data.benchmarks import load_benchmark
from zsbir_fast.ranking.clusters import ClusterRanker
from zsbir_fast.ranking.ranker import EmbeddingRanker
from zsbir_fast.ranking.rerank import RerankOptions
from zsbir_fast.report.pictures import read_thumbnail
from zsbir_fast.report.retrieval import SecondRanking, retrieval_rows
from zsbir_fast.runs.outcome import Outcome
from zsbir_fast.runs.rerank_choice import RerankSetting
from zsbir_fast.runs.results import result_table, table_text, write_metrics, write_per_class
from zsbir_fast.runs.run_report import _reranked_by, training_curves, write_run_report
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


def test_rows_show_what_re_ranking_makes_of_the_same_queries(benchmark, embedded, result):
    again = EmbeddingRanker("euclidean")
    rows = retrieval_rows(
        result.ap,
        embedded.queries,
        -embedded.gallery,
        benchmark.test_sketches,
        benchmark.test_photos,
        ranker=EmbeddingRanker("dot"),
        second=SecondRanking("turned", again, 1 - result.ap),
        per_group=1,
        top=5,
    )
    assert [row.reranked.name for row in rows] == ["turned"] * 3
    for row in rows:
        q = next(
            i
            for i, path in enumerate(benchmark.test_sketches.paths)
            if (read_thumbnail(path) == row.query).all()
        )
        assert row.reranked.ap == pytest.approx(1 - row.ap)
        assert row.ap == float(result.ap[q])
        distances = torch.cdist(embedded.queries[q : q + 1], -embedded.gallery)[0]
        nearest = distances.argsort()[:5].tolist()
        for item, photo in zip(row.reranked.results, nearest, strict=True):
            assert (item.image == read_thumbnail(benchmark.test_photos.paths[photo])).all()
            assert item.hit == (item.label == row.label)


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
    assert "standard AP" in html
    assert path.stat().st_size < 6e6


def test_report_shows_both_rankings_and_the_clusters(tmp_path, embedded):
    reranked = embedded.rerank(RerankSetting(RerankOptions("expansion", augment=2, expand=2)))
    plain = embedded.evaluate()
    outcome = Outcome("t", "l", "Search", {"features": plain}, embedded, reranked)
    html = write_run_report(tmp_path / "a.html", outcome).read_text(encoding="utf-8")
    assert html.count("<b>plain</b>") == 9
    assert (
        html.count(
            "<b>re-ranked (augmentation by 2 and expansion by 2 with weight 0.5, power 3)</b>"
        )
        == 9
    )
    assert "What the clusters hold" not in html
    nothing_helps = replace(reranked, by="cosine, not re-ranked", ranker=embedded.ranker)
    outcome = Outcome("t", "l", "Search", {"features": plain}, embedded, nothing_helps)
    html = write_run_report(tmp_path / "a.html", outcome).read_text(encoding="utf-8")
    assert "<b>plain</b>" not in html
    assert "Re-ranked: cosine, not re-ranked." in html

    ranker = ClusterRanker(clusters=6, blocks=2)
    by_clusters = replace(embedded, ranker=ranker)
    outcome = Outcome("t", "l", "Search", {"features": plain}, by_clusters)
    html = write_run_report(tmp_path / "b.html", outcome).read_text(encoding="utf-8")
    assert "<b>plain</b>" not in html
    assert html.count("Clusters by block ") == 2
    assert html.count("6 clusters. ") == 2
    books = ranker.codebooks(embedded.gallery)
    for codes in books.codes:
        for size in codes.bincount().tolist():
            assert f">{size} photo{'s' if size > 1 else ''}<" in html
    photos = torch.nn.functional.normalize(embedded.gallery, dim=1)
    for m, distances in enumerate(books.distances(photos)):
        block = photos[:, 4 * m : 4 * m + 4]
        nearest = torch.cdist(block, books.codewords[m]).amin(1)
        torch.testing.assert_close(distances, nearest, atol=1e-4, rtol=0)


def test_strips_are_labelled_by_what_re_ranks():
    assert _reranked_by("cosine, re-ranked (by this)") == "re-ranked (by this)"
    assert _reranked_by("another rule") == "re-ranked (another rule)"


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
