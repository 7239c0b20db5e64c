"""The evaluation on a GPU: as on the CPU."""

from __future__ import annotations

import pytest
import torch

import zsbir_fast as zf
from zsbir_fast.metrics.protocols import PROTOCOLS

pytestmark = pytest.mark.gpu
KS = (1, 10, 50)


@pytest.fixture
def whole_numbers(generator):
    """Embeddings whose products are exact: results must agree to the last bit."""
    q = torch.randint(-3, 4, (90, 6), generator=generator).float()
    g = torch.randint(-3, 4, (1000, 6), generator=generator).float()
    labels = [torch.randint(n, (len(x),), generator=generator) for n, x in ((9, q), (8, g))]
    return q, g, *labels


@pytest.mark.parametrize("metric", ["dot", "euclidean"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_same_bits_as_on_the_cpu(whole_numbers, protocol, metric):
    q, g, *labels = whole_numbers
    options = {"protocol": protocol, "metric": metric, "ks": KS}
    expected = zf.evaluate_retrieval(q, g, *labels, **options)
    got = zf.evaluate_retrieval(q.cuda(), g.cuda(), *labels, **options, workspace_mib=1)
    assert got.to_dict() == expected.to_dict()
    scores = (q @ g.t()).cuda()
    ranking = zf.evaluate_ranking(
        scores, *labels, larger_is_closer=True, protocol=protocol, ks=KS
    ).columns.nan_to_num(-1)
    on_cpu = zf.evaluate_ranking(
        scores.cpu(), *labels, larger_is_closer=True, protocol=protocol, ks=KS
    )
    assert torch.equal(ranking, on_cpu.columns.nan_to_num(-1))


def test_gallery_on_the_cpu_streams_to_queries_on_the_gpu(whole_numbers):
    q, g, *labels = whole_numbers
    evaluator = zf.RetrievalEvaluator(stream=True, metric="dot", ks=KS)
    evaluator.add_gallery(g, labels[1])
    got = evaluator.evaluate(q.cuda(), labels[0])
    expected = zf.evaluate_retrieval(q, g, *labels, metric="dot", ks=KS)
    assert torch.equal(got.columns.nan_to_num(-1), expected.columns.nan_to_num(-1))


@pytest.mark.parametrize("metric", ["dot", "euclidean"])
def test_streamed_shards_on_the_gpu(whole_numbers, metric):
    q, g, *labels = whole_numbers
    evaluator = zf.RetrievalEvaluator(stream=True, metric=metric, ks=KS, workspace_mib=1)
    for part in torch.arange(len(g)).split(300):
        evaluator.add_gallery(g[part].cuda(), labels[1][part])
    expected = zf.evaluate_retrieval(q, g, *labels, metric=metric, ks=KS)
    for _ in range(2):
        got = evaluator.evaluate(q.cuda(), labels[0])
        assert torch.equal(got.columns.nan_to_num(-1), expected.columns.nan_to_num(-1))


def test_queries_elsewhere_than_the_gallery(whole_numbers):
    q, g, *labels = whole_numbers
    with pytest.raises(ValueError, match="queries must be on cpu like the gallery, got cuda:0"):
        zf.evaluate_retrieval(q.cuda(), g, *labels, ks=KS)


def test_half_precision(whole_numbers):
    q, g, *labels = (x.cuda() for x in whole_numbers)
    expected = zf.evaluate_retrieval(q, g, *labels, ks=KS).map
    got = zf.evaluate_retrieval(q.half(), g.half(), *labels, ks=KS)
    assert got.map == pytest.approx(expected, abs=1e-2)


def test_any_floats_give_the_bits_of_the_cpu():
    generator = torch.Generator().manual_seed(0)
    q, g = (torch.randn(n, 70, generator=generator) for n in (40, 900))
    labels = [torch.randint(9, (n,), generator=generator) for n in (40, 900)]
    for metric in ("cosine", "euclidean", "dot"):
        expected = zf.evaluate_retrieval(q, g, *labels, ks=KS, metric=metric)
        got = zf.evaluate_retrieval(q.cuda(), g.cuda(), *labels, ks=KS, metric=metric)
        assert torch.equal(got.columns, expected.columns)
