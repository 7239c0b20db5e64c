"""A whole method of another package: two optimizers, phases by epoch, scores of its own.

A student of sketches and photos imitates a teacher that looks at colours or at edges; from the
second epoch on the teacher's head learns, too. Photos are ranked by a bilinear score.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import zsbir_fast as zf

SIZE, WIDTH = 16, 12


@dataclass(frozen=True)
class StudentOptions:
    """The student's network.

    Attributes:
        dropout: share of its features that are dropped in training.
    """

    dropout: float = 0.1


class Toy(zf.Method):
    """The method.

    Args:
        classes: names of the seen classes.
        teacher: what the teacher looks at.
        student: the student's network.
    """

    def __init__(
        self,
        classes: Sequence[str],
        *,
        teacher: Literal["colours", "edges"],
        student: StudentOptions = StudentOptions(),
    ) -> None:
        super().__init__()
        self.classes = tuple(classes)
        self.teacher = teacher
        self.body = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Dropout(student.dropout))
        self.relation = nn.Parameter(torch.eye(WIDTH))
        self.teacher_head = nn.Linear(WIDTH, len(classes))
        self.head = nn.Linear(WIDTH, len(classes))

    def image_spec(self) -> zf.ImageSpec:
        return zf.ImageSpec(SIZE, (0.5,) * 3, (0.5,) * 3)

    def optimizers(self, optim: zf.OptimConfig) -> list[torch.optim.Optimizer]:
        student = [*self.body.parameters(), *self.head.parameters(), self.relation]
        return [
            torch.optim.AdamW(student, lr=optim.lr_head),
            torch.optim.SGD(self.teacher_head.parameters(), lr=optim.lr_backbone, momentum=0.9),
        ]

    def losses(self, batch: Mapping[str, Tensor], at: zf.Progress) -> zf.Losses:
        images, labels = torch.cat([batch["sketches"], batch["photos"]]), batch["labels"].repeat(2)
        student = self.head(self.body(_patches(images)))
        taught = self.teacher_head(self._look(images))
        imitation = F.kl_div(student.log_softmax(1), taught.softmax(1), reduction="batchmean")
        scores = self._scores(self.embed(batch["sketches"], "sketch"),
                              self.embed(batch["photos"], "photo"))  # fmt: skip
        pairs = F.cross_entropy(scores, torch.arange(len(scores), device=scores.device))
        right = F.cross_entropy(taught, labels)
        return zf.Losses([imitation + pairs, right if at.epoch else None], {"pairs": pairs})

    def embed(self, images: Tensor, modality: Literal["sketch", "photo"]) -> Tensor:
        return self.body(_patches(images)).float()

    def ranker(self) -> zf.Ranker:
        return zf.ScoreRanker(lambda q, g: self._scores(q, g.to(q)), name="bilinear scores")

    def _scores(self, queries: Tensor, gallery: Tensor) -> Tensor:
        return queries @ self.relation.to(queries) @ gallery.T

    def _look(self, images: Tensor) -> Tensor:
        if self.teacher == "edges":
            images = images - images.roll(1, 3)
        return _patches(images)


def _patches(images: Tensor) -> Tensor:
    return F.adaptive_avg_pool2d(images, 2).flatten(1)


class Uneven(Toy):
    """Its teacher rests in every process but the first; all must keep the same weights."""

    def losses(self, batch: Mapping[str, Tensor], at: zf.Progress) -> zf.Losses:
        if torch.distributed.is_initialized():
            own = nn.utils.parameters_to_vector(self.parameters()).detach()
            first = own.clone()
            torch.distributed.broadcast(first, 0)
            assert torch.equal(own, first), f"weights differ after {at.step} steps"
        losses = super().losses(batch, at)
        rests = torch.distributed.is_initialized() and torch.distributed.get_rank() > 0
        return zf.Losses([losses.per_optimizer[0], None]) if rests else losses


class NoTeacher(zf.Method):
    """It lacks members of the contract."""

    def embed(self, images: Any, modality: Any) -> Any:
        return images
