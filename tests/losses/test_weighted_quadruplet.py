"""The loss module: mining and loss together, labels, weights and both directions."""

from __future__ import annotations

import re

import pytest
import torch
from torch.nn import functional as F

from zsbir_fast.losses.weighted_quadruplet import WeightedQuadrupletLoss
from zsbir_fast.ops.quadruplet_mining import mine_quadruplets, quadruplet_loss


def batch(sketches=8, photos=8, dtype=torch.float32):
    g = torch.Generator().manual_seed(0)
    return (
        torch.randn(sketches, 5, generator=g, dtype=dtype),
        torch.randn(photos, 5, generator=g, dtype=dtype),
        torch.arange(sketches) // 2,
        torch.arange(photos) // 2,
    )


def test_it_is_mining_and_loss_of_normalised_features():
    s, p, labels, _ = batch()
    weights = torch.linspace(0.5, 1.5, 8)
    unit = F.normalize(s, dim=1), F.normalize(p, dim=1)
    mined = mine_quadruplets(*unit, labels, labels, positive="easiest", negative="semihard")
    expected = quadruplet_loss(*unit, mined, weights=weights, preset="full")
    module = WeightedQuadrupletLoss(mining="semihard", negatives="full", positive="easiest")
    torch.testing.assert_close(module(s, p, labels, weights), expected)


def test_scale_matters_without_normalisation_only():
    s, p, labels, _ = batch()
    on, off = WeightedQuadrupletLoss(), WeightedQuadrupletLoss(normalize=False)
    torch.testing.assert_close(on(s * 3, p * 3, labels), on(s, p, labels))
    assert not torch.isclose(off(s * 3, p * 3, labels), off(s, p, labels))


def test_a_pair_of_labels_allows_unequal_numbers():
    s, p, ls, lp = batch(sketches=6, photos=8)
    mined = mine_quadruplets(F.normalize(s, dim=1), F.normalize(p, dim=1), ls, lp)
    assert mined.valid.all()
    loss = WeightedQuadrupletLoss()(s, p, (ls, lp))
    expected = quadruplet_loss(F.normalize(s, dim=1), F.normalize(p, dim=1), mined)
    torch.testing.assert_close(loss, expected)
    message = "labels must be a pair (sketch labels, photo labels) for 6 sketches and 8 photos"
    with pytest.raises(ValueError, match=re.escape(message)):
        WeightedQuadrupletLoss()(s, p, ls)


def test_symmetric_is_the_mean_of_both_directions():
    s, p, ls, lp = batch(sketches=6)
    one, both = WeightedQuadrupletLoss(), WeightedQuadrupletLoss(symmetric=True)
    expected = (one(s, p, (ls, lp)) + one(p, s, (lp, ls))) / 2
    torch.testing.assert_close(both(s, p, (ls, lp)), expected)
    message = "photos must be as many as sketches for symmetric=True with weights, got 8 and 6"
    with pytest.raises(ValueError, match=message):
        both(s, p, (ls, lp), torch.ones(6))


def test_gradients_reach_features_and_weights():
    s, p, labels, _ = batch(dtype=torch.float64)
    weights = torch.linspace(0.5, 1.5, 8, dtype=torch.float64)
    module = WeightedQuadrupletLoss(margins=1.0, symmetric=True)
    inputs = [x.requires_grad_() for x in (s, p, weights)]
    assert torch.autograd.gradcheck(lambda s, p, w: module(s, p, labels, w), inputs)


def test_zero_weight_silences_an_anchor():
    s, p, labels, _ = batch()
    module = WeightedQuadrupletLoss(margins=3.0, positive="paired", negatives="triplet")
    s.requires_grad_()
    module(s, p, labels, torch.tensor([0.0] + [1.0] * 7)).backward()
    assert (s.grad[0] == 0).all()
    assert (s.grad[1:] != 0).any(1).all()


def test_paired_takes_photo_i_for_sketch_i():
    s, p, ls, lp = batch(sketches=8, photos=6)
    module = WeightedQuadrupletLoss(positive="paired")
    assert module.mine(s, p, (ls, lp)).positive.tolist() == [0, 1, 2, 3, 4, 5, -1, -1]


def test_given_quadruplets_are_used():
    s, p, labels, _ = batch()
    module = WeightedQuadrupletLoss()
    mined = module.mine(s, p, labels)
    torch.testing.assert_close(module(s, p, labels, quadruplets=mined), module(s, p, labels))
    none = mined._replace(valid=torch.zeros(8, dtype=torch.bool))
    assert module(s, p, labels, quadruplets=none) == 0


def test_distance_weighted_follows_the_global_seed():
    s, p, labels, _ = batch(32, 32)
    module = WeightedQuadrupletLoss(mining="distance_weighted")
    torch.manual_seed(0)
    first = module.mine(s, p, labels).photo_negative
    torch.manual_seed(0)
    again = module.mine(s, p, labels).photo_negative
    other = module.mine(s, p, labels).photo_negative
    assert (first == again).all()
    assert (first != other).any()


def test_presets_choose_the_negative_sketch():
    assert WeightedQuadrupletLoss().sketch_negative == "anchor"
    assert WeightedQuadrupletLoss(negatives="cross_symmetric").sketch_negative == "positive"
    s, p, labels, _ = batch(12, 12)
    mined = WeightedQuadrupletLoss(negatives="chen2017").mine(s, p, labels)
    assert (labels[mined.photo_negative] != labels[mined.sketch_negative]).all()


def test_an_unknown_option_is_named():
    s, p, labels, _ = batch()
    with pytest.raises(ValueError, match=r"negative must be one of hardest, .* got 'hard'"):
        WeightedQuadrupletLoss(mining="hard")(s, p, labels)
