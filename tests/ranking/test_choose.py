"""The choice of a re-ranking: the largest gain among those that harm no class."""

from __future__ import annotations

import pytest
import torch

import zsbir_fast as zf
from zsbir_fast.ranking import choose

CANDIDATES = (
    zf.RerankOptions(),
    zf.RerankOptions(kind="expansion", augment=3, expand=4),
    zf.RerankOptions(kind="expansion", augment=8, expand=8),
    zf.RerankOptions(kind="k-reciprocal", k1=8, k2=4),
    zf.RerankOptions(kind="icfrr", gallery_k=60, query_k=5),
    zf.RerankOptions(kind="diffusion", graph_k=6, start_k=5),
)


@pytest.fixture
def data(generator):
    centres = torch.randn(5, 16, generator=generator)
    labels = torch.arange(40) % 5, torch.arange(61) % 5
    rows = [centres[x] + 1.5 * torch.randn(len(x), 16, generator=generator) for x in labels]
    return *rows, *labels


def by_hand(data, options):
    """Gain over all queries, and the change of the class that fares worst."""
    queries, gallery, query_labels, gallery_labels = data
    rankers = [zf.EmbeddingRanker(), options.ranker(zf.EmbeddingRanker(), photos=len(gallery))]
    old, new = (
        torch.tensor(
            [
                float(
                    zf.evaluate_ranking(
                        row[None], [label], gallery_labels, larger_is_closer=True, ks=1
                    ).map
                )
                for row, label in zip(
                    r.scorer(gallery)(queries), query_labels.tolist(), strict=True
                )
            ]
        )
        for r in rankers
    )
    changes = [(new - old)[query_labels == label].mean() for label in range(5)]
    return float((new - old).mean()), float(min(changes))


def test_the_best_setting_without_harm(data):
    choice = zf.choose_rerank(*data, candidates=CANDIDATES)
    assert choice.plain == pytest.approx(zf.evaluate_retrieval(*data, ks=1).map)
    assert [trial.options for trial in choice.trials] == list(CANDIDATES[1:])
    for trial in choice.trials:
        gain, worst = by_hand(data, trial.options)
        assert (trial.gain, trial.worst) == pytest.approx((gain, worst), abs=1e-6)
    harmless = [trial for trial in choice.trials if trial.worst >= -0.02]
    assert 0 < len(harmless) < len(choice.trials)
    assert choice.chosen.gain == max(trial.gain for trial in harmless)
    assert choice.options == choice.chosen.options
    strict = zf.choose_rerank(*data, candidates=CANDIDATES, largest_loss=1.0)
    assert strict.chosen.gain == max(trial.gain for trial in choice.trials)


def test_nothing_is_chosen_where_nothing_helps(data):
    queries, gallery, query_labels, _ = data
    wrong = torch.randint(5, (61,), generator=torch.Generator().manual_seed(0))
    choice = zf.choose_rerank(queries, gallery, query_labels, wrong, candidates=CANDIDATES)
    assert all(trial.worst < -0.02 or trial.gain <= 0 for trial in choice.trials)
    assert (choice.options, choice.chosen) == (zf.RerankOptions(), None)


def test_settings_that_a_gallery_is_too_small_for_are_left_out(data):
    choice = zf.choose_rerank(*data, candidates=CANDIDATES, photos=8)
    assert [t.options.kind for t in choice.trials] == ["expansion", "expansion", "diffusion"]
    choice = zf.choose_rerank(*data, candidates=CANDIDATES, photos=2)
    assert choice.trials == ()
    assert choice.options.kind == "none"


def test_every_shipped_candidate_is_possible(data):
    for candidate in choose.CANDIDATES:
        candidate.ranker(zf.EmbeddingRanker(), photos=100)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"largest_loss": -0.1}, "choose_rerank: largest_loss must not be negative, got -0.1"),
        (
            {"candidates": [zf.RerankOptions(kind="auto")]},
            "choose_rerank: candidates must be settings, got one of the kind 'auto'",
        ),
        (
            {"candidates": [zf.RerankOptions(kind="diffusion", alpha=2.0)]},
            r"DiffusionRanker: alpha must be in .0, 1., got 2\.0",
        ),
        ({"plain": zf.EmbeddingRanker("dot")}, "RerankOptions: kind must be none where embeddings"),
        ({"gallery": torch.full((61, 16), torch.nan)}, "choose_rerank: gallery must be finite"),
        ({"query_labels": torch.arange(40) + 100}, "must share a"),
    ],
)
def test_choices_that_cannot_be(data, options, text):
    names = ("queries", "gallery", "query_labels", "gallery_labels")
    inputs = {**dict(zip(names, data, strict=True)), **options}
    with pytest.raises(ValueError, match=text):
        zf.choose_rerank(**inputs)
