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
    ({"sketches": torch.zeros(6)}, ValueError, "sketches must be [B, D], got [6]"),
    ({"photos": torch.zeros(8, 3)}, ValueError, "photos must be 4 wide like sketches, got 3"),
    (
        {"photos": torch.zeros(8, 4, device="meta")},
        ValueError,
        "photos must hold values, got a tensor on device meta",
    ),
    (
        {"photos": torch.tensor([[0.0] * 4] * 2 + [[float("nan")] * 4] * 6)},
        ValueError,
        "photos must be finite, got nan in row 2",
    ),
    (
        {"sketches": torch.zeros(6, 4, dtype=torch.int64)},
        TypeError,
        "sketches must be floating point, got torch.int64",
    ),
    (
        {"photos": torch.zeros(8, 4, dtype=torch.bfloat16)},
        TypeError,
        "photos must be torch.float32 like sketches, got torch.bfloat16",
    ),
    (
        {"sketch_references": torch.zeros(3, 4).double()},
        TypeError,
        "sketch_references must be torch.float32 like sketches, got torch.float64",
    ),
    (
        {"sketch_references": torch.zeros(3, 4)},
        ValueError,
        "sketch_reference_labels must be given with sketch_references, got None",
    ),
    (
        {"sketch_references": torch.zeros(3, 4), "sketch_reference_labels": torch.arange(4)},
        ValueError,
        "sketch_reference_labels must be [3], got [4]",
    ),
    (
        {"sketch_references": torch.zeros(3, 5), "sketch_reference_labels": torch.arange(3)},
        ValueError,
        "sketch_references must be 4 wide like sketches, got 5",
    ),
    (
        {"sketch_labels": torch.zeros(6)},
        TypeError,
        "sketch_labels must be integers, got torch.float",
    ),
    (
        {"sketch_labels": torch.zeros(6, dtype=torch.int64, device="meta")},
        ValueError,
        "sketch_labels must be on cpu like sketches, got meta",
    ),
    ({"positive_photos": 9}, ValueError, "positive_photos must be in [0, 8], got 9"),
    (
        {"positive_photos": -(10**400)},
        ValueError,
        "positive_photos must be in [0, 8], got an integer of 1329 bits",
    ),
    ({"positive_photos": 2.5}, TypeError, "positive_photos must be an integer, got 2.5"),
    ({"positive_photos": True}, TypeError, "positive_photos must be an integer, got True"),
    ({"positive_photos": "x"}, TypeError, "positive_photos must be an integer, got 'x'"),
    ({"positive_photos": {}}, TypeError, "positive_photos must be an integer, got {}"),
    (
        {"margin": 10**400},
        ValueError,
        "margin must be in the range of floats, got an integer of 1329 bits",
    ),
    ({"impl": "cuda"}, ValueError, "impl must be one of fused, reference, got 'cuda'"),
    ({"margin": float("inf")}, ValueError, "margin must be finite and not negative, got inf"),
    (
        {"positive": "paired", "paired": torch.zeros(6)},
        TypeError,
        "paired must be torch.int64, got torch.float32",
    ),
    (
        {"positive": "paired", "paired": torch.full((6,), -2)},
        ValueError,
        "paired must be in [-1, 8), got -2",
    ),
    (
        {"negative": "distance_weighted"},
        ValueError,
        "uniforms must be [6] for negative='distance_weighted', got None",
    ),
    (
        {"negative": "distance_weighted", "uniforms": torch.zeros(6, device="meta")},
        ValueError,
        "uniforms must be on cpu like sketches, got meta",
    ),
    (
        {"photo_labels": torch.zeros(6, dtype=torch.int64)},
        ValueError,
        "photo_labels must be [8], got [6]",
    ),
    (
        {"positive": "random"},
        ValueError,
        "positive must be one of hardest, easiest, semihard, paired, got 'random'",
    ),
    (
        {"negative": "easy"},
        ValueError,
        "negative must be one of hardest, semihard, distance_weighted, random, got 'easy'",
    ),
    (
        {"sketch_negative": "photo"},
        ValueError,
        "sketch_negative must be one of anchor, positive, random, none, got 'photo'",
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
        "paired must be [6], got [5]",
    ),
    (
        {"positive": "paired", "paired": torch.full((6,), 8)},
        ValueError,
        "paired must be in [-1, 8), got 8",
    ),
    (
        {"negative": "distance_weighted", "uniforms": torch.zeros(5)},
        ValueError,
        "uniforms must be [6] for negative='distance_weighted', got [5]",
    ),
    ({"negative": "random"}, ValueError, "uniforms must be [6] for negative='random', got None"),
    (
        {"sketch_negative": "random", "sketch_uniforms": torch.zeros(5)},
        ValueError,
        "sketch_uniforms must be [6] for sketch_negative='random', got [5]",
    ),
    (
        {"sketch_negative": "random", "sketch_uniforms": torch.ones(6)},
        ValueError,
        "sketch_uniforms must be in [0, 1), got 1.0 in row 0",
    ),
]


@pytest.mark.parametrize(("change", "error", "message"), MINING_ERRORS)
def test_mining_names_wrong_arguments(change, error, message):
    with pytest.raises(error, match=re.escape(f"mine_quadruplets: {message}")):
        mine_quadruplets(**{**batch(), **change})


