"""Batch-all losses: every triplet or quadruplet of a batch, exactly, at the price of sorting."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from torch import Tensor

from zsbir_fast.ops._quadruplet_inputs import (
    Impl,
    check_choice,
    check_features,
    check_rows,
    five_numbers,
)
from zsbir_fast.reference import batch_all as reference
from zsbir_fast.reference.quadruplet_mining import (
    PRESETS,
    Distance,
    Preset,
    Reduction,
    pair_distances,
)

__all__ = ["batch_all_quadruplet_loss", "batch_all_triplet_loss"]


def batch_all_triplet_loss(
    anchors: Tensor,
    labels: Tensor,
    references: Tensor | None = None,
    reference_labels: Tensor | None = None,
    *,
    margin: float = 0.2,
    distance: Distance = "euclidean",
    reduction: Reduction = "mean_nonzero",
    skip_self: bool = False,
    impl: Impl = "fused",
) -> Tensor:
    """All triplets of a batch: ``[d(a, p) - d(a, n) + margin]+`` for every positive and negative.

    Args:
        anchors: [A, D] float. float16 and bfloat16 are computed in float32.
        labels: [A] int64.
        references: [R, D] float, where positives and negatives are found, e.g. the other modality
            or a bank; default: the anchors themselves, without the pairs of an anchor with itself.
        reference_labels: [R] int64, needed with ``references``.
        margin: in units of ``distance``.
        distance: ``"euclidean"``, ``"squared_euclidean"`` or ``"cosine"`` (1 - cosine).
        reduction: ``"mean_nonzero"`` over triplets above 0, ``"mean"`` over all triplets,
            ``"sum"``, or ``"none"``: [A], the sum of each anchor's triplets. A mean over nothing
            is 0.
        skip_self: reference i is anchor i itself, for i < A: never its positive.
        impl: ``"fused"``: the kernels, O(A R log) work. ``"reference"``: plain PyTorch, O(A R^2).

    Returns:
        Scalar, or [A] with ``reduction="none"``; float32, or float64 for float64 features.

    Raises:
        ValueError: shapes, devices or options do not fit, or a feature is NaN.
        TypeError: labels are not int64 or features not floating point.

    Source: batch-all, Hermans et al., arXiv 1703.07737; computing it from sorted distances is
    our own.
    """
    name = "batch_all_triplet_loss"
    if references is None:
        references, reference_labels, skip_self = anchors, labels, True
    elif reference_labels is None:
        raise ValueError(f"{name}: reference_labels must be given with references, got None")
    assert reference_labels is not None
    check_features(name, anchors=anchors, references=references)
    check_rows(name, "labels", labels, len(anchors))
    check_rows(name, "reference_labels", reference_labels, len(references))
    check_choice(name, "distance", distance, Distance)
    check_choice(name, "reduction", reduction, Reduction)
    check_choice(name, "impl", impl, Impl)
    if not 0 <= margin < math.inf:
        raise ValueError(f"{name}: margin must be finite and not negative, got {margin}")
    distances = pair_distances(_full(anchors), _full(references), distance)
    sums, nonzero, valid = reference.triplet_terms(
        distances, labels, reference_labels, margin=margin, skip_self=skip_self
    )
    if reduction == "none":
        return sums.to(distances.dtype)
    terms = reference.TermSums(sums.sum(), nonzero.sum(), valid.sum())
    return reference.reduce_terms(terms, reduction).to(distances.dtype)


def batch_all_quadruplet_loss(
    sketches: Tensor,
    photos: Tensor,
    sketch_labels: Tensor,
    photo_labels: Tensor,
    *,
    preset: Preset = "domain_balanced",
    coefficients: Sequence[float] | None = None,
    margins: float | Sequence[float] | None = None,
    distance: Distance = "euclidean",
    reduction: Literal["mean_nonzero", "mean", "sum"] = "mean_nonzero",
    impl: Impl = "fused",
) -> Tensor:
    """All quadruplets (sketch, photo+, photo-, sketch-) of a batch, with their hinges.

    The hinges are those of :func:`zsbir_fast.quadruplet_loss`. With h5 the two negatives are of
    different classes, as Chen et al. define it.

    Args:
        sketches: [B_s, D] float. float16 and bfloat16 are computed in float32.
        photos: [B_i, D] float.
        sketch_labels: [B_s] int64.
        photo_labels: [B_i] int64.
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
        TypeError: labels are not int64 or features not floating point.

    Source: hinges, see :func:`zsbir_fast.quadruplet_loss`; the sum over all quadruplets is our
    reading, its computation from sorted distances our own.
    """
    name = "batch_all_quadruplet_loss"
    check_features(name, sketches=sketches, photos=photos)
    check_rows(name, "sketch_labels", sketch_labels, len(sketches))
    check_rows(name, "photo_labels", photo_labels, len(photos))
    check_choice(name, "preset", preset, Preset)
    check_choice(name, "distance", distance, Distance)
    check_choice(name, "reduction", reduction, Literal["mean_nonzero", "mean", "sum"])
    check_choice(name, "impl", impl, Impl)
    if preset == "ramln" and coefficients is None:
        raise ValueError(f"{name}: preset must have a batch-all form, got 'ramln'")
    default_coefficients, default_margins = PRESETS["triplet" if preset == "ramln" else preset]
    c = five_numbers(name, "coefficients", coefficients, default_coefficients)
    m = five_numbers(name, "margins", margins, default_margins)
    if c[4] and (c[1] or c[2]) and reduction == "mean_nonzero":
        raise ValueError(
            f"{name}: reduction must be 'mean' or 'sum' where h5 meets h2 or h3, got 'mean_nonzero'"
        )
    sketches, photos = _full(sketches), _full(photos)
    cross = pair_distances(sketches, photos, distance)
    terms = reference.quadruplet_terms(
        cross,
        pair_distances(sketches, sketches, distance) if c[1] else None,
        pair_distances(photos, photos, distance) if c[3] else None,
        sketch_labels,
        photo_labels,
        coefficients=c,
        margins=m,
    )
    return reference.reduce_terms(terms, reduction).to(cross.dtype)


def _full(features: Tensor) -> Tensor:
    """Halves as float32."""
    half = features.element_size() < 4
    return features.float() if half else features
