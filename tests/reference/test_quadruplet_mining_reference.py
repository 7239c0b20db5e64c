"""Mining and loss against loops over every candidate, one anchor at a time."""

from __future__ import annotations

import math

import pytest
import torch

from zsbir_fast.reference import quadruplet_mining as reference

DISTANCES = ["euclidean", "squared_euclidean", "cosine"]


def loop_distance(a, b, distance):
    if distance == "cosine":
        norms = math.sqrt(float(a @ a) * float(b @ b))
        return 1 - (float(a @ b) / norms if norms else 0.0)
    squared = sum(float(x) ** 2 for x in a - b)
    return squared if distance == "squared_euclidean" else math.sqrt(squared)


def nearest(candidates, distances):
    """The candidate of the smallest distance, the lowest among equals, -1 without candidates."""
    return min(candidates, key=lambda c: (round(distances[c], 9), c), default=-1)


def farthest(candidates, distances):
    return nearest(candidates, [-x for x in distances])


def loop_mine(
    sketches, photos, sketch_labels, photo_labels, *, positive, negative, sketch_negative,
    distance, margin, paired, uniforms, sketch_uniforms, distinct_negatives,
):  # fmt: skip
    found = []
    for a, anchor in enumerate(sketches):
        d = [loop_distance(anchor, p, distance) for p in photos]
        same = [j for j in range(len(photos)) if photo_labels[j] == sketch_labels[a]]
        other = [j for j in range(len(photos)) if photo_labels[j] != sketch_labels[a]]
        if positive == "paired":
            pos = int(paired[a]) if int(paired[a]) in same else -1
        elif positive == "hardest":
            pos = farthest(same, d)
        else:
            pos = nearest(same, d)
            if positive == "semihard":
                limit = min((d[j] for j in other), default=math.inf)
                semihard = farthest([j for j in same if d[j] < limit], d)
                pos = semihard if semihard >= 0 else pos
        if negative == "hardest":
            neg = nearest(other, d)
        elif negative == "semihard":
            low = d[pos] if pos >= 0 else math.inf
            neg = nearest([j for j in other if low < d[j] < low + margin], d)
            neg = neg if neg >= 0 else farthest(other, d)
        elif negative == "random":
            neg = other[math.floor(float(uniforms[a]) * len(other))] if other else -1
        else:
            neg = loop_draw(d, other, float(uniforms[a]), len(anchor), distance)
        candidates = [
            k
            for k in range(len(sketches))
            if sketch_labels[k] != sketch_labels[a]
            and not (distinct_negatives and sketch_labels[k] == photo_labels[max(neg, 0)])
        ]
        origin = anchor
        if sketch_negative == "positive":
            origin = photos[max(pos, 0)]
            candidates = candidates if pos >= 0 else []
        within = [loop_distance(origin, row, distance) for row in sketches]
        sketch = nearest(candidates, within)
        if sketch_negative == "random" and candidates:
            sketch = candidates[math.floor(float(sketch_uniforms[a]) * len(candidates))]
        found.append((pos, neg, sketch))
    return found


def loop_draw(d, other, uniform, width, distance):
    euclidean = {
        j: {"euclidean": d[j], "squared_euclidean": math.sqrt(d[j])}.get(
            distance, math.sqrt(max(2 * d[j], 0))
        )
        for j in other
    }
    near = [j for j in other if euclidean[j] <= 1.4]
    weights = dict.fromkeys(other, 1.0)
    if near:
        weights = {}
        for j in near:
            x = max(euclidean[j], 0.5)
            weights[j] = 1 / (x ** (width - 2) * (1 - x * x / 4) ** ((width - 3) / 2))
    total, running = sum(weights.values()), 0.0
    for j, weight in weights.items():
        running += weight
        if running > uniform * total:
            return j
    return -1


