"""The contract of a method, by which it is trained, stored, loaded, ranked and explained.

Everything above this layer knows a method by this class alone. ``docs/adding_a_method.md`` walks
through a whole one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn
from torch.optim import Optimizer

from zsbir_fast.data.image_spec import ImageSpec, Modality
from zsbir_fast.ranking.ranker import EmbeddingRanker, Ranker
from zsbir_fast.report.explanation import PairExplanation

if TYPE_CHECKING:
    from zsbir_fast.data.benchmarks import Benchmark
    from zsbir_fast.encoders.encoder import Encoder
    from zsbir_fast.methods.batches import BatchPlan
    from zsbir_fast.methods.settings import DataConfig, OptimConfig


@dataclass(frozen=True)
class Progress:
    """How far a run is when a batch is trained on.

    Attributes:
        step: optimizer steps done.
        epoch: epochs done, which is the number of the one under way, from 0.
        total_steps: optimizer steps of the whole run.
        epochs: epochs of the whole run.
    """

    step: int
    epoch: int
    total_steps: int
    epochs: int


@dataclass(frozen=True)
class Losses:
    """The losses of one batch.

    Attributes:
        per_optimizer: optimizer i lowers loss i: its parameters get the gradient of this loss and
            of no other. None: optimizer i rests in this batch.
        parts: scalars to log under their own names; they are not trained on.
    """

    per_optimizer: Sequence[Tensor | None]
    parts: Mapping[str, Tensor] = field(default_factory=dict)


class Method(nn.Module, ABC):
    """A network that embeds sketches and photos, and all that training it takes.

    A method is built as ``make(classes, **arguments)``. Its other constructor arguments are
    keyword-only, with plain values (numbers, text, None and lists of them) or frozen dataclasses of
    such as defaults; they become the keys ``model.*`` of configs and of the command line.

    Attributes:
        classes: names of the seen classes; labels of batches index them.
        data_arguments: constructor arguments beside ``classes`` that are data, not settings; they
            are neither on the command line nor stored.
        free_arguments: arguments that change how a model is computed, not which model it is; a
            run may go on with another value.
    """

    classes: tuple[str, ...]
    data_arguments: ClassVar[tuple[str, ...]] = ()
    free_arguments: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def image_spec(self) -> ImageSpec:
        """Give the size and the normalisation that the images must have."""

    @abstractmethod
    def losses(self, batch: Any, at: Progress) -> Losses:
        """Compute the losses of one batch.

        Args:
            batch: a collated batch of the plan that ``batches`` gave, on the model's device.
            at: how far the run is.

        Returns:
            One loss per optimizer of ``optimizers``, in their order.
        """

    @abstractmethod
    def embed(self, images: Tensor, modality: Modality) -> Tensor:
        """Embed images of one modality for retrieval.

        Args:
            images: [B, 3, H, W] float, as ``image_spec`` says.
            modality: ``"sketch"`` or ``"photo"``.

        Returns:
            float32 [B, D].
        """

    def backbone(self) -> nn.Module | None:
        """Name the part that trains at ``optim.lr_backbone``; all else is the head."""
        return None

    def batches(self, benchmark: Benchmark, data: DataConfig) -> BatchPlan:
        """Plan the batches; by default balanced pairs of one sketch and one photo.

        Args:
            benchmark: its training sketches and photos are used, nothing else of it.
            data: batch make-up.
        """
        from zsbir_fast.methods.batches import balanced_pairs

        return balanced_pairs(benchmark, data, self.image_spec())

    def optimizers(self, optim: OptimConfig) -> Sequence[Optimizer]:
        """Make the optimizers; by default one AdamW over all trainable parameters.

        The loop steps them, clips their gradients and moves their learning rates along the schedule
        from the rates that they start with.

        Args:
            optim: learning rates and weight decay.
        """
        from zsbir_fast.methods.optimizers import adamw

        return [adamw(self, optim, backbone=self.backbone())]

    def notes(self) -> Sequence[str]:
        """Tell what a user should know when training begins, a line each; by default nothing."""
        return ()

    def ranker(self) -> Ranker:
        """Say how embeddings are ranked; by default by cosine."""
        return EmbeddingRanker("cosine")

    def explain(self, sketches: Tensor, photos: Tensor, labels: Tensor) -> PairExplanation | None:
        """Explain how sketch-photo pairs of seen classes fit each other, for the report.

        Args:
            sketches: [B, 3, H, W] float, as ``image_spec`` says.
            photos: [B, 3, H, W] float; photo i is the partner of sketch i.
            labels: int64 [B], index into ``classes``.

        Returns:
            The explanation, or None where the method has none.
        """
        return None

    @classmethod
    def complete(
        cls, classes: Sequence[str], arguments: Mapping[str, Any], stored: Mapping[str, Tensor]
    ) -> dict[str, Any]:
        """Give the arguments that build the network for stored weights.

        Pre-trained weights and texts that the stored ones replace must be neither read nor fetched.

        Args:
            classes: names of the seen classes.
            arguments: the stored arguments, with dataclasses in place.
            stored: the stored weights by name.

        Returns:
            Keyword arguments of the constructor.

        Raises:
            ValueError: the weights lack something.
        """
        return dict(arguments)

    @classmethod
    def pretrained_encoder(cls, arguments: Mapping[str, Any]) -> Encoder | None:
        """Build the encoder as it is before training, to compare with; None where there is none.

        Args:
            arguments: the stored arguments, with dataclasses in place.
        """
        return None
