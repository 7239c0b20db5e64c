"""The oracle of the ranking metrics against the docs' example and against all orders of ties."""

from __future__ import annotations

import importlib.util
import itertools
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture(scope="module")
def oracle():
    path = Path(__file__).parent / "api" / "oracle_ranking.py"
    spec = importlib.util.spec_from_file_location("oracle_ranking", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _rules(oracle, **changes):
    return oracle.PRESETS["standard"]._replace(**changes)


@pytest.mark.parametrize(
    ("ties", "ap"),
    [
        ("index", 0.4167),
        ("optimistic", 1.0),
        ("pessimistic", 0.4167),
        ("grouped", 0.5),
        ("expected", 0.6806),
    ],
)
def test_four_tied_items_of_the_docs(oracle, ties, ap):
    row = oracle.per_query(
        np.zeros((1, 4)), np.array([[False, False, True, True]]), (), _rules(oracle, ties=ties)
    )[0]
    assert row[1] == pytest.approx(ap, abs=1e-4)


@pytest.mark.parametrize("normaliser", ["all_relevant", "min_relevant_k", "at_k"])
def test_expected_is_the_mean_over_all_orders(oracle, normaliser):
    """Every column at every k, with two groups of ties and single items between."""
    distances = np.array([0.0, 1.0, 1.0, 1.0, 2.0, 3.0, 3.0])
    relevant = np.array([False, True, False, True, False, True, False])
    ks = (1, 2, 3, 4, 6, 9)
    rules = _rules(oracle, normaliser=normaliser)
    groups = [[0], [1, 2, 3], [4], [5, 6]]
    orders = itertools.product(*(itertools.permutations(group) for group in groups))
    rows = [
        oracle.per_query(
            np.arange(7.0)[None],
            relevant[list(itertools.chain(*order))][None],
            ks,
            rules._replace(ties="index"),
        )[0]
        for order in orders
    ]
    mean = np.mean(rows, axis=0)
    found = oracle.per_query(distances[None], relevant[None], ks, rules)[0]
    found[2:4] = mean[2:4]  # worst and best are no means
    np.testing.assert_allclose(found, mean, atol=1e-12)
