"""The loss over given quadruplets: the kernels against the reference, values and gradients."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zsbir_fast import _C
from zsbir_fast.ops.quadruplet_mining import Quadruplets, mine_quadruplets, quadruplet_loss
from zsbir_fast.ops.quadruplet_mining import quadruplet_hinges as ops
from zsbir_fast.reference.quadruplet_mining import PRESETS

DISTANCES = ["euclidean", "squared_euclidean", "cosine"]
PRESET_NAMES = [*PRESETS, "ramln"]
REDUCTIONS = ["mean", "mean_nonzero", "sum", "none"]
LEVELS = ["baseline", "avx2", "avx512"]
LEVELS = LEVELS[: LEVELS.index(_C.simd_level()) + 1]


class Case:
    """Features and quadruplets that repeat rows, with some anchors left out."""

    def __init__(self, generator, sizes=(7, 9, 6), width=5, dtype=torch.float64, lattice=False):
        def rows(n):
            if lattice:
                return torch.randint(-2, 3, (n, width), generator=generator).to(dtype) / 2
            return torch.randn(n, width, generator=generator).to(dtype)

        self.rows = [rows(n) for n in sizes]
        anchors, photos, references = sizes
        exist = min(sizes) > 0
        index = [
            torch.randint(n, (anchors,), generator=generator)
            if exist
            else torch.full((anchors,), -1)
            for n in (photos, photos, references)
        ]
        valid = (torch.rand(anchors, generator=generator) < 0.8) & exist
        self.mined = Quadruplets(*(torch.where(valid, i, -1) for i in index), valid)
        # Powers of two, one of them negative, and one 0: products with them round nowhere.
        self.weights = (torch.arange(anchors) % 4 - 1).to(torch.promote_types(dtype, torch.float32))

    def loss_and_gradients(self, impl="fused", upstream=None, **options):
        leaves = [x.detach().requires_grad_() for x in (*self.rows, self.weights)]
        s, p, r, w = leaves
        loss = quadruplet_loss(
            s, p, self.mined, weights=w, sketch_references=r, impl=impl, **options
        )
        grads = torch.autograd.grad(
            loss, leaves, upstream, allow_unused=True, materialize_grads=True
        )
        return (loss, *grads)


def assert_agreement(case, tolerance=1e-10, **options):
    results = [case.loss_and_gradients(impl, **options) for impl in ("fused", "reference")]
    # Weights have both signs, so that the terms of a sum (up to 4 D each) may cancel.
    anchors, width = case.rows[0].shape
    absolute = tolerance * max(1, anchors * width / 10)
    for got, expected in zip(*results, strict=True):
        assert got.isfinite().all()
        torch.testing.assert_close(got, expected, rtol=tolerance, atol=absolute)
    return results[0]


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("preset", PRESET_NAMES)
def test_every_preset_agrees(generator, preset, distance, reduction):
    case = Case(generator)
    upstream = torch.randn(7, generator=generator, dtype=torch.float64)
    loss, *grads = assert_agreement(
        case,
        preset=preset,
        distance=distance,
        reduction=reduction,
        upstream=upstream if reduction == "none" else None,
        margins=0.7,
    )
    assert loss.abs().sum() > 0
    assert all(grad.abs().sum() > 0 for grad in grads[:2])


@settings(max_examples=100, deadline=None)
@given(
    st.tuples(st.integers(0, 20), st.integers(0, 20), st.integers(0, 20)),
    st.integers(1, 40),
    st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.float16]),
    st.fixed_dictionaries(
        {
            "distance": st.sampled_from(DISTANCES),
            "preset": st.sampled_from(PRESET_NAMES),
            "reduction": st.sampled_from(REDUCTIONS[:3]),
            "margins": st.sampled_from([0.0, 0.3, (0.1, 0.2, 0.3, 0.4, 0.5)]),
            "cross_modal_share": st.sampled_from([0.0, 0.3, 1.0]),
        }
    ),
    st.integers(0, 10**6),
)
def test_every_shape_agrees(sizes, width, dtype, options, seed):
    case = Case(torch.Generator().manual_seed(seed), sizes, width, dtype)
    # float16 holds 3 digits of a gradient, bfloat16 2.
    tolerance = {torch.float64: 1e-10, torch.float32: 2e-5}.get(dtype, 2e-2)
    assert_agreement(case, tolerance, **options)


@pytest.mark.parametrize("distance", ["euclidean", "squared_euclidean"])
@pytest.mark.parametrize("preset", PRESET_NAMES)
def test_hinges_at_exactly_zero_agree(preset, distance):
    """On a lattice many hinges are 0 and many rows equal: neither passes a gradient."""
    for seed in range(5):
        case = Case(torch.Generator().manual_seed(seed), (20, 8, 6), 2, lattice=True)
        for margins in (0.0, 0.5):
            for reduction in ("sum", "mean_nonzero"):
                assert_agreement(
                    case, preset=preset, distance=distance, margins=margins, reduction=reduction
                )


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("share", [None, 0.3])
def test_gradients_are_those_of_finite_differences(generator, distance, share):
    case = Case(generator, (4, 5, 3), 3)
    options = {"preset": "ramln", "cross_modal_share": share} if share else {}
    options |= {} if share else {"coefficients": (1, 0.5, 2, 0.25, 3)}

    def loss(s, p, r, w):
        return quadruplet_loss(
            s, p, case.mined, weights=w, sketch_references=r, margins=9.0, distance=distance,
            **options,
        )  # fmt: skip

    leaves = [x.clone().requires_grad_() for x in (*case.rows, case.weights)]
    assert torch.autograd.gradcheck(loss, leaves)


def test_rows_that_many_anchors_share_gather_all_of_them(generator):
    """300 anchors, 2 photos, 1 sketch negative that is an anchor, too: gradients add up."""
    case = Case(generator, (300, 2, 1), 17)
    for distance in DISTANCES:
        assert_agreement(case, preset="full", distance=distance, margins=2.0, reduction="sum")
    s = case.rows[0].requires_grad_()
    labels = torch.arange(300) % 2
    own = []
    for impl in ("fused", "reference"):
        mined = mine_quadruplets(s, case.rows[1], labels, torch.tensor([0, 1]), impl=impl)
        loss = quadruplet_loss(s, case.rows[1], mined, preset="full", margins=2.0, impl=impl)
        own.append(torch.autograd.grad(loss, s)[0])
    torch.testing.assert_close(*own, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("distance", DISTANCES)
def test_layout_threads_simd_and_deterministic_mode_change_no_bit(
    generator, monkeypatch, set_threads, distance
):
    case = Case(generator, (70, 40, 50), 19, torch.float32)
    options = {"preset": "full", "distance": distance, "margins": 1.0}
    set_threads(1)
    expected = case.loss_and_gradients(**options)
    for threads in (1, 2, 3):
        set_threads(threads)
        assert all(map(torch.equal, case.loss_and_gradients(**options), expected))
    for level in LEVELS:
        monkeypatch.setenv("ZSBIR_SIMD", level)
        assert all(map(torch.equal, case.loss_and_gradients(**options), expected))
    torch.use_deterministic_algorithms(True)
    try:
        assert all(map(torch.equal, case.loss_and_gradients(**options), expected))
    finally:
        torch.use_deterministic_algorithms(False)
    case.rows = [x.mT.contiguous().mT for x in case.rows]
    case.mined = Quadruplets(*(torch.stack([x, x], 1)[:, 0] for x in case.mined))
    case.weights = torch.stack([case.weights, case.weights], 1)[:, 1]
    for got, wanted in zip(case.loss_and_gradients(**options), expected, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("impl", ["fused", "reference"])
@pytest.mark.parametrize("distance", DISTANCES)
def test_autocast_changes_no_bit(generator, distance, impl):
    case = Case(generator, dtype=torch.float32)
    leaves = [x.requires_grad_() for x in case.rows]

    def loss():
        return quadruplet_loss(
            *leaves[:2], case.mined, sketch_references=leaves[2], preset="full", margins=1.0,
            distance=distance, impl=impl,
        )  # fmt: skip

    plain = loss()
    with torch.autocast("cpu", torch.bfloat16):
        inside = loss()
    assert torch.equal(inside, plain)
    grads = [torch.autograd.grad(x, leaves) for x in (plain, inside)]
    assert all(map(torch.equal, *grads))


def test_nothing_active_nothing_valid_nothing_there(generator):
    case = Case(generator, (6, 4, 5))
    for change, options in (
        (case.mined, {"margins": 0.0, "coefficients": (0,) * 5}),
        (case.mined._replace(valid=torch.zeros(6, dtype=torch.bool)), {"margins": 9.0}),
    ):
        case.mined = change
        for reduction in REDUCTIONS[:3]:
            loss, *grads = assert_agreement(case, reduction=reduction, **options)
            assert loss == 0
            assert all((grad == 0).all() for grad in grads)
    far = torch.eye(2, dtype=torch.float64) * 100
    mined = mine_quadruplets(far, far, torch.arange(2), torch.arange(2))
    assert mined.valid.all()
    far.requires_grad_()
    loss = quadruplet_loss(far, far.detach(), mined)
    assert loss == 0
    assert (torch.autograd.grad(loss, far)[0] == 0).all()


@pytest.mark.parametrize("distance", DISTANCES)
def test_zero_rows_pass_finite_gradients(distance):
    case = Case(torch.Generator().manual_seed(1), (6, 4, 5))
    for rows in case.rows:
        rows[::2] = 0
    assert_agreement(case, preset="full", distance=distance, margins=1.0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("impl", ["fused", "reference"])
def test_halves_at_their_largest_value_stay_finite(dtype, distance, impl):
    signs = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    s = (signs * 65504).to(dtype).requires_grad_()
    p = (signs.flip(0) * 65504).to(dtype).requires_grad_()
    labels = torch.tensor([0, 0, 1, 1])
    mined = mine_quadruplets(s, p, labels, labels, distance=distance, impl=impl)
    assert mined.valid.all()
    loss = quadruplet_loss(s, p, mined, preset="full", distance=distance, impl=impl)
    assert loss.dtype == torch.float32
    assert loss.isfinite()
    if distance != "squared_euclidean":  # whose gradient is beyond the largest float16
        grads = torch.autograd.grad(loss, (s, p))
        assert all(grad.dtype == dtype and grad.isfinite().all() for grad in grads)


def test_devices_without_kernels_run_the_reference(generator, monkeypatch):
    case = Case(generator)
    native = case.loss_and_gradients(preset="full")
    monkeypatch.setattr(ops, "why_not_native", lambda device: f"nothing for {device}")
    monkeypatch.setattr(ops, "_fallback", ops.reference.quadruplet_hinges)
    monkeypatch.setattr(torch.ops.zsbir, "quadruplet_hinges", None)  # is not called
    for got, expected in zip(case.loss_and_gradients(preset="full"), native, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)


def test_a_preset_without_sketches_needs_no_bank(generator):
    """Nobody reads the sketch negative of "triplet"; the bank may be empty."""
    case = Case(generator)
    for empty in (False, True):
        if empty:
            case.rows[2] = case.rows[2][:0]
        nothing = torch.full_like(case.mined.positive, -1)
        case.mined = case.mined._replace(sketch_negative=nothing)
        loss = assert_agreement(case, preset="triplet", margins=2.0)[0]
        assert loss.abs() > 0
