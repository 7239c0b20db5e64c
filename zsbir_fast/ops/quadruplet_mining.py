"""Quadruplet mining across modalities, and the weighted quadruplet loss."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import get_args

import torch
from torch import Tensor

from zsbir_fast.reference import quadruplet_mining as reference
from zsbir_fast.reference.quadruplet_mining import (
    PRESETS,
    Distance,
    Five,
    Negative,
    Positive,
    Preset,
    Quadruplets,
    Reduction,
    SketchNegative,
)

__all__ = ["Quadruplets", "mine_quadruplets", "quadruplet_loss"]


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
    distinct_negatives: bool = False,
) -> Quadruplets:
    """Choose for every sketch a photo of its class, and a photo and a sketch of other classes.

    Among equal distances the lowest index is chosen. No gradient flows through the choice.

    Args:
        sketches: [B_s, D] float, the anchors. float16 and bfloat16 are compared in float32.
        photos: [B_i, D] float.
        sketch_labels: [B_s] int64.
        photo_labels: [B_i] int64.
        positive: ``"hardest"``: the farthest photo of the anchor's class. ``"easiest"``: the
            nearest. ``"semihard"``: the farthest that is nearer than every photo of another class,
            or the nearest where there is none. ``"paired"``: the one that ``paired`` names.
        negative: ``"hardest"``: the nearest photo of another class. ``"semihard"``: the nearest
            that is farther than the positive by less than ``margin``, or the farthest of all where
            there is none. ``"distance_weighted"``: drawn with probability proportional to
            1 / q(d), q the density of distances between random points on the unit sphere; distances
            below 0.5 count as 0.5 and those above 1.4 are not drawn, unless all are. Meant for
            L2-normalised features.
        sketch_negative: the sketch of another class nearest to the ``"anchor"`` or to the
            ``"positive"`` photo.
        distance: ``"euclidean"``, ``"squared_euclidean"`` or ``"cosine"`` (1 - cosine; a zero row
            has cosine 0).
        margin: of the semi-hard negatives, in units of ``distance``.
        paired: [B_s] int64, the positive's row for ``positive="paired"``; a photo of another class
            or -1 counts as none.
        uniforms: [B_s] float in [0, 1), random numbers for ``negative="distance_weighted"``.
        distinct_negatives: the negative sketch must not be of the negative photo's class, as the
            preset ``"chen2017"`` needs.

    Returns:
        Row indices, -1 where there is no such row, and which anchors have all three.

    Raises:
        ValueError: shapes, devices or options do not fit, or a feature is NaN.
        TypeError: labels or ``paired`` are not int64.

    Source: batch-hard, Hermans et al., arXiv 1703.07737; semi-hard negatives, Schroff et al.,
    arXiv 1503.03832; distance-weighted, Wu et al., arXiv 1706.07567. The fallbacks, the semi-hard
    positive and the choice of the negative sketch are our reading.
    """
    name = "mine_quadruplets"
    _check_features(name, sketches, photos)
    _check_rows(name, "sketch_labels", sketch_labels, len(sketches))
    _check_rows(name, "photo_labels", photo_labels, len(photos))
    _check_choice(name, "positive", positive, Positive)
    _check_choice(name, "negative", negative, Negative)
    _check_choice(name, "sketch_negative", sketch_negative, SketchNegative)
    _check_choice(name, "distance", distance, Distance)
    if not 0 <= margin < math.inf:
        raise ValueError(f"{name}: margin must be finite and not negative, got {margin}")
    if positive == "paired":
        if paired is None:
            raise ValueError(f"{name}: paired must be given for positive='paired', got None")
        _check_rows(name, "paired", paired, len(sketches))
        _check_range(name, paired, len(photos))
    if negative == "distance_weighted" and (uniforms is None or uniforms.shape != (len(sketches),)):
        got = None if uniforms is None else tuple(uniforms.shape)
        raise ValueError(
            f"{name}: uniforms must be [{len(sketches)}] for negative='distance_weighted', "
            f"got {got}"
        )
    return reference.mine_quadruplets(
        sketches,
        photos,
        sketch_labels,
        photo_labels,
        positive=positive,
        negative=negative,
        sketch_negative=sketch_negative,
        distance=distance,
        margin=margin,
        paired=paired,
        uniforms=uniforms,
        distinct_negatives=distinct_negatives,
    )


def quadruplet_loss(
    sketches: Tensor,
    photos: Tensor,
    quadruplets: Quadruplets,
    *,
    weights: Tensor | None = None,
    preset: Preset = "domain_balanced",
    coefficients: Sequence[float] | None = None,
    margins: float | Sequence[float] | None = None,
    cross_modal_share: float = 0.5,
    distance: Distance = "euclidean",
    reduction: Reduction = "mean",
) -> Tensor:
    """Weighted sum of five hinges over quadruplets (sketch, photo+, photo-, sketch-).

    With ``d+`` the distance of sketch and positive photo and ``[x]+ = max(x, 0)``, the hinges are
    ``[d+ - d + margin]+`` with d the distance of h1 (sketch, photo-), h2 (sketch, sketch-),
    h3 (photo+, sketch-), h4 (photo+, photo-), h5 (sketch-, photo-).

    Presets (coefficients of h1 to h5): ``"triplet"`` (1,0,0,0,0); ``"domain_balanced"``
    (1,1,0,0,0), one negative of each modality; ``"cross_symmetric"`` (1,0,1,0,0); ``"full"``
    (1,1,1,1,0); ``"chen2017"`` (1,0,0,0,1), meant for squared distances and
    ``distinct_negatives``; ``"ramln"``, one hinge against the mean distance
    ``(1 - cross_modal_share) d(sketch, sketch-) + cross_modal_share d(sketch, photo-)``.

    A distance of 0 (Euclidean: below 1e-6) passes no gradient.

    Args:
        sketches: [B_s, D] float. float16 and bfloat16 are computed in float32.
        photos: [B_i, D] float.
        quadruplets: rows of ``photos`` and ``sketches``, from :func:`mine_quadruplets`. Anchors
            that are not ``valid`` contribute nothing.
        weights: [B_s] float, factor of each anchor's loss; default 1.
        preset: which hinges take part.
        coefficients: five numbers that replace those of ``preset``.
        margins: one margin or five (``"ramln"`` uses the first); default 0.3, and 0.15 for h5.
        cross_modal_share: of the preset ``"ramln"``, 0 to 1.
        distance: ``"euclidean"``, ``"squared_euclidean"`` or ``"cosine"``.
        reduction: ``"mean"`` over valid anchors, ``"mean_nonzero"`` over valid anchors whose
            hinges are not all 0, ``"sum"``, or ``"none"``, [B_s] with 0 for invalid anchors.
            A mean over nothing is 0.

    Returns:
        Scalar, or [B_s] with ``reduction="none"``.

    Raises:
        ValueError: shapes, devices or options do not fit, or a feature is NaN.

    Source: DM-WAN, arXiv 2511.00925, names the weighted quadruplet loss ("domain-balanced");
    equations (8) and (9) in ``docs/methods.md`` and the default preset are our reading.
    ``"chen2017"``: Chen et al., arXiv 1704.01719; ``"ramln"``: arXiv 2412.00120.
    """
    name = "quadruplet_loss"
    _check_features(name, sketches, photos)
    for field in Quadruplets._fields[:3]:
        _check_rows(name, f"quadruplets.{field}", getattr(quadruplets, field), len(sketches))
    if weights is not None and weights.shape != (len(sketches),):
        raise ValueError(f"{name}: weights must be [{len(sketches)}], got {tuple(weights.shape)}")
    _check_choice(name, "preset", preset, Preset)
    _check_choice(name, "distance", distance, Distance)
    _check_choice(name, "reduction", reduction, Reduction)
    if not 0 <= cross_modal_share <= 1:
        raise ValueError(f"{name}: cross_modal_share must be in [0, 1], got {cross_modal_share}")
    single_hinge = preset == "ramln" and coefficients is None
    default_coefficients, default_margins = PRESETS["triplet" if preset == "ramln" else preset]
    return reference.quadruplet_loss(
        sketches,
        photos,
        quadruplets,
        weights=weights,
        coefficients=_five(name, "coefficients", coefficients, default_coefficients),
        margins=_five(name, "margins", margins, default_margins),
        cross_modal_share=cross_modal_share if single_hinge else None,
        distance=distance,
        reduction=reduction,
    )


def _five(
    function: str, argument: str, values: float | Sequence[float] | None, default: Five
) -> Five:
    if values is None:
        return default
    five = (values,) * 5 if isinstance(values, (int, float)) else tuple(values)
    if len(five) != 5 or not all(math.isfinite(value) and value >= 0 for value in five):
        raise ValueError(
            f"{function}: {argument} must be five finite numbers, none negative, got {values}"
        )
    return five


def _check_features(function: str, sketches: Tensor, photos: Tensor) -> None:
    for argument, features in (("sketches", sketches), ("photos", photos)):
        if features.ndim != 2:
            raise ValueError(f"{function}: {argument} must be [B, D], got {tuple(features.shape)}")
    if sketches.shape[1] != photos.shape[1]:
        raise ValueError(
            f"{function}: photos must be {sketches.shape[1]} wide like sketches, "
            f"got {photos.shape[1]}"
        )
    if sketches.device != photos.device:
        raise ValueError(
            f"{function}: photos must be on {sketches.device} like sketches, got {photos.device}"
        )
    if torch.compiler.is_compiling():  # reading a value would break the graph
        return
    for argument, features in (("sketches", sketches), ("photos", photos)):
        bad = features.detach().isnan().any(1)
        if bad.any():
            raise ValueError(
                f"{function}: {argument} must not be NaN, got NaN in row {int(bad.nonzero()[0])}"
            )


def _check_rows(function: str, argument: str, rows: Tensor, count: int) -> None:
    if rows.dtype != torch.int64:
        raise TypeError(f"{function}: {argument} must be int64, got {rows.dtype}")
    if rows.shape != (count,):
        raise ValueError(f"{function}: {argument} must be [{count}], got {tuple(rows.shape)}")


def _check_range(function: str, paired: Tensor, photos: int) -> None:
    if torch.compiler.is_compiling():
        return
    outside = paired[(paired < -1) | (paired >= photos)]
    if len(outside):
        raise ValueError(f"{function}: paired must be in [-1, {photos}), got {int(outside[0])}")


def _check_choice(function: str, argument: str, value: str, choices: object) -> None:
    known = get_args(choices)
    if value not in known:
        raise ValueError(f"{function}: {argument} must be one of {', '.join(known)}, got {value!r}")
