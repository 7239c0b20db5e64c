"""Batch-all losses: every triplet or quadruplet of a batch, exactly, at the price of sorting."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from zsbir_fast._arguments import as_margin, check_choice
from zsbir_fast._types import Integers
from zsbir_fast.ops._checks import (
    Impl,
    as_labels,
    check_features,
    unseen,
)
from zsbir_fast.ops._library import refuse_transforms
from zsbir_fast.ops.quadruplet_mining.hinge_rows import HingeSums, hinge_rows, union_counts
from zsbir_fast.ops.quadruplet_mining.inputs import five_numbers
from zsbir_fast.ops.quadruplet_mining.pair_distances import (
    half_as_float,
    kernel_rows,
    pair_distances,
)
from zsbir_fast.ops.quadruplet_mining.probes import count_probe_union, probe_sum
from zsbir_fast.reference import batch_all as reference
from zsbir_fast.reference.quadruplet_mining import (
    MARGINS,
    PRESETS,
    Distance,
    Five,
    Preset,
    Reduction,
)
from zsbir_fast.reference.quadruplet_mining import pair_distances as reference_distances

ScalarReduction = Literal["mean_nonzero", "mean", "sum"]

# Products of two counts up to this are exact in float32.
_EXACT_PRODUCTS = 4096

__all__ = ["batch_all_quadruplet_loss", "batch_all_triplet_loss"]


def batch_all_triplet_loss(
    anchors: Tensor,
    labels: Integers,
    references: Tensor | None = None,
    reference_labels: Integers | None = None,
    *,
    margin: float = 0.2,
    distance: Distance = "euclidean",
    reduction: Reduction = "mean_nonzero",
    exclude_self: bool = False,
    impl: Impl = "fused",
) -> Tensor:
    """All triplets of a batch: ``[d(a, p) - d(a, n) + margin]+`` for every positive and negative.

    Args:
        anchors: [A, D] float. float16 and bfloat16 are computed in float32.
        labels: [A] integers: a tensor, an array or a list.
        references: [R, D] float, where positives and negatives are found, e.g. the other modality
            or a bank; default: the anchors themselves, without the pairs of an anchor with itself.
        reference_labels: [R] integers, needed with ``references``.
        margin: in units of ``distance``.
        distance: ``"euclidean"``, ``"squared_euclidean"`` or ``"cosine"`` (1 - cosine).
        reduction: ``"mean_nonzero"`` over triplets above 0, ``"mean"`` over all triplets,
            ``"sum"``, or ``"none"``: [A], the sum of each anchor's triplets. A mean over nothing
            is 0.
        exclude_self: reference i is anchor i itself, for i < A: never its positive.
        impl: ``"fused"``: the kernels, O(A R log) work. ``"reference"``: plain PyTorch, O(A R^2).

    Returns:
        Scalar, or [A] with ``reduction="none"``; float32, or float64 for float64 features.

    Raises:
        ValueError: shapes, devices or options do not fit, or a feature is NaN.
        TypeError: labels are not integers, or features not floating point or of different dtypes.
        NotImplementedError: fused, under a ``torch.func`` transform or in forward-mode
            differentiation; second derivatives raise it in the backward pass.

    Source: batch-all, Hermans et al., arXiv 1703.07737; computing it from sorted distances is
    our own.
    """
    name = "batch_all_triplet_loss"
    itself = references is None
    if references is None:
        references, exclude_self = anchors, True
        if reference_labels is not None:
            raise ValueError(f"{name}: references must be given with reference_labels, got None")
    elif reference_labels is None:
        raise ValueError(f"{name}: reference_labels must be given with references, got None")
    check_choice(name, "impl", impl, Impl)
    if impl == "fused":
        refuse_transforms(name, anchors, references)
    if itself:
        check_features(name, anchors=anchors)
    else:
        check_features(name, anchors=anchors, references=references)
    labels = as_labels(name, "labels", labels, len(anchors), "anchors", anchors)
    if itself:
        reference_labels = labels
    else:
        reference_labels = as_labels(
            name, "reference_labels", reference_labels, len(references), "references", references
        )
    check_choice(name, "distance", distance, Distance)
    check_choice(name, "reduction", reduction, Reduction)
    margin = as_margin(name, margin)
    if impl == "reference":
        anchors, references = half_as_float(anchors), half_as_float(references)
        distances = reference_distances(anchors, references, distance)
        sums, nonzero, valid = reference.triplet_terms(
            distances, labels, reference_labels, margin=margin, exclude_self=exclude_self
        )
    else:
        rows = kernel_rows(anchors, distance)
        others = None if itself else kernel_rows(references, distance)
        distances = pair_distances(rows, others, distance)
        sums, nonzero, _ = hinge_rows(
            distances,
            None,
            labels,
            reference_labels,
            reference_labels,
            margin=margin,
            exclude_self=exclude_self,
        )
        valid = _triplets(labels, reference_labels, exclude_self)
    sums = _nan_unless_finite(sums, distances)
    if reduction == "none":
        return sums.to(distances.dtype)
    terms = reference.TermSums(sums.sum(), nonzero.sum(), valid.sum())
    return reference.reduce_terms(terms, reduction).to(distances.dtype)


def _nan_unless_finite(sums: Tensor, *distances: Tensor | None) -> Tensor:
    """The sums; NaN if a distance is not finite, which sorting and counting would lose."""
    # Distances are not negative, and a maximum passes NaN on.
    largest = [d.detach().amax() for d in distances if d is not None and d.numel() > 0]
    if not unseen(sums) and all(math.isfinite(float(x)) for x in largest):
        return sums
    for x in largest:
        sums = sums * (1 + 0 * x)
    return sums


def _triplets(labels: Tensor, reference_labels: Tensor, exclude_self: bool) -> Tensor:
    """The number of triplets of each anchor."""
    positives = _count_equal(labels, reference_labels)
    negatives = len(reference_labels) - positives
    if exclude_self:
        shared = min(len(labels), len(reference_labels))
        own = labels[:shared] == reference_labels[:shared]
        positives = torch.cat([positives[:shared] - own.long(), positives[shared:]])
    return positives * negatives


def _count_equal(labels: Tensor, others: Tensor) -> Tensor:
    """How many of ``others`` equal each label, int64."""
    ascending, labels = (
        others.sort().values,
        labels.contiguous(),
    )  # it warns if strided
    return torch.searchsorted(ascending, labels, right=True) - torch.searchsorted(ascending, labels)


def batch_all_quadruplet_loss(
    sketches: Tensor,
    photos: Tensor,
    sketch_labels: Integers,
    photo_labels: Integers,
    *,
    preset: Preset = "domain_balanced",
    coefficients: Sequence[float] | None = None,
    margins: float | Sequence[float] | None = None,
    distance: Distance = "euclidean",
    reduction: ScalarReduction = "mean_nonzero",
    impl: Impl = "fused",
) -> Tensor:
    """All quadruplets (sketch, photo+, photo-, sketch-) of a batch, with their hinges.

    The hinges are those of :func:`zsbir_fast.quadruplet_loss`. With h5 the two negatives are of
    different classes, as Chen et al. define it.

    Args:
        sketches: [B_s, D] float. float16 and bfloat16 are computed in float32.
        photos: [B_i, D] float.
        sketch_labels: [B_s] integers: a tensor, an array or a list.
        photo_labels: [B_i] integers likewise.
        preset: which hinges take part; ``"ramln"`` has no such form.
        coefficients: five numbers that replace those of ``preset``.
        margins: one margin or five; default 0.3, and 0.15 for h5.
        distance: ``"euclidean"``, ``"squared_euclidean"`` or ``"cosine"``.
        reduction: ``"mean_nonzero"`` over quadruplets whose hinges are not all 0 (refused where h5
            meets h2 or h3: there is no closed form), ``"mean"`` over all, or ``"sum"``. A mean over
            nothing is 0.
        impl: ``"fused"``: the kernels, O(B^2 log B) work. ``"reference"``: plain PyTorch, O(B^4).

    Returns:
        Scalar; float32, or float64 for float64 features.

    Raises:
        ValueError: shapes, devices or options do not fit, or a feature is NaN.
        TypeError: labels are not integers, or features not floating point or of different dtypes.
        NotImplementedError: fused, under a ``torch.func`` transform or in forward-mode
            differentiation; second derivatives raise it in the backward pass.

    Source: hinges, see :func:`zsbir_fast.quadruplet_loss`; the sum over all quadruplets is our
    reading, its computation from sorted distances our own.
    """
    name = "batch_all_quadruplet_loss"
    check_choice(name, "impl", impl, Impl)
    if impl == "fused":
        refuse_transforms(name, sketches, photos)
    check_features(name, sketches=sketches, photos=photos)
    sketch_labels = as_labels(
        name, "sketch_labels", sketch_labels, len(sketches), "sketches", sketches
    )
    photo_labels = as_labels(name, "photo_labels", photo_labels, len(photos), "photos", photos)
    check_choice(name, "preset", preset, Preset)
    check_choice(name, "distance", distance, Distance)
    check_choice(name, "reduction", reduction, ScalarReduction)
    if preset == "ramln" and coefficients is None:
        raise ValueError(f"{name}: preset must have a batch-all form, got 'ramln'")
    default = PRESETS["triplet" if preset == "ramln" else preset]
    c = five_numbers(name, "coefficients", coefficients, default)
    m = five_numbers(name, "margins", margins, MARGINS)
    if c[4] and (c[1] or c[2]) and reduction == "mean_nonzero":
        raise ValueError(
            f"{name}: reduction must be 'mean' or 'sum' where h5 meets h2 or h3, got 'mean_nonzero'"
        )
    reference_rows = impl == "reference"
    rows_of = half_as_float if reference_rows else partial(kernel_rows, distance=distance)
    sketches, photos = rows_of(sketches), rows_of(photos)
    distances_of = _reference_distances if reference_rows else pair_distances
    cross = distances_of(sketches, photos, distance)
    of_sketches = distances_of(sketches, None, distance) if c[1] else None
    of_photos = distances_of(photos, None, distance) if c[3] else None
    given = cross, of_sketches, of_photos, sketch_labels, photo_labels
    if reference_rows:
        terms = reference.quadruplet_terms(*given, coefficients=c, margins=m)
    else:
        terms = AllQuadruplets(*given).terms(c, m, count_nonzero=reduction == "mean_nonzero")
    total = _nan_unless_finite(terms.total, cross, of_sketches, of_photos)
    terms = reference.TermSums(total, terms.nonzero, terms.valid)
    return reference.reduce_terms(terms, reduction).to(sketches.dtype)


def _reference_distances(a: Tensor, b: Tensor | None, distance: Distance) -> Tensor:
    return reference_distances(a, a if b is None else b, distance)


class AllQuadruplets:
    """The sums over all quadruplets from sums over triplets, and how often each triplet occurs.

    h1 and h2 are triplets of a sketch, h3 and h4 of the positive photo; each occurs once for every
    negative of the other modality that makes it a quadruplet.
    """

    def __init__(
        self,
        cross: Tensor,
        sketches: Tensor | None,
        photos: Tensor | None,
        sketch_labels: Tensor,
        photo_labels: Tensor,
    ) -> None:
        self.cross, self.sketches, self.photos = cross, sketches, photos
        self.labels = sketch_labels, photo_labels
        # The number of sketches and of photos in the class of each sketch and of each photo:
        self.of_sketch = tuple(_count_equal(sketch_labels, x) for x in self.labels)
        self.of_photo = tuple(_count_equal(photo_labels, x) for x in self.labels)

    def terms(self, c: Five, m: Five, *, count_nonzero: bool) -> reference.TermSums:
        """Total, non-zero (0 unless asked for) and valid quadruplets."""
        distinct = c[4] > 0
        found: dict[int, HingeSums] = {}
        total = self.cross.new_zeros((), dtype=torch.float64)
        if not any(c):
            total = total + 0 * self.cross.sum()  # 0, and part of the graph
        for k in range(4):
            if c[k] > 0:
                found[k], often = self._hinge(k, m[k], distinct)
                total = total + c[k] * (found[k].sums * often).sum()
        if distinct:
            total = total + c[4] * probe_sum(self.cross, *self.labels, margin=m[4])
        nonzero = self.of_sketch[0].new_zeros(())
        if count_nonzero and distinct:
            h1, h4 = (m[k] if c[k] > 0 else None for k in (0, 3))
            photos = None if self.photos is None else self.photos.detach()
            nonzero = count_probe_union(
                self.cross.detach(), photos, *self.labels, margins=(m[4], h1, h4)
            )
        elif count_nonzero:
            nonzero = self._nonzero(found, m)
        return reference.TermSums(total, nonzero, self._valid(distinct))

    def _others(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Sketches and photos of other classes than each sketch, then than each photo."""
        sketches, photos = self.cross.shape
        return (
            sketches - self.of_sketch[0],
            photos - self.of_sketch[1],
            sketches - self.of_photo[0],
            photos - self.of_photo[1],
        )

    def _hinge(self, k: int, margin: float, distinct: bool) -> tuple[HingeSums, Tensor]:
        """All triplets of a hinge, and how often each occurs per row (1 if they are weighted)."""
        of_photo = k >= 2
        thresholds = self.cross.mT if of_photo else self.cross
        values = (None, self.sketches, None, self.photos)[k]
        rows, columns = self.labels[::-1] if of_photo else self.labels
        photo_negatives = k in (0, 3)
        value_labels = self.labels[1] if photo_negatives else self.labels[0]
        # The other negative is a sketch for h1 and h4, a photo for h2 and h3.
        others = self._others()[(2 if of_photo else 0) + (0 if photo_negatives else 1)]
        counts = self.of_photo[0] if photo_negatives else self.of_sketch[1]
        sums = hinge_rows(
            thresholds,
            values,
            rows,
            columns,
            value_labels,
            margin=margin,
            row_weights=others.int() if distinct else None,
            value_weights=counts.int() if distinct else None,
        )
        return sums, torch.ones_like(others) if distinct else others

    def _nonzero(self, found: dict[int, HingeSums], m: Five) -> Tensor:
        """Sum over pairs (s, i+) of N M - (N - a)(M - b) = N b + M a - a b.

        N and M are the numbers of negatives, a and b those with an active hinge.
        """
        a, per_anchor_a = self._active(found, 0, 3, m)
        b, per_anchor_b = self._active(found, 1, 2, m)
        sketches, photos = self._others()[:2]
        total = (photos * per_anchor_b).sum() + (sketches * per_anchor_a).sum()
        if a is not None and b is not None:
            both = a * b if max(self.cross.shape) <= _EXACT_PRODUCTS else a.double() * b.double()
            total = total - both.sum(dtype=torch.float64)
        return total.long()

    def _active(
        self, found: dict[int, HingeSums], of_sketch: int, of_photo: int, m: Five
    ) -> tuple[Tensor | None, Tensor]:
        """Active negatives of one modality for each pair [B_s, B_i], 0 elsewhere, and per sketch.

        Where two hinges share the negative, it counts if either is active.
        """
        if of_sketch not in found and of_photo not in found:
            return None, self.cross.new_zeros(len(self.cross), dtype=torch.float64)
        if of_sketch in found and of_photo in found:
            cross = self.cross.detach()
            first, second = (cross, self.photos) if of_sketch == 0 else (self.sketches, cross.mT)
            assert first is not None
            assert second is not None
            counts = union_counts(
                cross,
                first.detach(),
                second.detach(),
                *self.labels,
                self.labels[1 if of_sketch == 0 else 0],
                (m[of_sketch], m[of_photo]),
            )
            return counts, counts.sum(1, dtype=torch.float64)
        same = self.labels[0][:, None] == self.labels[1][None, :]
        if of_sketch in found:
            counts = torch.where(same, found[of_sketch].by_threshold, 0)
            return counts, found[of_sketch].active
        counts = torch.where(same, found[of_photo].by_threshold.mT, 0)
        return counts, counts.sum(1, dtype=torch.float64)

    def _valid(self, distinct: bool) -> Tensor:
        sketches, photos = self._others()[:2]
        pairs = sketches * photos
        if distinct:  # without those whose two negatives are of one class
            other = self.labels[0][:, None] != self.labels[1][None, :]
            pairs = pairs - (other * self.of_photo[0][None, :]).sum(1)
        return (self.of_sketch[1] * pairs).sum()
