"""Rankers: what they score, find and measure, in blocks of queries."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

import zsbir_fast as zf
from zsbir_fast.metrics.score_blocks import evaluate_score_blocks
from zsbir_fast.ranking import ranker

BY_HAND = {
    "cosine": lambda q, g: F.normalize(q, dim=1) @ F.normalize(g, dim=1).T,
    "euclidean": torch.cdist,
    "dot": lambda q, g: q @ g.T,
}


@pytest.fixture
def data(generator):
    queries = torch.randn(23, 16, generator=generator)
    gallery = torch.randn(61, 16, generator=generator)
    return queries, gallery, torch.arange(23) % 5, torch.arange(61) % 5


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(ranker, "_BLOCK_BYTES", 61 * 4 * 7)  # seven queries


@pytest.mark.parametrize("metric", ["cosine", "euclidean", "dot"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_embedding_scores_are_the_metric(data, metric, dtype):
    queries, gallery = (x.to(dtype) for x in data[:2])
    scores = zf.EmbeddingRanker(metric).scorer(gallery)(queries)
    expected = BY_HAND[metric](queries.double(), gallery.double()).to(scores.dtype)
    torch.testing.assert_close(scores, expected, rtol=1e-5, atol=1e-5)
    assert scores.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)


@pytest.mark.parametrize("metric", ["cosine", "euclidean", "dot"])
def test_evaluation_and_search_agree(data, metric, small_blocks):
    queries, gallery, query_labels, gallery_labels = data
    by = zf.EmbeddingRanker(metric)
    result = by.evaluate(*data, ks=(10,))
    assert result.map == zf.evaluate_retrieval(*data, metric=metric, ks=(10,)).map
    found = by.search(queries, gallery, 10)
    right = gallery_labels[found.rows] == query_labels[:, None]
    assert float(right.double().mean()) == pytest.approx(result.precision_at[10])
    scores = BY_HAND[metric](queries, gallery)
    torch.testing.assert_close(found.scores, scores.gather(1, found.rows), rtol=1e-5, atol=1e-5)
    best = scores.sort(dim=1, descending=metric != "euclidean").values[:, :10]
    torch.testing.assert_close(found.scores, best, rtol=1e-5, atol=1e-5)


def test_zero_rows_have_a_cosine_of_zero():
    rows = torch.tensor([[0.0, 0.0], [3.0, 4.0]])
    scores = zf.EmbeddingRanker().scorer(rows)(rows)
    assert scores.tolist() == [[0.0, 0.0], [0.0, 1.0]]


@pytest.mark.parametrize("larger_is_closer", [True, False])
def test_scores_of_a_method_in_blocks(data, small_blocks, larger_is_closer):
    queries, gallery, *labels = data
    weights = torch.randn(16, 16, generator=torch.Generator().manual_seed(1), requires_grad=True)
    calls = []

    def score(q, g):
        calls.append((len(q), len(g), torch.is_grad_enabled()))
        return q @ weights @ g.T

    by = zf.ScoreRanker(score, name="bilinear", larger_is_closer=larger_is_closer)
    result = by.evaluate(*data, protocol="sake", ks=(10,))
    assert calls == [(7, 61, False)] * 3 + [(2, 61, False)]
    expected = zf.evaluate_ranking(
        (queries @ weights @ gallery.T).detach(),
        *labels,
        larger_is_closer=larger_is_closer,
        protocol="sake",
        ks=(10,),
    )
    assert torch.equal(result.columns, expected.columns)
    assert repr(by) == f"ScoreRanker('bilinear', larger_is_closer={larger_is_closer})"


def test_of_equal_scores_the_first_photos_are_found(data, small_blocks):
    by = zf.ScoreRanker(lambda q, g: q.new_zeros(len(q), len(g)), name="nothing")
    found = by.search(data[0], data[1], 100)
    assert found.rows.tolist() == [list(range(61))] * 23
    with pytest.raises(ValueError, match=r"ScoreRanker\.search: k must be at least 1, got 0"):
        by.search(data[0], data[1], 0)


def test_nothing_to_search_for(data):
    found = zf.EmbeddingRanker().search(data[0][:0], data[1], 5)
    assert found.rows.shape == found.scores.shape == (0, 5)


@pytest.mark.parametrize(
    ("score", "text"),
    [
        (
            lambda q, g: q @ g.T[:, 1:],
            r"score must give a tensor \[23, 61\] for .* 'odd', got \[23, 60\]",
        ),
        (
            lambda q, g: (q @ g.T)[0],
            r"score must give a tensor \[23, 61\] for .* 'odd', got \[61\]",
        ),
        (lambda q, g: 3, r"score must give a tensor \[23, 61\] for .* 'odd', got a int"),
        (lambda q, g: q @ g.T / 0, "ScoreRanker.evaluate: scores must be finite, got"),
    ],
)
def test_scores_that_are_none(data, score, text):
    with pytest.raises(ValueError, match=text):
        zf.ScoreRanker(score, name="odd").evaluate(*data, ks=(5,))


def test_blocks_that_do_not_fit_the_labels(data):
    scores = data[0] @ data[1].T
    how = {"larger_is_closer": True, "ks": (5,)}
    for blocks, text in (
        ([scores[:, 1:]], r"f: scores must be \[23, 61\] in all, got \[23, 60\] after 0 rows"),
        ([scores, scores[:1]], r"f: scores must be \[23, 61\] in all, got \[1, 61\] after 23 rows"),
        ([scores[:9]], "f: scores must have 23 rows in all, got 9"),
        ([], "f: scores must have 23 rows in all, got 0"),
    ):
        with pytest.raises(ValueError, match=text):
            evaluate_score_blocks("f", blocks, *data[2:], **how)
    with pytest.raises(ValueError, match="f: query_labels and gallery_labels must share a"):
        evaluate_score_blocks("f", [scores], data[2] + 100, data[3], **how)


def test_an_unknown_metric():
    with pytest.raises(ValueError, match="EmbeddingRanker: metric must be one of cosine, eu"):
        zf.EmbeddingRanker("cosin")
    assert repr(zf.EmbeddingRanker("dot")) == "EmbeddingRanker('dot')"
