"""DM-WAN: dynamic multi-level weighted alignment network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zsbir_fast.losses.alignment import alignment_loss, supervised_contrastive_loss
from zsbir_fast.losses.classification import CosineClassifier
from zsbir_fast.losses.weighted_quadruplet import WeightedQuadrupletLoss
from zsbir_fast.models.encoders import Features, build_encoder
from zsbir_fast.models.pair_weighting import PairAlignment, PatchWeighting, TextWeighting
from zsbir_fast.models.regularisers import DomainMeans, FrozenCopy
from zsbir_fast.ops.token_weighting import alignment_weights
from zsbir_fast.reference.quadruplet_mining import Negative, Positive, Preset
from zsbir_fast.reference.token_weighting import Beta, WeightForm

if TYPE_CHECKING:
    from zsbir_fast.text.class_text import ClassText

Modality = Literal["sketch", "photo"]


class DMWAN(nn.Module):
    """Embeds sketches and photos with one shared encoder, trained by weighted quadruplets.

    In training every sketch-photo pair of a batch gets a weight from how well its patches fit the
    words of its class (local block) and the class text as a whole (global block); the weight
    multiplies the pair's quadruplet loss. At inference there is no text: images are embedded by
    the encoder and ranked by cosine.

    The public abstract of the paper fixes these modules. Their equations are our reading; the
    arguments marked "ours" are additions that the paper does not mention. See ``docs/methods.md``.

    Args:
        classes: names of the seen classes; labels index them.
        encoder: encoder name, see :func:`zsbir_fast.build_encoder`.
        weights: encoder weights.
        image_size: side of the images in pixels; default: what the encoder expects.
        weighting: ``"text"``: words attend over patches, equations (1) to (5). ``"pairwise"``: the
            second reading, patches against patches without text.
        text_source: source of the class text, see :class:`zsbir_fast.ClassText`.
        text: class text that was made before, for the same classes; replaces ``text_source``.
        width: common width of the text and patch projections.
        attention_temperature: of the words' attention over patches, on top of sqrt(width).
        beta: weights of the words in the local score.
        mix: share of the local score in a pair's quality.
        weight_form: how qualities become weights, see :func:`zsbir_fast.alignment_weights`.
        weight_temperature: temperature of that form.
        detach_weights: the weights pass no gradient; the projections learn from ``lambda_align``.
        preset: hinges of the quadruplet loss.
        positive: choice of the positive photo; the weight is that of the sketch and this photo.
        negative: choice of the negative photo.
        margins: one margin or five; default: the preset's.
        symmetric: photos are anchors, too.
        lambda_quadruplet: factor of the weighted quadruplet loss.
        lambda_cls: factor of the cosine classification of the seen classes.
        cls_temperature: its temperature.
        lambda_align: factor of the InfoNCE loss between the pooled features of the pairs.
        align_temperature: its temperature.
        lambda_contrastive: ours; factor of a supervised contrastive loss on the embeddings.
        contrastive_temperature: its temperature.
        lambda_distill: ours; factor of 1 - cosine between a photo's features and those of the
            encoder as it was before training.
        centre: ours; at inference subtract the modality's mean embedding of the seen classes
            (a running mean over the training batches) and normalise again.
        mirror: ours; at inference sum the embeddings of an image and of its mirror image, which
            doubles the time.

    Raises:
        ValueError: an unknown choice, a negative factor, or text of another number of classes.

    Source: Su et al., "Dynamic Multi-level Weighted Alignment Network for Zero-shot Sketch-based
    Image Retrieval", arXiv 2511.00925.
    """

    def __init__(
        self,
        classes: Sequence[str],
        *,
        encoder: str = "bundled:mobilenet_v2",
        weights: str | None = "imagenet",
        image_size: int | None = None,
        weighting: Literal["text", "pairwise"] = "text",
        text_source: str = "glove",
        text: ClassText | None = None,
        width: int = 256,
        attention_temperature: float = 1.0,
        beta: Beta = "uniform",
        mix: float = 0.5,
        weight_form: WeightForm = "softmax",
        weight_temperature: float = 0.5,
        detach_weights: bool = True,
        preset: Preset = "domain_balanced",
        positive: Positive = "hardest",
        negative: Negative = "hardest",
        margins: float | Sequence[float] | None = None,
        symmetric: bool = False,
        lambda_quadruplet: float = 1.0,
        lambda_cls: float = 0.5,
        cls_temperature: float = 0.05,
        lambda_align: float = 1.0,
        align_temperature: float = 0.1,
        lambda_contrastive: float = 0.0,
        contrastive_temperature: float = 0.1,
        lambda_distill: float = 0.0,
        centre: bool = False,
        mirror: bool = False,
    ) -> None:
        super().__init__()
        self.factors = {
            "quadruplet": lambda_quadruplet,
            "cls": lambda_cls,
            "align": lambda_align,
            "contrastive": lambda_contrastive,
            "distill": lambda_distill,
        }
        for name, factor in self.factors.items():
            if not factor >= 0:
                raise ValueError(f"DMWAN: lambda_{name} must not be negative, got {factor}")
        if weighting not in ("text", "pairwise"):
            raise ValueError(f"DMWAN: weighting must be text or pairwise, got {weighting!r}")
        self.encoder = build_encoder(encoder, weights=weights, image_size=image_size)
        self.pair_weighting: TextWeighting | PatchWeighting
        if weighting == "text":
            self.pair_weighting = TextWeighting(
                _class_text(classes, text_source, text),
                patch_width=self.encoder.width,
                width=width,
                temperature=attention_temperature,
                beta=beta,
            )
        else:
            self.pair_weighting = PatchWeighting()
        self.mix = mix
        self.weight_form: WeightForm = weight_form
        self.weight_temperature = weight_temperature
        self.detach_weights = detach_weights
        self.quadruplet_loss = WeightedQuadrupletLoss(
            mining=negative,
            negatives=preset,
            positive=positive,
            margins=margins,
            symmetric=symmetric,
        )
        self.classifier = (
            CosineClassifier(self.encoder.width, len(classes), temperature=cls_temperature)
            if lambda_cls
            else None
        )
        self.align_temperature = align_temperature
        self.contrastive_temperature = contrastive_temperature
        self.frozen = FrozenCopy(self.encoder) if lambda_distill else None
        self.means = DomainMeans(self.encoder.width) if centre else None
        self.mirror = mirror

    def embed(self, images: Tensor, modality: Modality) -> Tensor:
        """Embed images for retrieval; text is not needed.

        Args:
            images: [B, 3, H, W] float, normalised with the encoder's mean and std.
            modality: ``"sketch"`` or ``"photo"``; matters with ``centre`` only.

        Returns:
            [B, D] float32, L2-normalised.

        Raises:
            ValueError: another modality.
        """
        if modality not in ("sketch", "photo"):
            raise ValueError(f"DMWAN.embed: modality must be sketch or photo, got {modality!r}")
        embeddings = F.normalize(self.encoder(images).global_.float(), dim=1)
        if self.mirror:
            mirrored = F.normalize(self.encoder(images.flip(3)).global_.float(), dim=1)
            embeddings = F.normalize(embeddings + mirrored, dim=1)
        return embeddings if self.means is None else self.means.centre(embeddings, modality)

    def training_loss(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Losses of a batch of pairs.

        Args:
            batch: ``"sketches"`` and ``"photos"`` [B, 3, H, W] float, normalised; ``"labels"``
                int64 [B], the class of sketch i and of photo i. Classes must repeat.

        Returns:
            ``"loss"`` and its parts before their factors: ``"quadruplet"``, ``"cls"``,
            ``"align"``, ``"contrastive"``, ``"distill"`` (those with a factor above 0); and,
            detached, ``"weight_max"`` and ``"quality"``: the largest weight and the mean quality.
        """
        labels = batch["labels"]
        # One pass for both modalities: the encoder is shared.
        both = self.encoder(torch.cat([batch["sketches"], batch["photos"]]))
        (sketch_tokens, photo_tokens), (sketches, photos) = (x.chunk(2) for x in both)
        sketch, photo = Features(sketch_tokens, sketches), Features(photo_tokens, photos)
        if self.means is not None:
            self.means.update(sketches, photos)

        quadruplets = self.quadruplet_loss.mine(sketches, photos, labels)
        rows = torch.arange(len(labels), device=labels.device)
        partners = torch.where(quadruplets.positive >= 0, quadruplets.positive, rows)
        pairs = self.pair_weighting(sketch, Features(*(x[partners] for x in photo)), labels)
        weights = self._weights(pairs)
        parts = {
            "quadruplet": self.quadruplet_loss(
                sketches, photos, labels, weights, quadruplets=quadruplets
            )
        }
        doubled = torch.cat([labels, labels])
        if self.classifier is not None:
            parts["cls"] = self.classifier(both.global_, doubled)
        if self.factors["align"]:
            parts["align"] = self._alignment(pairs, labels)
        if self.factors["contrastive"]:
            parts["contrastive"] = supervised_contrastive_loss(
                both.global_, doubled, temperature=self.contrastive_temperature
            )
        if self.frozen is not None:
            before = self.frozen(self.encoder, batch["photos"]).global_
            parts["distill"] = (1 - F.cosine_similarity(photos, before)).mean()
        loss = torch.stack([self.factors[name] * part for name, part in parts.items()]).sum()
        return {
            "loss": loss,
            **parts,
            "weight_max": weights.detach().max(),
            "quality": (self.mix * pairs.local + (1 - self.mix) * pairs.global_).detach().mean(),
        }

    def _weights(self, pairs: PairAlignment) -> Tensor:
        local, global_ = pairs.local, pairs.global_
        if self.detach_weights:
            local, global_ = local.detach(), global_.detach()
        return alignment_weights(
            local,
            global_,
            mix=self.mix,
            temperature=self.weight_temperature,
            form=self.weight_form,
        )

    def _alignment(self, pairs: PairAlignment, labels: Tensor) -> Tensor:
        losses = [
            alignment_loss(sketches, photos, labels, temperature=self.align_temperature)
            for sketches, photos in pairs.pooled
        ]
        return torch.stack(losses).mean()


def _class_text(classes: Sequence[str], source: str, text: ClassText | None) -> ClassText:
    if text is None:
        from zsbir_fast.text.class_text import ClassText

        text = ClassText(classes, source=source)
    if len(text.tokens) != len(classes):
        raise ValueError(
            f"DMWAN: text must have tokens of {len(classes)} classes, got {len(text.tokens)}"
        )
    return text
