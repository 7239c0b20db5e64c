"""The choice of negatives, and the two losses of pairs: triplets and relations."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from zsbir_fast.losses.gathering import Share
from zsbir_fast.methods.cmaan.options import Negative
from zsbir_fast.ops.quadruplet_mining import mine_quadruplets

TARGETS = (0.99, 0.01)
"""Scores that pairs of one class and of two classes should have; the published base has these."""


class Joined(NamedTuple):
    """The photos of all processes.

    Attributes:
        share: which rows are those of this process.
        photos: [M, 1 + N, D] before the exchange, the global token first.
        labels: int64 [M].
    """

    share: Share
    photos: Tensor
    labels: Tensor


class Triplets(NamedTuple):
    """Rows of sketches, of photos of their classes and of photos of others, [B, ...] each."""

    sketches: Tensor
    positives: Tensor
    negatives: Tensor


def choose_negatives(sketches: Tensor, joined: Joined, how: Negative, noise: Tensor) -> Tensor:
    """Choose a photo of another class for every sketch of this process.

    Args:
        sketches: [B, D] global features.
        joined: the photos of all processes.
        how: ``"random"`` or ``"hardest"``.
        noise: [M, M] random numbers, the same on all processes.

    Returns:
        int64 [B], rows of the joined photos; -1 where all are of one class.
    """
    labels = joined.labels[joined.share.own]
    if how == "hardest":
        return mine_quadruplets(
            sketches.detach(),
            joined.photos[:, 0].detach(),
            labels,
            joined.labels,
            sketch_negative="none",
        ).photo_negative
    others = labels[:, None] != joined.labels
    drawn = noise[joined.share.own].masked_fill(~others, -torch.inf).argmax(1)
    return torch.where(others.any(1), drawn, -1)


def triplet_rows(rows: Triplets, has_negative: Tensor, *, margin: float, normalize: bool) -> Tensor:
    """Triplet loss of every sketch, equation (9): Euclidean distances, and 0 without a negative.

    Args:
        rows: [B, D] each.
        has_negative: bool [B].
        margin: what the negative must be farther than the positive.
        normalize: L2-normalise the rows first.

    Returns:
        [B].
    """
    sketches, positives, negatives = (F.normalize(x, dim=1) if normalize else x for x in rows)
    losses = F.triplet_margin_loss(sketches, positives, negatives, margin, reduction="none")
    return losses.masked_fill(~has_negative, 0)


def relation_rows(positive: Tensor, negative: Tensor, has_negative: Tensor) -> Tensor:
    """Squared errors of the scores of every sketch's two pairs, equation (12).

    Args:
        positive: [B] scores of pairs of one class.
        negative: [B] scores of pairs of two classes.
        has_negative: bool [B]; without one the positive pair counts alone.

    Returns:
        [B], the mean of the two.
    """
    of_one, of_two = (
        (scores - target).square()
        for scores, target in zip((positive, negative), TARGETS, strict=True)
    )
    return torch.where(has_negative, (of_one + of_two) / 2, of_one)
