from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from zsbir_fast.runs.baselines import chance_level, remove_domain_mean, usual_ks


def _expected_ap(relevant, gallery):
    """E[AP] of a random order: place n is relevant with R/G, then 1 + (n-1)(R-1)/(G-1) hits."""
    r, g = relevant, gallery
    return sum((1 + (n - 1) * (r - 1) / max(1, g - 1)) / n for n in range(1, g + 1)) / g


def test_chance_is_the_expectation_over_random_orders():
    gallery = torch.tensor([0] * 3 + [1] * 5 + [2])
    queries = torch.tensor([0, 1, 1, 2])
    chance = chance_level(queries, gallery, ks=(1, 4))
    expected = [_expected_ap(r, 9) for r in (3, 5, 5, 1)]
    assert chance.ap.tolist() == pytest.approx(expected, abs=1e-12)
    assert chance.precision_at[4] == pytest.approx((3 + 5 + 5 + 1) / 9 / 4, abs=1e-12)
    assert chance.per_class[1]["queries"] == 2


def test_chance_agrees_with_random_orders():
    generator = torch.Generator().manual_seed(0)
    relevant = torch.zeros(12)
    relevant[:4] = 1
    orders = torch.rand(20_000, 12, generator=generator).argsort(1)
    hits = relevant[orders]
    ap = (hits.cumsum(1) / torch.arange(1, 13) * hits).sum(1) / 4
    chance = chance_level(torch.tensor([1]), relevant.long(), ks=(3,))
    assert chance.map == pytest.approx(float(ap.mean()), abs=0.004)


def test_domain_mean_is_that_of_the_unit_rows():
    seen = torch.tensor([[2.0, 0.0], [0.0, 5.0]])
    out = remove_domain_mean(torch.tensor([[3.0, 0.0]]), seen)
    torch.testing.assert_close(out, F.normalize(torch.tensor([[1 - 0.5, -0.5]]), dim=1))


def test_domain_mean_of_another_width():
    with pytest.raises(ValueError, match=r"seen must be \[m, 2\] like features, got \[1, 3\]"):
        remove_domain_mean(torch.ones(1, 2), torch.ones(1, 3))


def test_usual_cut_offs_fit_the_gallery():
    assert [usual_ks(g) for g in (500, 200, 150, 40)] == [(100, 200), (100, 200), (100,), (40,)]
