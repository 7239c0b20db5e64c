"""Every operator of the room: torch's own checks, wrong arguments, and devices without kernels."""

from __future__ import annotations

import inspect
import re

import pytest
import torch

from zsbir_fast.ops.quadruplet_mining import (
    hinge_rows,
    pair_distances,
    probes,
    quadruplet_hinges,
    select_pairs,
)

MODULES = (hinge_rows, pair_distances, probes, quadruplet_hinges, select_pairs)
SKETCHES, PHOTOS, WIDTH = 5, 7, 3
G = torch.Generator().manual_seed(0)


def rows(count, width=WIDTH, grad=True, dtype=torch.float32):
    return torch.rand(count, width, generator=G, dtype=dtype).requires_grad_(grad)


def unit_rows(count):
    return torch.nn.functional.normalize(rows(count, grad=False)).requires_grad_()


def transposed(x):
    return x.detach().mT.contiguous().mT.requires_grad_(x.requires_grad)


def labels(count, classes=3):
    return torch.arange(count) % classes


def counts(count, high):
    return torch.randint(high, (count,), generator=G, dtype=torch.int32)


def pair_samples():
    for distance in (0, 1):
        yield rows(SKETCHES), rows(PHOTOS), distance
        yield rows(SKETCHES, dtype=torch.float64), None, distance
    yield unit_rows(SKETCHES), unit_rows(PHOTOS), 2
    yield unit_rows(SKETCHES), None, 2
    yield transposed(rows(SKETCHES)), transposed(rows(PHOTOS)), 0
    yield rows(SKETCHES), rows(PHOTOS, grad=False), 0
    yield rows(0), rows(PHOTOS), 0
    yield rows(SKETCHES), rows(0), 1


def pair_backward_samples():
    for a, b, distance in pair_samples():
        distances = torch.ops.zsbir.pair_distances(a, b, distance).detach()
        other = b if b is None else b.detach()
        yield torch.rand_like(distances), distances, a.detach(), other, distance


def select_samples():
    head = rows(SKETCHES, grad=False), rows(PHOTOS, grad=False), labels(SKETCHES), labels(PHOTOS)
    yield *head, PHOTOS, None, None, None, 0
    low = torch.rand(SKETCHES, generator=G)
    yield *head, 4, labels(SKETCHES), low, low + 1, 1
    unit = transposed(unit_rows(SKETCHES).detach()), unit_rows(PHOTOS).detach()
    yield *unit, *head[2:], PHOTOS, None, low, None, 2
    yield *(x[:0] for x in head), 0, None, None, None, 0
    yield head[0], head[1][:0], head[2], head[3][:0], 0, None, None, None, 0


def hinge_samples():
    index = torch.arange(SKETCHES)
    valid = index != 3
    form = [1.0, 0.5, 2.0, 0.0, 0.25], [0.3, 0.2, 0.1, 0.3, 3.0]
    for distance, share in ((0, -1.0), (1, 0.25), (2, -1.0)):
        mined = index + 1, index, (index + 1) % SKETCHES, valid
        yield rows(SKETCHES), rows(PHOTOS), rows(SKETCHES), *mined, *form, share, distance
    strided = (transposed(rows(n)) for n in (SKETCHES, PHOTOS, 9))
    yield *strided, *mined, *form, -1.0, 0
    none = index[:0]
    yield rows(0), rows(PHOTOS), rows(0), none, none, none, none > 0, *form, -1.0, 0
    missing = torch.full((SKETCHES,), -1)
    yield rows(SKETCHES), rows(0), rows(0), *[missing] * 3, missing >= 0, *form, -1.0, 1


def hinge_backward_samples():
    for sample in hinge_samples():
        given = [x.detach() if isinstance(x, torch.Tensor) else x for x in sample]
        hinges, slopes = torch.ops.zsbir.quadruplet_hinges(*given)
        yield torch.rand_like(hinges), slopes, *given[:7], given[-1]
    yield torch.rand_like(hinges), slopes, *given[:7], given[-1], True, False, False
    yield torch.rand_like(hinges), slopes, *given[:7], given[-1], False, True, True


