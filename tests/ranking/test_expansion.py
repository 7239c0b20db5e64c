from __future__ import annotations

import numpy as np
import pytest
import torch

from zsbir_fast.ranking import ranker
from zsbir_fast.ranking.expansion import ExpandedRanker, augment_gallery
from zsbir_fast.ranking.graph import NeighbourGraph


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def by_hand(queries, gallery, *, augment, expand, weight, power):
    """An independent transcription, in float64 and with whole matrices."""
    q, g = unit(queries.double().numpy()), unit(gallery.double().numpy())
    if augment:
        cosines = g @ g.T
        means = []
        for row in cosines:
            nearest = np.argsort(-row, kind="stable")[:augment]
            means.append(np.where(row[nearest] > 0, abs(row[nearest]) ** power, 0) @ g[nearest])
        g = unit(np.array(means))
    scores = q @ g.T
    if expand:
        for i, row in enumerate(scores):
            nearest = np.argsort(-row, kind="stable")[:expand]
            relative = row[nearest] / row[nearest[0]]
            weights = np.where(row[nearest] > 0, abs(relative) ** power, 0)
            mean = weights @ g[nearest]
            q[i] += weight * mean / np.linalg.norm(mean)
        scores = unit(q) @ g.T
    return torch.from_numpy(scores).float()


@pytest.fixture
def data(generator):
    centres = torch.randn(5, 16, generator=generator)
    labels = torch.arange(23) % 5, torch.arange(61) % 5
    rows = [centres[x] + 1.5 * torch.randn(len(x), 16, generator=generator) for x in labels]
    return *rows, *labels


@pytest.mark.parametrize(("augment", "expand"), [(0, 5), (5, 0), (4, 7), (61, 61), (1, 1)])
@pytest.mark.parametrize(("weight", "power"), [(0.5, 0.0), (2.0, 1.0), (0.1, 3.0)])
def test_scores_are_those_of_a_transcription(data, augment, expand, weight, power, monkeypatch):
    monkeypatch.setattr(ranker, "_BLOCK_BYTES", 61 * 4 * 7)
    queries, gallery, *_ = data
    options = {"augment": augment, "expand": expand, "weight": weight, "power": power}
    by = ExpandedRanker(**options)
    expected = by_hand(queries, gallery, **options)
    torch.testing.assert_close(by.scorer(gallery)(queries), expected, rtol=0, atol=1e-5)
    found = by.search(queries, gallery, 3)
    best = expected.sort(dim=1, descending=True).values[:, :3]
    torch.testing.assert_close(found.scores, best, rtol=0, atol=1e-5)


def test_noisy_classes_are_found_better(data):
    plain = ranker.EmbeddingRanker().evaluate(*data, ks=(5,)).map
    augmented = ExpandedRanker(augment=8, expand=0).evaluate(*data, ks=(5,)).map
    both = ExpandedRanker(augment=8, expand=8).evaluate(*data, ks=(5,)).map
    assert plain + 0.02 < augmented < both - 0.02


def test_a_graph_that_was_made_before(data):
    queries, gallery, *_ = data
    graph = NeighbourGraph.of(gallery, 12)
    fresh, stored = (
        ExpandedRanker(augment=4, expand=7, graph=g).scorer(gallery)(queries) for g in (None, graph)
    )
    assert torch.equal(fresh, stored)
    with pytest.raises(ValueError, match="ExpandedRanker: graph must be that of the gallery of"):
        ExpandedRanker(augment=4, graph=graph).scorer(gallery + 1)
    with pytest.raises(ValueError, match=r"augment_gallery: k must be in \[1, 12\], got 13"):
        augment_gallery(gallery, graph, k=13)


def test_one_photo_and_rows_of_zeros():
    one = torch.ones(1, 4)
    assert ExpandedRanker(augment=1, expand=1).scorer(one)(one * 3).tolist() == [[1.0]]
    rows = torch.zeros(3, 4)
    scores = ExpandedRanker(augment=2, expand=2).scorer(rows)(rows)
    assert torch.equal(scores, torch.zeros(3, 3))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"augment": -1}, "ExpandedRanker: augment must be at least 0, got -1"),
        ({"weight": 0}, "ExpandedRanker: weight must be finite and above 0, got 0.0"),
        ({"weight": float("nan")}, "weight must be finite and above 0, got nan"),
        ({"augment": 0, "expand": 0}, "augment and expand must not both be 0, got 0 and 0"),
        ({"power": -1.0}, "power must be finite and not negative, got -1.0"),
        ({"power": float("nan")}, "power must be finite and not negative, got nan"),
        ({"augment": 5}, r"ExpandedRanker: augment must be in \[0, 4\], got 5"),
        ({"augment": 0, "expand": 5}, r"ExpandedRanker: expand must be in \[0, 4\], got 5"),
    ],
)
def test_options_that_cannot_be(options, text):
    with pytest.raises(ValueError, match=text):
        ExpandedRanker(**{"expand": 1, **options}).scorer(torch.eye(4))
