"""The weighted quadruplet loss as a module: mining and loss in one call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zsbir_fast.ops.quadruplet_mining import Quadruplets, mine_quadruplets, quadruplet_loss
from zsbir_fast.reference.quadruplet_mining import (
    Distance,
    Negative,
    Positive,
    Preset,
    Reduction,
    SketchNegative,
)

Labels = Tensor | tuple[Tensor, Tensor]


class WeightedQuadrupletLoss(nn.Module):
    """Mine quadruplets in a batch of sketches and photos and sum their weighted hinges.

    Args:
        mining: how the negative photo is chosen, see :func:`zsbir_fast.mine_quadruplets`;
            ``"distance_weighted"`` draws from torch's global random numbers.
        negatives: which hinges take part, the preset of :func:`zsbir_fast.quadruplet_loss`.
        positive: how the positive photo is chosen; ``"paired"`` takes photo i for sketch i.
        sketch_negative: the negative sketch is the one nearest to the ``"anchor"`` or to the
            ``"positive"`` photo; default: the positive for ``"cross_symmetric"``, else the anchor.
        margins: one margin or five; default: those of the preset (0.3, and 0.15 for h5). The
            first one also bounds the semi-hard negatives.
        cross_modal_share: of the preset ``"ramln"``.
        distance: ``"euclidean"``, ``"squared_euclidean"`` or ``"cosine"``.
        normalize: L2-normalise the features first.
        symmetric: also use every photo as the anchor, and average the two losses.
        reduction: ``"mean"``, ``"mean_nonzero"`` or ``"sum"``.

    Raises:
        ValueError: an option is unknown (raised by the first call, before any work).

    Source: DM-WAN, arXiv 2511.00925 (the name and the purpose); the form is our reading.
    """

    def __init__(
        self,
        *,
        mining: Negative = "hardest",
        negatives: Preset = "domain_balanced",
        positive: Positive = "hardest",
        sketch_negative: SketchNegative | None = None,
        margins: float | Sequence[float] | None = None,
        cross_modal_share: float = 0.5,
        distance: Distance = "euclidean",
        normalize: bool = True,
        symmetric: bool = False,
        reduction: Literal["mean", "mean_nonzero", "sum"] = "mean",
    ) -> None:
        super().__init__()
        self.mining = mining
        self.negatives = negatives
        self.positive = positive
        self.sketch_negative: SketchNegative = sketch_negative or (
            "positive" if negatives == "cross_symmetric" else "anchor"
        )
        self.margins = margins
        self.cross_modal_share = cross_modal_share
        self.distance = distance
        self.normalize = normalize
        self.symmetric = symmetric
        self.reduction: Reduction = reduction

    def forward(
        self,
        sketches: Tensor,
        photos: Tensor,
        labels: Labels,
        weights: Tensor | None = None,
        *,
        quadruplets: Quadruplets | None = None,
    ) -> Tensor:
        """Compute the loss of a batch.

        Args:
            sketches: [B_s, D] float.
            photos: [B_i, D] float.
            labels: [B] int64 shared by sketches and photos, or a pair of [B_s] and [B_i].
            weights: [B_s] float, factor of each sketch anchor; default 1. With ``symmetric`` it is
                the factor of photo i, too, so that B_s and B_i must be equal.
            quadruplets: those of the sketch anchors, if they were mined before.

        Returns:
            Scalar; 0 where no anchor has a valid quadruplet.

        Raises:
            ValueError: shapes or options do not fit; labels are shared by unequal numbers.
        """
        sketches, photos = self._prepare(sketches), self._prepare(photos)
        sketch_labels, photo_labels = _split_labels(labels, len(sketches), len(photos))
        if self.symmetric and weights is not None and len(sketches) != len(photos):
            raise ValueError(
                "WeightedQuadrupletLoss: photos must be as many as sketches for symmetric=True "
                f"with weights, got {len(photos)} and {len(sketches)}"
            )
        if quadruplets is None:
            quadruplets = self._mine(sketches, photos, sketch_labels, photo_labels)
        loss = self._loss(sketches, photos, quadruplets, weights)
        if not self.symmetric:
            return loss
        swapped = self._mine(photos, sketches, photo_labels, sketch_labels)
        return (loss + self._loss(photos, sketches, swapped, weights)) / 2

    def mine(self, sketches: Tensor, photos: Tensor, labels: Labels) -> Quadruplets:
        """Mine the quadruplets of the sketch anchors as :meth:`forward` does.

        Args:
            sketches: [B_s, D] float.
            photos: [B_i, D] float.
            labels: as for :meth:`forward`.

        Returns:
            Row indices, see :func:`zsbir_fast.mine_quadruplets`.

        Raises:
            ValueError: shapes or options do not fit.
        """
        split = _split_labels(labels, len(sketches), len(photos))
        return self._mine(self._prepare(sketches), self._prepare(photos), *split)

    def _prepare(self, features: Tensor) -> Tensor:
        return F.normalize(features, dim=1) if self.normalize else features

    def _mine(
        self, anchors: Tensor, others: Tensor, anchor_labels: Tensor, other_labels: Tensor
    ) -> Quadruplets:
        count, device = len(anchors), anchors.device
        rows = torch.arange(count, device=device)
        return mine_quadruplets(
            anchors.detach(),
            others.detach(),
            anchor_labels,
            other_labels,
            positive=self.positive,
            negative=self.mining,
            sketch_negative=self.sketch_negative,
            distance=self.distance,
            margin=self._mining_margin(),
            paired=torch.where(rows < len(others), rows, -1) if self.positive == "paired" else None,
            uniforms=(
                torch.rand(count, device=device) if self.mining == "distance_weighted" else None
            ),
            distinct_negatives=self.negatives == "chen2017",
        )

    def _mining_margin(self) -> float:
        if self.margins is None:
            return 0.3
        return self.margins if isinstance(self.margins, (int, float)) else self.margins[0]

    def _loss(
        self, anchors: Tensor, others: Tensor, quadruplets: Quadruplets, weights: Tensor | None
    ) -> Tensor:
        return quadruplet_loss(
            anchors,
            others,
            quadruplets,
            weights=weights,
            preset=self.negatives,
            margins=self.margins,
            cross_modal_share=self.cross_modal_share,
            distance=self.distance,
            reduction=self.reduction,
        )


def _split_labels(labels: Labels, sketches: int, photos: int) -> tuple[Tensor, Tensor]:
    if isinstance(labels, tuple):
        return labels
    if sketches != photos:
        raise ValueError(
            "WeightedQuadrupletLoss: labels must be a pair (sketch labels, photo labels) for "
            f"{sketches} sketches and {photos} photos, got one tensor"
        )
    return labels, labels
