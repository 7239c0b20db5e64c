"""SBKA: teacher and student teach each other; photos are matched by several codewords each."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import Tensor, nn
from torch.optim import Optimizer

from zsbir_fast._arguments import as_integer, as_number
from zsbir_fast.encoders.options import EncoderOptions
from zsbir_fast.losses.distillation import soft_cross_entropy
from zsbir_fast.methods.contract import Losses, Progress
from zsbir_fast.methods.distilled import DistilledMethod, KnowledgeOptions
from zsbir_fast.methods.settings import OptimConfig
from zsbir_fast.ranking.cluster_options import ClusterOptions


class SBKA(DistilledMethod):
    """A student that learns from an ImageNet teacher, whose head then learns from the student.

    For the first epochs the teacher stays as it is; from then on its head imitates the student,
    while the student goes on imitating it. A photo is found by its codewords, the means of a
    Gaussian mixture in each block of the feature space, and by its own distance.

    The published network is ConvNeXtV2-Tiny; any encoder with an ImageNet head serves.

    Args:
        classes: names of the seen classes; labels index them.
        encoder: the image encoder of the student, with an ImageNet head; the teacher is its frozen
            copy with a head of its own.
        one_way_epochs: epochs in which the teacher's head stays as it is; at least the epochs of
            the run: it never learns.
        teacher: factor of the teacher's loss.
        teacher_lr: peak learning rate of the teacher's head.
        detach_targets: targets pass no gradient. False is the published code: the gradient of the
            teacher's loss reaches the student, too; that of the student's loss does not reach the
            teacher.
        knowledge: the terms of the student's loss.
        ranking: how the gallery is clustered for retrieval.
        centre: ours; at inference subtract the modality's mean embedding of the seen classes and
            normalise again.
        mirror: ours; at inference sum the embeddings of an image and of its mirror image, which
            doubles the time.
        mirror_scale: ours; the mirror image is made larger by this factor.

    Attributes:
        classes: names of the seen classes.

    Raises:
        ValueError: an option is out of range, the encoder has no ImageNet head, or the table of
            similarities lacks a class.

    Source: Liu et al., "Symmetrical Bidirectional Knowledge Alignment for Zero-Shot Sketch-Based
    Image Retrieval", arXiv 2312.10320, and its public code.
    """

    def __init__(
        self,
        classes: Sequence[str],
        *,
        encoder: EncoderOptions = EncoderOptions(),
        one_way_epochs: int = 10,
        teacher: float = 1.0,
        teacher_lr: float = 1e-4,
        detach_targets: bool = True,
        knowledge: KnowledgeOptions = KnowledgeOptions(),
        ranking: ClusterOptions = ClusterOptions(model="gmm", blocks=2, fuse=0.2),
        centre: bool = False,
        mirror: bool = False,
        mirror_scale: float = 1.0,
    ) -> None:
        super().__init__(
            classes,
            encoder=encoder,
            width=None,
            knowledge=knowledge,
            ranking=ranking,
            condition=False,
            centre=centre,
            mirror=mirror,
            mirror_scale=mirror_scale,
        )
        self.one_way_epochs = as_integer("SBKA", "one_way_epochs", one_way_epochs, least=0)
        self.teacher = as_number("SBKA", "teacher", teacher)
        self.teacher_lr = as_number("SBKA", "teacher_lr", teacher_lr)
        if not self.teacher >= 0 or not self.teacher_lr >= 0:
            raise ValueError(
                f"SBKA: teacher and teacher_lr must not be negative, got {teacher} and {teacher_lr}"
            )
        self.detach_targets = detach_targets
        head = self.encoder.head
        assert head is not None  # it was built with its head
        self.teacher_head = copy.deepcopy(head).requires_grad_(True)
        nn.init.trunc_normal_(self.classifier.weight, std=2e-5)
        nn.init.zeros_(self.classifier.bias)

    def optimizers(self, optim: OptimConfig) -> Sequence[Optimizer]:
        """Make one Adam for the student and one for the teacher's head."""
        held = {id(parameter) for parameter in self.teacher_head.parameters()}
        student = [parameter for parameter in self.parameters() if id(parameter) not in held]
        of_teacher = replace(optim, lr_head=self.teacher_lr)
        return [
            self._adam(student, optim),
            self._adam(list(self.teacher_head.parameters()), of_teacher),
        ]

    def losses(self, batch: Mapping[str, Tensor], at: Progress) -> Losses:
        """Losses of a batch of single images, (1) to (5) of docs/methods.md.

        In a distributed run they are those of the joined batch of all processes, the same on each.

        Args:
            batch: ``"images"`` [B, 3, H, W] float, normalised; ``"labels"`` int64 [B];
                ``"is_photo"`` bool [B]. B may differ between processes.
            at: how far the run is; the noise follows from the step, the phase from the epoch.

        Returns:
            The student's loss and the teacher's, which is None in the first phase; the parts
            before their factors: ``"cls"``, ``"align"``, ``"distill"``, and ``"teach"`` in the
            second phase.
        """
        passed = self._pass(batch)
        parts = self._common_terms(passed, at.step)
        taught = self._head(passed.taught)
        scale, prior = self.knowledge.logit_scale, passed.prior
        # Whether this target is detached makes no difference: the gradient of the student's loss
        # goes to the student's parameters alone.
        parts["distill"] = soft_cross_entropy(passed.student, taught.detach() * scale, prior=prior)
        loss = self._student_loss(parts, at.step)
        if at.epoch < self.one_way_epochs:
            return Losses([loss, None], parts)
        student = passed.student.detach() if self.detach_targets else passed.student
        parts["teach"] = soft_cross_entropy(taught, student, prior=prior)
        teach = self.teacher * parts["teach"]
        return Losses([loss if self.detach_targets else loss + teach, teach], parts)

    def _head(self, features: Tensor) -> Tensor:
        return self.frozen.logits(self.encoder.of_photos, features, head=self.teacher_head)
