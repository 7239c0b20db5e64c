"""The public operators of quadruplet mining: presets, and what they refuse."""

from __future__ import annotations

import re

import pytest
import torch

from zsbir_fast.ops.quadruplet_mining import Quadruplets, mine_quadruplets, quadruplet_loss
from zsbir_fast.reference import quadruplet_mining as reference


def batch():
    g = torch.Generator().manual_seed(0)
    return {
        "sketches": torch.randn(6, 4, generator=g),
        "photos": torch.randn(8, 4, generator=g),
        "sketch_labels": torch.tensor([0, 0, 1, 1, 2, 2]),
        "photo_labels": torch.tensor([0, 1, 2, 0, 1, 2, 0, 1]),
    }


def features():
    given = batch()
    return given["sketches"], given["photos"], mine_quadruplets(**given)


def test_mining_is_that_of_the_reference():
    given = batch()
    for options in (
        {},
        {"positive": "semihard", "negative": "semihard", "margin": 0.5, "distance": "cosine"},
        {"negative": "distance_weighted", "uniforms": torch.linspace(0, 0.9, 6)},
        {"positive": "paired", "paired": torch.tensor([0, 3, 1, 4, 2, 5])},
    ):
        mined = mine_quadruplets(**given, **options)
        expected = reference.mine_quadruplets(**given, **options)
        assert all((a == b).all() for a, b in zip(mined, expected, strict=True))
        assert mined.valid.all()


def test_mining_passes_no_gradient_and_takes_half_precision():
    given = batch()
    given["sketches"].requires_grad_()
    assert not mine_quadruplets(**given).positive.requires_grad
    half = {k: v.detach().bfloat16() if v.is_floating_point() else v for k, v in given.items()}
    assert mine_quadruplets(**half).valid.all()


def hinges(sketches, photos, mined):
    """The five hinges with margin 0.3, spelled out."""
    positive, negative = photos[mined.positive], photos[mined.photo_negative]
    sketch = sketches[mined.sketch_negative]
    target = (sketches - positive).norm(dim=1)
    pairs = (
        (sketches, negative), (sketches, sketch), (positive, sketch), (positive, negative),
        (sketch, negative),
    )  # fmt: skip
    margins = (0.3, 0.3, 0.3, 0.3, 0.15)
    return [
        (target - (a - b).norm(dim=1) + m).relu().mean()
        for (a, b), m in zip(pairs, margins, strict=True)
    ]


@pytest.mark.parametrize(
    ("preset", "terms"),
    [
        ("triplet", [0]),
        ("domain_balanced", [0, 1]),
        ("cross_symmetric", [0, 2]),
        ("full", [0, 1, 2, 3]),
    ],
)
def test_presets_sum_their_hinges(preset, terms):
    sketches, photos, mined = features()
    expected = sum(hinges(sketches, photos, mined)[i] for i in terms)
    loss = quadruplet_loss(sketches, photos, mined, preset=preset)
    torch.testing.assert_close(loss, expected)


def test_chen2017_gives_its_second_hinge_half_the_margin():
    sketches, photos, mined = features()
    parts = hinges(sketches, photos, mined)
    loss = quadruplet_loss(sketches, photos, mined, preset="chen2017")
    torch.testing.assert_close(loss, parts[0] + parts[4])


def test_ramln_is_one_hinge_against_the_mixed_distance():
    sketches, photos, mined = features()
    target = (sketches - photos[mined.positive]).norm(dim=1)
    photo = (sketches - photos[mined.photo_negative]).norm(dim=1)
    sketch = (sketches - sketches[mined.sketch_negative]).norm(dim=1)
    expected = (target - 0.25 * photo - 0.75 * sketch + 0.4).relu().mean()
    loss = quadruplet_loss(
        sketches, photos, mined, preset="ramln", margins=0.4, cross_modal_share=0.25
    )
    torch.testing.assert_close(loss, expected)


def test_coefficients_and_margins_replace_the_preset():
    sketches, photos, mined = features()
    parts = hinges(sketches, photos, mined)
    loss = quadruplet_loss(
        sketches, photos, mined, coefficients=(2, 0, 0, 1, 0), margins=(0.3, 9, 9, 0.3, 9)
    )
    torch.testing.assert_close(loss, 2 * parts[0] + parts[3])


def test_an_anchor_weight_scales_its_gradient():
    sketches, photos, mined = features()
    sketches.requires_grad_()
    weights = torch.ones(6, requires_grad=True)
    losses = quadruplet_loss(sketches, photos, mined, margins=5.0, reduction="none")
    total = quadruplet_loss(sketches, photos, mined, weights=weights, margins=5.0, reduction="sum")
    (gradient,) = torch.autograd.grad(total, weights)
    torch.testing.assert_close(gradient, losses.detach())


