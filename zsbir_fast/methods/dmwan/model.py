"""DM-WAN: dynamic multi-level weighted alignment network."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from zsbir_fast.data.image_spec import ImageSpec, Modality
from zsbir_fast.encoders.encoder import Encoder, Features
from zsbir_fast.encoders.options import EncoderOptions
from zsbir_fast.losses.alignment import alignment_loss, supervised_contrastive_loss
from zsbir_fast.losses.batches import JoinedBatch
from zsbir_fast.losses.classification import CosineClassifier
from zsbir_fast.losses.cross_batch_memory import CrossBatchMemory
from zsbir_fast.losses.gathering import Share, share_rows
from zsbir_fast.losses.weighted_quadruplet import WeightedQuadrupletLoss
from zsbir_fast.methods.contract import Losses, Method, Progress
from zsbir_fast.methods.dmwan.options import QuadrupletOptions, TermOptions, WeightingOptions
from zsbir_fast.methods.dmwan.pair_weighting import PairAlignment, PatchWeighting
from zsbir_fast.methods.dmwan.weighting import (
    build_weighting,
    check_terms,
    read_texts,
    relation_loss,
    stored_texts,
    what_stays_as_drawn,
)
from zsbir_fast.methods.regularisers import FrozenCopy, UnitEmbedding
from zsbir_fast.ops._checks import Impl
from zsbir_fast.ops.quadruplet_mining import Quadruplets
from zsbir_fast.ops.token_weighting import alignment_weights
from zsbir_fast.reference.token_weighting import alignment_quality
from zsbir_fast.report.explanation import PairExplanation

if TYPE_CHECKING:
    from zsbir_fast.methods.settings import OptimConfig
    from zsbir_fast.text.class_text import ClassText


class DMWAN(Method):
    """Embeds sketches and photos with one encoder or two, trained by weighted quadruplets.

    In training every sketch-photo pair of a batch gets a weight from how well its patches fit the
    words of its class (local block) and the class text as a whole (global block); the weight
    multiplies the pair's quadruplet loss. At inference there is no text: images are embedded by
    the encoder and ranked by cosine.

    The public abstract of the paper fixes these modules. Their equations are our reading; the
    arguments marked "ours" are additions that the paper does not mention. See ``docs/methods.md``.

    Args:
        classes: names of the seen classes; labels index them.
        encoder: the image encoder, what of it is trained, and whether both modalities share it.
        weighting: the weights of the pairs.
        loss: the weighted quadruplet loss.
        terms: factors and temperatures of the terms of the loss.
        centre: ours; at inference subtract the modality's mean embedding of the seen classes
            (a running mean over the training batches) and normalise again.
        mirror: ours; at inference sum the embeddings of an image and of its mirror image, which
            doubles the time.
        mirror_scale: ours; make the mirror image larger by this factor, so that two scales are
            seen. 1 for encoders that take images of one size alone.
        text: class text that was made before, for the same classes; replaces
            ``weighting.text_source``.
        sketch_text: with ``text``: the text that sketches meet, for ``weighting.sketch_prompt``.
        impl: ``"fused"``: the kernels. ``"reference"``: plain PyTorch, the same to rounding.

    Attributes:
        classes: names of the seen classes.

    Raises:
        ValueError: an unknown choice, a negative factor, options that exclude each other, a scale
            that the encoder cannot take, or text of another number of classes or tokens.

    Warns:
        UserWarning: when the optimizers are made, if no term of the loss trains the projections or
            the relation network by which pairs are weighed.

    Source: Su et al., "Dynamic Multi-level Weighted Alignment Network for Zero-shot Sketch-based
    Image Retrieval", arXiv 2511.00925.
    """

    data_arguments = ("text", "sketch_text")
    free_arguments = ("impl",)

    def __init__(
        self,
        classes: Sequence[str],
        *,
        encoder: EncoderOptions = EncoderOptions(),
        weighting: WeightingOptions = WeightingOptions(),
        loss: QuadrupletOptions = QuadrupletOptions(),
        terms: TermOptions = TermOptions(),
        centre: bool = False,
        mirror: bool = False,
        mirror_scale: float = 1.0,
        text: ClassText | None = None,
        sketch_text: ClassText | None = None,
        impl: Impl = "fused",
    ) -> None:
        super().__init__()
        check_terms(weighting, terms)
        self.classes = tuple(classes)
        self.weighting = weighting
        self.loss = loss
        self.terms = terms
        self.encoder = encoder.build_for_modalities()
        width = self.encoder.width
        texts = read_texts(self.classes, weighting, text, sketch_text)
        self._notes = [each.summary for each in texts if each is not None]
        self.pair_weighting = build_weighting(texts, self.encoder.of_photos, weighting, impl)
        options = {**vars(loss), "impl": impl}
        memory = options.pop("memory")
        self.quadruplet_loss = WeightedQuadrupletLoss(**options)
        self.memory = (
            CrossBatchMemory(self.quadruplet_loss, size=memory, width=width) if memory else None
        )
        self.classifier = (
            CosineClassifier(
                width=width, classes=len(self.classes), temperature=terms.cls_temperature
            )
            if terms.cls
            else None
        )
        self.frozen = FrozenCopy(self.encoder.of_photos) if terms.distill else None
        self.embedding = UnitEmbedding(
            width, centre=centre, mirror=mirror, mirror_scale=mirror_scale
        )
        self.embedding.require_scale("DMWAN", self.encoder.of_photos)

    def extra_repr(self) -> str:
        """Return the options, for ``repr``; the encoder says its own."""
        groups = (self.weighting, self.loss, self.terms)
        return "\n".join([f"{len(self.classes)} classes", *map(repr, groups)])

    def image_spec(self) -> ImageSpec:
        """Give the size and the normalisation that the encoder expects."""
        return self.encoder.spec

    def backbone(self) -> nn.Module:
        """Name the image encoder."""
        return self.encoder

    @classmethod
    def complete(
        cls, classes: Sequence[str], arguments: Mapping[str, Any], stored: Mapping[str, Tensor]
    ) -> dict[str, Any]:
        """Leave out the pre-trained weights, and take the class text from the stored ones."""
        encoder: EncoderOptions = arguments.get("encoder", EncoderOptions())
        whole = {**arguments, "encoder": replace(encoder, weights=None)}
        weighting: WeightingOptions = arguments.get("weighting", WeightingOptions())
        return whole | stored_texts(classes, weighting, stored)

    @classmethod
    def pretrained_encoder(cls, arguments: Mapping[str, Any]) -> Encoder | None:
        """Build the encoder with its pre-trained weights; None if it starts from random ones."""
        encoder: EncoderOptions = arguments.get("encoder", EncoderOptions())
        return encoder.build() if encoder.is_pretrained else None

    def notes(self) -> Sequence[str]:
        """Say where the class text comes from, and how many tokens a class has."""
        return self._notes

    def optimizers(self, optim: OptimConfig) -> Sequence[Optimizer]:
        """Make the optimizer, and warn of weights that it will leave as they are."""
        untrained = what_stays_as_drawn(self.weighting, self.terms)
        if untrained is not None:
            warnings.warn(untrained, stacklevel=2)
        return super().optimizers(optim)

    def embed(self, images: Tensor, modality: Modality) -> Tensor:
        """Embed images for retrieval; text is not needed.

        Args:
            images: [B, 3, H, W] float, normalised with the encoder's mean and std.
            modality: ``"sketch"`` or ``"photo"``; matters with ``centre``, two encoders, and parts
                of an encoder for each modality.

        Returns:
            [B, D] float32, L2-normalised.

        Raises:
            ValueError: another modality.
        """
        return self.embedding(lambda x: self.encoder(x, modality).global_, images, modality)

    def losses(self, batch: Mapping[str, Tensor], at: Progress) -> Losses:
        """Losses of a batch of pairs.

        In a distributed run they are those of the joined batch of all processes, the same on each:
        images are compared, and weights made, across processes. With mined positives the patches
        of all photos are exchanged; with ``positive="paired"`` only the global features are.

        Args:
            batch: ``"sketches"`` and ``"photos"`` [B, 3, H, W] float, normalised; ``"labels"``
                int64 [B], the class of sketch i and of photo i. Classes must repeat. B may differ
                between processes.
            at: not used.

        Returns:
            The loss; its parts before their factors: ``"quadruplet"``, ``"cls"``,
            ``"align"``, ``"relation"``, ``"contrastive"``, ``"distill"`` (those with a factor above
            0); and ``"weight_max"`` and ``"quality"``, the largest weight and the mean quality.
        """
        sketch, photo = self.encoder.both(batch["sketches"], batch["photos"])
        sketches, photos = sketch.global_, photo.global_
        (share,) = share_rows("DMWAN.losses", sketches=sketches)
        labels = share.join(batch["labels"])
        joined = JoinedBatch(
            share.join(sketches), share.join(photos), labels, labels, None, share.own
        )
        self.embedding.learn(joined.sketches, joined.photos)

        bank = None if self.memory is None else self.memory.bank()
        quadruplets = self.quadruplet_loss.mine(*joined[:2], labels, bank=bank)
        partners = self._partners(quadruplets, photo, joined, share)
        pairs = self.pair_weighting(sketch, partners, batch["labels"])
        weights, quality = self._weights(pairs, share)
        parts = {
            "quadruplet": self.quadruplet_loss.joined_loss(
                joined._replace(weights=weights), quadruplets=quadruplets, bank=bank
            )
        }
        if self.memory is not None:
            self.memory.remember(joined)
        parts |= self._class_parts(joined)
        if self.terms.align:
            parts["align"] = self._alignment(pairs, labels, share)
        if self.terms.relation:
            assert isinstance(self.pair_weighting, PatchWeighting)
            parts["relation"] = relation_loss(
                self.pair_weighting, pairs.local, sketch, photo, labels, share
            )
        if self.frozen is not None:
            before = self.frozen(self.encoder.of_photos, batch["photos"]).global_
            parts["distill"] = share.join(1 - F.cosine_similarity(photos, before)).mean()
        loss = torch.stack([getattr(self.terms, name) * part for name, part in parts.items()]).sum()
        return Losses([loss], {**parts, "weight_max": weights.max(), "quality": quality})

    @torch.no_grad()
    def explain(self, sketches: Tensor, photos: Tensor, labels: Tensor) -> PairExplanation:
        """Show how sketch-photo pairs of seen classes get their alignment weights.

        Call it in evaluation mode.

        Args:
            sketches: [B, 3, H, W] float, normalised.
            photos: [B, 3, H, W] float, normalised; photo i is the partner of sketch i.
            labels: int64 [B], index into ``classes``.

        Returns:
            Weights, scores, words and which patches answer them.
        """
        sketch, photo = self.encoder(sketches, "sketch"), self.encoder(photos, "photo")
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
        if self.terms.contrastive:
            parts["contrastive"] = supervised_contrastive_loss(
                features, labels, temperature=self.terms.contrastive_temperature
            )
        return parts

    def _weights(self, pairs: PairAlignment, share: Share) -> tuple[Tensor, Tensor]:
        """Weights of the joined batch, and the mean quality."""
        local, global_ = pairs.local, pairs.global_
        if self.weighting.detach:
            local, global_ = local.detach(), global_.detach()
        local, global_ = share.join(local), share.join(global_)
        options = self.weighting
        quality = alignment_quality(local, global_, mix=options.mix, combine=options.combine)
        weights = alignment_weights(
            local,
            global_,
            mix=options.mix,
            combine=options.combine,
            temperature=self.weighting.temperature,
            form=self.weighting.form,
        )
        return weights, quality.detach().mean()

    def _alignment(self, pairs: PairAlignment, labels: Tensor, share: Share) -> Tensor:
        losses = [
            alignment_loss(
                share.join(sketches),
                share.join(photos),
                labels,
                temperature=self.terms.align_temperature,
            )
            for sketches, photos in pairs.pooled
        ]
        return torch.stack(losses).mean()
