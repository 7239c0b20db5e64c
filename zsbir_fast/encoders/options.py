"""The settings of an image encoder, as every method that has one takes them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from zsbir_fast._arguments import as_integer, as_number, check_choice, check_flag
from zsbir_fast._words import shown

if TYPE_CHECKING:
    from zsbir_fast.encoders.encoder import Encoder
    from zsbir_fast.encoders.modality_encoder import ModalityEncoder

TuningMode = Literal["full", "norm", "frozen", "lora", "shallow_prompts", "deep_prompts"]

_MOST_PROMPTS = 1000
_MOST_RANK = 4096


@dataclass(frozen=True)
class TuningOptions:
    """What of an encoder is trained; the rest stays as it was pre-trained.

    Attributes:
        mode: ``"full"``: everything. ``"norm"``: scale and shift of layer norm, batch norm and
            group norm alone. ``"frozen"``: nothing; only what a method puts on top of the encoder
            is trained (linear probe). ``"lora"``: low-rank additions to the weights of chosen
            layers. ``"shallow_prompts"``: learned tokens that join the patches before the first
            block of a vision transformer. ``"deep_prompts"``: fresh ones before every block.
        lora_rank: rank of the additions, 1 to 4096.
        lora_alpha: the additions are multiplied by ``lora_alpha / lora_rank``; above 0.
        lora_dropout: share of a layer's inputs that the addition does not see in training, from 0
            to below 1.
        lora_targets: ends of the names of the layers that get additions, such as ``attn.qkv`` or
            ``mlp.fc1``; None: the projections of the attention to queries, keys and values, and
            its output. Vision towers of open_clip have ``attn.qkv`` and ``attn.proj``, too.
        prompt_tokens: learned tokens, of every block with ``"deep_prompts"``; 1 to 1000.
        per_modality: one set of norms, additions or prompts for sketches and another one for
            photos, over one frozen body.

    Raises:
        ValueError: an unknown mode, a number out of range, or ``per_modality`` with a mode that
            has no such set.
        TypeError: a value of another type.

    Source: LoRA: Hu et al., arXiv 2106.09685. Prompts: Jia et al., "Visual Prompt Tuning",
    arXiv 2203.12119. One prompt for sketches and one for photos, and norms alone: Sain et al.,
    "CLIP for All Things Zero-Shot Sketch-Based Image Retrieval", arXiv 2303.13440.
    """

    mode: TuningMode = "full"
    lora_rank: int = 8
    lora_alpha: float = 16.0
    lora_dropout: float = 0.0
    lora_targets: list[str] | None = None
    prompt_tokens: int = 10
    per_modality: bool = False

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        name = type(self).__name__
        check_choice(name, "mode", self.mode, TuningMode)
        as_integer(name, "lora_rank", self.lora_rank, least=1, most=_MOST_RANK)
        as_integer(name, "prompt_tokens", self.prompt_tokens, least=1, most=_MOST_PROMPTS)
        alpha = as_number(name, "lora_alpha", self.lora_alpha)
        if not 0 < alpha < math.inf:
            raise ValueError(f"{name}: lora_alpha must be above 0 and finite, got {alpha}")
        dropout = as_number(name, "lora_dropout", self.lora_dropout)
        if not 0 <= dropout < 1:
            raise ValueError(f"{name}: lora_dropout must be from 0 to below 1, got {dropout}")
        targets = self.lora_targets
        if targets is not None and not (
            isinstance(targets, (list, tuple))
            and targets
            and all(isinstance(each, str) and each for each in targets)
        ):
            raise ValueError(
                f"{name}: lora_targets must be None or a list of names, got {shown(targets)}"
            )
        check_flag(name, "per_modality", self.per_modality)
        if self.per_modality and self.mode in ("full", "frozen"):
            instead = "; shared=False trains two encoders" if self.mode == "full" else ""
            raise ValueError(
                f"{name}: mode must be norm, lora, shallow_prompts or deep_prompts with "
                f"per_modality=True, got {self.mode!r}{instead}"
            )


@dataclass(frozen=True)
class EncoderOptions:
    """Which image encoder, the weights that it starts from, and what of it is trained.

    Attributes:
        name: encoder name, see :func:`zsbir_fast.build_encoder`.
        weights: a tag of the model zoo, a local file, or ``random``.
        image_size: side of the images in pixels; default: the size that the encoder expects.
        freeze_batch_norm: keep the running statistics of batch norm as they are, in training, too.
        tuning: what of it is trained.
        shared: one encoder for sketches and photos. False: two, which start from the same weights.

    Raises:
        ValueError: ``tuning.per_modality`` with two encoders, or open batch norm in an encoder
            whose body is frozen.
        TypeError: ``tuning`` or ``shared`` is of another type.
    """

    name: str = "bundled:mobilenet_v2"
    weights: str | None = "imagenet"
    image_size: int | None = None
    freeze_batch_norm: bool = True
    tuning: TuningOptions = TuningOptions()
    shared: bool = True

    def __post_init__(self) -> None:
        """Refuse settings that contradict each other."""
        check_flag("EncoderOptions", "shared", self.shared)
        if not isinstance(self.tuning, TuningOptions):
            raise TypeError(
                f"EncoderOptions: tuning must be TuningOptions, got {shown(self.tuning)}"
            )
        if self.tuning.per_modality and not self.shared:
            raise ValueError(
                "EncoderOptions: shared must be True with tuning.per_modality, got False: two "
                "encoders have parts of their own in any case"
            )
        if self.tuning.mode not in ("full", "norm") and not self.freeze_batch_norm:
            raise ValueError(
                "EncoderOptions: freeze_batch_norm must be True with tuning.mode "
                f"{self.tuning.mode!r}, which changes nothing of the pre-trained encoder, got False"
            )

    def build(self, *, head: bool = False) -> Encoder:
        """Build the plain encoder, as it is before anything is tuned.

        Args:
            head: keep the layer with the ImageNet classes, see :attr:`Encoder.head`.

        Raises:
            ValueError, TypeError, FileNotFoundError, RuntimeError: as
                :func:`zsbir_fast.build_encoder`.
        """
        from zsbir_fast.encoders.build import build_encoder

        return build_encoder(
            self.name,
            weights=self.weights,
            image_size=self.image_size,
            freeze_batch_norm=self.freeze_batch_norm,
            head=head,
        )

    def build_for_modalities(self, *, head: bool = False) -> ModalityEncoder:
        """Build what encodes sketches and photos: one encoder or two, tuned as ``tuning`` says.

        Args:
            head: keep the layer with the ImageNet classes, see :attr:`Encoder.head`.

        Returns:
            It in training mode; parameters that are not trained have ``requires_grad=False``.

        Raises:
            ValueError: the encoder has no norm with a scale, no layer that ``lora_targets``
                names, or no plain sequence of patch tokens for prompts; and all that
                :func:`zsbir_fast.build_encoder` refuses.
            TypeError, FileNotFoundError, RuntimeError: as :func:`zsbir_fast.build_encoder`.
        """
        from zsbir_fast.encoders.modality_encoder import ModalityEncoder
        from zsbir_fast.encoders.tuning import tune_encoder

        encoder = self.build(head=head)
        text = tune_encoder(encoder, self.tuning)
        return ModalityEncoder(
            encoder, shared=self.shared, per_modality=self.tuning.per_modality, tuned=text
        )

    @property
    def is_pretrained(self) -> bool:
        """Whether it starts from weights, not from random numbers."""
        return self.weights not in (None, "random")
