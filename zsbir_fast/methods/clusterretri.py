"""ClusterRetri: distribution-aligned features, ranked by clusters of the gallery."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor
from torch.optim import Optimizer

from zsbir_fast.encoders.options import EncoderOptions
from zsbir_fast.losses.distillation import soft_cross_entropy
from zsbir_fast.methods.contract import Losses, Progress
from zsbir_fast.methods.distilled import DistilledMethod, KnowledgeOptions
from zsbir_fast.methods.settings import OptimConfig
from zsbir_fast.ranking.cluster_options import ClusterOptions


class ClusterRetri(DistilledMethod):
    """A network that imitates its ImageNet self on photos, while features take a common form.

    The features of sketches and photos classify the seen classes and are drawn to the same
    Gaussian noise. A photo is found by the cluster of the gallery that it belongs to: the centres
    of k-means, in the whole space or in blocks of it, stand for the photos.

    The published network is SE-ResNet50 whose excitations know the modality: ``timm:seresnet50``
    with ``condition``. Any encoder with an ImageNet head serves. See ``docs/methods.md``.

    Args:
        classes: names of the seen classes; labels index them.
        encoder: the image encoder, with an ImageNet head; the teacher is its frozen copy.
        width: width of the layer that makes the features; None: the encoder's own features.
        knowledge: the terms of the loss.
        ranking: how the gallery is clustered for retrieval.
        condition: the squeeze-and-excitation blocks of the encoder know whether an image is a
            photo, as in the published network.
        centre: ours; at inference subtract the modality's mean embedding of the seen classes and
            normalise again.
        mirror: ours; at inference sum the embeddings of an image and of its mirror image, which
            doubles the time.
        mirror_scale: ours; the mirror image is made larger by this factor.

    Attributes:
        classes: names of the seen classes.

    Raises:
        ValueError: an option is out of range, the encoder has no ImageNet head, the table of
            similarities lacks a class, or ``condition`` asks for blocks that the encoder lacks.

    Source: Wu et al., "Distribution Aligned Feature Clustering for Zero-Shot Sketch-Based Image
    Retrieval", arXiv 2301.06685, and its public code.
    """

    def __init__(
        self,
        classes: Sequence[str],
        *,
        encoder: EncoderOptions = EncoderOptions(),
        width: int | None = 512,
        knowledge: KnowledgeOptions = KnowledgeOptions(),
        ranking: ClusterOptions = ClusterOptions(),
        condition: bool = False,
        centre: bool = False,
        mirror: bool = False,
        mirror_scale: float = 1.0,
    ) -> None:
        super().__init__(
            classes,
            encoder=encoder,
            width=width,
            knowledge=knowledge,
            ranking=ranking,
            condition=condition,
            centre=centre,
            mirror=mirror,
            mirror_scale=mirror_scale,
        )

    def optimizers(self, optim: OptimConfig) -> Sequence[Optimizer]:
        """Make one Adam over all parameters."""
        return [self._adam(list(self.parameters()), optim)]

    def losses(self, batch: Mapping[str, Tensor], at: Progress) -> Losses:
        """Losses of a batch of single images, (1) to (4) of docs/methods.md.

        In a distributed run they are those of the joined batch of all processes, the same on each.

        Args:
            batch: ``"images"`` [B, 3, H, W] float, normalised; ``"labels"`` int64 [B];
                ``"is_photo"`` bool [B]. B may differ between processes.
            at: how far the run is; the noise follows from the step, and so does ``align_ramp``.

        Returns:
            The loss; its parts before their factors: ``"cls"``, ``"align"`` and ``"distill"``.
        """
        passed = self._pass(batch)
        parts = self._common_terms(passed, at.step)
        parts["distill"] = soft_cross_entropy(
            passed.student,
            self._head(passed.taught) * self.knowledge.logit_scale,
            prior=passed.prior,
        )
        return Losses([self._student_loss(parts, at.step)], parts)

    def _head(self, features: Tensor) -> Tensor:
        return self.frozen.logits(self.encoder.of_photos, features)