def hinge_row_samples():
    distances, values = rows(SKETCHES, PHOTOS), rows(SKETCHES, 4)
    head = labels(SKETCHES), labels(PHOTOS)
    yield distances, None, *head, labels(PHOTOS), None, None, 0.3, True
    yield distances, values, *head, labels(4), None, None, 0.3, False
    weights = counts(SKETCHES, 4) + 4, counts(4, 4)
    yield transposed(rows(SKETCHES, PHOTOS)), values, *head, labels(4), *weights, 0.0, False
    yield distances, values.detach(), *head, labels(4), None, None, 0.3, False
    yield rows(0, PHOTOS), None, labels(0), head[1], head[1], None, None, 0.3, False
    yield distances, rows(SKETCHES, 0), *head, labels(0), None, None, 0.3, False


def union_samples():
    given = [rows(SKETCHES, PHOTOS), rows(SKETCHES, 4), rows(PHOTOS, 4)]
    given = [x.detach() for x in given]
    yield *given, labels(SKETCHES), labels(PHOTOS), labels(4), 0.3, 0.1
    strided = [transposed(x).double() for x in given]
    yield *strided, labels(SKETCHES), labels(PHOTOS), labels(4), 0.0, 0.0
    yield given[0][:0], given[1][:0], given[2], labels(0), labels(PHOTOS), labels(4), 0.3, 0.1


def probe_samples():
    yield rows(SKETCHES, PHOTOS), labels(SKETCHES), labels(PHOTOS), 0.3
    yield (
        transposed(rows(SKETCHES, PHOTOS, dtype=torch.float64)),
        labels(SKETCHES),
        labels(PHOTOS),
        0.0,
    )
    yield rows(SKETCHES, PHOTOS), labels(SKETCHES, 1), labels(PHOTOS, 1), 0.3
    yield rows(0, PHOTOS), labels(0), labels(PHOTOS), 0.3
    yield rows(SKETCHES, 0), labels(SKETCHES), labels(0), 0.3


def count_samples():
    for cross, *given, margin in probe_samples():
        photos = rows(cross.shape[1], cross.shape[1], grad=False, dtype=cross.dtype)
        photos = photos + photos.mT
        yield cross.detach(), photos, *given, margin, 0.1, 0.2
        yield cross.detach(), None, *given, margin, None, None
        yield cross.detach(), photos.mT, *given, margin, None, 0.2


SAMPLES = {
    "pair_distances": pair_samples,
    "pair_distances_backward": pair_backward_samples,
    "select_pairs": select_samples,
    "quadruplet_hinges": hinge_samples,
    "quadruplet_hinges_backward": hinge_backward_samples,
    "hinge_rows": hinge_row_samples,
    "union_counts": union_samples,
    "probe_sum": probe_samples,
    "count_probe_union": count_samples,
}


def test_every_operator_has_samples():
    defined = {
        name
        for module in MODULES
        for name in re.findall(r'LIB\.define\(\s*"(\w+)\(', inspect.getsource(module))
    }
    assert defined == set(SAMPLES)
    registered = set(torch._C._dispatch_get_all_op_names())
    assert {f"zsbir::{name}" for name in SAMPLES} <= registered


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # its own
@pytest.mark.parametrize("name", SAMPLES)
def test_opcheck(name):
    for sample in SAMPLES[name]():
        torch.library.opcheck(getattr(torch.ops.zsbir, name).default, sample)


REFERENCES = {
    "pair_distances": pair_distances._reference,
    "select_pairs": select_pairs._reference,
    "hinge_rows": hinge_rows._reference,
    "union_counts": hinge_rows._union_reference,
    "probe_sum": probes._reference,
    "count_probe_union": probes._count_reference,
}


