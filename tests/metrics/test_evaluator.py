"""RetrievalEvaluator in one process: in memory and streaming, the same result."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

import zsbir_fast as zf
from zsbir_fast.metrics import shards
from zsbir_fast.metrics.protocols import PROTOCOLS

KS = (1, 10, 50)


@pytest.fixture
def whole_numbers(generator):
    """Embeddings whose products are exact: results must agree to the last bit."""
    q = torch.randint(-3, 4, (90, 6), generator=generator).float()
    g = torch.randint(-3, 4, (1000, 6), generator=generator).float()
    return (
        q,
        g,
        torch.randint(9, (90,), generator=generator),
        torch.randint(8, (1000,), generator=generator),
    )


def in_shards(data, cuts=(0, 300, 301, 1000), tmp_path=None, **options):
    """The evaluator's result on the gallery in shards; memory maps if there is a folder for it."""
    q, g, query_labels, gallery_labels = data
    evaluator = zf.RetrievalEvaluator(ks=KS, **options)
    for number, (a, b) in enumerate(pairwise(cuts)):
        part = g[a:b]
        if tmp_path is not None:
            np.save(tmp_path / f"{number}.npy", part.numpy())
            part = np.load(tmp_path / f"{number}.npy", mmap_mode="r")
        evaluator.add_gallery(part, gallery_labels[a:b])
    return evaluator, evaluator.evaluate(q, query_labels)


def same(a, b):
    return torch.equal(a.columns.nan_to_num(-1), b.columns.nan_to_num(-1))