LOSS_ERRORS = [
    ({"photos": torch.zeros(8, 3)}, ValueError, "photos must be 4 wide like sketches, got 3"),
    (
        {"photos": torch.zeros(8, 4).half()},
        TypeError,
        "photos must be torch.float32 like sketches, got torch.float16",
    ),
    (
        {"sketch_references": torch.zeros(6, 5)},
        ValueError,
        "sketch_references must be 4 wide like sketches, got 5",
    ),
    ({"weights": torch.zeros(5)}, ValueError, "weights must be [6], got [5]"),
    (
        {"weights": torch.tensor([1.0, 1.0, float("nan"), 1.0, 1.0, 1.0])},
        ValueError,
        "weights must be finite, got nan in row 2",
    ),
    (
        {"weights": torch.zeros(6, device="meta")},
        ValueError,
        "weights must be on cpu like sketches, got meta",
    ),
    ({"impl": "slow"}, ValueError, "impl must be one of fused, reference, got 'slow'"),
    ({"distance": "l1"}, ValueError, "distance must be one of euclidean, squared_euclidean, cos"),
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
        {"cross_modal_share": 10**400},
        ValueError,
        "cross_modal_share must be in the range of floats, got an integer of 1329 bits",
    ),
    (
        {"margins": (0.1, 10**400, 0, 0, 0)},
        ValueError,
        "margins must be in the range of floats, got an integer of 1329 bits",
    ),
    (
        {"quadruplets": Quadruplets(*[torch.zeros(5, dtype=torch.int64)] * 3, torch.ones(5) > 0)},
        ValueError,
        "quadruplets.positive must be [6], got [5]",
    ),
]


@pytest.mark.parametrize(("change", "error", "message"), LOSS_ERRORS)
def test_loss_names_wrong_arguments(change, error, message):
    sketches, photos, mined = features()
    given = {"sketches": sketches, "photos": photos, "quadruplets": mined}
    with pytest.raises(error, match=re.escape(f"quadruplet_loss: {message}")):
        quadruplet_loss(**{**given, **change})


@pytest.mark.parametrize("impl", ["fused", "reference"])
@pytest.mark.parametrize("photos", [0, 8])
@pytest.mark.parametrize("references", [0, 6])
def test_what_no_hinge_compares_gets_a_gradient_of_zeros(photos, references, impl):
    """The references' gradient, and the photos' where there is none, was None by the reference."""
    rows = (torch.randn(6, 4), torch.randn(photos, 4), torch.randn(references, 4))
    leaves = [x.requires_grad_() for x in rows]
    nothing, index = torch.zeros(6, dtype=torch.bool), torch.full((6,), -1)
    quadruplets = Quadruplets(index, index, index, nothing)
    loss = quadruplet_loss(
        *leaves[:2], quadruplets, preset="triplet", sketch_references=leaves[2], impl=impl
    )
    loss.backward()
    for leaf in leaves:
        assert torch.equal(leaf.grad, torch.zeros_like(leaf))


def spoiled(field, value):
    mined = features()[2]
    rows = getattr(mined, field).clone()
    rows[3] = value
    return mined._replace(**{field: rows})


@pytest.mark.parametrize("impl", ["fused", "reference"])
@pytest.mark.parametrize(
    ("field", "value"),
    [("positive", 8), ("positive", -1), ("photo_negative", -2), ("sketch_negative", 6)],
)
def test_a_valid_quadruplet_names_rows_that_exist(field, value, impl):
    sketches, photos, _ = features()
    mined = spoiled(field, value)
    got = tuple(int(x[3]) for x in mined[:3])
    message = (
        "quadruplet_loss: quadruplets must name rows that exist where they are valid, anchor 3 "
        f"got {got} for 8 photos and 6 sketches"
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        quadruplet_loss(sketches, photos, mined, impl=impl)
    mined.valid[3] = False  # it is not read then
    expected = features()[2]
    expected.valid[3] = False
    assert quadruplet_loss(sketches, photos, mined, impl=impl) == quadruplet_loss(
        sketches, photos, expected, impl=impl
    )


def test_quadruplets_have_the_dtypes_of_indices_and_flags():
    sketches, photos, mined = features()
    for change, message in (
        ({"positive": mined.positive.int()}, "positive must be torch.int64, got torch.int32"),
        ({"valid": mined.valid.long()}, "valid must be torch.bool, got torch.int64"),
    ):
        with pytest.raises(TypeError, match=f"quadruplet_loss: quadruplets.{message}"):
            quadruplet_loss(sketches, photos, mined._replace(**change))
    with pytest.raises(ValueError, match=re.escape("quadruplets.valid must be [6], got [5]")):
        quadruplet_loss(sketches, photos, mined._replace(valid=mined.valid[:5]))
    elsewhere = mined._replace(valid=mined.valid.to("meta"))
    with pytest.raises(ValueError, match=r"quadruplets\.valid must be on cpu like sketches, got"):
        quadruplet_loss(sketches, photos, elsewhere)


def test_a_missing_sketch_negative_matters_to_presets_that_use_it():
    sketches, photos, mined = features()
    missing = mined._replace(sketch_negative=torch.full_like(mined.sketch_negative, -1))
    expected = quadruplet_loss(sketches, photos, mined, preset="triplet")
    assert quadruplet_loss(sketches, photos, missing, preset="triplet") == expected
    with pytest.raises(ValueError, match="quadruplets must name rows that exist where they are"):
        quadruplet_loss(sketches, photos, missing, preset="ramln")


def test_mining_and_loss_compile_without_graph_breaks():
    given = batch()

    def both(**given):
        mined = mine_quadruplets(**given)
        return quadruplet_loss(given["sketches"], given["photos"], mined)

    compiled = torch.compile(both, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(**given), both(**given))
