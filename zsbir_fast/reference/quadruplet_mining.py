"""Quadruplet mining and the weighted quadruplet loss in plain PyTorch: the specification.

The equation numbers are those of ``docs/methods.md``. Euclidean distances are summed directly (no
``|a|^2 + |b|^2 - 2ab``), so equal pairs have equal distances and ties are exact. Shapes depend on
the inputs' shapes alone, so that the code compiles.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from zsbir_fast.reference.token_weighting import safe_cosine, unit_rows

Positive = Literal["hardest", "easiest", "semihard", "paired"]
Negative = Literal["hardest", "semihard", "distance_weighted", "random"]
SketchNegative = Literal["anchor", "positive", "random", "none"]
Distance = Literal["euclidean", "squared_euclidean", "cosine"]
Reduction = Literal["mean", "mean_nonzero", "sum", "none"]
Preset = Literal["triplet", "domain_balanced", "cross_symmetric", "full", "chen2017", "ramln"]
Five = tuple[float, float, float, float, float]

# Coefficients c1..c5 of the hinges h1..h5 of equations (8) and (9), and the hinges' margins.
PRESETS: dict[str, Five] = {
    "triplet": (1, 0, 0, 0, 0),
    "domain_balanced": (1, 1, 0, 0, 0),
    "cross_symmetric": (1, 0, 1, 0, 0),
    "full": (1, 1, 1, 1, 0),
    "chen2017": (1, 0, 0, 0, 1),
}
MARGINS: Five = (0.3, 0.3, 0.3, 0.3, 0.15)

_SMALLEST_SQUARED = 1e-12  # below it a Euclidean distance passes no gradient
# Distance-weighted sampling: distances count as at least 0.5, and those above 1.4 are not drawn.
_NEAR, _FAR = 0.5, 1.4


class Quadruplets(NamedTuple):
    """One quadruplet per sketch anchor, as indices into the batch.

    Attributes:
        positive: int64 [B_s], row of the photo of the anchor's class, -1 where there is none.
        photo_negative: int64 [B_s], row of the photo of another class, -1 where there is none.
        sketch_negative: int64 [B_s], row of the sketch of another class, -1 where there is none.
        valid: bool [B_s], True where all three exist; the loss leaves out the other anchors.
    """

    positive: Tensor
    photo_negative: Tensor
    sketch_negative: Tensor
    valid: Tensor


def pair_distances(a: Tensor, b: Tensor, distance: Distance) -> Tensor:
    """Distance of every row of ``a`` [A, D] to every row of ``b`` [B, D]: [A, B].

    A Euclidean distance below 1e-6 passes no gradient.
    """
    if distance == "cosine":
        return 1 - _product(unit_rows(a), unit_rows(b))
    if distance == "euclidean":
        distances = torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")
        near = distances.detach() < _SMALLEST_SQUARED**0.5
        return torch.where(near, distances.detach(), distances)
    if len(a) == 0:
        return _product(a, b)  # empty, and part of the graph
    # Not the square of a root, which would round: equal sums stay equal.
    return torch.stack([(row - b).square().sum(1) for row in a])


def _product(a: Tensor, b: Tensor) -> Tensor:
    """``a @ b.mT`` in their dtype, under autocast, too."""
    with torch.autocast(a.device.type, enabled=False):
        return a @ b.mT


def row_distances(a: Tensor, b: Tensor, distance: Distance) -> Tensor:
    """Distance of row i of ``a`` to row i of ``b``, [..., D] to [...]; differentiable everywhere.

    A Euclidean distance below 1e-6 is returned as it is and passes no gradient.
    """
    if distance == "cosine":
        return 1 - safe_cosine(a, b)
    squared = (a - b).square().sum(-1)
    if distance == "squared_euclidean":
        return squared
    near = squared < _SMALLEST_SQUARED
    as_it_is = squared.detach().masked_fill(~near, 0).sqrt()
    return squared.masked_fill(near, 1).sqrt().masked_fill(near, 0) + as_it_is


@torch.no_grad()
def mine_quadruplets(
    sketches: Tensor,
    photos: Tensor,
    sketch_labels: Tensor,
    photo_labels: Tensor,
    *,
    positive: Positive = "hardest",
    negative: Negative = "hardest",
    sketch_negative: SketchNegative = "anchor",
    distance: Distance = "euclidean",
    margin: float = 0.3,
    paired: Tensor | None = None,
    uniforms: Tensor | None = None,
    sketch_uniforms: Tensor | None = None,
    distinct_negatives: bool = False,
    sketch_references: Tensor | None = None,
    sketch_reference_labels: Tensor | None = None,
    positive_photos: int | None = None,
) -> Quadruplets:
    """Mine as :func:`zsbir_fast.mine_quadruplets` describes."""
    references = sketches if sketch_references is None else sketch_references
    labels = sketch_labels if sketch_reference_labels is None else sketch_reference_labels
    dtype = torch.promote_types(sketches.dtype, torch.float32)
    sketches, photos, references = sketches.to(dtype), photos.to(dtype), references.to(dtype)
    chosen = torch.full((len(sketches),), -1, device=sketches.device)
    photo_negative = chosen.clone()
    if len(photos):
        cross = pair_distances(sketches, photos, distance)
        same = sketch_labels[:, None] == photo_labels[None, :]
        own = same
        if positive_photos is not None:
            own = same & (torch.arange(len(photos), device=same.device) < positive_photos)
        chosen = _positives(cross, own, same, positive, paired)
        positive_distance = _take(cross, chosen).masked_fill(chosen < 0, torch.inf)
        width = sketches.shape[1]
        photo_negative = _photo_negatives(
            cross, same, positive_distance, negative, margin, uniforms, width, distance
        )
    if sketch_negative == "none":
        nothing = torch.full_like(chosen, -1)
        return Quadruplets(chosen, photo_negative, nothing, (chosen >= 0) & (photo_negative >= 0))
    other = sketch_labels[:, None] != labels[None, :]
    if distinct_negatives and len(photos):
        other = other & (labels[None, :] != _take(photo_labels, photo_negative)[:, None])
    if sketch_negative == "random":
        assert sketch_uniforms is not None
        sketch = draw_evenly(other, sketch_uniforms)
    else:
        origins = sketches
        if sketch_negative == "positive":
            origins = photos[chosen.clamp_min(0)] if len(photos) else sketches
            other = other & (chosen >= 0)[:, None]
        sketch = nearest_index(pair_distances(origins, references, distance), other)
    valid = (chosen >= 0) & (photo_negative >= 0) & (sketch >= 0)
    return Quadruplets(chosen, photo_negative, sketch, valid)


def _positives(
    cross: Tensor, own: Tensor, same: Tensor, mode: Positive, paired: Tensor | None
) -> Tensor:
    """``own``: which photos may be positives; ``same``: which are of the anchor's class."""
    if mode == "paired":
        assert paired is not None
        row = paired.clamp(0, own.shape[1] - 1)
        fits = (paired == row) & own.gather(1, row[:, None])[:, 0]
        return torch.where(fits, paired, -1)
    if mode == "hardest":
        return _farthest(cross, own)
    nearest = nearest_index(cross, own)
    if mode == "easiest":
        return nearest
    limit = cross.masked_fill(same, torch.inf).amin(1)
    semihard = _farthest(cross, own & (cross < limit[:, None]))
    return torch.where(semihard >= 0, semihard, nearest)


