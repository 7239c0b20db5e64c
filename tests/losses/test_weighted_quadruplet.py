"""The loss module: mining and loss together, labels, weights and both directions."""

from __future__ import annotations

import inspect
import re

import pytest
import torch
from torch.nn import functional as F

from zsbir_fast.losses.weighted_quadruplet import WeightedQuadrupletLoss
from zsbir_fast.ops.quadruplet_mining import (
    batch_all_quadruplet_loss,
    mine_quadruplets,
    quadruplet_loss,
)


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
    module = WeightedQuadrupletLoss(negative="semihard", preset="full", positive="easiest")
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
    module = WeightedQuadrupletLoss(margins=3.0, positive="paired", preset="triplet")
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
    module = WeightedQuadrupletLoss(negative="distance_weighted")
    torch.manual_seed(0)
    first = module.mine(s, p, labels).photo_negative
    torch.manual_seed(0)
    again = module.mine(s, p, labels).photo_negative
    other = module.mine(s, p, labels).photo_negative
    assert (first == again).all()
    assert (first != other).any()


def test_random_negatives_are_any_of_other_classes_and_follow_the_global_seed():
    s, p, labels, _ = batch(32, 32)
    module = WeightedQuadrupletLoss(negative="random", sketch_negative="random")
    torch.manual_seed(0)
    mined = [module.mine(s, p, labels) for _ in range(40)]
    torch.manual_seed(0)
    assert torch.equal(module.mine(s, p, labels).photo_negative, mined[0].photo_negative)
    for name in ("photo_negative", "sketch_negative"):
        drawn = torch.stack([getattr(each, name) for each in mined])
        assert (labels[drawn] != labels[None]).all()
        met = [len(set(column.tolist())) for column in drawn.T]
        assert min(met) > 10  # of 40 draws, so not always the nearest one
    assert (mined[0].photo_negative != mined[0].sketch_negative).any()  # drawn apart


def test_presets_choose_the_negative_sketch():
    assert WeightedQuadrupletLoss().sketch_negative == "anchor"
    assert WeightedQuadrupletLoss(preset="cross_symmetric").sketch_negative == "positive"
    assert WeightedQuadrupletLoss(preset="triplet").sketch_negative == "none"
    s, p, labels, _ = batch(12, 12)
    mined = WeightedQuadrupletLoss(preset="chen2017").mine(s, p, labels)
    assert (labels[mined.photo_negative] != labels[mined.sketch_negative]).all()


def test_all_is_the_batch_all_loss():
    s, p, ls, lp = batch(sketches=6)
    unit = F.normalize(s, dim=1), F.normalize(p, dim=1)
    for reduction in ("mean", "mean_nonzero", "sum"):
        module = WeightedQuadrupletLoss(negative="all", preset="full", reduction=reduction)
        options = {"preset": "full", "reduction": reduction}
        expected = batch_all_quadruplet_loss(*unit, ls, lp, **options)
        torch.testing.assert_close(module(s, p, (ls, lp)), expected)
        module.symmetric = True
        swapped = batch_all_quadruplet_loss(*unit[::-1], lp, ls, **options)
        torch.testing.assert_close(module(s, p, (ls, lp)), (expected + swapped) / 2)


def test_unreduced_losses_are_per_sketch():
    s, p, ls, lp = batch(sketches=6)
    weights = torch.linspace(-0.5, 1.5, 6)  # negative ones are allowed: weight_form="raw"
    losses = WeightedQuadrupletLoss(reduction="none")(s, p, (ls, lp), weights)
    assert losses.shape == (6,)
    torch.testing.assert_close(losses.mean(), WeightedQuadrupletLoss()(s, p, (ls, lp), weights))


def test_a_triplet_needs_no_negative_sketch():
    s, p, *_ = batch(2, 4)
    loss = WeightedQuadrupletLoss(preset="triplet", margins=3.0)
    one_class, two_classes = torch.tensor([0, 0]), torch.tensor([0, 0, 1, 1])
    assert loss(s, p, (one_class, two_classes)) > 0
    with_sketch = WeightedQuadrupletLoss(preset="triplet", margins=3.0, sketch_negative="anchor")
    assert with_sketch(s, p, (one_class, two_classes)) == 0


