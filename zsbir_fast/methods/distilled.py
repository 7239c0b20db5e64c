"""What ClusterRetri and SBKA share: ImageNet's knowledge is kept by distillation on photos.

Both train on batches of single sketches and photos: a classifier of the seen classes on all of
them, the 1000 ImageNet logits of a teacher on the photos, and noise that the features of both
modalities are drawn to. Both rank by clusters of the gallery.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zsbir_fast.data.benchmarks import Benchmark
from zsbir_fast.data.image_spec import ImageSpec, Modality
from zsbir_fast.encoders.encoder import Encoder
from zsbir_fast.encoders.modality_condition import ModalityCondition
from zsbir_fast.encoders.options import EncoderOptions
from zsbir_fast.encoders.weight_files import IMAGENET_CLASSES
from zsbir_fast.losses.distillation import noise_alignment_loss
from zsbir_fast.losses.gathering import share_rows
from zsbir_fast.methods.batches import BatchPlan, mixed_images
from zsbir_fast.methods.contract import Method
from zsbir_fast.methods.optimizers import parameter_groups
from zsbir_fast.methods.regularisers import FrozenCopy, StepNoise, UnitEmbedding
from zsbir_fast.methods.settings import DataConfig, OptimConfig
from zsbir_fast.ranking.cluster_options import ClusterOptions
from zsbir_fast.ranking.ranker import Ranker
from zsbir_fast.text.imagenet_similarity import imagenet_similarity


@dataclass(frozen=True)
class KnowledgeOptions:
    """Factors of the terms of the loss, and what the teacher is told beforehand.

    Attributes:
        cls: factor of the classification of the seen classes.
        distill: factor of the distillation.
        align: factor of the alignment with noise.
        align_ramp: how much of ``align`` every step adds; 0: all of it from the start.
        similarity: ``wordnet`` or a JSON table, see :func:`zsbir_fast.imagenet_similarity`: the
            similarities of a photo's class to those of ImageNet are added to the teacher's logits;
            None: they are not.
        similarity_factor: factor of these similarities.
        logit_scale: factor of the teacher's logits.

    Raises:
        ValueError: a number is negative.
    """

    cls: float = 1.0
    distill: float = 1.0
    align: float = 0.1
    align_ramp: float = 0.0
    similarity: str | None = "wordnet"
    similarity_factor: float = 0.3
    logit_scale: float = 1.0

    def __post_init__(self) -> None:
        """Refuse negative numbers."""
        for name in ("cls", "distill", "align", "align_ramp", "similarity_factor", "logit_scale"):
            if not getattr(self, name) >= 0:
                raise ValueError(
                    f"KnowledgeOptions: {name} must not be negative, got {getattr(self, name)}"
                )

    def align_factor(self, step: int) -> float:
        """Return the factor of the alignment at a step, from 0."""
        return min(self.align, self.align_ramp * step) if self.align_ramp else self.align


class Passed(NamedTuple):
    """A batch that went through the network, joined over all processes.

    Attributes:
        features: [B, D] features of sketches and photos.
        logits: [B, C] logits of the seen classes.
        labels: int64 [B].
        is_photo: bool [B].
        student: [P, K] ImageNet logits of the photos.
        taught: [P, D'] features of the photos that the teacher sees, without gradient.
        prior: [P, K] what is known of the photos' classes, or None.
    """

    features: Tensor
    logits: Tensor
    labels: Tensor
    is_photo: Tensor
    student: Tensor
    taught: Tensor
    prior: Tensor | None


class DistilledMethod(Method):
    """Base of the methods that keep what an ImageNet network knows.

    Args:
        classes: names of the seen classes; labels index them.
        encoder: the image encoder, with an ImageNet head, and what of it is trained. Its
            pre-trained weights are those of the teacher, too.
        width: width of the layer that makes the features; None: the encoder's own features.
        knowledge: the terms of the loss.
        ranking: how the gallery is clustered for retrieval.
        condition: the squeeze-and-excitation blocks of the encoder know the modality.
        centre: ours, see :class:`zsbir_fast.DMWAN`.
        mirror: ours, see :class:`zsbir_fast.DMWAN`.
        mirror_scale: ours, see :class:`zsbir_fast.DMWAN`.

    Raises:
        ValueError: an option is out of range, the encoder has no ImageNet head, or the table of
            similarities lacks a class or knows another number of ImageNet classes.
    """

    prior: Tensor | None

    def __init__(
        self,
        classes: Sequence[str],
        *,
        encoder: EncoderOptions,
        width: int | None,
        knowledge: KnowledgeOptions,
        ranking: ClusterOptions,
        condition: bool,
        centre: bool,
        mirror: bool,
        mirror_scale: float,
    ) -> None:
        super().__init__()
        self.classes = tuple(classes)
        self.knowledge = knowledge
        self.ranking = ranking
        self.encoder = encoder.build_for_modalities(head=True)
        if condition:
            self._add_condition()
        inner = self.encoder.width
        if width is not None and width < 1:
            raise ValueError(f"{type(self).__name__}: width must be at least 1, got {width}")
        self.width = inner if width is None else width
        self.projection = nn.Identity() if width is None else nn.Linear(inner, width)
        self.classifier = nn.Linear(self.width, len(self.classes))
        self.frozen = FrozenCopy(self.encoder.of_photos)  # the teacher sees photos alone
        self.embedding = UnitEmbedding(
            self.width, centre=centre, mirror=mirror, mirror_scale=mirror_scale
        )
        self.embedding.require_scale(type(self).__name__, self.encoder.of_photos)
        self.register_buffer("prior", self._prior(), persistent=False)
        self._noise = StepNoise()

    def extra_repr(self) -> str:
        """Return the options, for ``repr``; the encoder says its own."""
        return "\n".join([f"{len(self.classes)} classes", repr(self.knowledge), repr(self.ranking)])

    def image_spec(self) -> ImageSpec:
        """Give the size and the normalisation that the encoder expects."""
        return self.encoder.spec

    def backbone(self) -> nn.Module:
        """Name the image encoder."""
        return self.encoder

    def batches(self, benchmark: Benchmark, data: DataConfig) -> BatchPlan:
        """Plan batches of single sketches and photos, by ``data.sketch_share``."""
        return mixed_images(benchmark, data, self.image_spec())

    def ranker(self) -> Ranker:
        """Rank by clusters of the gallery, as ``ranking`` says."""
        return self.ranking.ranker()

    def embed(self, images: Tensor, modality: Modality) -> Tensor:
        """Embed images for retrieval.

        Args:
            images: [B, 3, H, W] float, normalised with the encoder's mean and std.
            modality: ``"sketch"`` or ``"photo"``; matters with ``centre``, ``condition``, two
                encoders, and parts of an encoder for each modality.

        Returns:
            [B, D] float32, L2-normalised.

        Raises:
            ValueError: another modality.
        """
        is_photo = torch.full((len(images),), modality == "photo", device=images.device)
        return self.embedding(
            lambda x: self.projection(self._pooled(x, is_photo)), images, modality
        )

    @classmethod
    def complete(
        cls, classes: Sequence[str], arguments: Mapping[str, Any], stored: Mapping[str, Tensor]
    ) -> dict[str, Any]:
        """Leave out the pre-trained weights and the table, which retrieval does not need."""
        encoder: EncoderOptions = arguments.get("encoder", EncoderOptions())
        knowledge: KnowledgeOptions = arguments.get("knowledge", KnowledgeOptions())
        return {
            **arguments,
            "encoder": replace(encoder, weights=None),
            "knowledge": replace(knowledge, similarity=None),
        }

    @classmethod
    def pretrained_encoder(cls, arguments: Mapping[str, Any]) -> Encoder | None:
        """Build the encoder with its pre-trained weights; None if it starts from random ones."""
        encoder: EncoderOptions = arguments.get("encoder", EncoderOptions())
        return encoder.build() if encoder.is_pretrained else None

    def _pooled(self, images: Tensor, is_photo: Tensor) -> Tensor:
        condition = getattr(self.encoder, "condition", None)
        if condition is None:
            return self.encoder.mixed(images, is_photo).global_
        with condition.told(is_photo):
            return self.encoder.mixed(images, is_photo).global_

    def _add_condition(self) -> None:
        if self.encoder.tells_apart:
            raise ValueError(
                f"{type(self).__name__}: condition must be False for an encoder that has parts "
                "for each modality or is not shared, got True"
            )
        self.encoder.condition = ModalityCondition(self.encoder)

    @abstractmethod
    def _head(self, features: Tensor) -> Tensor:
        """Give the teacher's ImageNet logits [P, 1000] for its features [P, D']."""

    def _adam(self, parameters: Sequence[nn.Parameter], optim: OptimConfig) -> torch.optim.Adam:
        return torch.optim.Adam(parameter_groups(parameters, optim, backbone=self.encoder))

    def _pass(self, batch: Mapping[str, Tensor]) -> Passed:
        """Pass a batch through student and teacher, and join it with those of other processes."""
        images, is_photo = batch["images"], batch["is_photo"]
        pooled = self._pooled(images, is_photo)
        photos = images[is_photo]
        own = pooled[is_photo]
        of_all, of_photos = share_rows(f"{type(self).__name__}.losses", images=pooled, photos=own)
        labels = of_all.join(batch["labels"])
        is_photo = of_all.join(is_photo)
        features = self.projection(of_all.join(pooled))
        self._learn_means(features.detach(), is_photo)
        return Passed(
            features=features,
            logits=self.classifier(features),
            labels=labels,
            is_photo=is_photo,
            student=self.encoder.logits(of_photos.join(own)),
            taught=of_photos.join(self.frozen(self.encoder.of_photos, photos).global_),
            prior=None if self.prior is None else self.prior[labels[is_photo]],
        )

    def _common_terms(self, passed: Passed, step: int) -> dict[str, Tensor]:
        """The classification and the alignment, before their factors."""
        noise = self._noise.draw(step, passed.features)
        return {
            "cls": F.cross_entropy(passed.logits, passed.labels),
            "align": noise_alignment_loss(passed.features, noise),
        }

    def _student_loss(self, parts: Mapping[str, Tensor], step: int) -> Tensor:
        knowledge = self.knowledge
        return (
            knowledge.cls * parts["cls"]
            + knowledge.distill * parts["distill"]
            + knowledge.align_factor(step) * parts["align"]
        )

    def _learn_means(self, features: Tensor, is_photo: Tensor) -> None:
        self.embedding.learn(features[~is_photo], features[is_photo])

    def _prior(self) -> Tensor | None:
        source = self.knowledge.similarity
        if source is None or not self.knowledge.distill:
            return None
        table = imagenet_similarity(self.classes, source) * self.knowledge.similarity_factor
        if table.shape[1] != IMAGENET_CLASSES:
            raise ValueError(
                f"{type(self).__name__}: knowledge.similarity must be None or a table of the "
                f"{IMAGENET_CLASSES} classes of ImageNet, got one of {table.shape[1]}"
            )
        return table