def _photo_negatives(
    cross: Tensor,
    same: Tensor,
    positive_distance: Tensor,
    mode: Negative,
    margin: float,
    uniforms: Tensor | None,
    width: int,
    distance: Distance,
) -> Tensor:
    if mode == "distance_weighted":
        assert uniforms is not None
        return draw_by_distance(cross, ~same, uniforms, width, distance)
    if mode == "random":
        assert uniforms is not None
        return draw_evenly(~same, uniforms)
    if mode == "hardest":
        return nearest_index(cross, ~same)
    low = positive_distance[:, None]
    semihard = nearest_index(cross, ~same & (cross > low) & (cross < low + margin))
    return torch.where(semihard >= 0, semihard, _farthest(cross, ~same))


def draw_by_distance(
    cross: Tensor, other: Tensor, uniforms: Tensor, width: int, distance: Distance
) -> Tensor:
    """Inverse of the cumulative distribution of 1 / q(d) at the given uniform numbers."""
    euclidean = cross.double()
    if distance == "cosine":  # of unit vectors
        euclidean = (2 * euclidean).clamp_min(0).sqrt()
    elif distance == "squared_euclidean":
        euclidean = euclidean.sqrt()
    near = euclidean.clamp(_NEAR, _FAR)
    log_weights = (2 - width) * near.log() - (width - 3) / 2 * (1 - near.square() / 4).log()
    drawable = other & (euclidean <= _FAR)
    some = drawable.any(1, keepdim=True)
    log_weights = torch.where(some, log_weights, 0.0)  # none near enough: all equally likely
    drawable = torch.where(some, drawable, other)
    log_weights = log_weights.masked_fill(~drawable, -torch.inf)
    weights = (log_weights - log_weights.amax(1, keepdim=True)).exp().masked_fill(~drawable, 0)
    cumulative = weights.cumsum(1)
    total = cumulative[:, -1:]
    # The last one also where the product is rounded up to the total, or the number is out of range.
    reached = (cumulative > uniforms.double()[:, None] * total) | (cumulative == total)
    return _first(drawable & reached)


def draw_evenly(allowed: Tensor, uniforms: Tensor) -> Tensor:
    """Allowed entry number floor(u n) of the n in each row, u its uniform number; -1: none."""
    counts = allowed.sum(1)
    numbers = uniforms.double().nan_to_num(1.0) * counts
    number = numbers.long().clamp_min(0).minimum((counts - 1).clamp_min(0))
    return _first(allowed & (allowed.cumsum(1) == (number + 1)[:, None]))


