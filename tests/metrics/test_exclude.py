"""Leave-one-out: queries that stand in their own gallery, by place or by id."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import zsbir_fast as zf
from zsbir_fast.reference.definitions import Definition

KS = (1, 5)


@pytest.fixture
def pictures(generator):
    """Embeddings with ties, labels in which one class has a single picture, and file numbers."""
    rows = torch.randint(-2, 3, (60, 8), generator=generator).float()
    labels = torch.randint(5, (60,), generator=generator)
    labels[7] = 99
    return rows, labels, torch.randperm(60, generator=generator) * 10**12 - 7


def loop(rows, labels, plain_metrics, definition, groups=None):
    """Every query against the others, one by one."""
    groups = torch.arange(len(rows)) if groups is None else groups
    products = rows @ rows.T
    out = []
    for q in range(len(rows)):
        others = groups != groups[q]
        keys = (-products[q][others]).tolist()
        out.append(plain_metrics(keys, (labels[others] == labels[q]).tolist(), KS, definition))
    return np.nan_to_num(np.array(out), nan=-1)


def bits(result):
    return result.columns.nan_to_num(-1)


@pytest.mark.parametrize("ties", ["index", "grouped", "optimistic", "pessimistic"])
def test_exclude_self_is_a_loop_over_the_others(pictures, plain_metrics, ties):
    rows, labels, _ = pictures
    options = {"ks": KS, "ties": ties, "exclude_self": True}
    expected = loop(rows, labels, plain_metrics, Definition(ties=ties))
    found = zf.evaluate_retrieval(rows, rows, labels, labels, metric="dot", **options)
    assert np.abs(bits(found).numpy() - expected).max() < 1e-12
    assert found.columns[7, 0] == 0  # its class has no other picture
    scores = rows @ rows.T
    kept = scores.clone()
    ranked = zf.evaluate_ranking(scores, labels, labels, larger_is_closer=True, **options)
    assert torch.equal(bits(ranked), bits(found))
    assert torch.equal(scores, kept)


def test_ids_are_places_by_another_name(pictures):
    rows, labels, ids = pictures
    expected = zf.evaluate_retrieval(rows, rows, labels, labels, ks=KS, exclude_self=True)
    order = torch.randperm(60)
    found = zf.evaluate_retrieval(
        rows, rows[order], labels, labels[order], ks=KS, query_ids=ids, gallery_ids=ids[order]
    )
    assert torch.equal(bits(found), bits(expected))
    far = zf.evaluate_retrieval(
        rows, rows, labels, labels, ks=KS, query_ids=ids + 1, gallery_ids=ids
    )
    plain = zf.evaluate_retrieval(rows, rows, labels, labels, ks=KS)
    assert torch.equal(bits(far), bits(plain))


def test_several_items_of_one_id(pictures, plain_metrics):
    """Crops of one picture, say."""
    rows, labels, _ = pictures
    groups = torch.arange(60) // 3
    expected = loop(rows, labels, plain_metrics, Definition(ties="index"), groups)
    options = {"metric": "dot", "ks": KS, "ties": "index"}
    found = zf.evaluate_retrieval(
        rows, rows, labels, labels, query_ids=groups, gallery_ids=groups, **options
    )
    assert np.abs(bits(found).numpy() - expected).max() < 1e-12
    for stream in (False, True):
        evaluator = zf.RetrievalEvaluator(stream=stream, **options)
        for part in (slice(0, 13), slice(13, 60)):
            evaluator.add_gallery(rows[part], labels[part], ids=groups[part].numpy())
        assert torch.equal(bits(evaluator.evaluate(rows, labels, ids=groups)), bits(found))
        everyone = evaluator.evaluate(rows, labels)
        plain = zf.evaluate_retrieval(rows, rows, labels, labels, **options)
        assert torch.equal(bits(everyone), bits(plain))


ROWS, LABELS = torch.eye(4), torch.tensor([0, 0, 1, 1])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"exclude_self": 1}, TypeError, "exclude_self must be True or False, got 1"),
        ({"exclude_self": True, "query_ids": [1] * 4}, ValueError, "must not be given both"),
        ({"query_ids": [1, 2, 3, 4]}, ValueError, "must go together, got no gallery_ids"),
        ({"gallery_ids": [1, 2, 3, 4]}, ValueError, "must go together, got no query_ids"),
        ({"query_ids": [1], "gallery_ids": [1] * 4}, ValueError, r"query_ids must be \[4\]"),
        ({"query_ids": [1.0] * 4, "gallery_ids": [1] * 4}, TypeError, "query_ids must be integers"),
        ({"query_ids": [1] * 4, "gallery_ids": [1] * 4}, ValueError, "no query has a relevant"),
        (
            {"exclude_self": True, "protocol": zf.Protocol("mine", empty="error")},
            ValueError,
            "every query must have a relevant item beside itself, query 2 has none",
        ),
    ],
)
def test_refuses(options, error, message):
    labels = torch.tensor([0, 0, 1, 2]) if "protocol" in options else LABELS
    with pytest.raises(error, match=message):
        zf.evaluate_retrieval(ROWS, ROWS, labels, labels, ks=1, **options)
    with pytest.raises(error, match=message):
        zf.evaluate_ranking(ROWS, labels, labels, ks=1, larger_is_closer=True, **options)


def test_refuses_another_gallery_and_missing_ids():
    with pytest.raises(ValueError, match="got 4 queries and 3 gallery items"):
        zf.evaluate_retrieval(ROWS, ROWS[:3], LABELS, LABELS[:3], ks=1, exclude_self=True)
    evaluator = zf.RetrievalEvaluator(ks=1)
    evaluator.add_gallery(ROWS, LABELS)
    with pytest.raises(ValueError, match="ids must be given to add_gallery, too, got none there"):
        evaluator.evaluate(ROWS, LABELS, ids=[1, 2, 3, 4])
    with pytest.raises(ValueError, match="add_gallery: ids must be given for all shards or for"):
        evaluator.add_gallery(ROWS, LABELS, ids=[1, 2, 3, 4])