MINING_ERRORS = [
    ({"sketches": torch.zeros(6)}, ValueError, "sketches must be [B, D], got (6,)"),
    ({"photos": torch.zeros(8, 3)}, ValueError, "photos must be 4 wide like sketches, got 3"),
    (
        {"photos": torch.zeros(8, 4, device="meta")},
        ValueError,
        "photos must be on cpu like sketches, got meta",
    ),
    (
        {"photos": torch.tensor([[0.0] * 4] * 2 + [[float("nan")] * 4] * 6)},
        ValueError,
        "photos must not be NaN, got NaN in row 2",
    ),
    ({"sketch_labels": torch.zeros(6)}, TypeError, "sketch_labels must be int64, got torch.float"),
    (
        {"photo_labels": torch.zeros(6, dtype=torch.int64)},
        ValueError,
        "photo_labels must be [8], got (6,)",
    ),
    (
        {"positive": "random"},
        ValueError,
        "positive must be one of hardest, easiest, semihard, paired, got 'random'",
    ),
    (
        {"negative": "easy"},
        ValueError,
        "negative must be one of hardest, semihard, distance_weighted, got 'easy'",
    ),
    (
        {"sketch_negative": "photo"},
        ValueError,
        "sketch_negative must be one of anchor, positive, none, got 'photo'",
    ),
    (
        {"distance": "l1"},
        ValueError,
        "distance must be one of euclidean, squared_euclidean, cosine, got 'l1'",
    ),
    ({"margin": -0.1}, ValueError, "margin must be finite and not negative, got -0.1"),
    (
        {"positive": "paired"},
        ValueError,
        "paired must be given for positive='paired', got None",
    ),
    (
        {"positive": "paired", "paired": torch.zeros(5, dtype=torch.int64)},
        ValueError,
        "paired must be [6], got (5,)",
    ),
    (
        {"positive": "paired", "paired": torch.full((6,), 8)},
        ValueError,
        "paired must be in [-1, 8), got 8",
    ),
    (
        {"negative": "distance_weighted", "uniforms": torch.zeros(5)},
        ValueError,
        "uniforms must be [6] for negative='distance_weighted', got (5,)",
    ),
]


@pytest.mark.parametrize(("change", "error", "message"), MINING_ERRORS)
def test_mining_names_wrong_arguments(change, error, message):
    with pytest.raises(error, match=re.escape(f"mine_quadruplets: {message}")):
        mine_quadruplets(**{**batch(), **change})


LOSS_ERRORS = [
    ({"photos": torch.zeros(8, 3)}, ValueError, "photos must be 4 wide like sketches, got 3"),
    ({"weights": torch.zeros(5)}, ValueError, "weights must be [6], got (5,)"),
    (
        {"preset": "quintuplet"},
        ValueError,
        "preset must be one of triplet, domain_balanced, cross_symmetric, full, chen2017, ramln, "
        "got 'quintuplet'",
    ),
    (
        {"coefficients": (1, 1)},
        ValueError,
        "coefficients must be five finite numbers, none negative, got (1, 1)",
    ),
    (
        {"margins": -0.5},
        ValueError,
        "margins must be five finite numbers, none negative, got -0.5",
    ),
    (
        {"reduction": "max"},
        ValueError,
        "reduction must be one of mean, mean_nonzero, sum, none, got 'max'",
    ),
    (
        {"cross_modal_share": 2.0},
        ValueError,
        "cross_modal_share must be in [0, 1], got 2.0",
    ),
    (
        {"quadruplets": Quadruplets(*[torch.zeros(5, dtype=torch.int64)] * 3, torch.ones(5) > 0)},
        ValueError,
        "quadruplets.positive must be [6], got (5,)",
    ),
]


@pytest.mark.parametrize(("change", "error", "message"), LOSS_ERRORS)
def test_loss_names_wrong_arguments(change, error, message):
    sketches, photos, mined = features()
    given = {"sketches": sketches, "photos": photos, "quadruplets": mined}
    with pytest.raises(error, match=re.escape(f"quadruplet_loss: {message}")):
        quadruplet_loss(**{**given, **change})


def test_mining_and_loss_compile_without_graph_breaks():
    given = batch()

    def both(**given):
        mined = mine_quadruplets(**given)
        return quadruplet_loss(given["sketches"], given["photos"], mined)

    compiled = torch.compile(both, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(**given), both(**given))
