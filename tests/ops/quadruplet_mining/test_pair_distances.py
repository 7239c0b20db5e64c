"""Distances of all pairs: the CPU kernel against the reference, values and gradients."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zsbir_fast import _C
from zsbir_fast.ops.quadruplet_mining import pair_distances as ops
from zsbir_fast.ops.quadruplet_mining.pair_distances import kernel_rows, pair_distances
from zsbir_fast.reference import quadruplet_mining as reference

DISTANCES = ["euclidean", "squared_euclidean", "cosine"]
LEVELS = ["baseline", "avx2", "avx512"]
LEVELS = LEVELS[: LEVELS.index(_C.simd_level()) + 1]
TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-12}


def exact_rows(generator, count, width, distance, dtype):
    """Rows whose distances round nowhere: many of them are equal, some rows are zero."""
    if distance != "cosine":
        return torch.randint(-3, 4, (count, width), generator=generator).to(dtype) / 2
    # One or four entries of the same size: unit length is 1 or 1/2 each.
    entries = torch.where(torch.rand(count, generator=generator) < 0.5, 1, min(4, width // 4 * 4))
    place = torch.rand(count, width, generator=generator).argsort(1)
    signs = torch.randint(2, (count, width), generator=generator) * 2 - 1
    return (signs * (place < entries[:, None])).to(dtype) * 2


def both(a, b, distance, upstream):
    """Distances and gradients of the kernel, then of the reference."""
    out = []
    for fused in (True, False):
        x = a.detach().requires_grad_()
        y = None if b is None else b.detach().requires_grad_()
        if fused:
            rows = [None if r is None else kernel_rows(r, distance) for r in (x, y)]
            distances = pair_distances(*rows, distance)
        else:
            distances = reference.pair_distances(x, x if y is None else y, distance)
        inputs = (x,) if y is None else (x, y)
        out.append((distances, *torch.autograd.grad(distances, inputs, upstream)))
    return out


@st.composite
def cases(draw):
    distance, dtype = draw(st.sampled_from(DISTANCES)), draw(st.sampled_from(list(TOLERANCE)))
    g = torch.Generator().manual_seed(draw(st.integers(0, 10**6)))
    a, b, width = draw(st.integers(0, 20)), draw(st.integers(0, 20)), draw(st.integers(1, 40))
    exact = draw(st.booleans())
    x, y = (
        exact_rows(g, n, width, distance, dtype)
        if exact
        else torch.randn(n, width, generator=g, dtype=dtype)
        for n in (a, b)
    )
    y = None if draw(st.booleans()) else y
    upstream = torch.randn(a, a if y is None else b, generator=g, dtype=dtype)
    return x, y, distance, upstream, exact


@settings(max_examples=80, deadline=None)
@given(cases())
def test_kernel_equals_reference(case):
    x, y, distance, upstream, exact = case
    fused, expected = both(x, y, distance, upstream)
    if exact:
        assert torch.equal(fused[0], expected[0])
    for got, wanted in zip(fused, expected, strict=True):
        tolerance = TOLERANCE[x.dtype]
        # The distance of a row to itself may come out as a rounding error of 1 - |x|^2 (cosine).
        torch.testing.assert_close(got, wanted, rtol=tolerance, atol=10 * tolerance)


@pytest.mark.parametrize("distance", DISTANCES)
def test_distances_are_those_of_the_definition(generator, distance):
    a, b = (torch.randn(n, 5, generator=generator, dtype=torch.float64) for n in (3, 4))
    got = pair_distances(kernel_rows(a, distance), kernel_rows(b, distance), distance)
    for i, x in enumerate(a.tolist()):
        for j, y in enumerate(b.tolist()):
            expected = math.dist(x, y)
            if distance == "squared_euclidean":
                expected *= expected
            elif distance == "cosine":
                dot = sum(p * q for p, q in zip(x, y, strict=True))
                expected = 1 - dot / math.hypot(*x) / math.hypot(*y)
            assert float(got[i, j]) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("distance", DISTANCES)
def test_every_size_at_every_simd_level(generator, monkeypatch, distance, dtype):
    """Around the edges of tiles, blocks of rows (8 and 32) and panels of columns (16 and 32)."""
    sizes = [(1, 1), (2, 15), (7, 16), (8, 17), (9, 31), (31, 32), (33, 33), (513, 65), (3, 129)]
    for rows, columns in sizes:
        a, b = (exact_rows(generator, n, 13, distance, dtype) for n in (rows, columns))
        a, b = kernel_rows(a, distance), kernel_rows(b, distance)
        expected = ops._reference(a, b, ops.CODES[distance])
        itself = ops._reference(a, None, ops.CODES[distance])
        for level in LEVELS:
            monkeypatch.setenv("ZSBIR_SIMD", level)
            assert torch.equal(pair_distances(a, b, distance), expected), (rows, columns, level)
            assert torch.equal(pair_distances(a, None, distance), itself), (rows, level)


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("distance", DISTANCES)
def test_simd_levels_agree(generator, monkeypatch, distance, dtype):
    a, b = (torch.randn(n, 37, generator=generator, dtype=dtype) for n in (41, 70))
    results = {}
    for level in LEVELS:
        monkeypatch.setenv("ZSBIR_SIMD", level)
        results[level] = pair_distances(a, b, distance)
    tolerance = TOLERANCE[dtype]
    for level in LEVELS[1:]:
        assert torch.equal(results[level], results["avx2"])  # the same chain of fused additions
        torch.testing.assert_close(
            results[level], results["baseline"], rtol=tolerance, atol=tolerance
        )


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("distance", DISTANCES)
def test_equal_pairs_have_equal_distances_wherever_they_stand(
    generator, monkeypatch, distance, level
):
    monkeypatch.setenv("ZSBIR_SIMD", level)
    few = torch.randn(3, 29, generator=generator)
    which, where = (torch.randint(3, (n,), generator=generator) for n in (77, 101))
    got = pair_distances(few[which], few[where], distance)
    first = pair_distances(few, few, distance)
    assert torch.equal(got, first[which][:, where])
    many = few[torch.cat([which, where])]
    symmetric = pair_distances(many, None, distance)
    assert torch.equal(symmetric, pair_distances(many, many.clone(), distance))
    assert torch.equal(symmetric, symmetric.mT)


@pytest.mark.parametrize("distance", DISTANCES)
def test_layout_changes_nothing(generator, distance):
    a, b = (torch.randn(n, 9, generator=generator, dtype=torch.float64) for n in (11, 18))
    upstream = torch.randn(18, 11, generator=generator, dtype=torch.float64).mT
    expected = both(a, b, distance, upstream)[0]
    layouts = (
        (a.mT.contiguous().mT, b.mT.contiguous().mT),
        (torch.stack([a, a], 2)[..., 1], torch.cat([b, b], 1)[:, 9:]),
    )
    for x, y in layouts:
        assert not x.is_contiguous()
        got = both(x, y, distance, upstream)[0]
        assert torch.equal(got[0], expected[0])
        for grad, wanted in zip(got[1:], expected[1:], strict=True):
            torch.testing.assert_close(grad, wanted, rtol=1e-12, atol=1e-12)


def test_a_tiny_euclidean_distance_passes_no_gradient():
    """0 < d < 1e-6: the direction is noise. A larger one of the same anchor passes its own."""
    a = torch.tensor([[0.5, 0.0], [0.0, 0.0]], dtype=torch.float64)
    b = torch.tensor([[0.5, 5e-7], [0.5, 2e-6], [0.5, 0.0]], dtype=torch.float64)
    for _, grad_a, grad_b in both(a, b, "euclidean", torch.ones(2, 3, dtype=torch.float64)):
        torch.testing.assert_close(grad_a[0], torch.tensor([0.0, -1.0], dtype=torch.float64))
        torch.testing.assert_close(grad_b[0], torch.tensor([1.0, 1e-6], dtype=torch.float64))
        torch.testing.assert_close(grad_b[2], torch.tensor([1.0, 0.0], dtype=torch.float64))


@pytest.mark.parametrize("distance", DISTANCES)
def test_gradients_are_those_of_finite_differences(generator, distance):
    a, b = (torch.randn(n, 3, generator=generator, dtype=torch.float64) for n in (3, 4))
    a.requires_grad_()
    b.requires_grad_()
    off_diagonal = ~torch.eye(3, dtype=torch.bool)  # a distance to itself has no derivative
    for call in (pair_distances, reference.pair_distances):
        assert torch.autograd.gradcheck(
            lambda x, y, c=call: c(kernel_rows(x, distance), kernel_rows(y, distance), distance),
            (a, b),
        )
    assert torch.autograd.gradcheck(
        lambda x: pair_distances(kernel_rows(x, distance), None, distance)[off_diagonal], (a,)
    )


@pytest.mark.parametrize("distance", DISTANCES)
def test_threads_change_no_bit(generator, set_threads, distance):
    a, b = (torch.randn(n, 33, generator=generator) for n in (90, 70))
    results = []
    for threads in (1, 2, 3):
        set_threads(threads)
        upstream = torch.ones(90, 70)
        distances = pair_distances(a, b, distance)
        weights = ops._weights_cpu(upstream, distances, ops.CODES[distance], False)
        itself = pair_distances(a, None, distance)
        own = ops._weights_cpu(torch.ones(90, 90), itself, ops.CODES[distance], True)
        results.append((distances, *weights, itself, *own[:2]))
    for other in results[1:]:
        assert all(map(torch.equal, other, results[0]))


@pytest.mark.parametrize("itself", [True, False])
@pytest.mark.parametrize("distance", DISTANCES)
def test_weights_of_the_gradient_equal_the_plain_ones(generator, distance, itself):
    """More rows than a block of column sums, more columns than a tile."""
    rows, columns = (150, 150) if itself else (150, 41)
    grad, distances = (
        torch.rand(rows, columns, generator=generator, dtype=torch.float64) for _ in range(2)
    )
    distances[3, 4] = distances[4, 3] = 0
    if itself:
        distances = (distances + distances.mT) / 2
    got = ops._weights_cpu(grad.mT.contiguous().mT, distances, ops.CODES[distance], itself)
    expected = ops._weights_of(grad, distances, ops.CODES[distance], itself)
    for x, y in zip(got[: 2 if itself else 3], expected, strict=False):
        torch.testing.assert_close(x, y, rtol=1e-12, atol=1e-12)


def test_second_derivatives_are_refused(generator):
    a = torch.randn(3, 2, generator=generator, requires_grad=True)
    (grad,) = torch.autograd.grad(
        pair_distances(a, None, "squared_euclidean").sum(), a, create_graph=True
    )
    with pytest.raises(
        NotImplementedError, match="pair_distances: second derivatives are not supported by the"
    ):
        torch.autograd.grad(grad.sum(), a)


@pytest.mark.parametrize("distance", DISTANCES)
def test_autocast_changes_no_bit(generator, distance):
    a, b = (torch.randn(n, 8, generator=generator).requires_grad_() for n in (6, 5))
    rows = kernel_rows(a, distance), kernel_rows(b, distance)
    for call in (pair_distances, reference.pair_distances):
        plain = call(*rows, distance)
        with torch.autocast("cpu", torch.bfloat16):
            inside = call(*rows, distance)
            assert call(a[:0], b, distance).dtype == torch.float32
        assert torch.equal(inside, plain)
    distances = pair_distances(*rows, distance)
    expected = torch.autograd.grad(distances.sum(), (a, b), retain_graph=True)
    with torch.autocast("cpu", torch.bfloat16):
        got = torch.autograd.grad(distances.sum(), (a, b))
    assert all(map(torch.equal, got, expected))