def batch(seed, *, anchors=7, photos=9, classes=3, width=4, unit=True):
    g = torch.Generator().manual_seed(seed)
    s = torch.randn(anchors, width, generator=g, dtype=torch.float64)
    p = torch.randn(photos, width, generator=g, dtype=torch.float64)
    if unit:
        s, p = (x / x.norm(dim=1, keepdim=True) for x in (s, p))
    labels = torch.randint(classes, (anchors,), generator=g)
    return s, p, labels, torch.randint(classes, (photos,), generator=g), g


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("positive", ["hardest", "easiest", "semihard", "paired"])
@pytest.mark.parametrize("negative", ["hardest", "semihard", "distance_weighted", "random"])
@pytest.mark.parametrize("sketch_negative", ["anchor", "positive", "random"])
def test_mining_agrees_with_loops(distance, positive, negative, sketch_negative):
    for seed in range(6):
        s, p, ls, lp, g = batch(seed, classes=2 + seed % 3)
        options = {
            "positive": positive,
            "negative": negative,
            "sketch_negative": sketch_negative,
            "distance": distance,
            "margin": 0.2,
            "paired": torch.randint(-1, len(p), (len(s),), generator=g),
            "uniforms": torch.rand(len(s), generator=g, dtype=torch.float64),
            "sketch_uniforms": torch.rand(len(s), generator=g, dtype=torch.float64),
            "distinct_negatives": seed % 2 == 1,
        }
        mined = reference.mine_quadruplets(s, p, ls, lp, **options)
        expected = loop_mine(s, p, ls, lp, **options)
        assert list(zip(*(x.tolist() for x in mined[:3]), strict=True)) == expected
        assert mined.valid.tolist() == [min(row) >= 0 for row in expected]


@pytest.mark.parametrize(
    ("number", "expected"), [(0.0, 1), (0.3333, 1), (0.3334, 3), (0.67, 4), (0.9999999, 4)]
)
def test_even_draws(number, expected):
    allowed = torch.tensor([[False, True, False, True, True, False]])
    drawn = reference.draw_evenly(allowed, torch.tensor([number], dtype=torch.float64))
    assert drawn.tolist() == [expected]


def test_even_draws_of_what_is_no_number_and_of_nothing():
    allowed = torch.tensor([[True, True, False]] * 3 + [[False] * 3])
    drawn = reference.draw_evenly(allowed, torch.tensor([1.0, -1.0, torch.nan, 0.5]))
    assert drawn.tolist() == [1, 0, 1, -1]


