"""Equal rows tie, and a ranking is the same however the gallery is cut."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import zsbir_fast as zf
from zsbir_fast.metrics import shards as shards_of_metrics
from zsbir_fast.reference.definitions import Definition

KS = (1, 10, 50)
GALLERIES = 200
# Where scores are exact; the cosine of codes of one length ranks as their product does.
EXACT = {("sign codes", m) for m in ("cosine", "dot", "euclidean")}
EXACT |= {("binary codes", m) for m in ("dot", "euclidean")}


def evaluated(data, *, cuts=(), stream=False, workspace_mib=None, ties=None):
    """The columns of an evaluation whose gallery comes in shards that end at ``cuts``."""
    _, metric, queries, gallery, labels, gallery_labels = data
    evaluator = zf.RetrievalEvaluator(
        metric=metric, ks=KS, stream=stream, workspace_mib=workspace_mib, ties=ties
    )
    for start, stop in zip((0, *cuts), (*cuts, len(gallery)), strict=True):
        if start < stop:
            evaluator.add_gallery(gallery[start:stop], gallery_labels[start:stop])
    return bits(evaluator.evaluate(queries, labels))


def bits(result):
    return result.columns.nan_to_num(-1)


@pytest.mark.filterwarnings("ignore:.*exceeds the gallery")
def test_two_hundred_galleries_give_the_same_bits_in_every_mode(
    tied_gallery, set_threads, monkeypatch
):
    for number in range(GALLERIES):
        data = tied_gallery(number)
        _, metric, queries, gallery, labels, gallery_labels = data
        for ties in ("expected", "index"):
            whole = zf.evaluate_retrieval(
                queries, gallery, labels, gallery_labels, metric=metric, ks=KS, ties=ties
            )
            expected = bits(whole)
            thirds = (len(gallery) // 3, len(gallery) // 2)
            with monkeypatch.context() as patch:
                patch.setattr(shards_of_metrics, "_READY_BYTES", 4096 * (1 + number % 7))
                streamed = evaluated(data, cuts=thirds, stream=True, ties=ties)
            assert torch.equal(streamed, expected), number
            assert torch.equal(evaluated(data, cuts=thirds, ties=ties), expected), number
        one = slice(number % len(queries), number % len(queries) + 1)
        if np.isin(labels[one], gallery_labels).all():
            given = queries[one], gallery, labels[one], gallery_labels
            alone = zf.evaluate_retrieval(*given, metric=metric, ks=KS, ties="index")
            assert torch.equal(bits(alone), expected[one]), number
        for threads in (1, 3, 7, 2) if number % 4 == 0 else ():
            set_threads(threads)
            assert torch.equal(evaluated(data, ties="index"), expected), number


@pytest.mark.filterwarnings("ignore:.*exceeds the gallery")
def test_ties_are_those_of_exact_arithmetic(tied_gallery, plain_metrics):
    """Scores in whole numbers, ranked by fractions of Python's own integers."""
    definition = Definition(ties="grouped")
    seen = 0
    for number in range(75):
        kind, metric, queries, gallery, labels, gallery_labels = tied_gallery(number)
        if (kind, metric) not in EXACT:
            continue
        found = zf.evaluate_retrieval(
            queries[:1], gallery, labels[:1], gallery_labels, metric=metric, ks=KS, ties="grouped"
        )
        q, g = queries[0].astype(int), gallery.astype(int)
        keys = (g * g).sum(1) - 2 * g @ q if metric == "euclidean" else -g @ q
        expected = plain_metrics(keys, gallery_labels == labels[0], KS, definition)
        assert bits(found)[0].tolist() == pytest.approx(np.nan_to_num(expected, nan=-1), abs=1e-12)
        seen += 1
    assert seen >= 20


@pytest.mark.parametrize("stream", [False, True])
def test_a_collapsed_model_scores_what_chance_gives(generator, stream):
    """All embeddings equal: right is the expectation over all orders, 0.1058 for ten classes."""
    row = torch.randn(1, 512, generator=generator)
    evaluator = zf.RetrievalEvaluator(ks=(10,), stream=stream)
    evaluator.add_gallery(row.expand(1000, 512), torch.arange(1000) % 10)
    result = evaluator.evaluate(row.expand(10, 512), torch.arange(10))
    assert result.map == pytest.approx(0.10584276654104, abs=1e-12)
    assert result.tie_spread == pytest.approx(0.9477, abs=1e-4)


@pytest.mark.filterwarnings("ignore:.*exceeds the gallery")
def test_directions_tie_whatever_their_length(generator):
    """Lengths of powers of two change no digit of a cosine, nor do rows beyond the usual range."""
    rows = torch.randn(30, 20, generator=generator)
    labels = torch.arange(30) % 3
    plain = zf.evaluate_retrieval(rows[:5], rows, labels[:5], labels, ks=KS)
    for powers in (torch.arange(-100, 110, 7.0), torch.full((30,), -120.0)):
        scaled = rows * torch.exp2(powers)[:, None]
        found = zf.evaluate_retrieval(rows[:5], scaled, labels[:5], labels, ks=KS)
        assert torch.equal(bits(found), bits(plain))
        found = zf.evaluate_retrieval(scaled[:5], rows, labels[:5], labels, ks=KS)
        assert torch.equal(bits(found), bits(plain))
    with_zeros = torch.cat([rows, torch.zeros(3, 20)])
    more = torch.cat([labels, labels[:3]])
    result = zf.evaluate_retrieval(rows[:5], with_zeros, labels[:5], more, ks=KS)
    assert result.map_worst < result.map_best  # zeros have cosine 0 and tie with each other
