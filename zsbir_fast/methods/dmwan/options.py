"""The settings of DM-WAN in groups: the weights of pairs, the quadruplet loss, the loss terms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from zsbir_fast._arguments import as_integer, as_share, check_choice
from zsbir_fast._words import shown
from zsbir_fast.reference.quadruplet_mining import (
    Distance,
    Negative,
    Positive,
    Preset,
    Reduction,
    SketchNegative,
)
from zsbir_fast.reference.token_weighting import Beta, Combine, WeightForm
from zsbir_fast.text.prompts import PHOTO
from zsbir_fast.text.sources import Whole

if TYPE_CHECKING:
    from zsbir_fast.text.class_text import ClassText

Kind = Literal["text", "pairwise"]
Projections = Literal["learned", "identity"]
GlobalBlock = Literal["attention", "global_feature"]
PairScore = Literal["best_match", "relation"]


@dataclass(frozen=True)
class WeightingOptions:
    """How well a sketch and a photo fit each other, and the weight that this gives them.

    Attributes:
        kind: ``"text"``: words attend over patches, equations (1) to (5). ``"pairwise"``: the
            second reading, patches against patches without text.
        text_source: source of the class text, see :class:`zsbir_fast.ClassText`.
        prompts: the bundled sentences that are read, a name that ``ClassText`` takes; None: all of
            them from ``"glove:sentences"``, none from the other sources.
        prompt: template with ``{}`` for the class name, of open_clip sources without ``prompts``.
        sketch_prompt: another template for sketches, which then meet a text of their own; open_clip
            without ``prompts`` only. None: sketches and photos meet one text.
        whole: what stands for the class as a whole where there are sentences, ``"name"`` or
            ``"sentences"``; default: that of the source.
        max_tokens: tokens per class at most; default: that of the source.
        text_layers: layers of a transformer of width ``width`` over the words of a class, trained
            with the projections; 0: none.
        text_heads: heads of each of these layers.
        projections: ``"learned"``: W_q, W_k and W_u. ``"identity"``: none, for texts and patches
            that are in one space, as those of CLIP; the weights then have no parameters.
        width: common width of the learned projections.
        attention_temperature: of the words' attention over patches, on top of sqrt(width).
        beta: weights of the words in the local score.
        global_block: what equation (5) compares: patches pooled by the attention of the whole
            text (``"attention"``), or the encoder's global feature behind a projection W_g of its
            own (``"global_feature"``).
        pair_score: of the kind ``"pairwise"``, the local score: each patch of the sketch against
            its best match (``"best_match"``), or the relation network of ZSE-SBIR on the cosines
            of all patches (``"relation"``), which learns from the term ``relation``.
        anchor: of the kind ``"pairwise"``: share of the class anchor in the global score, the
            mean cosine of the two global features with the class text as a whole; for encoders
            and texts that are in one space.
        combine: ``"sum"``: the quality of a pair is the mean of local and global score by ``mix``.
            ``"product"``: the product of both, each brought to [0, 1] by (1 + x) / 2.
        mix: share of the local score in a pair's quality.
        form: how qualities become weights, see :func:`zsbir_fast.alignment_weights`.
        temperature: temperature of that form.
        detach: the weights pass no gradient; the projections learn from the term ``align``.

    Raises:
        ValueError: an unknown choice, a number out of range, or options that exclude each other.
    """

    kind: Kind = "text"
    text_source: str = "glove"
    prompts: str | None = None
    prompt: str = PHOTO
    sketch_prompt: str | None = None
    whole: Whole | None = None
    max_tokens: int | None = None
    text_layers: int = 0
    text_heads: int = 4
    projections: Projections = "learned"
    width: int = 256
    attention_temperature: float = 1.0
    beta: Beta = "uniform"
    global_block: GlobalBlock = "attention"
    pair_score: PairScore = "best_match"
    anchor: float = 0.0
    combine: Combine = "sum"
    mix: float = 0.5
    form: WeightForm = "softmax"
    temperature: float = 0.5
    detach: bool = True

    def __post_init__(self) -> None:
        """Refuse unknown choices, and options that exclude each other."""
        check_choice("DMWAN", "weighting.kind", self.kind, Kind)
        check_choice("DMWAN", "weighting.projections", self.projections, Projections)
        check_choice("DMWAN", "weighting.global_block", self.global_block, GlobalBlock)
        check_choice("DMWAN", "weighting.pair_score", self.pair_score, PairScore)
        check_choice("DMWAN", "weighting.combine", self.combine, Combine)
        as_share("DMWAN", "weighting.anchor", self.anchor)
        as_integer("DMWAN", "weighting.text_layers", self.text_layers, least=0)
        self._refuse_options_of_the_other_kind()
        if self.combine == "product" and self.mix != 0.5:
            raise ValueError(
                "DMWAN: weighting.mix must be 0.5 for weighting.combine='product', which has no "
                f"shares, got {self.mix}"
            )
        if self.projections == "identity" and self.text_layers:
            raise ValueError(
                "DMWAN: weighting.text_layers must be 0 for weighting.projections='identity', as a "
                f"new transformer leaves the space of the patches, got {self.text_layers}"
            )
        one_sentence = self.text_source.startswith("open_clip:") and self.prompts is None
        if self.sketch_prompt is not None and not one_sentence:
            raise ValueError(
                "DMWAN: weighting.sketch_prompt must be None unless weighting.text_source is "
                f"'open_clip:<model>' without prompts, got {shown(self.sketch_prompt)} for "
                f"{shown(self.text_source)}"
            )

    def _refuse_options_of_the_other_kind(self) -> None:
        of_kind: dict[Kind, dict[str, object]] = {
            "text": {
                "projections": "learned",
                "global_block": "attention",
                "text_layers": 0,
                "sketch_prompt": None,
            },
            "pairwise": {"pair_score": "best_match", "anchor": 0.0},
        }
        for kind, defaults in of_kind.items():
            for name, default in defaults.items():
                if kind != self.kind and getattr(self, name) != default:
                    raise ValueError(
                        f"DMWAN: weighting.{name} must be {default!r} for weighting.kind="
                        f"{self.kind!r}, got {shown(getattr(self, name))}"
                    )

    @property
    def reads_text(self) -> bool:
        """Whether class text takes part."""
        return self.kind == "text" or self.anchor > 0

    def texts(self, classes: Sequence[str]) -> tuple[ClassText, ClassText | None]:
        """Read the class text.

        Args:
            classes: class names.

        Returns:
            The text, and that of sketches where they have one of their own.

        Raises:
            ValueError, TypeError, RuntimeError: as :class:`zsbir_fast.ClassText`.
        """
        from zsbir_fast.text.class_text import ClassText

        def read(prompt: str) -> ClassText:
            return ClassText(
                classes,
                source=self.text_source,
                prompt=prompt,
                prompts=self.prompts,
                whole=self.whole,
                max_tokens=self.max_tokens,
            )

        own = None if self.sketch_prompt is None else read(self.sketch_prompt)
        return read(self.prompt), own


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
        relation: the relation network of ``weighting.pair_score="relation"``: its squared error
            for the pairs that are weighed and for pairs of two classes, equation (12) of CMAAN.
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
    relation: float = 0.0
    contrastive: float = 0.0
    contrastive_temperature: float = 0.1
    distill: float = 0.0

    def __post_init__(self) -> None:
        """Refuse negative factors."""
        for name in ("quadruplet", "cls", "align", "relation", "contrastive", "distill"):
            if not getattr(self, name) >= 0:
                raise ValueError(
                    f"DMWAN: terms.{name} must not be negative, got {getattr(self, name)}"
                )
