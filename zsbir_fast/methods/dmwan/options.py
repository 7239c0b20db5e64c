"""The settings of DM-WAN in groups: the weights of pairs, the quadruplet loss, the loss terms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from zsbir_fast._arguments import check_choice
from zsbir_fast.reference.quadruplet_mining import (
    Distance,
    Negative,
    Positive,
    Preset,
    Reduction,
    SketchNegative,
)
from zsbir_fast.reference.token_weighting import Beta, WeightForm

Kind = Literal["text", "pairwise"]


@dataclass(frozen=True)
class WeightingOptions:
    """How well a sketch and a photo fit each other, and the weight that this gives them.

    Attributes:
        kind: ``"text"``: words attend over patches, equations (1) to (5). ``"pairwise"``: the
            second reading, patches against patches without text.
        text_source: source of the class text, see :class:`zsbir_fast.ClassText`.
        width: common width of the text and patch projections.
        attention_temperature: of the words' attention over patches, on top of sqrt(width).
        beta: weights of the words in the local score.
        mix: share of the local score in a pair's quality.
        form: how qualities become weights, see :func:`zsbir_fast.alignment_weights`.
        temperature: temperature of that form.
        detach: the weights pass no gradient; the projections learn from the term ``align``.

    Raises:
        ValueError: an unknown choice.
    """

    kind: Kind = "text"
    text_source: str = "glove"
    width: int = 256
    attention_temperature: float = 1.0
    beta: Beta = "uniform"
    mix: float = 0.5
    form: WeightForm = "softmax"
    temperature: float = 0.5
    detach: bool = True

    def __post_init__(self) -> None:
        """Refuse another kind."""
        check_choice("DMWAN", "weighting.kind", self.kind, Kind)


@dataclass(frozen=True)
class QuadrupletOptions:
    """The weighted quadruplet loss, see :class:`zsbir_fast.WeightedQuadrupletLoss`.

    Attributes:
        preset: which hinges take part.
        positive: choice of the positive photo; the weight is that of the sketch and this photo.
        negative: choice of the negative photo.
        sketch_negative: choice of the negative sketch; default: the preset's.
        margins: one margin or five; default: the preset's.
        coefficients: five factors of the hinges that replace those of ``preset``.
        cross_modal_share: of the preset ``"ramln"``.
        distance: ``"euclidean"``, ``"squared_euclidean"`` or ``"cosine"``.
        normalize: L2-normalise the features first.
        symmetric: photos are anchors, too.
        reduction: ``"mean"``, ``"mean_nonzero"`` or ``"sum"``.
        memory: ours; past features of each modality (up to 65,536) that serve as further
            negatives, see :class:`zsbir_fast.CrossBatchMemory`; 0: none.

    Raises:
        ValueError: a choice that leaves no single loss to train on, or a negative memory.
    """

    preset: Preset = "domain_balanced"
    positive: Positive = "hardest"
    negative: Negative = "hardest"
    sketch_negative: SketchNegative | None = None
    margins: float | Sequence[float] | None = None
    coefficients: Sequence[float] | None = None
    cross_modal_share: float = 0.5
    distance: Distance = "euclidean"
    normalize: bool = True
    symmetric: bool = False
    reduction: Reduction = "mean"
    memory: int = 0

    def __post_init__(self) -> None:
        """Refuse options that the loss knows and a training step cannot use."""
        # "all" mines no pairs that could be weighed.
        check_choice("DMWAN", "loss.negative", self.negative, Negative)
        if self.reduction == "none":
            raise ValueError("DMWAN: loss.reduction must be mean, mean_nonzero or sum, got 'none'")
        if self.memory < 0:
            raise ValueError(f"DMWAN: loss.memory must not be negative, got {self.memory}")


@dataclass(frozen=True)
class TermOptions:
    """Factors of the terms of the loss, and their temperatures. A factor of 0 leaves a term out.

    Attributes:
        quadruplet: the weighted quadruplet loss.
        cls: the cosine classification of the seen classes.
        cls_temperature: its temperature.
        align: the InfoNCE loss between the pooled features of the pairs.
        align_temperature: its temperature.
        contrastive: ours; a supervised contrastive loss on the embeddings.
        contrastive_temperature: its temperature.
        distill: ours; 1 - cosine between a photo's features and those of the encoder as it was
            before training.

    Raises:
        ValueError: a negative factor.
    """

    quadruplet: float = 1.0
    cls: float = 0.5
    cls_temperature: float = 0.05
    align: float = 1.0
    align_temperature: float = 0.1
    contrastive: float = 0.0
    contrastive_temperature: float = 0.1
    distill: float = 0.0

    def __post_init__(self) -> None:
        """Refuse negative factors."""
        for name in ("quadruplet", "cls", "align", "contrastive", "distill"):
            if not getattr(self, name) >= 0:
                raise ValueError(
                    f"DMWAN: terms.{name} must not be negative, got {getattr(self, name)}"
                )
