from __future__ import annotations

import numpy as np
import pytest
import torch

from zsbir_fast.ranking import ranker
from zsbir_fast.ranking.graph import NeighbourGraph
from zsbir_fast.ranking.iterative import IterativeRanker


def by_hand(queries, gallery, *, rounds, gallery_k, query_k, beta):
    """The rule with whole matrices of ranks, as a reader of the paper would write it."""
    q, g = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (queries, gallery))
    count = len(g)
    rank = np.argsort(np.argsort(-(g @ g.T), axis=1, kind="stable"), axis=1)
    for i in range(count):  # itself left out: what stood behind moves up
        rank[i] -= rank[i] > rank[i, i]
        rank[i, i] = count
    weight = np.where(rank < gallery_k, 1 - rank / (count - 1), 0)
    scores = -np.linalg.norm(q[:, None] - g[None], axis=2)
    for row in scores:
        places, order = np.sort(row)[::-1], np.argsort(-row, kind="stable")
        for _ in range(rounds):
            lift = weight[order[:query_k]].mean(0)
            row[order] = places + beta * lift[order]
            order = order[np.argsort(-row[order], kind="stable")]
    return scores


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(5, 16))
    labels = np.arange(23) % 5, np.arange(61) % 5
    return *(centres[x] + 1.5 * rng.normal(size=(len(x), 16)) for x in labels), *labels


@pytest.mark.parametrize("rounds", [1, 2, 5])
@pytest.mark.parametrize(("gallery_k", "query_k"), [(8, 5), (60, 61), (1, 1)])
def test_scores_are_those_of_a_transcription(data, rounds, gallery_k, query_k, monkeypatch):
    monkeypatch.setattr(ranker, "_BLOCK_BYTES", 61 * 4 * 7)
    queries, gallery, *_ = data
    how = {"rounds": rounds, "gallery_k": gallery_k, "query_k": query_k, "beta": 0.5}
    expected = torch.from_numpy(by_hand(queries, gallery, **how)).float()
    tensors = [torch.from_numpy(x).float() for x in (queries, gallery)]
    scores = IterativeRanker(**how).scorer(tensors[1])(tensors[0])
    torch.testing.assert_close(scores, expected, rtol=0, atol=1e-5)
    found = IterativeRanker(**how).search(*tensors, 4)
    best = expected.sort(dim=1, descending=True).values[:, :4]
    torch.testing.assert_close(found.scores, best, rtol=0, atol=1e-5)


def test_noisy_classes_are_found_better(data):
    tensors = [torch.from_numpy(x) for x in data]
    plain = ranker.EmbeddingRanker().evaluate(*tensors, ks=(5,)).map
    again = IterativeRanker(gallery_k=8, query_k=8).evaluate(*tensors, ks=(5,)).map
    assert again > plain + 0.02


def test_equal_photos_do_not_hide_the_photo_itself():
    gallery = torch.ones(4, 2)
    graph = NeighbourGraph.of(gallery, 3)
    from zsbir_fast.ranking.graph import without_self

    assert without_self(graph)[0].tolist() == [[1, 2], [0, 2], [0, 1], [0, 1]]
    scores = IterativeRanker(gallery_k=2, query_k=2).scorer(gallery)(gallery[:1])
    assert torch.isfinite(scores).all()


def test_a_graph_that_was_made_before(data):
    queries, gallery = (torch.from_numpy(x).float() for x in data[:2])
    graph = NeighbourGraph.of(gallery, 20)
    fresh, stored = (
        IterativeRanker(gallery_k=8, query_k=5, graph=g).scorer(gallery)(queries)
        for g in (None, graph)
    )
    assert torch.equal(fresh, stored)
    with pytest.raises(
        ValueError,
        match="graph must have at least 21 neighbours of each photo, itself among them, got 20",
    ):
        IterativeRanker(gallery_k=20, query_k=5, graph=graph).scorer(gallery)
    with pytest.raises(ValueError, match="IterativeRanker: graph must be that of the gallery of"):
        IterativeRanker(gallery_k=8, query_k=5, graph=graph).scorer(gallery + 1)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"rounds": 0}, r"IterativeRanker: rounds must be in \[1, 1000\], got 0"),
        ({"gallery_k": 4}, r"gallery_k must be in \[1, 3\], got 4"),
        ({"query_k": 5}, r"query_k must be in \[1, 4\], got 5"),
        ({"beta": 0.0}, r"beta must be positive and finite, got 0\.0"),
    ],
)
def test_options_that_cannot_be(options, text):
    with pytest.raises(ValueError, match=text):
        IterativeRanker(**{"gallery_k": 2, "query_k": 2, **options}).scorer(torch.eye(4))
