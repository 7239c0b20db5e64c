"""Distances, mining and hinges in float64, written from docs/methods.md and docs/losses.md."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

#: Coefficients of h1 to h5, as in the table of equation (9).
COEFFICIENTS = {
    "triplet": (1.0, 0.0, 0.0, 0.0, 0.0),
    "domain_balanced": (1.0, 1.0, 0.0, 0.0, 0.0),
    "cross_symmetric": (1.0, 0.0, 1.0, 0.0, 0.0),
    "full": (1.0, 1.0, 1.0, 1.0, 0.0),
    "chen2017": (1.0, 0.0, 0.0, 0.0, 1.0),
}
MARGINS = (0.3, 0.3, 0.3, 0.3, 0.15)


def distances(a: Tensor, b: Tensor, distance: str) -> Tensor:
    """Distance of every row of ``a`` to every row of ``b``, float64 [A, B]."""
    if distance == "cosine":
        return 1 - (unit(a)[:, None] * unit(b)[None]).sum(2)
    squared = (a[:, None] - b[None]).square().sum(2)
    return squared if distance == "squared_euclidean" else _root(squared)


def unit(rows: Tensor) -> Tensor:
    """Rows of length 1; those without an entry of 1e-30 count as zero and pass no gradient."""
    if rows.shape[-1] == 0:
        return rows
    largest = rows.detach().abs().amax(-1, keepdim=True)
    zero = largest < 1e-30
    rows = torch.where(zero, 0.0, rows / torch.where(zero, 1.0, largest))
    return rows / torch.where(zero, 1.0, rows.square().sum(-1, keepdim=True)).sqrt()


def _root(squared: Tensor) -> Tensor:
    """Square root that passes no gradient at 0."""
    zero = squared == 0
    return torch.where(zero, 0.0, torch.where(zero, 1.0, squared).sqrt())


class Wanted(NamedTuple):
    """Which candidates a rule leaves to one anchor, and whether the nearest or farthest is taken.

    ``unsure``: rounding may move a candidate across one of the rule's limits.
    """

    allowed: Tensor
    farthest: bool
    unsure: bool


def positives(d: Tensor, same: Tensor, own: Tensor, rule: str, near: float) -> Wanted:
    """The rule for the positive of one anchor; ``own``: which may be positives."""
    if rule != "semihard":
        return Wanted(own, rule == "hardest", False)
    limit = d[~same].min() if bool((~same).any()) else torch.tensor(torch.inf)
    inside = own & (d < limit)
    unsure = bool((own & ((d - limit).abs() <= near)).any())
    return Wanted(inside, True, unsure) if bool(inside.any()) else Wanted(own, False, unsure)


def negatives(
    d: Tensor, same: Tensor, positive: Tensor | None, rule: str, margin: float, near: float
) -> Wanted:
    """The rule for the photo of another class of one anchor."""
    if rule == "hardest":
        return Wanted(~same, False, False)
    low = torch.tensor(torch.inf) if positive is None else positive
    inside = ~same & (d > low) & (d < low + margin)
    limits = torch.stack([(d - low).abs(), (d - low - margin).abs()]).amin(0)
    unsure = bool((~same & (limits <= near)).any())
    return Wanted(inside, False, unsure) if bool(inside.any()) else Wanted(~same, True, unsure)


def complaint(
    what: str, d: Tensor, wanted: Wanted, got: int, near: float, rows: Tensor
) -> str | None:
    """Whether ``got`` is a choice that the rule allows, up to rounding.

    Args:
        what: names the choice.
        d: [R] distances.
        wanted: the rule.
        got: index, -1 for none.
        near: what rounding may move a distance by; 0: distances are exact.
        rows: [R], equal for equal candidates: of those the lowest index is taken.
    """
    if wanted.unsure:
        return None
    if not bool(wanted.allowed.any()):
        return None if got == -1 else f"wrong value: {what} is {got}, right is none (-1)"
    if not 0 <= got < len(d) or not bool(wanted.allowed[got]):
        return f"wrong value: {what} is {got}, which is not allowed"
    candidates = d[wanted.allowed]
    best = candidates.max() if wanted.farthest else candidates.min()
    if not abs(float(d[got] - best)) <= near:
        return f"wrong value: {what} is {got} at {float(d[got]):.9g}, right is {float(best):.9g}"
    equal = wanted.allowed & ((d == best) if near == 0 else (rows == rows[got]))
    first = int(equal.nonzero()[0])
    return None if first == got else f"wrong value: {what} is {got}, its equal {first} comes first"


def hinges(
    sketches: Tensor,
    photos: Tensor,
    references: Tensor,
    chosen: tuple[Tensor, Tensor, Tensor],
    *,
    coefficients: tuple[float, ...],
    margins: tuple[float, ...],
    share: float | None,
    distance: str,
) -> Tensor:
    """Equation (8) of every anchor, [B]; ``share``: RAMLN's single hinge instead."""
    s, p = sketches, photos[chosen[0]]
    n, o = photos[chosen[1]], references[chosen[2]]

    def d(a: Tensor, b: Tensor) -> Tensor:
        if distance == "cosine":
            return 1 - (unit(a) * unit(b)).sum(1)
        squared = (a - b).square().sum(1)
        return squared if distance == "squared_euclidean" else _root(squared)

    if share is not None:
        return (d(s, p) - (1 - share) * d(s, o) - share * d(s, n) + margins[0]).relu()
    pairs = ((s, n), (s, o), (p, o), (p, n), (o, n))
    terms = [
        c * (d(s, p) - d(a, b) + m).relu()
        for (a, b), c, m in zip(pairs, coefficients, margins, strict=True)
        if c
    ]
    return torch.stack(terms).sum(0) if terms else s.new_zeros(len(s))


