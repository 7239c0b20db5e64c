"""`rerank=` of the evaluation: the scores of a ranker, of a gallery in one piece or in shards."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch

import zsbir_fast as zf

RANKERS = runpy.run_path(str(Path(__file__).with_name("rerankers.py")))["RERANKERS"]


@pytest.fixture
def data(generator):
    centres = torch.randn(5, 16, generator=generator)
    labels = torch.arange(23) % 5, torch.arange(61) % 5
    rows = [centres[x] + torch.randn(len(x), 16, generator=generator) for x in labels]
    return *rows, *labels


@pytest.mark.parametrize("by", RANKERS)
@pytest.mark.parametrize("protocol", ["standard", "sake"])
def test_the_result_is_that_of_the_scores(data, by, protocol):
    queries, gallery, *labels = data
    how = {"protocol": protocol, "ks": (5, 10)}
    scores = RANKERS[by].scorer(gallery)(queries)
    expected = zf.evaluate_ranking(scores, *labels, larger_is_closer=True, **how)
    result = zf.evaluate_retrieval(*data, rerank=RANKERS[by], **how)
    assert torch.equal(result.columns, expected.columns)
    assert result.reranked_by == RANKERS[by].name
    assert torch.equal(RANKERS[by].evaluate(*data, **how).columns, expected.columns)
    assert torch.equal(
        zf.evaluate_retrieval(*data, rerank=RANKERS[by], metric="euclidean", **how).columns,
        expected.columns,
    )


@pytest.mark.parametrize("by", RANKERS)
@pytest.mark.parametrize("dtype", [np.int8, np.float16, np.float64])
def test_embeddings_of_other_types(data, by, dtype):
    """What is exact in float32 ranks alike in every type."""
    whole = [(x * 16).round().clamp(-100, 100) for x in data[:2]]
    expected = zf.evaluate_retrieval(*whole, *data[2:], ks=5, rerank=RANKERS[by])
    arrays = [x.numpy().astype(dtype) for x in whole]
    result = zf.evaluate_retrieval(*arrays, *data[2:], ks=5, rerank=RANKERS[by])
    assert result.map == pytest.approx(expected.map, abs=1e-3)


@pytest.mark.parametrize("by", RANKERS)
def test_shards_are_ranked_as_one_gallery(data, by, tmp_path):
    queries, gallery, query_labels, gallery_labels = data
    np.save(tmp_path / "part.npy", gallery[40:].numpy())
    evaluator = zf.RetrievalEvaluator(ks=(5,), rerank=RANKERS[by])
    evaluator.add_gallery(gallery[:11], gallery_labels[:11])
    evaluator.add_gallery(gallery[11:40], gallery_labels[11:40])
    evaluator.add_gallery(np.load(tmp_path / "part.npy", mmap_mode="r"), gallery_labels[40:])
    result = evaluator.evaluate(queries, query_labels)
    whole = zf.evaluate_retrieval(*data, ks=(5,), rerank=RANKERS[by])
    assert torch.equal(result.columns, whole.columns)
    assert (result.reranked_by, result.gallery_size) == (RANKERS[by].name, 61)
    assert f"rerank={type(RANKERS[by]).__name__}(" in repr(evaluator)


def test_a_result_says_by_what_it_was_reranked(data):
    plain, again = (zf.evaluate_retrieval(*data, ks=5, rerank=r) for r in (None, RANKERS["icfrr"]))
    assert "re-ranked" not in str(plain)
    assert "reranked_by" not in plain.to_dict()
    by = "distance, re-ranked (ICFRR, 5 rounds, 5 and 5 neighbours, beta 0.5)"
    assert f"; ranked by {by}; 23 x 61]" in str(again)
    assert json.loads(json.dumps(again.to_dict()))["reranked_by"] == by


def test_any_object_with_the_members_will_do(data):
    class Backwards:
        name = "backwards"
        larger_is_closer = False

        def scorer(self, gallery):
            return lambda queries: -(queries @ gallery.T)

    result = zf.evaluate_retrieval(*data, ks=5, rerank=Backwards())
    assert torch.equal(result.columns, zf.evaluate_retrieval(*data, ks=5, metric="dot").columns)
    assert result.reranked_by == "backwards"
    Backwards.scorer = lambda self, gallery: lambda queries: queries @ gallery.T / 0
    with pytest.raises(ValueError, match="evaluate_retrieval: scores must be finite, got"):
        zf.evaluate_retrieval(*data, ks=5, rerank=Backwards())


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"rerank": "expansion"}, TypeError, "rerank must be None or a ranker such as .*'expans"),
        ({"rerank": zf.ExpandedRanker}, TypeError, "rerank must be None or a ranker such as"),
        (
            {"rerank": RANKERS["icfrr"], "metric": "dot"},
            ValueError,
            "metric must be cosine or euclidean with rerank, which compares directions, got 'dot'",
        ),
    ],
)
def test_what_cannot_rerank(data, options, error, text):
    with pytest.raises(error, match=f"^evaluate_retrieval: {text}"):
        zf.evaluate_retrieval(*data, ks=5, **options)
    with pytest.raises(error, match=f"^RetrievalEvaluator: {text}"):
        zf.RetrievalEvaluator(ks=5, **options)


def test_items_that_are_left_out_cannot_rerank(data):
    queries, gallery, query_labels, gallery_labels = data
    by = RANKERS["expansion"]
    text = "rerank must be None where gallery items are left out .exclude_self or ids."
    with pytest.raises(ValueError, match=f"^evaluate_retrieval: {text}"):
        zf.evaluate_retrieval(
            gallery, gallery, gallery_labels, gallery_labels, exclude_self=True, ks=5, rerank=by
        )
    with pytest.raises(ValueError, match=f"^evaluate_retrieval: {text}"):
        zf.evaluate_retrieval(*data, query_ids=range(23), gallery_ids=range(61), ks=5, rerank=by)
    evaluator = zf.RetrievalEvaluator(ks=5, rerank=by)
    evaluator.add_gallery(gallery, gallery_labels, ids=range(61))
    with pytest.raises(ValueError, match=rf"^RetrievalEvaluator\.evaluate: {text}"):
        evaluator.evaluate(queries, query_labels, ids=range(23))


@pytest.mark.parametrize("by", RANKERS)
def test_galleries_that_are_too_small(data, by):
    queries, gallery, query_labels, gallery_labels = data
    one = zf.RetrievalEvaluator(ks=1, rerank=RANKERS[by])
    one.add_gallery(gallery[:1], gallery_labels[:1])
    text = {"expansion": r"augment must be in \[0, 1\], got 5"}.get(
        by, "gallery must have at least 2 photos, got 1"
    )
    with pytest.raises(ValueError, match=text):
        one.evaluate(queries, query_labels)
    with pytest.raises(ValueError, match=text):
        zf.evaluate_retrieval(
            queries, gallery[:1], query_labels, gallery_labels[:1], ks=1, rerank=RANKERS[by]
        )
