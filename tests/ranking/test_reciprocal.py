from __future__ import annotations

import numpy as np
import pytest
import torch

from zsbir_fast.ranking import ranker, reciprocal, sparse_rows
from zsbir_fast.ranking.graph import NeighbourGraph
from zsbir_fast.ranking.reciprocal import ReciprocalRanker


def by_hand(queries, gallery, *, k1, k2, lam):
    """The paper's sets and vectors, one image after the other, with whole matrices in float64."""
    q, g = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (queries, gallery))
    inside, cosines = g @ g.T, q @ g.T
    order = np.argsort(-inside, axis=1, kind="stable")

    def reciprocal_of(photo, k):
        return {int(c) for c in order[photo, : k + 1] if photo in order[c, : k + 1]}

    def expanded(own):
        found = set(own)
        for c in own:
            half = reciprocal_of(c, round(k1 / 2))
            if len(half & own) > 2 / 3 * len(half):
                found |= half
        return found

    vectors = np.zeros_like(inside)
    for i in range(len(g)):
        for j in expanded(reciprocal_of(i, k1)):
            vectors[i, j] = np.exp(-(1 - inside[i, j]))
        vectors[i] /= vectors[i].sum()
    mean = np.array([vectors[order[i, :k2]].mean(0) for i in range(len(g))])
    scores = np.zeros_like(cosines)
    for i, row in enumerate(cosines):
        nearest = np.argsort(-row, kind="stable")
        # The query would be a neighbour of the photo: it is closer than the photo's last one.
        own = {int(p) for p in nearest[:k1] if row[p] > inside[p, order[p, k1]]}
        vector = np.zeros(len(g) + 1)  # the last number is the query's own
        vector[-1] = 1
        for j in expanded(own):
            vector[j] = np.exp(-(1 - row[j]))
        vector /= vector.sum()
        for photo in nearest[: k2 - 1]:
            vector[:-1] += vectors[photo]
        vector /= k2
        both = np.concatenate([mean, np.zeros((len(g), 1))], axis=1)
        jaccard = 1 - np.minimum(vector, both).sum(1) / np.maximum(vector, both).sum(1)
        scores[i] = -((1 - lam) * jaccard + lam * (1 - row))
    return torch.from_numpy(scores).float()


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(5, 16))
    labels = np.arange(23) % 5, np.arange(61) % 5
    return *(centres[x] + rng.normal(size=(len(x), 16)) for x in labels), *labels


@pytest.mark.parametrize(("k1", "k2"), [(8, 3), (5, 1), (1, 1), (12, 20), (60, 61)])
@pytest.mark.parametrize("lam", [0.0, 0.3])
def test_scores_are_those_of_a_transcription(data, k1, k2, lam, monkeypatch):
    monkeypatch.setattr(ranker, "_BLOCK_BYTES", 61 * 4 * 7)
    monkeypatch.setattr(reciprocal, "_BLOCK_BYTES", 4000)
    monkeypatch.setattr(reciprocal, "_PAIRS", 50)
    monkeypatch.setattr(sparse_rows, "_AT_ONCE", 100)
    queries, gallery, *_ = data
    expected = by_hand(queries, gallery, k1=k1, k2=k2, lam=lam)
    tensors = [torch.from_numpy(x).float() for x in (queries, gallery)]
    by = ReciprocalRanker(k1=k1, k2=k2, lam=lam)
    torch.testing.assert_close(by.scorer(tensors[1])(tensors[0]), expected, rtol=0, atol=1e-5)
    found = by.search(*tensors, 4)
    best = expected.sort(dim=1, descending=True).values[:, :4]
    torch.testing.assert_close(found.scores, best, rtol=0, atol=1e-5)


def test_no_query_depends_on_another(data):
    queries, gallery = (torch.from_numpy(x).float() for x in data[:2])
    score = ReciprocalRanker(k1=8, k2=3).scorer(gallery)
    alone = torch.cat([score(query[None]) for query in queries])
    torch.testing.assert_close(score(queries), alone, rtol=0, atol=1e-6)


def test_noisy_classes_are_found_better(data):
    tensors = [torch.from_numpy(x) for x in data]
    plain = ranker.EmbeddingRanker().evaluate(*tensors, ks=(5,)).map
    again = ReciprocalRanker(k1=8, k2=4).evaluate(*tensors, ks=(5,)).map
    assert again > plain + 0.02


def test_equal_photos_know_themselves():
    gallery = torch.ones(5, 2)
    scores = ReciprocalRanker(k1=1, k2=1, lam=0.0).scorer(gallery)(gallery[:1])
    # The neighbours of every photo are the first two: only they are reciprocal.
    assert torch.isfinite(scores).all()
    assert scores[0, 0] == scores[0, 1]


def test_a_graph_that_was_made_before(data):
    queries, gallery = (torch.from_numpy(x).float() for x in data[:2])
    graph = NeighbourGraph.of(gallery, 20)
    fresh, stored = (
        ReciprocalRanker(k1=8, k2=5, graph=g).scorer(gallery)(queries) for g in (None, graph)
    )
    assert torch.equal(fresh, stored)
    with pytest.raises(ValueError, match="graph must have at least 21 neighbours of each photo"):
        ReciprocalRanker(k1=20, graph=graph).scorer(gallery)
    with pytest.raises(ValueError, match="ReciprocalRanker: graph must be that of the gallery of"):
        ReciprocalRanker(k1=8, graph=graph).scorer(gallery + 1)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"k1": 0}, "ReciprocalRanker: k1 must be at least 1, got 0"),
        ({"k2": 0}, "ReciprocalRanker: k2 must be at least 1, got 0"),
        ({"lam": 1.5}, r"ReciprocalRanker: lam must be in \[0, 1\], got 1\.5"),
        ({"k1": 4}, r"ReciprocalRanker: k1 must be in \[1, 3\], got 4"),
        ({"k2": 5}, r"ReciprocalRanker: k2 must be in \[1, 4\], got 5"),
    ],
)
def test_options_that_cannot_be(options, text):
    with pytest.raises(ValueError, match=text):
        ReciprocalRanker(**{"k1": 2, "k2": 2, **options}).scorer(torch.eye(4))