def all_triplets(
    d: Tensor, labels: list[int], others: list[int], margin: float, exclude_self: bool
) -> tuple[Tensor, int, list[Tensor]]:
    """All hinges of a batch: per anchor [A], how many triplets there are, and the hinges."""
    per_anchor, terms = [], []
    for i, label in enumerate(labels):
        same = torch.tensor([y == label for y in others], dtype=torch.bool)
        own = same.clone()
        if exclude_self and i < len(own):
            own[i] = False
        hinge = (d[i][own][:, None] - d[i][~same][None, :] + margin).relu()
        per_anchor.append(hinge.sum())
        terms.append(hinge.flatten())
    count = sum(len(t) for t in terms)
    return torch.stack(per_anchor) if per_anchor else d.sum(1), count, terms


def all_quadruplets(
    cross: Tensor,
    sketches: Tensor,
    photos: Tensor,
    labels: tuple[list[int], list[int]],
    coefficients: tuple[float, ...],
    margins: tuple[float, ...],
) -> list[Tensor]:
    """The weighted sum of hinges of every quadruplet, in parts."""
    numbers = {y: i for i, y in enumerate({*labels[0], *labels[1]})}
    first, second = (torch.tensor([numbers[y] for y in side], dtype=torch.int64) for side in labels)
    parts = []
    for s in range(len(first)):
        for p in (second == first[s]).nonzero()[:, 0].tolist():
            fit = (second != first[s])[:, None] & (first != first[s])[None, :]
            if coefficients[4]:
                fit &= second[:, None] != first[None, :]
            away = (
                cross[s][:, None],
                sketches[s][None, :],
                cross[:, p][None, :],
                photos[p][:, None],
                cross.mT,
            )
            total = torch.zeros(fit.shape, dtype=torch.float64)
            for a, c, m in zip(away, coefficients, margins, strict=True):
                if c:
                    total = total + c * (cross[s, p] - a + m).relu()
            parts.append(total[fit])
    return parts
