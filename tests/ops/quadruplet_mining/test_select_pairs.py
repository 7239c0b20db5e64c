"""Nearest and farthest references by class: the CPU kernel against the reference and loops."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zsbir_fast import _C
from zsbir_fast.ops.quadruplet_mining import select_pairs as ops
from zsbir_fast.ops.quadruplet_mining.pair_distances import CODES, kernel_rows, pair_distances
from zsbir_fast.ops.quadruplet_mining.select_pairs import select_pairs

DISTANCES = ["euclidean", "squared_euclidean", "cosine"]
LEVELS = ["baseline", "avx2", "avx512"]
LEVELS = LEVELS[: LEVELS.index(_C.simd_level()) + 1]


def exact_rows(generator, count, width, distance, dtype=torch.float32):
    """Rows whose distances round nowhere: many of them are equal, some rows are zero."""
    rows = torch.randint(-1, 2, (count, width), generator=generator).to(dtype)
    if distance == "cosine":  # zero or along an axis
        rows = rows * (torch.arange(width) == torch.randint(width, (count, 1), generator=generator))
    return kernel_rows(rows, distance)


def arguments(
    generator, anchors, references, width, distance, classes=3, dtype=torch.float32, limits=True
):
    """Of the operator, in its order, with every filter in place unless ``limits`` says no."""

    def labels(n):
        return torch.randint(-1, classes - 1, (n,), generator=generator)

    rows = [exact_rows(generator, n, width, distance, dtype) for n in (anchors, references)]
    low, high = (torch.randint(4, (anchors,), generator=generator).to(dtype) / 2 for _ in range(2))
    filters = (labels(anchors), low, high + 1) if limits else (None, None, None)
    limit = references * 2 // 3 if limits else references
    return (*rows, labels(anchors), labels(references), limit, *filters, CODES[distance])


def loop(anchors, references, labels, other_labels, limit, forbidden, low, high, code):
    """Index and distance of the four choices from a list of candidates for each anchor."""
    distances = pair_distances(anchors, references, DISTANCES[code]).tolist()
    found = []
    for a, row in enumerate(distances):
        inside = [
            r
            for r, d in enumerate(row)
            if (low is None or d > low[a]) and (high is None or d < high[a])
        ]
        same = [r for r in inside if labels[a] == other_labels[r] and r < limit]
        other = [
            r
            for r in inside
            if labels[a] != other_labels[r]
            and (forbidden is None or other_labels[r] != forbidden[a])
        ]
        choices = []
        for candidates in (same, other):
            for sign in (1, -1):
                best = min(candidates, key=lambda r, s=sign: (s * row[r], r), default=-1)
                choices.append((best, row[best] if best >= 0 else 0.0))
        found.append(choices)
    return [[row[i] for row in found] for i in range(4)]


def as_lists(result):
    index, chosen = result
    return [
        list(zip(i, d, strict=True)) for i, d in zip(index.tolist(), chosen.tolist(), strict=True)
    ]


@settings(max_examples=120, deadline=None)
@given(
    st.tuples(st.integers(0, 20), st.integers(0, 20), st.integers(1, 40)),
    st.sampled_from(DISTANCES),
    st.integers(1, 5),
    st.sampled_from([torch.float32, torch.float64]),
    st.integers(0, 15),
    st.integers(0, 10**6),
)
def test_kernel_and_reference_equal_a_loop(sizes, distance, classes, dtype, given_filters, seed):
    g = torch.Generator().manual_seed(seed)
    *head, limit, forbidden, low, high, code = arguments(g, *sizes, distance, classes, dtype)
    filters = [limit if given_filters & 8 else sizes[1]]
    for bit, value in ((1, forbidden), (2, low), (4, high)):
        filters.append(value if given_filters & bit else None)
    native = torch.ops.zsbir.select_pairs(*head, *filters, code)
    assert as_lists(native) == loop(*head, *filters, code)
    assert all(map(torch.equal, native, ops._reference(*head, *filters, code)))


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize(
    ("anchors", "references", "dtype"),
    [
        (7, 31, torch.float32),
        (8, 32, torch.float32),
        (9, 33, torch.float32),
        (33, 17, torch.float64),
        (513, 65, torch.float32),
        (5, 4_100, torch.float32),
        (70, 40_003, torch.float32),  # two blocks of anchors
    ],
)
def test_banks_and_block_edges_at_every_simd_level(
    generator, monkeypatch, distance, anchors, references, dtype
):
    for limits in (False, True):
        given = arguments(generator, anchors, references, 5, distance, 4, dtype, limits)
        expected = ops._reference(*given)
        for level in LEVELS:
            monkeypatch.setenv("ZSBIR_SIMD", level)
            assert all(map(torch.equal, torch.ops.zsbir.select_pairs(*given), expected)), level


def test_the_lowest_index_of_equals_across_panels():
    """The same reference 100 times: near and far, of the class and of others, the first counts."""
    anchors, references = torch.zeros(2, 3), torch.ones(100, 3)
    labels = torch.arange(100) % 2
    found = select_pairs(
        anchors, references, torch.tensor([0, 1]), labels, distance="squared_euclidean"
    )
    for choice, expected in zip(found, ([0, 1], [0, 1], [1, 0], [1, 0]), strict=True):
        assert choice.index.tolist() == expected
        assert choice.distance.tolist() == [3.0, 3.0]


def test_limits_are_exclusive():
    """References at 1, 2 and 3 of an anchor at 0."""
    anchors, references = torch.zeros(1, 1), torch.tensor([[1.0], [2.0], [3.0]])
    labels = torch.tensor([5]), torch.tensor([0, 0, 0])
    options = {"distance": "euclidean", "low": torch.tensor([1.0])}
    found = select_pairs(anchors, references, *labels, **options)
    assert (found.nearest_other.index, found.farthest_other.index) == (1, 2)
    found = select_pairs(anchors, references, *labels, **options, high=torch.tensor([3.0]))
    assert (found.nearest_other.index, found.farthest_other.index) == (1, 1)
    found = select_pairs(anchors, references, *labels, **options, high=torch.tensor([2.0]))
    assert (found.nearest_other.index, found.nearest_other.distance) == (-1, 0)


def test_same_limit_and_forbidden_leave_the_other_side_alone():
    anchors, references = torch.zeros(1, 1), torch.tensor([[1.0], [2.0], [3.0], [4.0]])
    labels = torch.tensor([0]), torch.tensor([0, 1, 0, 2])
    found = select_pairs(
        anchors,
        references,
        *labels,
        distance="euclidean",
        same_limit=2,
        forbidden=torch.tensor([1]),
    )
    assert [int(x.index) for x in found] == [0, 0, 3, 3]


def test_layout_and_threads_change_nothing(generator, set_threads):
    given = list(arguments(generator, 90, 70, 6, "euclidean"))
    given[0], given[1] = (torch.randn(n, 6, generator=generator) for n in (90, 70))
    set_threads(1)
    expected = torch.ops.zsbir.select_pairs(*given)
    for threads in (1, 2, 3):
        set_threads(threads)
        assert all(map(torch.equal, torch.ops.zsbir.select_pairs(*given), expected))
    moved = [x.mT.contiguous().mT for x in given[:2]]
    for x in given[2:]:
        strided = isinstance(x, torch.Tensor)
        moved.append(torch.stack([x, x], 1)[:, 0] if strided else x)
    assert not any(x.is_contiguous() for x in moved if isinstance(x, torch.Tensor))
    assert all(map(torch.equal, torch.ops.zsbir.select_pairs(*moved), expected))


def test_no_gradient_passes(generator):
    anchors = torch.randn(3, 2, generator=generator, requires_grad=True)
    labels = torch.tensor([0, 1, 0])
    found = select_pairs(anchors.detach(), anchors.detach(), labels, labels, distance="euclidean")
    assert not found.nearest_same.distance.requires_grad
    assert found.nearest_same.index.tolist() == [0, 1, 2]
    farthest = torch.linalg.vector_norm(anchors.detach()[0] - anchors.detach()[2])
    assert math.isclose(found.farthest_same.distance[0], farthest, rel_tol=1e-6)


# --- products that are wrong, and what follows from them ------------------------------------------


def rounded_products(estimates, out, block):
    """Products as wrong as the precision allows: in bfloat16 factors and products are rounded."""
    if estimates.precision == "float32":
        return torch.mm(block, estimates.references.mT, out=out)
    left, right = (x.bfloat16().float() for x in (block, estimates.references))
    return out.copy_((left @ right.mT).bfloat16())


ROUNDINGS = ["float32", "bfloat16"]


SCALES = {
    "unit": lambda x: torch.nn.functional.normalize(x),
    "far from zero": lambda x: x + 1_000,
    "collapsed": lambda x: 1 + 1e-6 * x,
    "tiny": lambda x: 1e-15 * x,
    "subnormal squares": lambda x: 1e-22 * x,
    "squares overflow": lambda x: 3e18 * x,
    "of all sizes": lambda x: x * 10.0 ** (torch.arange(len(x)) % 13 - 6)[:, None],
    "duplicates": lambda x: x[torch.arange(len(x)) // 3],
    "a gap between the sets": lambda x: x + (10 if len(x) in (20, 43) else -10),
    "all equal": lambda x: x[:1].expand_as(x).contiguous(),
}


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("scale", SCALES)
def test_choices_are_exact_whatever_the_product_rounds(
    generator, monkeypatch, scale, distance, rounding
):
    monkeypatch.setattr(ops, "_precision_on", lambda _: rounding)
    monkeypatch.setattr(ops._Estimates, "_products", rounded_products)
    monkeypatch.setitem(ops._WORKSPACE, "cpu", 4 * 90 * 8)  # several blocks, the last not whole
    monkeypatch.setattr(ops, "_LEAST_ANCHORS", 1)
    anchors, references = (
        kernel_rows(SCALES[scale](torch.randn(n, 40, generator=generator)), distance)
        for n in (43, 90)
    )
    labels = [torch.randint(4, (n,), generator=generator) for n in (43, 90)]
    typical = pair_distances(anchors, references, distance).median(1).values
    filters = [(90, None, None, None), (60, labels[0] - 1, typical * 0.9, typical * 1.1)]
    for some in filters:
        given = (anchors, references, *labels, *some, CODES[distance])
        assert as_lists(torch.ops.zsbir.select_pairs(*given)) == loop(*given)


def middle_and_width(estimates, products, distance):
    """Of the interval of every raw distance, in float64."""
    a, b = estimates.anchor_lengths.double()[:, None], estimates.reference_lengths.double()
    norms = a**2 + b**2
    middle = 1 - products.double() if distance == "cosine" else norms - 2 * products.double()
    return middle, estimates.product_error * a * b + estimates.norm_error * norms + estimates.tiny


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("scale", set(SCALES) - {"squares overflow"})
def test_distances_lie_where_the_estimates_say(generator, monkeypatch, scale, distance, rounding):
    monkeypatch.setattr(ops, "_precision_on", lambda _: rounding)
    monkeypatch.setattr(ops._Estimates, "_products", rounded_products)
    anchors, references = (
        kernel_rows(SCALES[scale](torch.randn(n, 300, generator=generator)), distance)
        for n in (20, 50)
    )
    estimates = ops._Estimates(anchors, references, CODES[distance])
    products = torch.cat([block.clone() for _, block in estimates.blocks()])
    middle, allowed = middle_and_width(estimates, products, distance)
    chain = "cosine" if distance == "cosine" else "squared_euclidean"
    wrong = (pair_distances(anchors, references, chain).double() - middle).abs()
    assert (wrong <= allowed).all()
    largest = {"float32": 1e-4, "bfloat16": 9e-3}[rounding]
    a, b = estimates.anchor_lengths.max().double(), estimates.reference_lengths.max().double()
    assert allowed.max() <= largest * (a**2 + b**2) + estimates.tiny


@pytest.mark.parametrize(("rounding", "most"), [("float32", 1.2), ("bfloat16", 5)])
def test_few_distances_are_summed(generator, monkeypatch, rounding, most):
    """Of random rows hardly more than one a choice; the product would be in vain otherwise."""
    counts = []
    monkeypatch.setattr(ops, "_precision_on", lambda _: rounding)
    monkeypatch.setattr(ops._Estimates, "_products", rounded_products)
    monkeypatch.setattr(ops._Estimates, "look_again", lambda *given: counts.append(given[1:]))
    rows = torch.nn.functional.normalize(torch.randn(600, 256, generator=generator))
    labels = torch.arange(600) // 6
    select_pairs(rows, rows, labels, labels, distance="euclidean")
    assert sum(anchors for anchors, _ in counts) == 600
    assert 4 * 600 <= sum(summed for _, summed in counts) < most * 4 * 600


def test_only_what_is_wanted_is_chosen(generator):
    given = arguments(generator, 20, 30, 4, "euclidean", limits=False)
    every = torch.ops.zsbir.select_pairs(*given)
    for wanted in range(16):
        for operator in (torch.ops.zsbir.select_pairs, ops._reference):
            index, chosen = operator(*given, wanted)
            for choice in range(4):
                if wanted >> choice & 1:
                    assert torch.equal(index[choice], every[0][choice])
                    assert torch.equal(chosen[choice], every[1][choice])
                else:
                    assert index[choice].eq(-1).all()
                    assert chosen[choice].eq(0).all()


@pytest.mark.parametrize("offset", [0, -(2**31), 2**31 - 2, 2**40, -(2**62)])
def test_labels_of_any_size(generator, offset):
    *rows, labels, other_labels, limit, forbidden, low, high, code = arguments(
        generator, 20, 30, 4, "euclidean"
    )
    labels = labels.clone()
    labels[3] = 77  # of no other row
    expected = torch.ops.zsbir.select_pairs(
        *rows, labels, other_labels, limit, forbidden, low, high, code
    )
    found = torch.ops.zsbir.select_pairs(
        *rows, labels + offset, other_labels + offset, limit, forbidden + offset, low, high, code
    )
    assert all(map(torch.equal, found, expected))


def test_float32_products_where_bfloat16_rules_out_too_little(generator, monkeypatch):
    """Rows in two tight clusters far from each other, all classes in both."""
    seen = []

    def products(estimates, out, block):
        seen.append((len(block), estimates.precision))
        return rounded_products(estimates, out, block)

    monkeypatch.setattr(ops, "_precision_on", lambda _: "bfloat16")
    monkeypatch.setattr(ops._Estimates, "_products", products)
    far = torch.randn(1, 64, generator=generator) * (1 - 2 * (torch.arange(700) % 2))[:, None]
    labels = torch.arange(700) // 4
    for spread, expected in ((0.05, "float32"), (3.0, "bfloat16")):
        rows = far + spread * torch.randn(700, 64, generator=generator)
        seen.clear()
        given = (rows, rows, labels, labels, 700, None, None, None, CODES["euclidean"], 6)
        found = torch.ops.zsbir.select_pairs(*given)
        assert seen == [(64, "bfloat16"), (636, expected)]
        monkeypatch.setattr(ops, "_precision_on", lambda _: "float32")
        assert all(map(torch.equal, found, torch.ops.zsbir.select_pairs(*given)))
        monkeypatch.setattr(ops, "_precision_on", lambda _: "bfloat16")
