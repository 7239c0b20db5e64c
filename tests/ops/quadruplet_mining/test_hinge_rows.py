"""Sums over all triplets of a row, and counts of unions: the CPU kernels against the reference."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zsbir_fast import _C
from zsbir_fast.ops.quadruplet_mining import hinge_rows as ops
from zsbir_fast.ops.quadruplet_mining.hinge_rows import hinge_rows, union_counts

LEVELS = ["baseline", "avx2", "avx512"]
LEVELS = LEVELS[: LEVELS.index(_C.simd_level()) + 1]
DTYPES = [torch.float32, torch.float64]


class Case:
    """Thresholds and values on a lattice with many ties, where every sum is exact."""

    def __init__(
        self, generator, rows=6, columns=9, values=7, classes=3, dtype=torch.float32, itself=False
    ):
        def lattice(*shape):
            return torch.randint(0, 9, shape, generator=generator).to(dtype) / 4

        def labels(n):
            return torch.randint(classes, (n,), generator=generator) - 1

        self.thresholds = lattice(rows, columns)
        self.values = None if itself else lattice(rows, values)
        self.labels = [labels(rows), labels(columns)]
        self.labels.append(self.labels[1] if itself else labels(values))
        shape = columns if itself else values
        self.weights = [
            torch.randint(low, low + 5, (n,), generator=generator, dtype=torch.int32)
            for low, n in ((4, rows), (0, shape))
        ]

    def arguments(self, margin=0.5, exclude_self=False, weighted=False):
        weights = self.weights if weighted else (None, None)
        return (self.thresholds, self.values, *self.labels, *weights, margin, exclude_self)


def loop(
    thresholds, values, row_labels, labels, value_labels, row_w, value_w, margin, exclude_self
):
    """Sums, active weights and both derivatives from all pairs of columns."""
    given = thresholds if values is None else values
    sums, active = [0.0] * len(thresholds), [0.0] * len(thresholds)
    by_threshold, by_value = (torch.zeros_like(x) for x in (thresholds, given))
    for r, row in enumerate(thresholds.tolist()):
        for t, threshold in enumerate(row):
            if labels[t] != row_labels[r] or (exclude_self and t == r):
                continue
            for v, value in enumerate(given[r].tolist()):
                if value_labels[v] == row_labels[r] or not threshold + margin > value:
                    continue
                weight = 1 if row_w is None else int(row_w[r] - value_w[v])
                sums[r] += weight * (threshold + margin - value)
                active[r] += weight
                by_threshold[r, t] += weight
                by_value[r, v] -= weight
    if values is None:
        by_threshold, by_value = by_threshold + by_value, thresholds.new_zeros(0)
    sums, active = (torch.tensor(x, dtype=torch.float64) for x in (sums, active))
    return sums, active, by_threshold, by_value


@settings(max_examples=120, deadline=None)
@given(
    st.tuples(st.integers(0, 8), st.integers(0, 9), st.integers(0, 9)),
    st.integers(1, 5),
    st.sampled_from(DTYPES),
    st.booleans(),
    st.fixed_dictionaries(
        {
            "margin": st.sampled_from([0.0, 0.25, 3.0]),
            "exclude_self": st.booleans(),
            "weighted": st.booleans(),
        }
    ),
    st.integers(0, 10**6),
)
def test_kernel_and_reference_equal_a_loop(sizes, classes, dtype, itself, options, seed):
    case = Case(torch.Generator().manual_seed(seed), *sizes, classes, dtype, itself)
    given = case.arguments(**options)
    expected = loop(*given)
    for call in (torch.ops.zsbir.hinge_rows, ops._reference):
        assert all(map(torch.equal, call(*given), expected))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("columns", [191, 192, 193, 400])
def test_few_and_many_thresholds_at_every_simd_level(generator, monkeypatch, dtype, columns):
    """Up to 192 thresholds of a row are compared one by one, more are sorted; 600 values."""
    case = Case(generator, 4, columns, 600, 2, dtype)
    case.labels[0][:], case.labels[1][:] = 0, 0  # every column is a threshold
    for weighted in (False, True):
        given = case.arguments(0.25, False, weighted)
        expected = ops._reference(*given)
        assert (expected[0] > 0).any()
        for level in LEVELS:
            monkeypatch.setenv("ZSBIR_SIMD", level)
            assert all(map(torch.equal, torch.ops.zsbir.hinge_rows(*given), expected)), level


@pytest.mark.parametrize("classes", [2, 5])
def test_a_matrix_with_itself_beyond_the_blocks(generator, classes):
    case = Case(generator, 270, 270, classes=classes, itself=True)
    given = case.arguments(0.25, True)
    assert all(map(torch.equal, torch.ops.zsbir.hinge_rows(*given), ops._reference(*given)))


def test_random_values_with_many_thresholds(generator):
    case = Case(generator, 3, 500, 700, 2, torch.float64)
    case.thresholds, case.values = (
        torch.rand(x.shape, generator=generator, dtype=torch.float64)
        for x in (case.thresholds, case.values)
    )
    case.labels[0][:] = case.labels[1][0]
    got = torch.ops.zsbir.hinge_rows(*case.arguments(0.1))
    expected = ops._reference(*case.arguments(0.1))
    assert all(map(torch.equal, got[1:], expected[1:]))  # counts
    torch.testing.assert_close(got[0], expected[0], rtol=1e-12, atol=0)


def test_gradients(generator):
    thresholds, values = (
        torch.rand(4, n, generator=generator, dtype=torch.float64).requires_grad_() for n in (5, 6)
    )
    labels = torch.arange(4) % 2, torch.arange(5) % 2, torch.arange(6) % 3
    weights = {
        "row_weights": torch.tensor([5, 4, 3, 2], dtype=torch.int32),
        "value_weights": torch.tensor([0, 1, 2, 0, 1, 2], dtype=torch.int32),
    }
    for options in ({}, weights, {"exclude_self": True}):

        def sums(t, v, options=options):
            return hinge_rows(t, v, *labels, margin=0.3, **options).sums

        assert torch.autograd.gradcheck(sums, (thresholds, values))
        # Linear between the kinks: second derivatives are 0, but that of the upstream gradient.
        assert torch.autograd.gradgradcheck(sums, (thresholds, values))
    same = labels[0], labels[1], labels[1]
    assert torch.autograd.gradcheck(
        lambda t: hinge_rows(t, None, *same, margin=0.3, exclude_self=True).sums, (thresholds,)
    )
    found = hinge_rows(thresholds, values, *labels, margin=0.3)
    assert found.sums.requires_grad
    assert not found.active.requires_grad
    assert not found.by_threshold.requires_grad


def test_threads_and_layout_change_no_bit(generator, set_threads):
    case = Case(generator, 60, 300, 250, 2, torch.float64)
    case.thresholds = torch.rand(60, 300, generator=generator, dtype=torch.float64)
    set_threads(1)
    expected = torch.ops.zsbir.hinge_rows(*case.arguments(weighted=True))
    for threads in (2, 3):
        set_threads(threads)
        got = torch.ops.zsbir.hinge_rows(*case.arguments(weighted=True))
        assert all(map(torch.equal, got, expected))
    case.thresholds, case.values = (x.mT.contiguous().mT for x in (case.thresholds, case.values))
    case.labels, case.weights = (
        [torch.stack([x, x], 1)[:, 0] for x in xs] for xs in (case.labels, case.weights)
    )
    got = torch.ops.zsbir.hinge_rows(*case.arguments(weighted=True))
    assert all(map(torch.equal, got, expected))


# --- unions ---------------------------------------------------------------------------------------


def union_arguments(generator, rows, columns, values, classes, dtype):
    lattice = [
        torch.randint(0, 9, shape, generator=generator).to(dtype) / 4
        for shape in ((rows, columns), (rows, values), (columns, values))
    ]
    labels = [torch.randint(classes, (n,), generator=generator) for n in (rows, columns, values)]
    return *lattice, *labels


@settings(max_examples=80, deadline=None)
@given(
    st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(0, 12)),
    st.integers(1, 4),
    st.sampled_from(DTYPES),
    st.sampled_from([(0.0, 0.0), (0.5, 0.25), (0.0, 5.0)]),
    st.integers(0, 10**6),
)
def test_union_counts_equal_a_loop(sizes, classes, dtype, margins, seed):
    given = union_arguments(torch.Generator().manual_seed(seed), *sizes, classes, dtype)
    pairs, first, second, rows, columns, values = given
    expected = torch.zeros_like(pairs)
    for r, c in (rows[:, None] == columns[None, :]).nonzero().tolist():
        d = float(pairs[r, c])
        expected[r, c] = sum(
            bool(values[v] != rows[r])
            and (float(first[r, v]) < d + margins[0] or float(second[c, v]) < d + margins[1])
            for v in range(len(values))
        )
    assert torch.equal(union_counts(*given, margins), expected)
    assert torch.equal(ops._union_reference(*given, *margins), expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_union_counts_of_larger_sets(generator, set_threads, dtype):
    given = union_arguments(generator, 70, 45, 301, 3, dtype)
    expected = ops._union_reference(*given, 0.25, 0.5)
    for threads in (1, 2, 3):
        set_threads(threads)
        assert torch.equal(union_counts(*given, (0.25, 0.5)), expected)
    moved = [x.mT.contiguous().mT for x in given[:3]]
    strided = [torch.stack([x, x], 1)[:, 0] for x in given[3:]]
    assert torch.equal(union_counts(*moved, *strided, (0.25, 0.5)), expected)
