"""Each definition against hand tables, plain Python, scikit-learn and torchmetrics."""

from __future__ import annotations

import itertools
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score
from torchmetrics.functional.retrieval import (
    retrieval_average_precision,
    retrieval_hit_rate,
    retrieval_precision,
    retrieval_recall,
)

import zsbir_fast as zf
from zsbir_fast.metrics.protocols import PROTOCOLS, Protocol

KS = (1, 2, 3, 5, 8, 100)


def evaluate(keys, relevant, protocol, ks=KS):
    """Distances [Q, G] and relevances [G] of one class."""
    keys = torch.as_tensor(keys)
    keys = keys[None] if keys.dim() == 1 else keys
    beyond = max(ks) > keys.shape[1]
    with pytest.warns(UserWarning, match="exceeds the gallery") if beyond else nullcontext():
        return zf.evaluate_ranking(
            keys,
            torch.ones(len(keys), dtype=torch.int64),
            torch.as_tensor(relevant).long(),
            larger_is_closer=False,
            protocol=protocol,
            ks=ks,
        )


HAND = [
    # rel = 1 0 1 0 0 1, R = 3: (1 + 2/3 + 3/6) / 3; precision falls along the hits: VOC is the same
    ([1, 0, 1, 0, 0, 1], "standard", "map", None, 0.7222),
    ([1, 0, 1, 0, 0, 1], "sake", "map", None, 0.7222),
    # rel = 0 1 1, R = 2: (1/2 + 2/3) / 2; the envelope lifts 1/2 to 2/3
    ([0, 1, 1], "standard", "map", None, 0.5833),
    ([0, 1, 1], "sake", "map", None, 0.6667),
    # rel = 1 0 0 1 1 1, R = 4, k = 2: the sum of precisions is 1; over R, min(R, k), hits, k
    ([1, 0, 0, 1, 1, 1], "standard", "map_at", 2, 0.25),
    ([1, 0, 0, 1, 1, 1], "zse", "map_at", 2, 0.5),
    ([1, 0, 0, 1, 1, 1], "sem_pcyc", "map_at", 2, 1.0),
    ([1, 0, 0, 1, 1, 1], "torchmetrics", "map_at", 2, 1.0),
    ([1, 0, 0, 1, 1, 1], "eccv18", "map_at", 2, 0.5),
    ([1, 0, 0, 1, 1, 1], "standard", "precision_at", 2, 0.5),
    # k = 6 > R = 4: 4 hits over 6, or the 2 hits of the first 4 over 4
    ([1, 0, 0, 1, 1, 1], "standard", "precision_at", 6, 0.6667),
    ([1, 0, 0, 1, 1, 1], "zse", "precision_at", 6, 0.5),
    ([1, 0, 0, 1, 1, 1], "standard", "recall_at", 4, 0.5),
    ([0, 0, 1, 1, 0, 1], "standard", "hit_at", 2, 0.0),
    ([0, 0, 1, 1, 0, 1], "standard", "hit_at", 3, 1.0),
    ([0, 0, 1, 1, 0, 1], "standard", "mrr", None, 0.3333),
    # R = 3: one hit in the first three places, the third; MAP@R has no envelope under any protocol
    ([0, 0, 1, 1, 0, 1], "standard", "map_at_r", None, 0.1111),
    ([0, 0, 1, 1, 0, 1], "sake", "r_precision", None, 0.3333),
    # R = 4, rel = 0 1 1 0 within R: (1/2 + 2/3) / 4; VOC would lift 1/2 to 2/3
    ([0, 1, 1, 0, 1, 0, 1], "sake", "map_at_r", None, 0.2917),
    ([0, 1, 1, 0, 1, 0, 1], "eccv18", "r_precision", None, 0.5),
    # k = 9 > G = 3: two hits over 9, over R = 2, over G = 3
    ([0, 1, 1], "standard", "precision_at", 9, 0.2222),
    ([0, 1, 1], "zse", "precision_at", 9, 0.5),
    ([0, 1, 1], "sake", "precision_at", 9, 0.6667),
]


@pytest.mark.parametrize(("relevant", "protocol", "name", "k", "expected"), HAND)
def test_hand_table(relevant, protocol, name, k, expected):
    keys = torch.arange(float(len(relevant)))
    result = evaluate(keys, relevant, protocol, ks=(1,) if k is None else (k,))
    value = getattr(result, name)
    assert (value if k is None else value[k]) == pytest.approx(expected, abs=5e-5)


