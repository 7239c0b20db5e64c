from __future__ import annotations

import numpy as np
import pytest
import torch

from zsbir_fast.ranking import diffusion, ranker
from zsbir_fast.ranking.diffusion import DiffusionRanker
from zsbir_fast.ranking.graph import NeighbourGraph


def by_hand(queries, gallery, *, graph_k, start_k, alpha, power):
    """The closed form of the paper, with whole matrices in float64."""
    q, g = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (queries, gallery))
    inside, cosines = g @ g.T, q @ g.T
    others = inside - 3 * np.eye(len(g))
    near = np.argsort(-others, axis=1, kind="stable")[:, :graph_k]
    listed = np.zeros_like(inside, dtype=bool)
    np.put_along_axis(listed, near, True, axis=1)
    weight = np.where(listed & listed.T & (inside > 0), np.abs(inside) ** power, 0)
    sums = weight.sum(1)
    root = np.diag(1 / np.sqrt(np.where(sums > 0, sums, 1)))
    spread = np.linalg.inv(np.eye(len(g)) - alpha * root @ weight @ root)
    scores = np.empty_like(cosines)
    for i, row in enumerate(cosines):
        start = np.zeros(len(g))
        nearest = np.argsort(-row, kind="stable")[:start_k]
        positive = nearest[row[nearest] > 0]
        start[positive] = (row[positive] / row[nearest[0]]) ** power
        found = spread @ start
        if found.max() > 0:
            found /= found.max()
        scores[i] = np.where(found > 1e-6, found, row - 2)
    return torch.from_numpy(scores).float()


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(5, 16))
    labels = np.arange(23) % 5, np.arange(61) % 5
    return *(centres[x] + rng.normal(size=(len(x), 16)) for x in labels), *labels


@pytest.mark.parametrize(("graph_k", "start_k"), [(6, 4), (60, 61), (1, 1), (3, 10)])
@pytest.mark.parametrize(("alpha", "power"), [(0.99, 3.0), (0.5, 1.0)])
def test_scores_are_those_of_the_closed_form(data, graph_k, start_k, alpha, power, monkeypatch):
    monkeypatch.setattr(ranker, "_BLOCK_BYTES", 61 * 4 * 7)
    monkeypatch.setattr(diffusion, "_BLOCK_BYTES", 61 * 8 * 5 * 3)
    queries, gallery, *_ = data
    how = {"graph_k": graph_k, "start_k": start_k, "alpha": alpha, "power": power}
    expected = by_hand(queries, gallery, **how)
    tensors = [torch.from_numpy(x).float() for x in (queries, gallery)]
    scores = DiffusionRanker(**how).scorer(tensors[1])(tensors[0])
    torch.testing.assert_close(scores, expected, rtol=0, atol=2e-5)
    found = DiffusionRanker(**how).search(*tensors, 4)
    best = expected.sort(dim=1, descending=True).values[:, :4]
    torch.testing.assert_close(found.scores, best, rtol=0, atol=2e-5)


def test_photos_that_are_not_reached_keep_the_order_of_their_cosines():
    gallery = torch.tensor([[1.0, 0, 0], [0.9, 0.1, 0], [0, 1.0, 0.1], [0, 0.9, 0.3]])
    query = torch.tensor([[1.0, 0.2, 0.3]])
    scores = DiffusionRanker(graph_k=1, start_k=1).scorer(gallery)(query)[0]
    cosines = torch.nn.functional.cosine_similarity(query, gallery)
    assert 0 < scores[0] <= 1
    assert 0 < scores[1] <= 1
    torch.testing.assert_close(scores[2:], cosines[2:] - 2)


def test_a_query_that_is_close_to_nothing():
    gallery = torch.eye(4)
    scores = DiffusionRanker(graph_k=2, start_k=2).scorer(gallery)(-torch.ones(1, 4))
    torch.testing.assert_close(scores, torch.full((1, 4), -2.5))


def test_a_class_that_winds_through_space_is_found_whole():
    angle = torch.linspace(0, 2.5, 30)
    curves = [
        torch.stack([angle.cos(), angle.sin(), torch.full_like(angle, h)], 1) for h in (0.2, -0.2)
    ]
    data = torch.stack([curves[0][0], curves[1][-1]]), torch.cat(curves)
    labels = torch.tensor([0, 1]), torch.arange(60) // 30
    plain = ranker.EmbeddingRanker().evaluate(*data, *labels, ks=(5,)).map
    again = DiffusionRanker(graph_k=4, start_k=3).evaluate(*data, *labels, ks=(5,)).map
    assert plain < 0.8
    assert again == 1.0


def test_a_graph_that_was_made_before(data):
    queries, gallery = (torch.from_numpy(x).float() for x in data[:2])
    graph = NeighbourGraph.of(gallery, 20)
    fresh, stored = (
        DiffusionRanker(graph_k=8, start_k=5, graph=g).scorer(gallery)(queries)
        for g in (None, graph)
    )
    assert torch.equal(fresh, stored)
    with pytest.raises(ValueError, match="graph must have at least 21 neighbours of each photo"):
        DiffusionRanker(graph_k=20, graph=graph).scorer(gallery)
    with pytest.raises(ValueError, match="DiffusionRanker: graph must be that of the gallery of"):
        DiffusionRanker(graph_k=8, graph=graph).scorer(gallery + 1)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"graph_k": 0}, "DiffusionRanker: graph_k must be at least 1, got 0"),
        ({"start_k": 0}, "DiffusionRanker: start_k must be at least 1, got 0"),
        ({"alpha": 1.0}, r"DiffusionRanker: alpha must be in \(0, 1\), got 1\.0"),
        ({"power": -1.0}, "DiffusionRanker: power must be finite and not negative, got -1"),
        ({"graph_k": 4}, r"DiffusionRanker: graph_k must be in \[1, 3\], got 4"),
        ({"start_k": 5}, r"DiffusionRanker: start_k must be in \[1, 4\], got 5"),
    ],
)
def test_options_that_cannot_be(options, text):
    with pytest.raises(ValueError, match=text):
        DiffusionRanker(**{"graph_k": 2, "start_k": 2, **options}).scorer(torch.eye(4))