@pytest.mark.parametrize("metric", ["dot", "cosine", "euclidean"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_way_gives_the_same_bits(whole_numbers, tmp_path, protocol, metric):
    q, g, query_labels, gallery_labels = whole_numbers
    if metric == "cosine":  # of rows with one entry: exact again
        g = torch.nn.functional.one_hot(g[:, 0].long() + 3, 6 + 1).float()
        q = torch.nn.functional.one_hot(q[:, 0].long() + 3, 6 + 1).float()
    data = (q, g, query_labels, gallery_labels)
    options = {"protocol": protocol, "metric": metric}
    expected = zf.evaluate_retrieval(*data, ks=KS, **options)
    _, in_memory = in_shards(data, **options)
    assert same(in_memory, expected)
    assert in_memory.to_dict() == expected.to_dict()
    for more in ({"stream": True}, {"tmp_path": tmp_path}, {"tmp_path": tmp_path, "stream": False}):
        _, got = in_shards(data, **options, **more)
        assert same(got, expected), more


@pytest.mark.parametrize("metric", ["dot", "cosine", "euclidean"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_any_floats_agree_to_1e6(retrieval, metric, dtype):
    q, g, *labels = retrieval(80, 1000)
    data = (q.to(dtype), g.to(dtype), *labels)
    expected = zf.evaluate_retrieval(*data, metric=metric, ks=KS)
    for options in ({}, {"stream": True}):
        _, got = in_shards(data, metric=metric, **options)
        assert got.map == pytest.approx(expected.map, abs=1e-6)
        for k in KS:
            assert got.map_at[k] == pytest.approx(expected.map_at[k], abs=1e-6)


@pytest.mark.parametrize(
    "limits",
    [
        {"_RELEVANT_BYTES": 40 * 300, "_READY_BYTES": 1000, "_MOST_QUERIES": 7},
        {"_RELEVANT_BYTES": 1, "_READY_BYTES": 1, "_MOST_QUERIES": 1},
        {"_RELEVANT_BYTES": 40 * 1000, "_READY_BYTES": 10**9, "_MOST_QUERIES": 1000},
    ],
)
def test_any_block_sizes_give_the_same_bits(whole_numbers, monkeypatch, limits):
    q, g, query_labels, gallery_labels = whole_numbers
    data = (q[:30], g[:200], query_labels[:30], gallery_labels[:200])
    expected = zf.evaluate_retrieval(*data, metric="dot", ks=KS, ties="index")
    for name, value in limits.items():
        monkeypatch.setattr(shards, name, value)
    options = {"metric": "dot", "stream": True, "ties": "index", "workspace_mib": 1}
    _, got = in_shards(data, cuts=(0, 90, 91, 200), **options)
    assert same(got, expected)


def test_gallery_is_prepared_once(whole_numbers, monkeypatch):
    q, _, query_labels, _ = whole_numbers
    evaluator, first = in_shards(whole_numbers)
    prepared = evaluator._prepared
    assert same(evaluator.evaluate(q, query_labels), first)
    part = evaluator.evaluate(q[:10], query_labels[:10])
    assert torch.equal(part.ap.nan_to_num(-1), first.ap[:10].nan_to_num(-1))
    assert evaluator._prepared is prepared


def test_an_evaluator_shows_its_options_and_the_size_of_its_gallery():
    evaluator = zf.RetrievalEvaluator(metric="dot", ks=5, workspace_mib=8)
    evaluator.add_gallery(torch.eye(3), [0, 1, 2])
    text = repr(evaluator)
    assert text.startswith("RetrievalEvaluator(metric='dot', protocol=Protocol(name='standard'")
    assert text.endswith("ks=(5,), workspace_mib=8, progress=False, gallery=3)")


def test_more_shards_and_reset(whole_numbers):
    q, g, query_labels, gallery_labels = whole_numbers
    evaluator, _ = in_shards(whole_numbers, cuts=(0, 400), metric="dot")
    assert len(evaluator) == 400
    evaluator.add_gallery(g[400:].numpy(), gallery_labels[400:].tolist())
    got = evaluator.evaluate(q, query_labels)
    assert same(got, zf.evaluate_retrieval(*whole_numbers, metric="dot", ks=KS))
    evaluator.reset()
    assert len(evaluator) == 0
    with pytest.raises(ValueError, match=r"RetrievalEvaluator.evaluate: the gallery must not be"):
        evaluator.evaluate(q, query_labels)
    evaluator.add_gallery(torch.ones(60, 3), [1] * 60)  # of another width
    assert evaluator.evaluate(torch.ones(1, 3), [1]).map == 1.0


def test_wider_queries_are_computed_as_such(whole_numbers):
    q, g, *labels = whole_numbers
    evaluator, _ = in_shards(whole_numbers, metric="dot")
    got = evaluator.evaluate(q.double() / 3, labels[0])
    assert same(got, zf.evaluate_retrieval(q.double() / 3, g, *labels, metric="dot", ks=KS))
    assert evaluator._prepared.side.rows.dtype == torch.float64


def test_queries_without_relevant_items_when_streaming(whole_numbers):
    q, _, query_labels, _ = whole_numbers
    evaluator, _ = in_shards(whole_numbers, stream=True)
    result = evaluator.evaluate(q[:4], [99, int(query_labels[0]), 98, 97])
    assert result.relevant.count_nonzero() == 1
    assert result.ap.isnan().tolist() == [True, False, True, True]
    with pytest.raises(ValueError, match="must share a label, got none in common"):
        evaluator.evaluate(q[:2], [99, 98])


def test_k_beyond_the_gallery_warns_at_evaluate():
    evaluator = zf.RetrievalEvaluator(ks=(5,))
    evaluator.add_gallery(torch.eye(3), [0, 1, 2])
    with pytest.warns(UserWarning, match=r"k = \[5\] exceeds the gallery of 3") as told:
        evaluator.evaluate(torch.eye(3), [0, 1, 2])
    assert told[0].filename == __file__


def test_bad_rows_are_counted_over_all_shards(tmp_path):
    evaluator = zf.RetrievalEvaluator()
    evaluator.add_gallery(torch.ones(100, 2), [1] * 100)
    bad = np.ones((50, 2), dtype=np.float32)
    bad[7, 1] = np.nan
    np.save(tmp_path / "bad.npy", bad)
    message = r"add_gallery: embeddings must be finite, got nan in row 107 \(1 such row\)"
    for shard in (bad, np.load(tmp_path / "bad.npy", mmap_mode="r"), torch.tensor(bad).bfloat16()):
        with pytest.raises(ValueError, match=message):
            evaluator.add_gallery(shard, [1] * 50)
    assert len(evaluator) == 100


ADD = [
    (torch.ones(2), [1, 2], ValueError, r"embeddings must be \[n, D\], got shape \[2\]"),
    (torch.ones(0, 3), [], ValueError, r"embeddings must not be empty, got shape \[0, 3\]"),
    (torch.ones(2, 3), [1], ValueError, r"labels must be \[2\], one label for each row of embeddi"),
    (torch.ones(2, 3), [1.0, 2.0], TypeError, "labels must be integers, got torch.float32"),
    (torch.ones(2, 4), [1, 2], ValueError, "must have the width of the first shard, D = 3, got 4"),
    (torch.ones(2, 3, device="meta"), [1, 2], TypeError, "must hold numbers, got a tensor on the"),
    ("photos", [1, 2], TypeError, "embeddings must be a tensor or an array of numbers, got str"),
]


@pytest.mark.parametrize(("embeddings", "labels", "error", "message"), ADD)
def test_add_gallery_refuses(embeddings, labels, error, message):
    evaluator = zf.RetrievalEvaluator()
    evaluator.add_gallery(torch.ones(2, 3), [1, 2])
    with pytest.raises(error, match=f"RetrievalEvaluator.add_gallery: .*{message}"):
        evaluator.add_gallery(embeddings, labels)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("queries", "labels", "message"),
    [
        (torch.ones(2, 4), [1, 2], "queries and gallery must have the same width D, got 4 and 3"),
        (torch.ones(2, 3), [1], r"query_labels must be \[2\], one label for each row of queries"),
        (torch.full((2, 3), torch.nan), [1, 2], "queries must be finite, got nan in row 0"),
        (torch.full((2, 3), 1e30), [1, 2], "scores within the range of torch.float32"),
    ],
)
def test_evaluate_refuses(queries, labels, message, stream):
    evaluator = zf.RetrievalEvaluator(stream=stream, metric="dot", ks=1)
    evaluator.add_gallery(torch.full((2, 3), 1e10), [1, 2])
    with pytest.raises(ValueError, match=f"RetrievalEvaluator.evaluate: .*{message}"):
        evaluator.evaluate(queries, labels)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"metric": "l1"}, ValueError, "metric must be one of cosine, euclidean, dot, got 'l1'"),
        ({"protocol": "x"}, ValueError, "protocol must be one of standard"),
        ({"workspace_mib": -1}, ValueError, "workspace_mib must be at least 1, got -1"),
        ({"ks": (0,)}, ValueError, "every k of ks must be at least 1, got 0"),
        ({"ks": "all"}, TypeError, "ks must be integers, got 'all'"),
    ],
)
def test_constructor_refuses(options, error, message):
    with pytest.raises(error, match=f"RetrievalEvaluator: {message}"):
        zf.RetrievalEvaluator(**options)


def test_gallery_too_large_for_its_positions():
    evaluator = zf.RetrievalEvaluator()
    zero = torch.zeros(1, 1).expand(2**30, 1)
    labels = torch.zeros(1, dtype=torch.int64).expand(2**30)
    evaluator._parts, evaluator._labels = [zero, zero], [labels, labels]
    with pytest.raises(ValueError, match=r"at most 2\^31 - 1 items, got 2147483649"):
        evaluator.add_gallery(torch.zeros(1, 1), [0])
