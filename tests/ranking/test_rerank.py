"""`zf.rerank`: one call for every rule, and one clear error for whatever cannot be."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import zsbir_fast as zf

RULES = {
    "expansion": (zf.ExpandedRanker, {"augment": 4, "expand": 6}),
    "icfrr": (zf.IterativeRanker, {"gallery_k": 5, "query_k": 5, "rounds": 2}),
    "k-reciprocal": (zf.ReciprocalRanker, {"k1": 8, "k2": 3}),
    "diffusion": (zf.DiffusionRanker, {"graph_k": 6, "start_k": 5}),
}


@pytest.fixture
def data(generator):
    return torch.randn(23, 16, generator=generator), torch.randn(61, 16, generator=generator)


@pytest.mark.parametrize("by", RULES)
def test_rows_and_scores_are_those_of_the_ranker(data, by):
    make, options = RULES[by]
    scores = make(**options).scorer(data[1])(data[0])
    order = torch.sort(scores, dim=1, descending=True, stable=True)
    every = zf.rerank(*data, by=by, **options)
    assert torch.equal(every.rows, order.indices)
    assert torch.equal(every.scores, order.values)
    graph = zf.NeighbourGraph.of(data[1], 20)
    arrays = [x.numpy().astype(np.float64) for x in data]
    few = zf.rerank(*arrays, 7, by, graph, **options)
    assert torch.equal(few.rows, order.indices[:, :7])
    assert few.scores.dtype == torch.float32


@pytest.mark.parametrize("by", RULES)
@pytest.mark.parametrize("side", ["queries", "gallery"])
def test_numbers_that_are_none(data, by, side):
    make, options = RULES[by]
    inputs = dict(zip(("queries", "gallery"), data, strict=True))
    inputs[side][3, 2] = float("nan")
    with pytest.raises(ValueError, match=f"^rerank: {side} must be finite, got nan in row 3"):
        zf.rerank(**inputs, by=by, **options)
    with pytest.raises(ValueError, match=f"^{make.__name__}: {side} must be finite, got nan in"):
        make(**options).scorer(data[1])(data[0])
    if side == "gallery":
        with pytest.raises(ValueError, match=r"^NeighbourGraph\.of: gallery must be finite, got"):
            zf.NeighbourGraph.of(data[1], 3)


@pytest.mark.parametrize("by", RULES)
def test_a_gallery_of_one_photo(data, by):
    make, options = RULES[by]
    text = "gallery must have at least 2 photos, got 1"
    if by == "expansion":
        text = r"augment must be in \[0, 1\], got 4"
        alone = zf.rerank(data[0], data[1][:1], augment=1, expand=1)
        assert alone.rows.tolist() == [[0]] * 23
    with pytest.raises(ValueError, match=f"^{make.__name__}: {text}"):
        zf.rerank(data[0], data[1][:1], by=by, **options)


@pytest.mark.parametrize("by", RULES)
def test_graphs_that_do_not_fit(data, by):
    make, options = RULES[by]
    other = zf.NeighbourGraph.of(data[1] + 1, 20)
    text = f"^{make.__name__}: graph must be that of the gallery of 61 photos, got that of another"
    with pytest.raises(ValueError, match=text):
        zf.rerank(*data, by=by, graph=other, **options)
    few = zf.NeighbourGraph.of(data[1], 2)
    with pytest.raises(ValueError, match=f"{make.__name__}: graph must have at least . neighbours"):
        zf.rerank(*data, by=by, graph=few, **options)
    with pytest.raises(TypeError, match=r"graph must be a zsbir_fast\.NeighbourGraph or None"):
        zf.rerank(*data, by=by, graph=few.rows, **options)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"by": "none"}, ValueError, "by must be one of expansion, icfrr, k-reciprocal, diffusion"),
        ({"by": "difusion"}, ValueError, "got 'difusion' .did you mean 'diffusion'"),
        ({"k": 62}, ValueError, r"k must be in \[1, 61\], got 62"),
        ({"k": 0}, ValueError, r"k must be in \[1, 61\], got 0"),
        ({"k": 2.0}, TypeError, "k must be an integer, got 2.0"),
        (
            {"k1": 3},
            ValueError,
            "options of expansion must be among augment, expand, weight, power, got",
        ),
        ({"gallery": torch.ones(5, 3)}, ValueError, "queries and gallery must have the same width"),
        ({"gallery": torch.ones(5)}, ValueError, r"gallery must be \[G, D\], got shape \[5\]"),
        ({"gallery": torch.ones(0, 16)}, ValueError, "gallery must not be empty"),
        (
            {"queries": "all"},
            TypeError,
            "queries must be a tensor or an array of numbers",
        ),
    ],
)
def test_calls_that_cannot_be(data, options, error, text):
    inputs = {"queries": data[0], "gallery": data[1], "augment": 2, "expand": 2}
    with pytest.raises(error, match=f"rerank: .*{text}" if "did" not in text else text):
        zf.rerank(**{**inputs, **options})


def test_options_of_a_config_make_the_ranker():
    plain = zf.EmbeddingRanker()
    made = zf.RerankOptions(kind="k-reciprocal", k1=7, k2=3, lam=0.5).ranker(plain, photos=50)
    assert repr(made) == "ReciprocalRanker(k1=7, k2=3, lam=0.5)"
    made = zf.RerankOptions(kind="diffusion", graph_k=7, power=1.0).ranker(plain, photos=50)
    assert repr(made) == "DiffusionRanker(graph_k=7, start_k=10, alpha=0.99, power=1.0)"
    with pytest.raises(ValueError, match=r"ReciprocalRanker: k1 must be in \[1, 10\], got 20"):
        zf.RerankOptions(kind="k-reciprocal").require_possible(plain, photos=11)
    auto = zf.RerankOptions(kind="auto")
    auto.require_possible(plain, photos=11)
    with pytest.raises(ValueError, match="kind must be a rule, got 'auto', for which"):
        auto.ranker(plain, photos=50)
    with pytest.raises(ValueError, match="kind must be none where embeddings are not ranked"):
        auto.require_possible(zf.EmbeddingRanker("dot"), photos=50)
