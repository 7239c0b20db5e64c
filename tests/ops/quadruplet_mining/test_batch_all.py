"""Batch-all losses: kernels against the reference, values and gradients, whatever circumstances."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zsbir_fast import _C
from zsbir_fast.ops.quadruplet_mining import (
    batch_all_quadruplet_loss,
    batch_all_triplet_loss,
    hinge_rows,
    probes,
)
from zsbir_fast.reference.quadruplet_mining import PRESETS

DISTANCES = ["euclidean", "squared_euclidean", "cosine"]
REDUCTIONS = ["mean_nonzero", "mean", "sum"]
COEFFICIENTS = [
    *PRESETS.values(),
    (0, 0, 0, 1, 0),
    (0, 0, 1, 0, 0),
    (0, 1, 2, 0, 0),
    (1, 0.5, 2, 1, 0),
    (0, 0, 0, 0, 1),
    (1, 0, 0, 1, 1),
    (1, 1, 1, 1, 1),
]
MARGINS = (0.25, 0.5, 0.5, 0.125, 0.75)
LEVELS = ["baseline", "avx2", "avx512"]
LEVELS = LEVELS[: LEVELS.index(_C.simd_level()) + 1]


def batch(seed, sketches, photos, classes=3, width=3, dtype=torch.float64, lattice=False):
    g = torch.Generator().manual_seed(seed)
    rows = [
        torch.randint(-2, 3, (n, width), generator=g).to(dtype) / 2
        if lattice
        else torch.randn(n, width, generator=g).to(dtype)
        for n in (sketches, photos)
    ]
    labels = [torch.randint(classes, (n,), generator=g) - 1 for n in (sketches, photos)]
    return *rows, *labels


def quadruplets(s, p, ls, lp, **options):
    return batch_all_quadruplet_loss(s, p, ls, lp, **options)


def triplets(s, p, ls, lp, *, mode="cross", **options):
    """Of the sketches alone, or of sketches against photos, or where photo i is sketch i."""
    if mode == "alone":
        return batch_all_triplet_loss(s, ls, **options)
    return batch_all_triplet_loss(s, ls, p, lp, exclude_self=mode == "skip", **options)


def loss_and_gradients(call, case, **options):
    s, p = (x.detach().requires_grad_() for x in case[:2])
    loss = call(s, p, *case[2:], **options)
    upstream = torch.arange(1.0, len(loss) + 1).to(loss) if loss.ndim else None
    grads = torch.autograd.grad(loss, (s, p), upstream, allow_unused=True, materialize_grads=True)
    return (loss, *grads)


def assert_agreement(call, case, tolerance=1e-9, **options):
    results = [loss_and_gradients(call, case, impl=i, **options) for i in ("fused", "reference")]
    for got, expected in zip(*results, strict=True):
        assert got.isfinite().all()
        assert got.dtype == expected.dtype
        torch.testing.assert_close(got, expected, rtol=tolerance, atol=tolerance)
    return results[0]


def refused(coefficients, reduction):
    return coefficients[4] and (coefficients[1] or coefficients[2]) and reduction == "mean_nonzero"


@pytest.mark.parametrize("lattice", [True, False])
@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("coefficients", COEFFICIENTS, ids=str)
def test_quadruplets_agree(coefficients, distance, lattice):
    """Cosines of a lattice tie, but not in all bits of the reference."""
    case = batch(3, 10, 9, lattice=lattice and distance != "cosine")
    for reduction in REDUCTIONS:
        if refused(coefficients, reduction):
            continue
        options = {"coefficients": coefficients, "margins": MARGINS, "distance": distance}
        loss = assert_agreement(quadruplets, case, reduction=reduction, **options)[0]
        assert loss > 0


@pytest.mark.parametrize("lattice", [True, False])
@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("mode", ["alone", "cross", "skip"])
def test_triplets_agree(mode, distance, lattice):
    for sizes in ((10, 9), (6, 12)):
        case = batch(4, *sizes, lattice=lattice and distance != "cosine")
        for reduction in (*REDUCTIONS, "none"):
            loss = assert_agreement(
                triplets, case, mode=mode, distance=distance, reduction=reduction, margin=0.5
            )[0]
            assert loss.sum() > 0


SHAPES = st.tuples(st.integers(0, 12), st.integers(0, 12))
DTYPES = {torch.float64: 1e-9, torch.float32: 5e-5, torch.bfloat16: 3e-2, torch.float16: 1e-2}


@settings(max_examples=80, deadline=None)
@given(
    SHAPES,
    st.integers(1, 5),
    st.integers(1, 40),
    st.sampled_from(list(DTYPES)),
    st.sampled_from(COEFFICIENTS),
    st.sampled_from(REDUCTIONS),
    st.sampled_from(DISTANCES),
    st.integers(0, 10**6),
)
def test_quadruplets_of_every_shape_agree(
    sizes, classes, width, dtype, coefficients, reduction, distance, seed
):
    case = batch(seed, *sizes, classes, width, dtype)
    if refused(coefficients, reduction):
        reduction = "mean"
    # Means, so that gradients stay of the size of the features.
    options = {"coefficients": coefficients, "margins": MARGINS, "distance": distance}
    reduction = "mean" if reduction == "sum" and dtype != torch.float64 else reduction
    assert_agreement(quadruplets, case, DTYPES[dtype], reduction=reduction, **options)


@settings(max_examples=80, deadline=None)
@given(
    SHAPES,
    st.integers(1, 5),
    st.integers(1, 40),
    st.sampled_from(list(DTYPES)),
    st.sampled_from(["alone", "cross", "skip"]),
    st.sampled_from(["mean_nonzero", "mean"]),
    st.sampled_from(DISTANCES),
    st.integers(0, 10**6),
)
def test_triplets_of_every_shape_agree(
    sizes, classes, width, dtype, mode, reduction, distance, seed
):
    case = batch(seed, *sizes, classes, width, dtype)
    options = {"mode": mode, "distance": distance, "margin": 0.5}
    assert_agreement(triplets, case, DTYPES[dtype], reduction=reduction, **options)


@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_larger_batches_agree(distance, dtype):
    """More than one panel, block and tile; 220 positives of an anchor, more than are compared."""
    case = batch(5, 30, 460, 2, 19, dtype)
    tolerance = 1e-4 if dtype == torch.float32 else 1e-9
    assert_agreement(triplets, case, tolerance, distance=distance, margin=0.5)
    case = batch(6, 41, 37, 4, 19, dtype)
    for preset in ("full", "chen2017"):
        assert_agreement(quadruplets, case, tolerance, distance=distance, preset=preset)


def test_duplicates_and_zero_rows_agree():
    """Equal rows in one class and in two: distances of 0, on both sides of the hinges."""
    s, p, ls, lp = batch(8, 10, 8)
    s[::3], p[::3] = 0, 0
    p[1], s[4] = s[1], s[1]
    for distance in DISTANCES:
        for preset in PRESETS:
            assert_agreement(quadruplets, (s, p, ls, lp), preset=preset, distance=distance)
        for mode in ("alone", "cross"):
            assert_agreement(triplets, (s, p, ls, lp), mode=mode, distance=distance)


def test_layout_changes_no_more_than_rounding():
    case = batch(9, 30, 40, width=7)
    moved = [x.mT.contiguous().mT for x in case[:2]]
    moved += [torch.stack([x, x], 1)[:, 1] for x in case[2:]]
    for call in (triplets, quadruplets):
        results = [loss_and_gradients(call, x) for x in (case, moved)]
        assert results[0][0] == results[1][0]
        for got, expected in zip(*results, strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("coefficients", [(1, 1, 1, 1, 0), (1, 0, 0, 1, 1)], ids=str)
def test_threads_and_simd_levels(monkeypatch, set_threads, coefficients):
    """Losses in all bits; gradients to the rounding of the vendor library's products."""
    case = batch(10, 70, 90, 5, 24, torch.float32)
    options = {"coefficients": coefficients, "margins": 0.5}
    set_threads(1)
    expected = loss_and_gradients(quadruplets, case, **options)
    for threads in (1, 2, 3):
        set_threads(threads)
        got = loss_and_gradients(quadruplets, case, **options)
        assert torch.equal(got[0], expected[0])
        for x, y in zip(got[1:], expected[1:], strict=True):
            torch.testing.assert_close(x, y, rtol=1e-5, atol=1e-6)
    losses = {}
    for level in LEVELS:
        monkeypatch.setenv("ZSBIR_SIMD", level)
        losses[level] = loss_and_gradients(quadruplets, case, **options)[0]
        torch.testing.assert_close(losses[level], expected[0], rtol=1e-5, atol=0)
    assert all(losses[level] == losses["avx2"] for level in LEVELS[1:])