@pytest.mark.parametrize("name", REFERENCES)
def test_devices_without_kernels_get_the_same(name):
    """Where there is no kernel the operator is this function."""
    for sample in SAMPLES[name]():
        given = [x.detach() if isinstance(x, torch.Tensor) else x for x in sample]
        native = getattr(torch.ops.zsbir, name)(*given)
        expected = REFERENCES[name](*given)
        results = [x if isinstance(x, tuple) else (x,) for x in (native, expected)]
        for got, wanted in zip(*results, strict=True):
            torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)


def spoil(name, position, change):
    """The first sample with one argument changed."""
    sample = [x.detach() if isinstance(x, torch.Tensor) else x for x in next(SAMPLES[name]())]
    sample[position] = change(sample[position])
    return sample


ERRORS = [
    ("pair_distances", 0, torch.Tensor.half, "a must be float32 or float64, got torch.float16"),
    ("pair_distances", 0, lambda x: x[0], "a must be a matrix, got [3]"),
    ("pair_distances", 1, torch.Tensor.double, "b must be torch.float32, got torch.float64"),
    ("pair_distances", 1, lambda x: x[:, :2], "b must be [7, 3], got [7, 2]"),
    ("pair_distances_backward", 1, lambda x: x[:2], "distances must be [5, 7], got [2, 7]"),
    ("select_pairs", 1, torch.Tensor.double, "references must be torch.float32, got torch.float64"),
    ("select_pairs", 2, torch.Tensor.int, "anchor_labels must be torch.int64, got torch.int32"),
    ("select_pairs", 3, lambda x: x[:6], "reference_labels must be [7], got [6]"),
    ("select_pairs", 5, lambda _: labels(4), "forbidden must be [5], got [4]"),
    ("select_pairs", 6, lambda _: labels(5), "low must be torch.float32, got torch.int64"),
    ("select_pairs", 7, lambda _: torch.ones(7), "high must be [5], got [7]"),
    ("quadruplet_hinges", 1, lambda x: x[:, :2], "photos must be [7, 3], got [7, 2]"),
    ("quadruplet_hinges", 3, lambda x: x[:4], "positive must be [5], got [4]"),
    ("quadruplet_hinges", 6, torch.Tensor.long, "valid must be torch.bool, got torch.int64"),
    ("quadruplet_hinges_backward", 0, lambda x: x[:2], "grad must be [5], got [2]"),
    ("quadruplet_hinges_backward", 1, lambda x: x[:, :5], "slopes must be [5, 6], got [5, 5]"),
    ("hinge_rows", 0, torch.Tensor.half, "thresholds must be float32 or float64, got torch.float"),
    ("hinge_rows", 1, lambda _: torch.ones(4, 2), "values must be [5, 2], got [4, 2]"),
    ("hinge_rows", 4, lambda x: x[:2], "value_labels must be [7], got [2]"),
    (
        "hinge_rows",
        5,
        lambda _: counts(5, 3),
        "value_weights must be given with row_weights, and the reverse",
    ),
    ("union_counts", 1, torch.Tensor.double, "first must be torch.float32, got torch.float64"),
    ("union_counts", 2, lambda x: x[:, 1:], "second must be [7, 4], got [7, 3]"),
    ("union_counts", 3, lambda x: x[:2], "row_labels must be [5], got [2]"),
    ("probe_sum", 0, torch.Tensor.bfloat16, "cross must be float32 or float64, got torch.bfloat16"),
    ("probe_sum", 2, lambda x: x[:2], "photo_labels must be [7], got [2]"),
    ("count_probe_union", 1, lambda x: x[:, 1:], "photos must be [7, 7], got [7, 6]"),
    ("count_probe_union", 2, torch.Tensor.int, "sketch_labels must be torch.int64, got torch.int"),
]


@pytest.mark.parametrize(("name", "position", "change", "message"), ERRORS)
def test_operators_check_before_they_take_an_address(name, position, change, message):
    with pytest.raises((TypeError, ValueError), match=re.escape(f"{name}: {message}")):
        getattr(torch.ops.zsbir, name)(*spoil(name, position, change))