HAND_TIES = [
    # Four items tie, the third and fourth are relevant. By index: (1/3 + 2/4) / 2. Best: 1. Worst:
    # as by index. One threshold: precision 2/4 for both. Mean over the six orders of two hits in
    # four places: AP = 1, 5/6, 3/4, 7/12, 1/2, 5/12; their mean is 49/72.
    # R = 2 cuts the tie. By index and at worst the first two places have no hit, at best two. One
    # threshold: one expected hit at precision 1/2. Over the six orders: MAP@R = 1, 1/2, 1/2, 1/4,
    # 1/4, 0 with mean 5/12, and one hit of two places in the mean.
    ("index", 5 / 12, 0, 0),
    ("optimistic", 1.0, 1.0, 1.0),
    ("pessimistic", 5 / 12, 0, 0),
    ("grouped", 0.5, 1 / 4, 1 / 2),
    ("expected", 49 / 72, 5 / 12, 1 / 2),
]


@pytest.mark.parametrize(("ties", "expected", "at_r", "r_precision"), HAND_TIES)
def test_hand_table_of_ties(ties, expected, at_r, r_precision):
    result = evaluate([0.5] * 4, [0, 0, 1, 1], Protocol("mine", ties=ties), ks=(1,))
    assert result.map == pytest.approx(expected)
    assert (result.map_at_r, result.r_precision) == pytest.approx((at_r, r_precision))
    assert (result.map_worst, result.map_best) == pytest.approx((5 / 12, 1.0))
    assert result.tie_spread == pytest.approx(7 / 12)


def test_zero_and_minus_zero_tie():
    assert evaluate([0.0, -0.0], [0, 1], Protocol("mine", ties="optimistic"), ks=(1,)).map == 1.0
    assert evaluate([-0.0, 0.0], [0, 1], Protocol("mine", ties="index"), ks=(1,)).map == 0.5


def all_protocols():
    choices = itertools.product(
        ("standard", "voc"),
        ("min_relevant_k", "prefix_positive", "all_relevant", "at_k"),
        ("k", "min_relevant_k", "min_gallery_k"),
        ("index", "optimistic", "pessimistic", "grouped", "expected"),
    )
    for ap, z, p, ties in choices:
        if ties == "expected" and (ap == "voc" or z == "prefix_positive"):
            continue
        yield Protocol(f"{ap}-{z}-{p}-{ties}", ap, z, p, ties=ties)


def random_rows(seed, rows, ties):
    """Distances and relevances: small galleries with many ties, empty queries, every relevant."""
    rng = np.random.default_rng(seed)
    for _ in range(rows):
        g = int(rng.integers(1, 13))
        values = int(rng.integers(1, 8)) if ties else 10**6
        keys = (rng.integers(0, values, g) - 3) / 8
        yield keys.tolist(), (rng.random(g) < rng.choice([0.1, 0.5, 1.0])).tolist()


@pytest.mark.parametrize("protocol", list(all_protocols()), ids=lambda p: p.name)
def test_every_definition_matches_plain_python(protocol, plain_metrics):
    for number, (keys, relevant) in enumerate(random_rows(len(protocol.name), 12, ties=True)):
        if not any(relevant):
            continue
        expected = plain_metrics(keys, relevant, KS, protocol)
        got = evaluate(keys, relevant, protocol).columns[0].tolist()
        assert got == pytest.approx(expected, abs=1e-9), f"case {number}: {keys} {relevant}"


@pytest.mark.parametrize("name", PROTOCOLS)
def test_presets_match_plain_python_over_many_queries(name, plain_metrics):
    """200 queries of several classes: rows, and the means with their rule for empty queries."""
    protocol = PROTOCOLS[name]
    rng = np.random.default_rng(7)
    keys = rng.integers(0, 9, (200, 14)) / 4
    query_labels, gallery_labels = rng.integers(0, 5, 200), rng.integers(1, 6, 14)
    with pytest.warns(UserWarning, match="exceeds"):
        result = zf.evaluate_ranking(
            keys, query_labels, gallery_labels, larger_is_closer=False, protocol=protocol, ks=KS
        )
    rows = np.array(
        [
            plain_metrics(key.tolist(), gallery_labels == label, KS, protocol)
            for key, label in zip(keys, query_labels, strict=True)
        ]
    )
    np.testing.assert_allclose(result.columns.numpy(), rows, atol=1e-9, rtol=0)
    assert (rows[:, 0] == 0).any()
    for mean, column in ((result.map, 1), (result.map_at_r, 5), (result.r_precision, 6)):
        assert mean == pytest.approx(_mean(rows[:, column], rows[:, 0], query_labels, protocol))
    for i, k in enumerate(KS):
        ap, precision, recall, hit = rows[:, 7 + 4 * i : 11 + 4 * i].T
        for means, column in (
            (result.map_at, ap),
            (result.precision_at, precision),
            (result.recall_at, recall),
            (result.hit_at, hit),
        ):
            assert means[k] == pytest.approx(_mean(column, rows[:, 0], query_labels, protocol))