@pytest.mark.parametrize("impl", ["fused", "reference"])
@pytest.mark.parametrize("distance", DISTANCES)
def test_autocast_and_deterministic_algorithms_change_no_bit(distance, impl):
    case = batch(11, 9, 8, width=16, dtype=torch.float32)
    for call in (triplets, quadruplets):
        expected = loss_and_gradients(call, case, distance=distance, impl=impl)
        with torch.autocast("cpu", torch.bfloat16):
            inside = call(*case, distance=distance, impl=impl)
        assert torch.equal(inside, expected[0])
        torch.use_deterministic_algorithms(True)
        try:
            got = loss_and_gradients(call, case, distance=distance, impl=impl)
        finally:
            torch.use_deterministic_algorithms(False)
        assert all(map(torch.equal, got, expected))


@pytest.mark.parametrize("impl", ["fused", "reference"])
@pytest.mark.parametrize(
    "labels",
    [([0, 0], [0, 0]), ([0, 1], [2, 3]), ([0], [0]), ([], [0]), ([0], []), ([], [])],
    ids=str,
)
def test_without_a_term_the_loss_and_its_gradients_are_zero(labels, impl):
    """One class, no positive, one row, no sketch, no photo, nothing."""
    g = torch.Generator().manual_seed(0)
    rows = [torch.randn(len(x), 4, generator=g) for x in labels]
    case = *rows, *(torch.tensor(x, dtype=torch.int64) for x in labels)
    for distance in DISTANCES:
        for reduction in REDUCTIONS:
            for coefficients in COEFFICIENTS:
                if refused(coefficients, reduction):
                    continue
                found = loss_and_gradients(
                    quadruplets, case, coefficients=coefficients, distance=distance,
                    reduction=reduction, impl=impl,
                )  # fmt: skip
                assert all((x == 0).all() for x in found)
            for mode in ("alone", "cross", "skip"):
                found = loss_and_gradients(
                    triplets, case, mode=mode, distance=distance, reduction=reduction, impl=impl
                )
                assert all((x == 0).all() for x in found)


