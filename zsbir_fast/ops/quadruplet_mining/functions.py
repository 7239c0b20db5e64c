"""Quadruplet mining across modalities, and the weighted quadruplet loss."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from zsbir_fast._arguments import (
    as_integer,
    as_margin,
    as_share,
    check_choice,
)
from zsbir_fast._types import Integers
from zsbir_fast.ops._checks import (
    Impl,
    as_labels,
    check_features,
    check_one_device,
    kind_of,
    nan_unless_finite,
    unseen,
)
from zsbir_fast.ops._library import refuse_transforms
from zsbir_fast.ops.quadruplet_mining.inputs import (
    check_beside,
    check_paired,
    check_uniforms,
    check_weights,
    five_numbers,
)
from zsbir_fast.ops.quadruplet_mining.mining import Batch, MiningOptions, mine
from zsbir_fast.ops.quadruplet_mining.pair_distances import kernel_rows
from zsbir_fast.ops.quadruplet_mining.quadruplet_hinges import quadruplet_hinges
from zsbir_fast.reference import quadruplet_mining as reference
from zsbir_fast.reference.quadruplet_mining import (
    MARGINS,
    PRESETS,
    Distance,
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
    sketch_labels: Integers,
    photo_labels: Integers,
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
    sketch_reference_labels: Integers | None = None,
    positive_photos: int | None = None,
    impl: Impl = "fused",
) -> Quadruplets:
    """Choose for every sketch a photo of its class, and a photo and a sketch of other classes.

    Among equal distances the lowest index is chosen. No gradient flows through the choice. No
    matrix of distances is stored: the extra memory is O(B D) and a workspace of 8 MiB (CUDA: 32) or
    half the size of the references, so that ``photos`` and ``sketch_references`` may hold a bank
    of many past features. Products of blocks of rows, in TF32 or bfloat16 where that is faster,
    only decide which distances are summed; the choices do not depend on them.

    Args:
        sketches: [B_s, D] float, the anchors. float16 and bfloat16 are compared in float32.
        photos: [B_i, D] float.
        sketch_labels: [B_s] of any integer type; arrays and lists, too.
        photo_labels: [B_i] likewise.
        positive: ``"hardest"``: the farthest photo of the anchor's class. ``"easiest"``: the
            nearest. ``"semihard"``: the farthest that is nearer than every photo of another class,
            or the nearest where there is none. ``"paired"``: the one that ``paired`` names.
        negative: ``"hardest"``: the nearest photo of another class. ``"semihard"``: the nearest
            that is farther than the positive by less than ``margin``, or the farthest of all where
            there is none. ``"distance_weighted"``: drawn with probability proportional to
            1 / q(d), q the density of distances between random points on the unit sphere; distances
            below 0.5 count as 0.5 and those above 1.4 are not drawn, unless all are. Meant for
            L2-normalised features. ``"random"``: any photo of another class, all equally likely.
        sketch_negative: the sketch of another class nearest to the ``"anchor"`` or to the
            ``"positive"`` photo; ``"random"``: any, all equally likely; ``"none"``: no sketch
            negative is mined; its index is -1.
        distance: ``"euclidean"``, ``"squared_euclidean"`` or ``"cosine"`` (1 - cosine; a zero row
            has cosine 0).
        margin: of the semi-hard negatives, in units of ``distance``.
        paired: [B_s] int64, the positive's row for ``positive="paired"``; a photo of another class
            or -1 counts as none, and so does a row that does not exist where it is not looked at
            (on CUDA, which would wait, and in compiled code).
        uniforms: [B_s] float in [0, 1), random numbers for ``negative="distance_weighted"`` and
            ``"random"``; where they are not looked at (on CUDA, in compiled code), one that is NaN
            or 1 at least counts as the largest below 1, and a negative one as 0.
        sketch_uniforms: [B_s] likewise, for ``sketch_negative="random"``.
        distinct_negatives: the negative sketch must not be of the negative photo's class, as the
            preset ``"chen2017"`` needs.
        sketch_references: [M, D] float, the sketches that negatives are chosen from; default: the
            anchors themselves.
        sketch_reference_labels: [M] integers, their labels.
        positive_photos: only the first ``positive_photos`` photos may be positives (the others are
            a bank); default: all.
        impl: ``"fused"``: the kernels. ``"reference"``: plain PyTorch, which stores the distances.

    Returns:
        Row indices, -1 where there is no such row, and which anchors have all three.

    Raises:
        ValueError: shapes, devices or options do not fit, or a feature is not finite (looked at on
            the CPU in eager mode only).
        TypeError: something is no dense tensor, labels are not integers, ``paired`` is not int64,
            or features are not floating point or of different dtypes.
        NotImplementedError: fused, under a ``torch.func`` transform or in forward-mode
            differentiation.

    Source: batch-hard, Hermans et al., arXiv 1703.07737; semi-hard negatives, Schroff et al.,
    arXiv 1503.03832; distance-weighted, Wu et al., arXiv 1706.07567. The fallbacks, the semi-hard
    positive and the choice of the negative sketch are our reading.
    """
    name = "mine_quadruplets"
    check_choice(name, "impl", impl, Impl)
    if impl == "fused":
        refuse_transforms(name, sketches, photos, sketch_references)
    check_features(name, sketches=sketches, photos=photos)
    if sketch_references is not None:
        check_features(name, sketches=sketches, sketch_references=sketch_references)
        if sketch_reference_labels is None:
            raise ValueError(
                f"{name}: sketch_reference_labels must be given with sketch_references, got None"
            )
        sketch_reference_labels = as_labels(
            name,
            "sketch_reference_labels",
            sketch_reference_labels,
            len(sketch_references),
            "sketch_references",
            sketch_references,
        )
    elif sketch_reference_labels is not None:
        raise ValueError(
            f"{name}: sketch_references must be given with sketch_reference_labels, got None"
        )
    if positive_photos is not None:
        positive_photos = as_integer(
            name, "positive_photos", positive_photos, least=0, most=len(photos)
        )
    sketch_labels = as_labels(
        name, "sketch_labels", sketch_labels, len(sketches), "sketches", sketches
    )
    photo_labels = as_labels(name, "photo_labels", photo_labels, len(photos), "photos", photos)
    check_choice(name, "positive", positive, Positive)
    check_choice(name, "negative", negative, Negative)
    check_choice(name, "sketch_negative", sketch_negative, SketchNegative)
    check_choice(name, "distance", distance, Distance)
    margin = as_margin(name, margin)
    if positive == "paired":
        if paired is None:
            raise ValueError(f"{name}: paired must be given for positive='paired', got None")
        check_beside(name, "paired", paired, "sketches", sketches)
        check_paired(name, paired, len(photos))
    drawn = negative in ("distance_weighted", "random")
    for argument, numbers, needed, mode in (
        ("uniforms", uniforms, drawn, f"negative={negative!r}"),
        (
            "sketch_uniforms",
            sketch_uniforms,
            sketch_negative == "random",
            "sketch_negative='random'",
        ),
    ):
        if needed or numbers is not None:
            check_uniforms(name, argument, numbers, mode, "sketches", sketches)
    references = sketches if sketch_references is None else sketch_references
    reference_labels = sketch_labels if sketch_reference_labels is None else sketch_reference_labels
    options = MiningOptions(
        positive, negative, sketch_negative, distance, margin, distinct_negatives, positive_photos
    )
    if impl == "reference" or negative == "distance_weighted":
        return reference.mine_quadruplets(
            sketches,
            photos,
            sketch_labels,
            photo_labels,
            paired=paired,
            uniforms=uniforms,
            sketch_uniforms=sketch_uniforms,
            sketch_references=references,
            sketch_reference_labels=reference_labels,
            **options._asdict(),
        )
    batch = Batch(
        kernel_rows(sketches.detach(), distance),
        kernel_rows(photos.detach(), distance),
        kernel_rows(references.detach(), distance),
        sketch_labels,
        photo_labels,
        reference_labels,
        paired,
        uniforms,
        sketch_uniforms,
    )
    with torch.no_grad():
        return mine(batch, options)


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
    sketch_references: Tensor | None = None,
    impl: Impl = "fused",
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
        weights: [B_s] float, factor of each anchor's loss; default 1. Finite, may be negative.
        preset: which hinges take part.
        coefficients: five numbers that replace those of ``preset``.
        margins: one margin or five (``"ramln"`` uses the first); default 0.3, and 0.15 for h5.
        cross_modal_share: of the preset ``"ramln"``, 0 to 1.
        distance: ``"euclidean"``, ``"squared_euclidean"`` or ``"cosine"``.
        reduction: ``"mean"`` over valid anchors, ``"mean_nonzero"`` over valid anchors whose
            hinges are not all 0, ``"sum"``, or ``"none"``, [B_s] with 0 for invalid anchors.
            A mean over nothing is 0.
        sketch_references: [M, D] float, whose rows ``quadruplets.sketch_negative`` names; default:
            ``sketches``.
        impl: ``"fused"``: the kernels. ``"reference"``: plain PyTorch.

    Returns:
        Scalar, or [B_s] with ``reduction="none"``.

    Raises:
        ValueError: shapes, devices or options do not fit, a feature or weight is not finite, or a
            valid quadruplet names a row that does not exist. On CUDA and in compiled code values
            are not looked at: then such a feature or weight makes the loss and gradients NaN.
        TypeError: something is no dense tensor, features or weights are not floating point or of
            different dtypes, indices are not int64, or ``valid`` is not bool.
        NotImplementedError: fused, under a ``torch.func`` transform or in forward-mode
            differentiation; second derivatives raise it in the backward pass.

    Source: DM-WAN, arXiv 2511.00925, names the weighted quadruplet loss ("domain-balanced");
    equations (8) and (9) in ``docs/methods.md`` and the default preset are our reading.
    ``"chen2017"``: Chen et al., arXiv 1704.01719; ``"ramln"``: arXiv 2412.00120.
    """
    name = "quadruplet_loss"
    check_choice(name, "impl", impl, Impl)
    if impl == "fused":
        refuse_transforms(name, sketches, photos, weights, sketch_references)
    check_features(name, sketches=sketches, photos=photos)
    if sketch_references is not None:
        check_features(name, sketches=sketches, sketch_references=sketch_references)
    if not isinstance(quadruplets, tuple) or len(quadruplets) != len(Quadruplets._fields):
        raise TypeError(f"{name}: quadruplets must be Quadruplets, got {kind_of(quadruplets)}")
    for field, rows in zip(Quadruplets._fields, quadruplets, strict=True):
        dtype = torch.bool if field == "valid" else torch.int64
        check_beside(name, f"quadruplets.{field}", rows, "sketches", sketches, dtype)
    if weights is not None:
        check_weights(name, weights, len(sketches))
        check_one_device(name, sketches=sketches, weights=weights)
    check_choice(name, "preset", preset, Preset)
    check_choice(name, "distance", distance, Distance)
    check_choice(name, "reduction", reduction, Reduction)
    cross_modal_share = as_share(name, "cross_modal_share", cross_modal_share)
    single_hinge = preset == "ramln" and coefficients is None
    default = PRESETS["triplet" if preset == "ramln" else preset]
    five = (
        five_numbers(name, "coefficients", coefficients, default),
        five_numbers(name, "margins", margins, MARGINS),
    )
    references = sketches if sketch_references is None else sketch_references
    needs_sketch = single_hinge or any(five[0][k] > 0 for k in (1, 2, 4))
    quadruplets = _within_range(name, quadruplets, len(photos), len(references), needs_sketch)
    hinges_of = quadruplet_hinges if impl == "fused" else reference.quadruplet_hinges
    hinges = hinges_of(
        sketches,
        photos,
        references,
        quadruplets,
        coefficients=five[0],
        margins=five[1],
        cross_modal_share=cross_modal_share if single_hinge else None,
        distance=distance,
    )
    loss = reference.reduce_hinges(hinges, quadruplets.valid, weights, reduction)
    return nan_unless_finite(loss, sketches, photos, sketch_references, weights)


def _within_range(
    name: str, quadruplets: Quadruplets, photos: int, references: int, needs_sketch: bool
) -> Quadruplets:
    """Count anchors as invalid whose rows do not exist, so that no kernel reads beyond its input.

    Raises:
        ValueError: a valid anchor names a row that does not exist; on CUDA, where looking would
            wait for the GPU, and in compiled code, such an anchor is left out instead.
    """
    positive, photo_negative, sketch_negative, valid = quadruplets
    chosen = (positive, photo_negative, sketch_negative)
    lowest = (0, 0, 0 if needs_sketch else -1)
    inside = valid
    for row, least, count in zip(chosen, lowest, (photos, photos, references), strict=True):
        inside = inside & (row >= least) & (row < count)
    if not unseen(valid) and not torch.equal(valid, inside):
        anchor = int((valid & ~inside).nonzero()[0])
        raise ValueError(
            f"{name}: quadruplets must name rows that exist where they are valid, anchor {anchor} "
            f"got {tuple(int(x[anchor]) for x in chosen)} for {photos} photos and "
            f"{references} sketches"
        )
    return Quadruplets(positive, photo_negative, sketch_negative, inside)