@pytest.mark.parametrize("negative", ["hardest", "semihard", "distance_weighted", "random", "all"])
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize(
    ("sketches", "photos", "classes"),
    [(4, 4, 1), (1, 1, 1), (2, 0, 2), (0, 2, 2), (0, 0, 1), (1, 1, 9), (2, 2, 9)],
)
def test_without_a_quadruplet_the_loss_is_zero(negative, symmetric, sketches, photos, classes):
    s, p, *_ = batch(sketches, photos)
    shift = 2 * (classes // 9)
    labels = (torch.arange(sketches) % classes, (torch.arange(photos) + shift) % classes)
    s.requires_grad_()
    p.requires_grad_()
    loss = WeightedQuadrupletLoss(negative=negative, symmetric=symmetric)(s, p, labels)
    loss.backward()
    assert loss == 0
    assert (s.grad == 0).all()
    assert (p.grad == 0).all()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"symmetric": True},
        {"negative": "semihard", "preset": "chen2017"},
        {"preset": "triplet", "positive": "paired"},
        {"negative": "all"},
    ],
)
def test_it_compiles_without_a_break(options):
    torch._dynamo.reset()
    module = WeightedQuadrupletLoss(**options)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    s, p, labels, _ = batch()
    weights = None if options.get("negative") == "all" else torch.linspace(0.5, 1.5, 8)
    results = []
    for loss in (module, compiled):
        leaf = s.clone().requires_grad_()
        value = loss(leaf, p, labels, weights)
        value.backward()
        results.append((value.detach(), leaf.grad))
    torch.testing.assert_close(results[0], results[1])


def test_both_implementations_agree():
    s, p, labels, _ = batch()
    for negative in ("hardest", "all"):
        losses = [WeightedQuadrupletLoss(negative=negative, impl=i) for i in ("fused", "reference")]
        torch.testing.assert_close(losses[0](s, p, labels), losses[1](s, p, labels))


OF_THE_OP = {  # arguments of the operators that are no option of the loss
    *("sketches", "photos", "sketch_labels", "photo_labels", "quadruplets", "weights"),
    *("paired", "uniforms", "sketch_references", "sketch_reference_labels", "positive_photos"),
    *(
        "margin",
        "distinct_negatives",
        "sketch_uniforms",
    ),  # follow from the margins and from the hinges
}


@pytest.mark.parametrize("op", [mine_quadruplets, quadruplet_loss, batch_all_quadruplet_loss])
def test_every_option_of_the_operators_is_an_option_of_the_loss(op):
    options = set(inspect.signature(WeightedQuadrupletLoss).parameters)
    assert set(inspect.signature(op).parameters) - OF_THE_OP <= options


@pytest.mark.parametrize(
    ("coefficients", "sketch_negative"),
    [
        ((1.0, 0.0, 0.0, 0.5, 0.0), "none"),
        ((1.0, 0.5, 0.5, 0.0, 0.0), "anchor"),
        ((1.0, 0.0, 2.0, 0.0, 0.0), "positive"),
        ((0.5, 0.0, 0.0, 0.0, 2.0), "anchor"),
    ],
)
def test_coefficients_replace_those_of_the_preset(coefficients, sketch_negative):
    s, p, labels, _ = batch()
    module = WeightedQuadrupletLoss(preset="ramln", coefficients=coefficients, margins=0.8)
    assert module.sketch_negative == sketch_negative
    unit = F.normalize(s, dim=1), F.normalize(p, dim=1)
    distinct = coefficients[4] > 0
    mined = mine_quadruplets(
        *unit, labels, labels, sketch_negative=sketch_negative, distinct_negatives=distinct
    )
    given = {"coefficients": coefficients, "margins": 0.8}
    torch.testing.assert_close(module(s, p, labels), quadruplet_loss(*unit, mined, **given))
    every = WeightedQuadrupletLoss(negative="all", preset="ramln", **given)
    expected = batch_all_quadruplet_loss(*unit, labels, labels, reduction="mean", **given)
    torch.testing.assert_close(every(s, p, labels), expected)