def test_hinges_that_are_all_satisfied_pass_no_gradient():
    s = torch.eye(4).repeat(2, 1) * 50
    labels = torch.arange(8) % 4
    for preset in PRESETS:
        found = loss_and_gradients(quadruplets, (s, s + 0.01, labels, labels), preset=preset)
        assert all((x == 0).all() for x in found)
    found = loss_and_gradients(triplets, (s, s, labels, labels), mode="alone")
    assert all((x == 0).all() for x in found)


@pytest.mark.parametrize("impl", ["fused", "reference"])
def test_no_hinge_takes_part(impl):
    case = batch(12, 6, 6)
    found = loss_and_gradients(quadruplets, case, coefficients=(0,) * 5, impl=impl)
    assert all((x == 0).all() for x in found)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("distance", DISTANCES)
def test_halves_at_their_largest_value_stay_finite(dtype, distance):
    signs = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    labels = torch.tensor([0, 0, 1, 2])
    case = (signs * 65504).to(dtype), (signs.flip(0) * 65504).to(dtype), labels, labels
    for call, options in ((triplets, {}), *((quadruplets, {"preset": p}) for p in PRESETS)):
        loss = call(*case, distance=distance, **options)
        assert loss.dtype == torch.float32
        assert loss.isfinite()
        assert loss > 0


def test_devices_without_kernels_get_the_same(monkeypatch):
    """The reference functions of the operators, on the CPU."""
    case = batch(13, 8, 9)
    expected = [
        quadruplets(*case, coefficients=c, margins=MARGINS, reduction=r)
        for c, r in (((1, 1, 1, 1, 0), "mean_nonzero"), ((1, 0, 0, 1, 1), "mean_nonzero"))
    ]

    for name, plain in (
        ("hinge_rows", hinge_rows._reference),
        ("union_counts", hinge_rows._union_reference),
        ("probe_sum", probes._reference),
        ("count_probe_union", probes._count_reference),
    ):
        monkeypatch.setattr(torch.ops.zsbir, name, plain)
    for loss, c in zip(expected, ((1, 1, 1, 1, 0), (1, 0, 0, 1, 1)), strict=True):
        got = quadruplets(*case, coefficients=c, margins=MARGINS)
        torch.testing.assert_close(got, loss, rtol=1e-12, atol=0)