def nearest_index(distances: Tensor, allowed: Tensor) -> Tensor:
    """Index of the smallest allowed entry of each row, the lowest index among equals; -1: none."""
    if distances.shape[1] == 0:
        return _first(allowed)
    smallest = distances.masked_fill(~allowed, torch.inf).amin(1, keepdim=True)
    return _first(allowed & (distances == smallest))


def _farthest(distances: Tensor, allowed: Tensor) -> Tensor:
    return nearest_index(-distances, allowed)


def _first(flags: Tensor) -> Tensor:
    """Index of the first True of each row, -1 where there is none."""
    # argmax() does not promise which of equal entries it names; counting the leading Falses does.
    index = (flags.cumsum(1) == 0).sum(1)
    return torch.where(index < flags.shape[1], index, -1)


def _take(values: Tensor, index: Tensor) -> Tensor:
    """``values[i, index[i]]`` for a matrix or ``values[index[i]]``; index -1 reads entry 0."""
    index = index.clamp_min(0)
    return values[index] if values.ndim == 1 else values.gather(1, index[:, None])[:, 0]


def quadruplet_loss(
    sketches: Tensor,
    photos: Tensor,
    quadruplets: Quadruplets,
    *,
    weights: Tensor | None,
    coefficients: Five,
    margins: Five,
    cross_modal_share: float | None,
    distance: Distance,
    reduction: Reduction,
    sketch_references: Tensor | None = None,
) -> Tensor:
    """Equations (8) and (9), or RAMLN's single hinge where ``cross_modal_share`` is given."""
    hinges = quadruplet_hinges(
        sketches,
        photos,
        sketches if sketch_references is None else sketch_references,
        quadruplets,
        coefficients=coefficients,
        margins=margins,
        cross_modal_share=cross_modal_share,
        distance=distance,
    )
    return reduce_hinges(hinges, quadruplets.valid, weights, reduction)


def quadruplet_hinges(
    sketches: Tensor,
    photos: Tensor,
    references: Tensor,
    quadruplets: Quadruplets,
    *,
    coefficients: Five,
    margins: Five,
    cross_modal_share: float | None,
    distance: Distance,
) -> Tensor:
    """Sum of the hinges of every anchor, [B_s], 0 where it is not valid."""
    dtype = torch.promote_types(sketches.dtype, torch.float32)
    sketches, photos, references = sketches.to(dtype), photos.to(dtype), references.to(dtype)
    # Rows that no hinge compares get a gradient of zeros, not none.
    unused = photos[:0].sum() + references[:0].sum()
    if len(sketches) == 0 or len(photos) == 0:
        return sketches.sum(1) * 0 + unused
    if len(references) == 0:  # then no valid anchor has a hinge with one
        references = sketches
    left_out = ~quadruplets.valid  # their rows need not exist
    chosen = (quadruplets.positive, quadruplets.photo_negative, quadruplets.sketch_negative)
    index = [x.masked_fill(left_out, 0).clamp_min(0) for x in chosen]
    rows = (sketches, photos[index[0]], photos[index[1]], references[index[2]])
    hinges = _hinges(*rows, coefficients, margins, cross_modal_share, distance)
    return torch.where(quadruplets.valid, hinges, 0.0) + unused


def reduce_hinges(
    hinges: Tensor, valid: Tensor, weights: Tensor | None, reduction: Reduction
) -> Tensor:
    """Weight the anchors' hinges and reduce them; a mean over nothing is 0."""
    losses = hinges if weights is None else hinges * weights
    if reduction == "none":
        return losses
    if reduction == "sum":
        return losses.sum()
    counted = valid if reduction == "mean" else hinges > 0
    return losses.sum() / counted.sum().clamp_min(1)


def _hinges(
    sketch: Tensor,
    positive: Tensor,
    photo_negative: Tensor,
    sketch_negative: Tensor,
    coefficients: Five,
    margins: Five,
    cross_modal_share: float | None,
    distance: Distance,
) -> Tensor:
    target = row_distances(sketch, positive, distance)
    if cross_modal_share is not None:
        away = (1 - cross_modal_share) * row_distances(sketch, sketch_negative, distance)
        away = away + cross_modal_share * row_distances(sketch, photo_negative, distance)
        return (target - away + margins[0]).relu()
    pairs = (
        (sketch, photo_negative),
        (sketch, sketch_negative),
        (positive, sketch_negative),
        (positive, photo_negative),
        (sketch_negative, photo_negative),
    )
    total = torch.zeros_like(target)
    for (a, b), coefficient, margin in zip(pairs, coefficients, margins, strict=True):
        if coefficient:
            total = total + coefficient * (target - row_distances(a, b, distance) + margin).relu()
    return total
