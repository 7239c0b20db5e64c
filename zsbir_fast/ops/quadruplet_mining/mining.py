"""Mining by ``select_pairs``: one pass for the first choices, one for each that depends on them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from zsbir_fast.ops.quadruplet_mining.select_pairs import Choice, Selected, Selection, select_pairs
from zsbir_fast.reference.quadruplet_mining import (
    Distance,
    Negative,
    Positive,
    Quadruplets,
    SketchNegative,
    draw_evenly,
)


class Batch(NamedTuple):
    """The batch that is mined; rows from ``kernel_rows``."""

    sketches: Tensor
    photos: Tensor
    references: Tensor
    sketch_labels: Tensor
    photo_labels: Tensor
    reference_labels: Tensor
    paired: Tensor | None
    uniforms: Tensor | None
    sketch_uniforms: Tensor | None


class MiningOptions(NamedTuple):
    """The options of :func:`zsbir_fast.mine_quadruplets` that are not tensors."""

    positive: Positive
    negative: Negative
    sketch_negative: SketchNegative
    distance: Distance
    margin: float
    distinct_negatives: bool
    positive_photos: int | None


@torch.no_grad()
def mine(batch: Batch, options: MiningOptions) -> Quadruplets:
    """Mine as :func:`zsbir_fast.mine_quadruplets` says, but for distance-weighted negatives."""
    photos, references = batch.photos, batch.references
    cross = partial(
        select_pairs,
        batch.sketches,
        photos,
        batch.sketch_labels,
        batch.photo_labels,
        distance=options.distance,
        same_limit=options.positive_photos,
    )
    first = cross(wanted=_wanted_first(options))
    chosen = _positive_of(first, cross, batch, options)
    positive, negative = chosen.index, first.nearest_other.index
    if options.negative == "semihard":
        low = chosen.distance.masked_fill(positive < 0, torch.inf)
        inside = cross(
            low=low, high=low + options.margin, wanted=("nearest_other",)
        ).nearest_other.index
        negative = torch.where(inside >= 0, inside, first.farthest_other.index)
    if options.negative == "random":
        assert batch.uniforms is not None
        other = batch.sketch_labels[:, None] != batch.photo_labels
        negative = draw_evenly(other, batch.uniforms)
    if options.sketch_negative == "none":
        nothing = torch.full_like(positive, -1)
        return Quadruplets(positive, negative, nothing, (positive >= 0) & (negative >= 0))
    forbidden = None
    if options.distinct_negatives and len(photos):
        forbidden = batch.photo_labels[negative.clamp_min(0)]
    if options.sketch_negative == "random":
        sketch = _drawn_sketch(batch, forbidden)
    else:
        queries = batch.sketches
        if options.sketch_negative == "positive" and len(photos):
            queries = photos[positive.clamp_min(0)]
        sketch = select_pairs(
            queries,
            references,
            batch.sketch_labels,
            batch.reference_labels,
            distance=options.distance,
            forbidden=forbidden,
            wanted=("nearest_other",),
        ).nearest_other.index
    if options.sketch_negative == "positive":
        sketch = torch.where(positive >= 0, sketch, -1)
    valid = (positive >= 0) & (negative >= 0) & (sketch >= 0)
    return Quadruplets(positive, negative, sketch, valid)


def _drawn_sketch(batch: Batch, forbidden: Tensor | None) -> Tensor:
    assert batch.sketch_uniforms is not None
    other = batch.sketch_labels[:, None] != batch.reference_labels
    if forbidden is not None:
        other = other & (forbidden[:, None] != batch.reference_labels)
    return draw_evenly(other, batch.sketch_uniforms)


def _wanted_first(options: MiningOptions) -> tuple[Choice, ...]:
    """The choices that the first pass must make; each costs a look at its candidates."""
    positive: Choice = "farthest_same" if options.positive == "hardest" else "nearest_same"
    if options.negative == "semihard":
        return positive, "nearest_other", "farthest_other"
    return positive, "nearest_other"


def _positive_of(
    first: Selection, cross: Callable[..., Selection], batch: Batch, options: MiningOptions
) -> Selected:
    if options.positive == "hardest":
        return first.farthest_same
    if options.positive == "easiest":
        return first.nearest_same
    if options.positive == "semihard":
        none = first.nearest_other.index < 0
        limit = first.nearest_other.distance.masked_fill(none, torch.inf)
        inside = cross(high=limit, wanted=("farthest_same",)).farthest_same
        nearest = first.nearest_same
        found = inside.index >= 0
        return Selected(
            torch.where(found, inside.index, nearest.index),
            torch.where(found, inside.distance, nearest.distance),
        )
    assert batch.paired is not None
    if len(batch.photos) == 0:
        return first.nearest_same
    row = batch.paired.clamp(0, len(batch.photos) - 1)
    fits = (batch.paired == row) & (batch.photo_labels[row] == batch.sketch_labels)
    if options.positive_photos is not None:
        fits = fits & (batch.paired < options.positive_photos)
    positive = torch.where(fits, batch.paired, -1)
    if options.negative != "semihard":  # the distance is not used
        return Selected(positive, batch.sketches.new_zeros(len(positive)))
    # The kernel's own distance, in all bits: a copy of the positive in another class is no farther.
    rows = torch.arange(len(batch.photos), device=positive.device)
    return select_pairs(
        batch.sketches,
        batch.photos,
        positive,
        rows,
        distance=options.distance,
        wanted=("nearest_same",),
    ).nearest_same
