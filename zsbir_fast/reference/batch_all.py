"""Batch-all triplet and quadruplet losses in plain PyTorch: the specification.

Every term is written out, one anchor at a time: O(n^3) work for triplets and O(n^4) for
quadruplets, which the kernels avoid. A term counts as non-zero where its hinge is above 0;
a margin is added to the positive distance first, in the dtype of the distances, so that all
implementations agree on which terms those are. Sums are in float64.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from zsbir_fast.reference.quadruplet_mining import Five


class TermSums(NamedTuple):
    """The sums that every reduction of a batch-all loss is made of.

    Attributes:
        total: float64 scalar, sum of all hinges with their coefficients.
        nonzero: int64 scalar, terms that are above 0.
        valid: int64 scalar, terms there are.
    """

    total: Tensor
    nonzero: Tensor
    valid: Tensor


def triplet_terms(
    distances: Tensor,
    anchor_labels: Tensor,
    reference_labels: Tensor,
    *,
    margin: float,
    exclude_self: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """All triplets (anchor, positive, negative) of a matrix of distances [A, R].

    Returns:
        Per anchor: sum of hinges float64 [A], non-zero terms int64 [A], terms int64 [A].
    """
    sums, nonzero, valid = [], [], []
    for anchor, row in enumerate(distances):
        same = reference_labels == anchor_labels[anchor]
        positive = same.clone()
        if exclude_self and anchor < len(same):
            positive[anchor] = False
        terms = positive[:, None] & ~same[None, :]
        hinges = ((row + margin)[:, None] - row[None, :]).relu()
        hinges = torch.where(terms, hinges, 0.0).double()
        sums.append(hinges.sum())
        nonzero.append((hinges > 0).sum())
        valid.append(terms.sum())
    if not sums:
        none = distances.sum(1).double()
        return none, none.long(), none.long()
    return torch.stack(sums), torch.stack(nonzero), torch.stack(valid)


def quadruplet_terms(
    cross: Tensor,
    sketches: Tensor | None,
    photos: Tensor | None,
    sketch_labels: Tensor,
    photo_labels: Tensor,
    *,
    coefficients: Five,
    margins: Five,
) -> TermSums:
    """All quadruplets (sketch, photo+, photo-, sketch-), hinges as in equations (8) and (9).

    With a coefficient for h5 the two negatives must be of different classes, too.

    Args:
        cross: [B_s, B_i] distances of sketches to photos.
        sketches: [B_s, B_s] distances among sketches; needed with a coefficient for h2.
        photos: [B_i, B_i] distances among photos; needed with a coefficient for h4.
        sketch_labels: int64 [B_s].
        photo_labels: int64 [B_i].
        coefficients: c1..c5.
        margins: of the five hinges.
    """
    total = cross.sum().double() * 0
    nonzero, valid = sketch_labels.new_zeros(()), sketch_labels.new_zeros(())
    for anchor, label in enumerate(sketch_labels):
        is_positive = photo_labels == label
        photo_negative, sketch_negative = ~is_positive, sketch_labels != label
        pairs = photo_negative[:, None] & sketch_negative[None, :]  # [i-, s-]
        if coefficients[4]:
            pairs = pairs & (photo_labels[:, None] != sketch_labels[None, :])
        for positive in is_positive.nonzero()[:, 0].tolist():
            target = cross[anchor, positive]
            away = (
                cross[anchor, :, None],
                sketches[anchor, None, :] if sketches is not None else None,
                cross[:, positive][None, :],
                photos[positive, :, None] if photos is not None else None,
                cross.mT,
            )
            hinges = torch.zeros(pairs.shape, dtype=cross.dtype, device=cross.device)
            for distance, coefficient, margin in zip(away, coefficients, margins, strict=True):
                if coefficient:
                    assert distance is not None
                    hinges = hinges + coefficient * (target + margin - distance).relu()
            hinges = torch.where(pairs, hinges, 0.0)
            total = total + hinges.double().sum()
            nonzero = nonzero + (hinges > 0).sum()
            valid = valid + pairs.sum()
    return TermSums(total, nonzero, valid)


def reduce_terms(terms: TermSums, reduction: str) -> Tensor:
    """Sum, mean over all valid terms or mean over the non-zero ones; a mean over nothing is 0."""
    if reduction == "sum":
        return terms.total
    count = terms.valid if reduction == "mean" else terms.nonzero
    return terms.total / count.clamp_min(1)
