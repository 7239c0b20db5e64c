"""DM-WAN: dynamic multi-level weighted alignment network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zsbir_fast._arguments import check_choice
from zsbir_fast.losses.alignment import alignment_loss, supervised_contrastive_loss
from zsbir_fast.losses.batches import JoinedBatch
from zsbir_fast.losses.classification import CosineClassifier
from zsbir_fast.losses.cross_batch_memory import CrossBatchMemory
from zsbir_fast.losses.gathering import Share, share_rows
from zsbir_fast.losses.weighted_quadruplet import WeightedQuadrupletLoss
from zsbir_fast.models.encoders import Features, build_encoder
from zsbir_fast.models.pair_weighting import (
    PairAlignment,
    PatchAnswers,
    PatchWeighting,
    TextWeighting,
)
from zsbir_fast.models.regularisers import DomainMeans, FrozenCopy
from zsbir_fast.ops._checks import Impl
from zsbir_fast.ops.quadruplet_mining import Quadruplets
from zsbir_fast.ops.token_weighting import alignment_weights
from zsbir_fast.reference.quadruplet_mining import Negative, Positive, Preset
from zsbir_fast.reference.token_weighting import Beta, WeightForm

if TYPE_CHECKING:
    from zsbir_fast.text.class_text import ClassText

Modality = Literal["sketch", "photo"]


class PairExplanation(NamedTuple):
    """How B sketch-photo pairs get their alignment weights.

    Attributes:
        weights: float [B].
        local: float [B], local score in [-1, 1].
        global_: float [B], global score in [-1, 1].
        answers: which patches answer which word.
    """

    weights: Tensor
    local: Tensor
    global_: Tensor
    answers: PatchAnswers


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
        memory: ours; so many past features of each modality (up to 65,536) serve as further
            negatives, see :class:`zsbir_fast.CrossBatchMemory`; 0: none.
        impl: ``"fused"``: the kernels. ``"reference"``: plain PyTorch, the same to rounding.

    Attributes:
        classes: names of the seen classes.

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
        memory: int = 0,
        impl: Impl = "fused",
    ) -> None:
        super().__init__()
        self.classes = tuple(classes)
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
        check_choice("DMWAN", "negative", negative, Negative)  # "all" has no pairs to weigh
        self.encoder = build_encoder(encoder, weights=weights, image_size=image_size)
        self.pair_weighting: TextWeighting | PatchWeighting
        if weighting == "text":
            self.pair_weighting = TextWeighting(
                _class_text(classes, text_source, text),
                patch_width=self.encoder.width,
                width=width,
                temperature=attention_temperature,
                beta=beta,
                impl=impl,
            )
        else:
            self.pair_weighting = PatchWeighting(impl=impl)
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
            impl=impl,
        )
        if memory < 0:
            raise ValueError(f"DMWAN: memory must not be negative, got {memory}")
        self.memory = (
            CrossBatchMemory(self.quadruplet_loss, memory, self.encoder.width) if memory else None
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

        In a distributed run they are those of the joined batch of all processes, the same on each:
        images are compared, and weights made, across processes. With mined positives the patches
        of all photos are exchanged; with ``positive="paired"`` only the global features are.

        Args:
            batch: ``"sketches"`` and ``"photos"`` [B, 3, H, W] float, normalised; ``"labels"``
                int64 [B], the class of sketch i and of photo i. Classes must repeat. B may differ
                between processes.

        Returns:
            ``"loss"`` and its parts before their factors: ``"quadruplet"``, ``"cls"``,
            ``"align"``, ``"contrastive"``, ``"distill"`` (those with a factor above 0); and,
            detached, ``"weight_max"`` and ``"quality"``: the largest weight and the mean quality.
        """
        # One pass for both modalities: the encoder is shared.
        both = self.encoder(torch.cat([batch["sketches"], batch["photos"]]))
        (sketch_tokens, photo_tokens), (sketches, photos) = (x.chunk(2) for x in both)
        (share,) = share_rows("DMWAN.training_loss", sketches=sketches)
        labels = share.join(batch["labels"])
        joined = JoinedBatch(
            share.join(sketches), share.join(photos), labels, labels, None, share.own
        )
        if self.means is not None:
            self.means.update(joined.sketches, joined.photos)

        bank = None if self.memory is None else self.memory.bank()
        quadruplets = self.quadruplet_loss.mine(*joined[:2], labels, bank=bank)
        partners = self._partners(quadruplets, Features(photo_tokens, photos), joined, share)
        pairs = self.pair_weighting(Features(sketch_tokens, sketches), partners, batch["labels"])
        weights, quality = self._weights(pairs, share)
        parts = {
            "quadruplet": self.quadruplet_loss.joined_loss(
                joined._replace(weights=weights), quadruplets=quadruplets, bank=bank
            )
        }
        if self.memory is not None:
            self.memory.remember(joined)
        parts |= self._class_parts(joined)
        if self.factors["align"]:
            parts["align"] = self._alignment(pairs, labels, share)
        if self.frozen is not None:
            before = self.frozen(self.encoder, batch["photos"]).global_
            parts["distill"] = share.join(1 - F.cosine_similarity(photos, before)).mean()
        loss = torch.stack([self.factors[name] * part for name, part in parts.items()]).sum()
        return {"loss": loss, **parts, "weight_max": weights.detach().max(), "quality": quality}

    @torch.no_grad()
    def explain_pairs(self, sketches: Tensor, photos: Tensor, labels: Tensor) -> PairExplanation:
        """Show how sketch-photo pairs of seen classes get their alignment weights.

        Call it in evaluation mode.

        Args:
            sketches: [B, 3, H, W] float, normalised.
            photos: [B, 3, H, W] float, normalised; photo i is the partner of sketch i.
            labels: int64 [B], index into ``classes``.

        Returns:
            Weights, scores, words and which patches answer them.
        """
        sketch, photo = self.encoder(sketches), self.encoder(photos)
        pairs = self.pair_weighting(sketch, photo, labels)
        weights, _ = self._weights(pairs, Share.alone(len(labels)))
        answers = self.pair_weighting.explain(sketch, photo, labels)
        return PairExplanation(weights, pairs.local, pairs.global_, answers)

    def _partners(
        self, quadruplets: Quadruplets, photo: Features, joined: JoinedBatch, share: Share
    ) -> Features:
        """The positive photo of every sketch of this process; photo i where there is none."""
        if self.quadruplet_loss.positive == "paired":
            return photo
        rows = torch.arange(len(joined.photos), device=joined.photos.device)
        chosen = torch.where(quadruplets.positive >= 0, quadruplets.positive, rows)[share.own]
        return Features(share.join(photo.tokens)[chosen], joined.photos[chosen])

    def _class_parts(self, joined: JoinedBatch) -> dict[str, Tensor]:
        features = torch.cat(joined[:2])
        labels = torch.cat([joined.sketch_labels, joined.photo_labels])
        parts = {}
        if self.classifier is not None:
            parts["cls"] = self.classifier(features, labels)
        if self.factors["contrastive"]:
            parts["contrastive"] = supervised_contrastive_loss(
                features, labels, temperature=self.contrastive_temperature
            )
        return parts

    def _weights(self, pairs: PairAlignment, share: Share) -> tuple[Tensor, Tensor]:
        """Weights of the joined batch, and the mean quality."""
        local, global_ = pairs.local, pairs.global_
        if self.detach_weights:
            local, global_ = local.detach(), global_.detach()
        local, global_ = share.join(local), share.join(global_)
        quality = (self.mix * local + (1 - self.mix) * global_).detach().mean()
        weights = alignment_weights(
            local,
            global_,
            mix=self.mix,
            temperature=self.weight_temperature,
            form=self.weight_form,
        )
        return weights, quality

    def _alignment(self, pairs: PairAlignment, labels: Tensor, share: Share) -> Tensor:
        losses = [
            alignment_loss(
                share.join(sketches),
                share.join(photos),
                labels,
                temperature=self.align_temperature,
            )
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