def test_ties_take_the_lowest_index():
    s = torch.tensor([[0.0, 0.0], [3.0, 4.0], [4.0, 3.0]])
    p = torch.tensor([[0.0, 2.0], [2.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    mined = reference.mine_quadruplets(s, p, torch.tensor([0, 1, 1]), torch.tensor([0, 0, 1, 1]))
    assert (mined.positive[0], mined.photo_negative[0], mined.sketch_negative[0]) == (0, 2, 1)


@pytest.mark.parametrize(
    ("sketch_labels", "photo_labels", "expected"),
    [
        ([0, 0], [0, 0], [(0, -1, -1)] * 2),  # one class
        ([0, 1], [2, 2], [(-1, 0, 1), (-1, 0, 0)]),  # no positive
        ([0, 0], [0, 1], [(0, 1, -1)] * 2),  # one class of sketches
    ],
)
def test_missing_partners_are_minus_one_and_invalid(sketch_labels, photo_labels, expected):
    x = torch.zeros(2, 3)
    mined = reference.mine_quadruplets(
        x, x, torch.tensor(sketch_labels), torch.tensor(photo_labels)
    )
    assert list(zip(*(i.tolist() for i in mined[:3]), strict=True)) == expected
    assert not mined.valid.any()


@pytest.mark.parametrize(("anchors", "photos"), [(0, 3), (3, 0), (0, 0)])
def test_empty_batches(anchors, photos):
    s = torch.zeros(anchors, 2, requires_grad=True)
    p = torch.zeros(photos, 2, requires_grad=True)
    labels = torch.zeros(anchors, dtype=torch.int64), torch.zeros(photos, dtype=torch.int64)
    mined = reference.mine_quadruplets(s, p, *labels)
    assert mined.positive.tolist() == [-1] * anchors
    loss = call_loss(s, p, mined)
    loss.backward()
    assert loss == 0


def call_loss(s, p, quadruplets, **options):
    defaults = {
        "weights": None,
        "coefficients": (1, 1, 0, 0, 0),
        "margins": (0.3,) * 5,
        "cross_modal_share": None,
        "distance": "euclidean",
        "reduction": "mean",
    }
    return reference.quadruplet_loss(s, p, quadruplets, **{**defaults, **options})


def loop_losses(s, p, mined, distance, coefficients, margins, share):
    losses = []
    for a in range(len(s)):
        if not mined.valid[a]:
            losses.append(0.0)
            continue
        rows = (s[a], p[mined.positive[a]], p[mined.photo_negative[a]], s[mined.sketch_negative[a]])
        anchor, pos, neg, sketch = rows
        target = loop_distance(anchor, pos, distance)
        away = [
            loop_distance(x, y, distance)
            for x, y in ((anchor, neg), (anchor, sketch), (pos, sketch), (pos, neg), (sketch, neg))
        ]
        if share is None:
            hinges = zip(coefficients, away, margins, strict=True)
            losses.append(sum(c * max(target - d + m, 0.0) for c, d, m in hinges))
        else:
            mixed = share * away[0] + (1 - share) * away[1]
            losses.append(max(target - mixed + margins[0], 0.0))
    return losses


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("share", [None, 0.3])
def test_losses_and_reductions_agree_with_loops(distance, share):
    coefficients, margins = (1, 0.5, 2, 0.25, 3), (0.05, 0.1, 0.3, 0.4, 0.2)
    s, p, ls, lp, g = batch(3, anchors=9, classes=3)
    ls[0] = 7  # an anchor without a positive
    weights = torch.rand(9, generator=g, dtype=torch.float64)
    mined = reference.mine_quadruplets(s, p, ls, lp, positive="easiest", distance=distance)
    expected = loop_losses(s, p, mined, distance, coefficients, margins, share)
    options = {
        "coefficients": coefficients,
        "margins": margins,
        "cross_modal_share": share,
        "distance": distance,
    }
    plain = call_loss(s, p, mined, reduction="none", **options)
    torch.testing.assert_close(plain, torch.tensor(expected, dtype=torch.float64))
    weighted = [w * x for w, x in zip(weights.tolist(), expected, strict=True)]
    options["weights"] = weights
    total = sum(weighted)
    valid, nonzero = int(mined.valid.sum()), sum(x > 0 for x in expected)
    assert 0 < valid < 9
    for reduction, value in (
        ("sum", total),
        ("mean", total / valid),
        ("mean_nonzero", total / nonzero),
    ):
        loss = call_loss(s, p, mined, reduction=reduction, **options)
        assert float(loss) == pytest.approx(value), reduction


def test_mean_nonzero_leaves_out_satisfied_anchors():
    # Anchor 0: 0 - 10 + 0.3 < 0 twice. Anchor 1: hinges 2 - 1 + 0.3 and 2 - 10 + 0.3.
    s = torch.tensor([[0.0], [10.0]])
    p = torch.tensor([[0.0], [12.0], [11.0], [10.0]])
    mined = reference.Quadruplets(
        positive=torch.tensor([0, 1]),
        photo_negative=torch.tensor([3, 2]),
        sketch_negative=torch.tensor([1, 0]),
        valid=torch.tensor([True, True]),
    )
    assert float(call_loss(s, p, mined, reduction="mean_nonzero")) == pytest.approx(1.3)
    assert float(call_loss(s, p, mined, reduction="mean")) == pytest.approx(0.65)


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("share", [None, 0.3])
def test_gradients(distance, share):
    s, p, ls, lp, _ = batch(5, anchors=5, photos=6, classes=2, width=3)
    mined = reference.mine_quadruplets(s, p, ls, lp, distance=distance)
    assert mined.valid.any()
    weights = torch.linspace(0.5, 1.5, 5, dtype=torch.float64)

    def loss(s, p, w):
        return call_loss(
            s, p, mined, weights=w, coefficients=(1, 0.5, 2, 0.25, 3), margins=(0.7,) * 5,
            cross_modal_share=share, distance=distance,
        )  # fmt: skip

    assert torch.autograd.gradcheck(loss, [x.requires_grad_() for x in (s, p, weights)])


@pytest.mark.parametrize("distance", DISTANCES)
def test_equal_points_pass_a_finite_gradient(distance):
    s = torch.ones(2, 3, requires_grad=True)
    p = torch.ones(2, 3, requires_grad=True)
    labels = torch.tensor([0, 1])
    mined = reference.mine_quadruplets(s, p, labels, labels, distance=distance)
    loss = call_loss(s, p, mined, distance=distance)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0.6, abs=1e-5)
    assert s.grad.isfinite().all()
    assert p.grad.isfinite().all()


def test_it_compiles_without_graph_breaks():
    s, p, ls, lp, _ = batch(1)

    def both(s, p):
        mined = reference.mine_quadruplets(s, p, ls, lp)
        return call_loss(s, p, mined)

    compiled = torch.compile(both, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(s, p), both(s, p))
