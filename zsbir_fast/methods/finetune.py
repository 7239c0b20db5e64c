"""The plain baseline: an encoder that is fine-tuned by one metric loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from zsbir_fast._arguments import as_margin, as_temperature, check_choice
from zsbir_fast.data.image_spec import ImageSpec, Modality
from zsbir_fast.encoders.encoder import Encoder
from zsbir_fast.encoders.options import EncoderOptions
from zsbir_fast.losses.alignment import supervised_contrastive_loss
from zsbir_fast.losses.gathering import share_rows
from zsbir_fast.losses.weighted_quadruplet import WeightedQuadrupletLoss
from zsbir_fast.methods.contract import Losses, Method, Progress
from zsbir_fast.methods.regularisers import UnitEmbedding

Loss = Literal["contrastive", "triplet"]


class FineTune(Method):
    """Embeds sketches and photos with an encoder that one loss fine-tunes, and nothing beside it.

    It is what other methods have to beat. ``loss="contrastive"`` is supervised contrastive
    fine-tuning; ``loss="triplet"`` with ``encoder.tuning.mode="norm"`` on a CLIP encoder is the
    usual recipe of tuning CLIP by its layer norms.

    Args:
        classes: names of the seen classes; labels index them.
        encoder: the image encoder, what of it is trained, and whether both modalities share it.
        loss: ``"contrastive"``: every image of a class, of either modality, is a positive of the
            others. ``"triplet"``: the farthest photo of the class and the nearest of another one,
            for every sketch.
        temperature: of ``"contrastive"``; divides the cosines.
        margin: of ``"triplet"``, in units of 1 - cosine.
        centre: at inference subtract the modality's mean embedding of the seen classes (a running
            mean over the training batches) and normalise again.
        mirror: at inference sum the embeddings of an image and of its mirror image, which doubles
            the time.
        mirror_scale: the mirror image is made larger by this factor.

    Attributes:
        classes: names of the seen classes.

    Raises:
        ValueError: an option is out of range.

    Source: Khosla et al., "Supervised Contrastive Learning", arXiv 2004.11362; Sain et al., "CLIP
    for All Things Zero-Shot Sketch-Based Image Retrieval", arXiv 2303.13440 (layer norms and
    triplets; mining within the batch is our reading).
    """

    def __init__(
        self,
        classes: Sequence[str],
        *,
        encoder: EncoderOptions = EncoderOptions(),
        loss: Loss = "contrastive",
        temperature: float = 0.1,
        margin: float = 0.3,
        centre: bool = False,
        mirror: bool = False,
        mirror_scale: float = 1.0,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        check_choice(name, "loss", loss, Loss)
        self.classes = tuple(classes)
        self.loss = loss
        self.temperature = as_temperature(name, temperature)
        self.triplets = WeightedQuadrupletLoss(
            preset="triplet", distance="cosine", margins=as_margin(name, margin), gather="off"
        )
        self.encoder = encoder.build_for_modalities()
        self.embedding = UnitEmbedding(
            self.encoder.width, centre=centre, mirror=mirror, mirror_scale=mirror_scale
        )
        self.embedding.require_scale(name, self.encoder.of_photos)

    def extra_repr(self) -> str:
        """Return the options, for ``repr``; the encoder says its own."""
        return f"{len(self.classes)} classes, loss={self.loss!r}"

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
        """Leave out the pre-trained weights."""
        encoder: EncoderOptions = arguments.get("encoder", EncoderOptions())
        return {**arguments, "encoder": replace(encoder, weights=None)}

    @classmethod
    def pretrained_encoder(cls, arguments: Mapping[str, Any]) -> Encoder | None:
        """Build the encoder with its pre-trained weights; None if it starts from random ones."""
        encoder: EncoderOptions = arguments.get("encoder", EncoderOptions())
        return encoder.build() if encoder.is_pretrained else None

    def embed(self, images: Tensor, modality: Modality) -> Tensor:
        """Embed images for retrieval.

        Args:
            images: [B, 3, H, W] float, normalised with the encoder's mean and std.
            modality: ``"sketch"`` or ``"photo"``.

        Returns:
            [B, D] float32, L2-normalised.

        Raises:
            ValueError: another modality.
        """
        return self.embedding(lambda x: self.encoder(x, modality).global_, images, modality)

    def losses(self, batch: Mapping[str, Tensor], at: Progress) -> Losses:
        """Compute the loss of a batch of pairs.

        In a distributed run it is that of the joined batch of all processes, the same on each.

        Args:
            batch: ``"sketches"`` and ``"photos"`` [B, 3, H, W] float, normalised; ``"labels"``
                int64 [B], the class of sketch i and of photo i. Classes must repeat. B may differ
                between processes.
            at: not used.

        Returns:
            The loss, without parts.
        """
        sketch, photo = self.encoder.both(batch["sketches"], batch["photos"])
        (share,) = share_rows("FineTune.losses", sketches=sketch.global_)
        sketches, photos = share.join(sketch.global_), share.join(photo.global_)
        labels = share.join(batch["labels"])
        self.embedding.learn(sketches, photos)
        if self.loss == "triplet":
            return Losses([self.triplets(sketches, photos, labels)])
        loss = supervised_contrastive_loss(
            torch.cat([sketches, photos]), labels.repeat(2), temperature=self.temperature
        )
        return Losses([loss])