def test_the_loss_shows_its_options():
    module = WeightedQuadrupletLoss(coefficients=(1, 0, 2, 0, 0), margins=0.2, distance="cosine")
    assert repr(module) == (
        "WeightedQuadrupletLoss(negative='hardest', preset='domain_balanced', positive='hardest', "
        "sketch_negative='positive', coefficients=(1, 0, 2, 0, 0), margins=0.2, "
        "cross_modal_share=0.5, distance='cosine', normalize=True, symmetric=False, "
        "reduction='mean', gather='auto', impl='fused')"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mining": "hardest"}, "mining"),
        ({"negatives": "triplet"}, "negatives"),
        ({"margin": 0.2}, "margin"),
    ],
)
def test_another_name_of_an_option_is_refused(options, message):
    with pytest.raises(TypeError, match=f"unexpected keyword argument '{message}'"):
        WeightedQuadrupletLoss(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"negative": "hard"},
            "negative must be one of hardest, semihard, distance_weighted, random, all",
        ),
        ({"preset": "both"}, "preset must be one of triplet, domain_balanced, .*'both'"),
        ({"positive": "any"}, "positive must be one of hardest, .* got 'any'"),
        ({"sketch_negative": "x"}, "sketch_negative must be one of anchor, .* got 'x'"),
        (
            {"sketch_negative": "none"},
            "sketch_negative must be 'anchor', 'positive' or 'random' for p",
        ),
        (
            {"sketch_negative": "none", "preset": "triplet", "coefficients": (1, 1, 0, 0, 0)},
            r"sketch_negative must be .* for coefficients=\(1, 1, 0, 0, 0\), got 'none'",
        ),
        ({"coefficients": (1, 2)}, r"coefficients must be five finite numbers, .* got \(1, 2\)"),
        (
            {"negative": "all", "reduction": "mean_nonzero", "coefficients": (1, 1, 0, 0, 1)},
            "reduction must be 'mean' or 'sum' for negative='all' where h5 meets h2 or h3, got",
        ),
        ({"distance": "l1"}, "distance must be one of euclidean, .* got 'l1'"),
        ({"reduction": "max"}, "reduction must be one of mean, .* got 'max'"),
        ({"gather": "all"}, "gather must be one of auto, off, got 'all'"),
        ({"impl": "fast"}, "impl must be one of fused, reference, got 'fast'"),
        ({"margins": (0.1, 0.2)}, r"margins must be five finite numbers, .* got \(0.1, 0.2\)"),
        ({"cross_modal_share": 2.0}, r"cross_modal_share must be in \[0, 1\], got 2.0"),
        ({"negative": "all", "preset": "ramln"}, "preset must not be 'ramln' for negative='all'"),
        ({"negative": "all", "reduction": "none"}, ".* or 'sum' for negative='all', got 'none'"),
        ({"symmetric": True, "reduction": "none"}, ".* or 'sum' for symmetric=True, got 'none'"),
    ],
)
def test_wrong_options_are_named_at_construction(options, message):
    with pytest.raises(ValueError, match=f"WeightedQuadrupletLoss: {message}"):
        WeightedQuadrupletLoss(**options)


def test_wrong_batches_are_named():
    s, p, labels, _ = batch()
    weights = torch.ones(8)
    weights[5] = torch.nan
    every = WeightedQuadrupletLoss(negative="all")
    mined = WeightedQuadrupletLoss().mine(s, p, labels)
    for call, error, message in (
        (
            lambda: WeightedQuadrupletLoss()(s, p, labels, weights),
            ValueError,
            "finite, got nan in row 5",
        ),
        (
            lambda: WeightedQuadrupletLoss()(s, p, labels, weights[:3]),
            ValueError,
            "weights must be [8], got [3]",
        ),
        (
            lambda: every(s, p, labels, torch.ones(8)),
            ValueError,
            "weights must be None for negative='all', whose terms are not pairs; got [8]",
        ),
        (lambda: every.mine(s, p, labels), ValueError, "negative must choose a photo, got 'all'"),
        (lambda: every(s, p, labels, quadruplets=mined), ValueError, "must be None for negative"),
        (
            lambda: WeightedQuadrupletLoss()(s, p, (labels, labels[1:])),
            ValueError,
            "photo labels must be [8], got [7]",
        ),
        (lambda: WeightedQuadrupletLoss()(s, p, labels * 0.5), TypeError, "must be integers"),
        (
            lambda: WeightedQuadrupletLoss()(s / 0, p, labels),
            ValueError,
            "must be finite, got -inf in row 0",
        ),
    ):
        with pytest.raises(error, match=re.escape(message)):
            call()
