"""Batch-all losses against loops over all terms in plain Python numbers."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from zsbir_fast.ops.quadruplet_mining import batch_all_quadruplet_loss, batch_all_triplet_loss
from zsbir_fast.reference import batch_all as reference

DISTANCES = ["euclidean", "squared_euclidean", "cosine"]
IMPLS = ["fused", "reference"]
COEFFICIENTS = [
    (1, 0, 0, 0, 0), (0, 2, 0, 0, 0), (0, 0, 3, 0, 0), (0, 0, 0, 0.5, 0), (0, 0, 0, 0, 1),
    (1, 1, 0, 0, 0), (1, 0, 1, 0, 0), (0, 1, 1, 0, 0), (1, 0, 0, 1, 0), (1, 1, 1, 1, 0),
    (1, 0, 0, 0, 1), (0, 0, 0, 1, 1), (1, 0, 0, 2, 1), (1, 0.5, 2, 0.25, 3),
]  # fmt: skip
MARGINS = (0.3, 0.25, 0.5, 0.125, 0.75)
PRESETS = {
    "triplet": ((1, 0, 0, 0, 0), (0.3,) * 5),
    "domain_balanced": ((1, 1, 0, 0, 0), (0.3,) * 5),
    "cross_symmetric": ((1, 0, 1, 0, 0), (0.3,) * 5),
    "full": ((1, 1, 1, 1, 0), (0.3,) * 5),
    "chen2017": ((1, 0, 0, 0, 1), (0.3, 0.3, 0.3, 0.3, 0.15)),
}


def distance_of(x, y, distance):
    if distance == "euclidean":
        return math.dist(x, y)
    if distance == "squared_euclidean":
        return sum((a - b) ** 2 for a, b in zip(x, y, strict=True))
    norms = math.hypot(*x) * math.hypot(*y)
    return 1 - (sum(a * b for a, b in zip(x, y, strict=True)) / norms if norms else 0.0)


def reduced(terms, reduction):
    """Of the hinges of all terms."""
    total = math.fsum(terms)
    if reduction == "sum":
        return total
    count = len(terms) if reduction == "mean" else sum(term > 0 for term in terms)
    return total / count if count else 0.0


def triplets(anchors, references, labels, others, margin, distance, exclude_self):
    """The hinges of every triplet, a list for each anchor."""
    found = []
    for a, anchor in enumerate(anchors):
        d = [distance_of(anchor, r, distance) for r in references]
        positives = [
            p for p in range(len(d)) if others[p] == labels[a] and not (exclude_self and p == a)
        ]
        negatives = [n for n in range(len(d)) if others[n] != labels[a]]
        found.append(
            [max(0.0, d[p] - d[n] + margin) for p, n in itertools.product(positives, negatives)]
        )
    return found


def quadruplets(sketches, photos, labels, others, coefficients, margins, distance):
    """The weighted hinges of all B^4 quadruplets that fit."""
    found = []
    rows = range(len(sketches)), range(len(photos)), range(len(photos)), range(len(sketches))
    for s, p, n, q in itertools.product(*rows):
        if others[p] != labels[s] or others[n] == labels[s] or labels[q] == labels[s]:
            continue
        if coefficients[4] and others[n] == labels[q]:
            continue
        pairs = (
            (sketches[s], photos[n]), (sketches[s], sketches[q]), (photos[p], sketches[q]),
            (photos[p], photos[n]), (sketches[q], photos[n]),
        )  # fmt: skip
        target = distance_of(sketches[s], photos[p], distance)
        hinges = zip(coefficients, margins, pairs, strict=True)
        found.append(
            sum(c * max(0.0, target - distance_of(*pair, distance) + m) for c, m, pair in hinges)
        )
    return found


def batch(seed, sketches, photos, classes=3, width=3):
    g = torch.Generator().manual_seed(seed)
    rows = [torch.randn(n, width, generator=g, dtype=torch.float64) for n in (sketches, photos)]
    labels = [torch.randint(classes, (n,), generator=g) * 5 - 3 for n in (sketches, photos)]
    return *rows, *labels


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("distance", DISTANCES)
def test_triplets_equal_loops(distance, impl):
    some = 0
    for seed in range(4):
        s, p, ls, lp = batch(seed, 6, 5)
        for given, skip in (((), True), ((p, lp), False), ((p, lp), True)):
            others, other_labels = given or (s, ls)
            expected = triplets(
                s.tolist(), others.tolist(), ls.tolist(), other_labels.tolist(), 0.4, distance, skip
            )
            options = {"margin": 0.4, "distance": distance, "impl": impl}
            options |= {"exclude_self": skip} if given else {}
            for reduction in ("mean", "mean_nonzero", "sum"):
                loss = batch_all_triplet_loss(s, ls, *given, reduction=reduction, **options)
                wanted = reduced([x for row in expected for x in row], reduction)
                assert float(loss) == pytest.approx(wanted, rel=1e-12), reduction
            rows = batch_all_triplet_loss(s, ls, *given, reduction="none", **options)
            assert rows.tolist() == pytest.approx([math.fsum(row) for row in expected], rel=1e-12)
            some += sum(x > 0 for row in expected for x in row)
    assert some > 50


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("coefficients", COEFFICIENTS, ids=str)
def test_quadruplets_equal_loops(coefficients, distance, impl):
    some = 0
    for seed in range(3):
        given = batch(seed, 5, 6, classes=3)
        options = {"coefficients": coefficients, "margins": MARGINS, "distance": distance}
        terms = quadruplets(*(x.tolist() for x in given), *options.values())
        reductions = ["mean", "sum", "mean_nonzero"]
        if coefficients[4] and (coefficients[1] or coefficients[2]):
            reductions.pop()
        for reduction in reductions:
            loss = batch_all_quadruplet_loss(*given, reduction=reduction, impl=impl, **options)
            assert float(loss) == pytest.approx(reduced(terms, reduction), rel=1e-12), reduction
        some += sum(term > 0 for term in terms)
    assert some > 20


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_at_twelve_rows_equal_brute_force(preset):
    """20,736 combinations."""
    given = batch(7, 12, 12, classes=4, width=2)
    terms = quadruplets(*(x.tolist() for x in given), *PRESETS[preset], "euclidean")
    assert 0 < sum(term > 0 for term in terms) < len(terms)
    for reduction in ("mean", "mean_nonzero", "sum"):
        loss = batch_all_quadruplet_loss(*given, preset=preset, reduction=reduction)
        assert float(loss) == pytest.approx(reduced(terms, reduction), rel=1e-12), reduction


def test_counts_are_those_of_the_loop():
    s, p, ls, lp = batch(2, 6, 6)
    d = torch.cdist(s, p), torch.cdist(s, s), torch.cdist(p, p)
    for coefficients in ((1, 1, 1, 1, 0), (1, 0, 0, 1, 1)):
        terms = quadruplets(
            *(x.tolist() for x in (s, p, ls, lp)), coefficients, MARGINS, "euclidean"
        )
        found = reference.quadruplet_terms(*d, ls, lp, coefficients=coefficients, margins=MARGINS)
        assert float(found.total) == pytest.approx(math.fsum(terms), rel=1e-12)
        assert (found.nonzero, found.valid) == (sum(x > 0 for x in terms), len(terms))
    expected = triplets(*(x.tolist() for x in (s, p, ls, lp)), 0.2, "euclidean", False)
    sums, nonzero, valid = reference.triplet_terms(d[0], ls, lp, margin=0.2, exclude_self=False)
    assert sums.tolist() == pytest.approx([math.fsum(row) for row in expected], rel=1e-12)
    assert nonzero.tolist() == [sum(x > 0 for x in row) for row in expected]
    assert valid.tolist() == [len(row) for row in expected]


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("distance", DISTANCES)
def test_gradients_are_those_of_finite_differences(distance, impl):
    s, p, ls, lp = batch(4, 4, 5)
    inputs = [x.requires_grad_() for x in (s, p)]
    for coefficients in ((1, 0.5, 2, 0.25, 0), (1, 0, 0, 0.5, 3), (0, 0, 0, 0, 1)):
        assert torch.autograd.gradcheck(
            lambda s, p, c=coefficients: batch_all_quadruplet_loss(
                s, p, ls, lp, coefficients=c, margins=MARGINS, distance=distance, impl=impl,
                reduction="mean",
            ),
            inputs,
        )  # fmt: skip
    for reduction in ("none", "mean_nonzero"):
        options = {"margin": 1.0, "distance": distance, "reduction": reduction, "impl": impl}
        assert torch.autograd.gradcheck(
            lambda s, p, o=options: batch_all_triplet_loss(s, ls, p, lp, **o), inputs
        )
    assert torch.autograd.gradcheck(
        lambda s: batch_all_triplet_loss(s, ls, margin=1.0, distance=distance, impl=impl), (s,)
    )