def _mean(values, relevant, labels, protocol):
    if protocol.empty == "zero":
        values = np.nan_to_num(values)
    else:
        values, labels = values[relevant > 0], labels[relevant > 0]
    if protocol.average == "class":
        return np.mean([values[labels == label].mean() for label in np.unique(labels)])
    return values.mean()


def test_grouped_matches_scikit_learn_with_ties():
    for keys, relevant in random_rows(1, 300, ties=True):
        if not any(relevant):
            continue
        expected = average_precision_score(relevant, -np.array(keys))
        assert evaluate(keys, relevant, "sem_pcyc", ks=(1,)).map == pytest.approx(
            expected, abs=1e-9
        )


def test_sem_pcyc_at_k_is_scikit_learn_on_the_prefix():
    """Where k cuts no tie; elsewhere that code leaves the rest of the tie to an unstable sort."""
    seen = 0
    for keys, relevant in random_rows(2, 300, ties=True):
        order = np.argsort(keys, kind="stable")
        keys, relevant = np.array(keys)[order], np.array(relevant)[order]
        for k in range(1, len(keys)):
            if keys[k - 1] == keys[k] or not relevant.any():
                continue
            expected = average_precision_score(relevant[:k], -keys[:k]) if relevant[:k].any() else 0
            got = evaluate(keys, relevant, "sem_pcyc", ks=(k,))
            assert got.map_at[k] == pytest.approx(expected, abs=1e-9)
            assert got.precision_at[k] == pytest.approx(relevant[:k].mean(), abs=1e-9)
            seen += 1
    assert seen > 300


@pytest.mark.filterwarnings("ignore:No positive class found")
def test_torchmetrics_preset_matches_torchmetrics():
    """With scores above 0 (it drops hits at or below) and no ties (it leaves them to topk)."""
    generator = torch.Generator().manual_seed(3)
    g = 30
    scores = torch.stack([torch.randperm(g, generator=generator) + 1.0 for _ in range(200)])
    relevant = torch.rand(g, generator=generator) < 0.3
    ks = (1, 4, 10, 29)
    result = zf.evaluate_ranking(
        scores,
        torch.ones(200, dtype=torch.int64),
        relevant.long(),
        larger_is_closer=True,
        protocol="torchmetrics",
        ks=ks,
    )
    for q in range(200):
        expected = retrieval_average_precision(scores[q].double(), relevant)
        assert float(result.ap[q]) == pytest.approx(float(expected), abs=1e-6)  # theirs is float32
        for k in ks:
            for what, theirs in (
                ("ap_at", retrieval_average_precision),
                ("precision_at", retrieval_precision),
                ("recall_at", retrieval_recall),
                ("hit_at", retrieval_hit_rate),
            ):
                value = float(theirs(scores[q], relevant, top_k=k))
                assert float(result.at(what, k)[q]) == pytest.approx(value, abs=1e-6)


def test_expected_ties_equal_the_mean_over_random_orders():
    """A larger tie group than can be enumerated: 60,000 draws come within four standard errors."""
    rng = np.random.default_rng(0)
    keys = np.repeat([0.0, 1.0, 2.0], [4, 30, 10])
    relevant = np.zeros(44, dtype=bool)
    relevant[[1, 5, 9, 14, 25, 36, 40]] = True
    draws = np.argsort(keys + 0.5 * rng.random((60_000, 44)), axis=1)
    hits = relevant[draws]
    precision = hits.cumsum(1) / np.arange(1, 45)
    result = evaluate(keys, relevant, "standard", ks=(10,))
    for got, sums in (
        (result.map, hits * precision),
        (result.map_at[10], (hits * precision)[:, :10]),
    ):
        values = sums.sum(1) / 7
        assert got == pytest.approx(values.mean(), abs=4 * values.std() / 60_000**0.5)
