"""Laws that hold for every ranking."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import zsbir_fast as zf
from zsbir_fast.metrics.protocols import Protocol

KS = (1, 2, 5)
LARGE = 2.0**100
FLOATS = st.floats(-LARGE, LARGE, width=32)
FEW = st.sampled_from([-1.0, -0.0, 0.0, 0.25, 2.0**-100])


@st.composite
def rankings(draw):
    """Scores [Q, G] with and without ties, labels with at least one query that has a match."""
    queries, gallery = draw(st.integers(1, 4)), draw(st.integers(5, 40))
    elements = draw(st.sampled_from([FLOATS, FEW]))
    scores = draw(hnp.arrays(np.float32, (queries, gallery), elements=elements))
    labels = st.integers(0, 3)
    q = draw(hnp.arrays(np.int64, queries, elements=labels))
    g = draw(hnp.arrays(np.int64, gallery, elements=labels))
    g[draw(st.integers(0, gallery - 1))] = q[0]
    return scores, q, g


def evaluate(case, ties="expected", **options):
    return zf.evaluate_ranking(
        *case, larger_is_closer=True, ks=KS, protocol=Protocol("mine", ties=ties, **options)
    )


def rows(result):
    return result.columns.nan_to_num(-1)


@settings(max_examples=60, deadline=None)
@given(rankings())
def test_bounds_and_orders(case):
    expected, voc = evaluate(case), evaluate(case, "index", ap="voc")
    standard = evaluate(case, "index")
    assert 0 <= expected.map_worst <= expected.map + 1e-12
    assert expected.map <= expected.map_best + 1e-12
    assert expected.map_best <= 1 + 1e-12
    assert expected.map_worst - 1e-12 <= standard.map <= voc.map + 1e-12
    lenient = evaluate(case, "index", normaliser="prefix_positive")
    for k in KS:
        assert standard.map_at[k] <= lenient.map_at[k] + 1e-12
        assert 0 <= expected.precision_at[k] <= 1 + 1e-12
    recalls = [expected.recall_at[k] for k in KS]
    assert all(a <= b + 1e-12 for a, b in pairwise(recalls))


@settings(max_examples=40, deadline=None)
@given(rankings(), st.integers(-8, 8), st.randoms(use_true_random=False))
def test_order_of_the_gallery_and_scale_change_no_bit(case, power, random):
    scores, q, g = case
    result = rows(evaluate(case))
    order = list(range(len(g)))
    random.shuffle(order)
    assert torch.equal(rows(evaluate((scores[:, order], q, g[order]))), result)
    with np.errstate(under="ignore"):
        scaled = scores * np.float32(2.0) ** power
    if np.array_equal(scaled / np.float32(2.0) ** power, scores):
        assert torch.equal(rows(evaluate((scaled, q, g))), result)
    assert torch.equal(rows(evaluate((scores, q + 5, g + 5))), result)


@settings(max_examples=40, deadline=None)
@given(rankings())
def test_one_query_at_a_time_is_the_same(case):
    scores, q, g = case
    together = rows(evaluate(case, "grouped"))
    for i in range(len(q)):
        if (g == q[i]).any():
            alone = evaluate((scores[i : i + 1], q[i : i + 1], g), "grouped")
            assert torch.equal(rows(alone)[0], together[i])


@settings(max_examples=40, deadline=None)
@given(rankings(), st.integers(1, 20))
def test_items_behind_all_relevant_ones_change_nothing(case, more):
    scores, q, g = case
    behind = np.full((len(q), more), -2 * LARGE, dtype=np.float32)
    longer = (np.concatenate([scores, behind], 1), q, np.concatenate([g, np.full(more, 99)]))
    assert torch.equal(rows(evaluate(longer, "index")), rows(evaluate(case, "index")))
