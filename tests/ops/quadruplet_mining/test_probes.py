"""The hinge h5 over all quadruplets, and non-zero quadruplets with it: kernels and loops."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zsbir_fast.ops.quadruplet_mining import probes as ops
from zsbir_fast.ops.quadruplet_mining.probes import count_probe_union, probe_sum

DTYPES = [torch.float32, torch.float64]


def batch(generator, sketches, photos, classes, dtype=torch.float32, lattice=True):
    """Distances [B_s, B_i] and [B_i, B_i], labels; on a lattice every sum is exact."""

    def distances(*shape):
        if lattice:
            return torch.randint(0, 9, shape, generator=generator).to(dtype) / 4
        return torch.rand(*shape, generator=generator, dtype=dtype)

    among = distances(photos, photos)
    labels = [torch.randint(classes, (n,), generator=generator) * 7 - 3 for n in (sketches, photos)]
    return distances(sketches, photos), among + among.mT, *labels


def quadruplets(cross, sketch_labels, photo_labels):
    """All (s, p, n, q) of three classes."""
    sketches, photos = range(cross.shape[0]), range(cross.shape[1])
    s_labels, p_labels = sketch_labels.tolist(), photo_labels.tolist()
    for s in sketches:
        for p in photos:
            if p_labels[p] != s_labels[s]:
                continue
            for n in photos:
                for q in sketches:
                    if len({s_labels[s], p_labels[n], s_labels[q]}) == 3:
                        yield s, p, n, q


def loop_sum(cross, sketch_labels, photo_labels, margin):
    total, slopes, d = 0.0, torch.zeros_like(cross), cross.tolist()
    for s, p, n, q in quadruplets(cross, sketch_labels, photo_labels):
        hinge = d[s][p] + margin - d[q][n]
        if hinge > 0:
            total += hinge
            slopes[s, p] += 1
            slopes[q, n] -= 1
    return torch.tensor(total, dtype=torch.float64), slopes


def loop_count(cross, photos, sketch_labels, photo_labels, h5, h1, h4):
    d, within = cross.tolist(), photos.tolist()
    return sum(
        d[q][n] < d[s][p] + h5
        or (h1 is not None and d[s][n] < d[s][p] + h1)
        or (h4 is not None and within[p][n] < d[s][p] + h4)
        for s, p, n, q in quadruplets(cross, sketch_labels, photo_labels)
    )


@settings(max_examples=100, deadline=None)
@given(
    st.tuples(st.integers(0, 9), st.integers(0, 9)),
    st.integers(1, 5),
    st.sampled_from(DTYPES),
    st.sampled_from([0.0, 0.25, 1.0, 9.0]),
    st.sampled_from([(None, None), (0.5, None), (None, 0.25), (0.25, 0.5)]),
    st.integers(0, 10**6),
)
def test_kernels_and_references_equal_loops(sizes, classes, dtype, margin, others, seed):
    cross, photos, *labels = batch(torch.Generator().manual_seed(seed), *sizes, classes, dtype)
    expected = loop_sum(cross, *labels, margin)
    for call in (torch.ops.zsbir.probe_sum, ops._reference):
        assert all(map(torch.equal, call(cross, *labels, margin), expected))
    count = loop_count(cross, photos, *labels, margin, *others)
    among = None if others[1] is None else photos
    margins = (margin, *others)
    assert count_probe_union(cross, among, *labels, margins=margins) == count
    assert ops._count_reference(cross, among, *labels, *margins) == count


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("lattice", [True, False])
@pytest.mark.parametrize(
    ("sketches", "photos", "classes"), [(70, 45, 3), (40, 90, 12), (33, 64, 40)]
)
def test_larger_batches(generator, set_threads, dtype, lattice, sketches, photos, classes):
    """Hundreds of thresholds in a class, and classes with one row or none; any threads."""
    cross, within, *labels = batch(generator, sketches, photos, classes, dtype, lattice)
    expected = ops._reference(cross, *labels, 0.25)
    assert expected[0] > 0
    margins = (0.125, 0.25, 0.125)
    count = ops._count_reference(cross, within, *labels, *margins)
    sums = set()
    for threads in (1, 2, 3):
        set_threads(threads)
        total, slopes = torch.ops.zsbir.probe_sum(cross, *labels, 0.25)
        # The reference takes its differences in the dtype of the distances.
        tolerance = 1e-12 if lattice or dtype == torch.float64 else 1e-7
        torch.testing.assert_close(total, expected[0], rtol=tolerance, atol=0)
        assert torch.equal(slopes, expected[1])
        assert count_probe_union(cross, within, *labels, margins=margins) == count
        sums.add(float(total))
    assert len(sums) == 1
    moved = cross.mT.contiguous().mT
    strided = [torch.stack([x, x], 1)[:, 0] for x in labels]
    again = torch.ops.zsbir.probe_sum(moved, *strided, 0.25)
    assert float(again[0]) in sums
    assert torch.equal(again[1], expected[1])
    turned = within.mT.contiguous().mT
    assert count_probe_union(moved, turned, *strided, margins=margins) == count


@pytest.mark.parametrize("spread", [1e-42, 1e30])
def test_thresholds_whose_steps_do_not_fit_a_float(spread):
    """The table over the range of the thresholds: denormal and huge ranges."""
    g = torch.Generator().manual_seed(2)
    cross, _, *labels = batch(g, 9, 8, 3)
    scale = 2.0 ** round(torch.tensor(spread, dtype=torch.float64).log2().item())
    got = torch.ops.zsbir.probe_sum(cross * scale, *labels, 0.0)
    plain = loop_sum(cross, *labels, 0.0)
    assert plain[0] > 0
    assert torch.equal(got[1], plain[1])
    assert float(got[0]) == float(plain[0]) * scale


def test_gradients(generator):
    cross, *_ = batch(generator, 6, 5, 3, torch.float64, lattice=False)
    labels = torch.arange(6) % 3, torch.arange(5) % 3
    cross.requires_grad_()
    for margin in (0.0, 0.3):

        def total(x, margin=margin):
            return probe_sum(x, *labels, margin=margin)

        assert total(cross) > 0
        assert torch.autograd.gradcheck(total, (cross,))
        assert torch.autograd.gradgradcheck(total, (cross,))
    count = count_probe_union(cross, None, *labels, margins=(0.3, None, None))
    assert not count.requires_grad


def test_nothing_active_is_exactly_zero(generator):
    """Sums of thresholds that cancel leave no rounding error: two classes, or no hinge above 0."""
    cross, *_ = batch(generator, 60, 50, 2, torch.float64, lattice=False)
    two = torch.arange(60) % 2, torch.arange(50) % 2
    three = torch.arange(60) % 3, torch.arange(50) % 3
    same = three[0][:, None] == three[1][None, :]
    apart = torch.where(same, cross, cross + 5)
    for distances, labels in ((cross, two), (apart, three)):
        total, slopes = torch.ops.zsbir.probe_sum(distances, *labels, 0.3)
        assert total == 0
        assert (slopes == 0).all()
