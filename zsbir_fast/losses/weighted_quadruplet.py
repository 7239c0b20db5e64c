"""The weighted quadruplet loss as a module: mining and loss in one call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from zsbir_fast._arguments import as_share, check_choice
from zsbir_fast._words import options_of
from zsbir_fast.losses.batches import (
    Bank,
    JoinedBatch,
    Labels,
    Side,
    check_batch,
    chosen_rows,
    side_of,
    split_labels,
)
from zsbir_fast.losses.gathering import Gather, ProcessGroup, process_count, share_rows, shared_seed
from zsbir_fast.losses.quadruplet_options import (
    LossNegative,
    check_reduction,
    hinges_of,
    sketch_negative_for,
)
from zsbir_fast.ops._checks import Impl, unit_length
from zsbir_fast.ops.quadruplet_mining import (
    Quadruplets,
    batch_all_quadruplet_loss,
    mine_quadruplets,
    quadruplet_loss,
)
from zsbir_fast.ops.quadruplet_mining.inputs import five_numbers
from zsbir_fast.reference.quadruplet_mining import (
    MARGINS,
    Distance,
    Positive,
    Preset,
    Reduction,
    SketchNegative,
)

_NAME = "WeightedQuadrupletLoss"


class WeightedQuadrupletLoss(nn.Module):
    """Mine quadruplets in a batch of sketches and photos and sum their weighted hinges.

    With ``gather="auto"`` the batches of all processes of a distributed run are joined first: the
    loss is that of the joined batch, the same on every process, and under
    ``DistributedDataParallel`` so are the parameters' gradients. Processes may have batches of
    different sizes.

    Args:
        negative: how the negative photo is chosen, see :func:`zsbir_fast.mine_quadruplets`;
            ``"distance_weighted"`` and ``"random"`` draw from torch's global random numbers.
            ``"all"``: nothing is chosen, all quadruplets count, see
            :func:`zsbir_fast.batch_all_quadruplet_loss`.
        preset: which hinges take part, see :func:`zsbir_fast.quadruplet_loss`.
        positive: how the positive photo is chosen; ``"paired"`` takes photo i for sketch i. Not
            used with ``negative="all"``.
        sketch_negative: the negative sketch is the one nearest to the ``"anchor"`` or to the
            ``"positive"`` photo, or a ``"random"`` one; ``"none"`` where no hinge has one, as in
            ``"triplet"``. Default: none there, the positive where h3 takes part without h2, as in
            ``"cross_symmetric"``, else the anchor. Not used with ``negative="all"``.
        coefficients: five factors of the hinges h1 to h5, which replace those of ``preset``.
        margins: one margin or five; default: those of the preset (0.3, and 0.15 for h5). The
            first one also bounds the semi-hard negatives.
        cross_modal_share: of the preset ``"ramln"``.
        distance: ``"euclidean"``, ``"squared_euclidean"`` or ``"cosine"``.
        normalize: L2-normalise the features first.
        symmetric: also use every photo as the anchor, and average the two losses.
        reduction: ``"mean"``, ``"mean_nonzero"``, ``"sum"``, or ``"none"``: the loss of every
            sketch of this process, [B_s]; not with ``symmetric`` or ``negative="all"``.
        gather: ``"auto"``: join the batches of all processes where ``torch.distributed`` is
            initialised; every process must then call the loss. ``"off"``: this process alone.
        process_group: which processes; default: all.
        impl: ``"fused"``: the kernels. ``"reference"``: plain PyTorch.

    Raises:
        ValueError: an option is unknown, or options do not go together.

    Source: DM-WAN, arXiv 2511.00925 (the name and the purpose); the form is our reading.
    """

    def __init__(
        self,
        *,
        negative: LossNegative = "hardest",
        preset: Preset = "domain_balanced",
        positive: Positive = "hardest",
        sketch_negative: SketchNegative | None = None,
        coefficients: Sequence[float] | None = None,
        margins: float | Sequence[float] | None = None,
        cross_modal_share: float = 0.5,
        distance: Distance = "euclidean",
        normalize: bool = True,
        symmetric: bool = False,
        reduction: Reduction = "mean",
        gather: Gather = "auto",
        process_group: ProcessGroup = None,
        impl: Impl = "fused",
    ) -> None:
        super().__init__()
        check_choice(_NAME, "negative", negative, LossNegative)
        check_choice(_NAME, "preset", preset, Preset)
        check_choice(_NAME, "positive", positive, Positive)
        if sketch_negative is not None:
            check_choice(_NAME, "sketch_negative", sketch_negative, SketchNegative)
        check_choice(_NAME, "distance", distance, Distance)
        check_choice(_NAME, "reduction", reduction, Reduction)
        check_choice(_NAME, "gather", gather, Gather)
        check_choice(_NAME, "impl", impl, Impl)
        five_numbers(_NAME, "margins", margins, MARGINS)
        self.negative: LossNegative = negative
        self.preset: Preset = preset
        self.positive: Positive = positive
        self.sketch_negative = sketch_negative_for(_NAME, sketch_negative, preset, coefficients)
        self.coefficients = coefficients
        self.margins = margins
        self.cross_modal_share = as_share(_NAME, "cross_modal_share", cross_modal_share)
        self.distance: Distance = distance
        self.normalize = normalize
        self.symmetric = symmetric
        self.reduction: Reduction = reduction
        self.gather: Gather = gather
        self.process_group = process_group
        self.impl: Impl = impl
        check_reduction(
            _NAME,
            reduction,
            negative=negative,
            symmetric=symmetric,
            preset=preset,
            coefficients=coefficients,
        )
        self._distinct_negatives = hinges_of(_NAME, preset, coefficients)[4]  # for h5

    def extra_repr(self) -> str:
        """Return the options, for ``repr``."""
        return options_of(self)

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
            labels: [B] integers shared by sketches and photos, or a pair of [B_s] and [B_i]:
                tensors, arrays or lists.
            weights: [B_s] float, factor of each sketch anchor; default 1. They may be negative.
                With ``symmetric`` it is the factor of photo i, too, so that B_s and B_i must be
                equal. Not with ``negative="all"``.
            quadruplets: those of the sketch anchors, if they were mined before; not where batches
                of several processes are joined.

        Returns:
            Scalar, or [B_s] with ``reduction="none"``; 0 with zero gradients where no anchor has a
            valid quadruplet: one class, one modality, or a single image.

        Raises:
            ValueError: shapes or options do not fit; labels are shared by unequal numbers; a
                feature or weight is not finite, or a row to be normalised has no finite length. On
                CUDA and in compiled code, which look at no values, the loss is NaN then.
            TypeError: labels are not integers, or features no dense floating-point tensors.
            RuntimeError: another process's batch is wrong.
        """
        if quadruplets is not None and self._processes() > 1:
            raise ValueError(
                f"{_NAME}: quadruplets must be None where batches of several processes are joined"
            )
        joined = self.join(sketches, photos, labels, weights)
        loss = self.joined_loss(joined, quadruplets=quadruplets)
        return loss[joined.own] if self.reduction == "none" else loss

    if TYPE_CHECKING:  # nn.Module would say Any
        __call__ = forward

    def mine(
        self, sketches: Tensor, photos: Tensor, labels: Labels, *, bank: Bank | None = None
    ) -> Quadruplets:
        """Mine the quadruplets of the sketch anchors as :meth:`forward` does.

        Nothing is gathered. If several processes call it with the same batch, all of them get the
        same quadruplets.

        Args:
            sketches: [B_s, D] float.
            photos: [B_i, D] float.
            labels: as for :meth:`forward`.
            bank: more to choose from; its rows count from B_s and B_i on.

        Returns:
            Row indices, see :func:`zsbir_fast.mine_quadruplets`.

        Raises:
            ValueError: shapes or options do not fit, or ``negative="all"``, which chooses nothing.
        """
        if self.negative == "all":
            raise ValueError(f"{_NAME}.mine: negative must choose a photo, got 'all'")
        check_batch(_NAME, sketches, photos, labels, None, symmetric=False, all_count=False)
        split = split_labels(_NAME, labels, sketches, photos)
        anchor, other = self._sides(sketches, photos, *split, bank)
        return self._mine(anchor, other, bank is None or bank.past_positives)

    def join(
        self,
        sketches: Tensor,
        photos: Tensor,
        labels: Labels,
        weights: Tensor | None = None,
        *,
        width: int | None = None,
    ) -> JoinedBatch:
        """Check a batch as :meth:`forward` does, and join those of all processes.

        Args:
            sketches: [B_s, D] float.
            photos: [B_i, D] float.
            labels: as for :meth:`forward`.
            weights: as for :meth:`forward`.
            width: width that the features must have; None: any.

        Returns:
            The joined batch.

        Raises:
            ValueError, TypeError: as for :meth:`forward`.
            RuntimeError: another process's batch is wrong.
        """
        sketch, photo = share_rows(
            _NAME,
            self.process_group,
            lambda: check_batch(
                _NAME,
                sketches,
                photos,
                labels,
                weights,
                symmetric=self.symmetric,
                all_count=self.negative == "all",
                width=width,
            ),
            gather=self.gather,
            sketches=sketches,
            photos=photos,
        )
        sketch_labels, photo_labels = split_labels(_NAME, labels, sketches, photos)
        return JoinedBatch(
            sketch.join(sketches),
            photo.join(photos),
            sketch.join(sketch_labels),
            photo.join(photo_labels),
            None if weights is None else sketch.join(weights),
            sketch.own,
        )

    def joined_loss(
        self,
        batch: JoinedBatch,
        *,
        quadruplets: Quadruplets | None = None,
        bank: Bank | None = None,
    ) -> Tensor:
        """Compute the loss of a batch that :meth:`join` gave; nothing is gathered here.

        Args:
            batch: the joined batch.
            quadruplets: those of the sketch anchors, from :meth:`mine` with the same ``bank``.
            bank: more to choose negatives from, and positives if it says so.

        Returns:
            Scalar, or one loss per sketch of the joined batch with ``reduction="none"``.

        Raises:
            ValueError: ``quadruplets`` or ``bank`` with ``negative="all"``, or a feature is not
                finite.
        """
        if self.negative == "all":
            if quadruplets is not None or bank is not None:
                raise ValueError(f"{_NAME}: quadruplets and bank must be None for negative='all'")
            loss = self._all_loss(batch)
        else:
            sides = self._sides(
                batch.sketches, batch.photos, batch.sketch_labels, batch.photo_labels, bank
            )
            loss = self._mined_loss(sides, batch.weights, quadruplets, bank)
        if min(len(batch.sketches), len(batch.photos)) == 0:  # the other one gets zeros, not None
            loss = loss + batch.sketches[:0].sum() + batch.photos[:0].sum()
        return loss

    def _processes(self) -> int:
        return process_count(self.process_group) if self.gather == "auto" else 1

    def _sides(
        self,
        sketches: Tensor,
        photos: Tensor,
        sketch_labels: Tensor,
        photo_labels: Tensor,
        bank: Bank | None,
    ) -> tuple[Side, Side]:
        past: tuple[Tensor | None, ...] = (None,) * 4
        if bank is not None:
            past = (bank.sketches, bank.sketch_labels, bank.photos, bank.photo_labels)
        return (
            side_of(self.prepare(sketches, "sketches"), sketch_labels, *past[:2]),
            side_of(self.prepare(photos, "photos"), photo_labels, *past[2:]),
        )

    def prepare(self, features: Tensor, argument: str = "features") -> Tensor:
        """Return [B, D] features as the loss compares them: with ``normalize`` of unit length.

        Args:
            features: the features.
            argument: its name in errors.

        Raises:
            ValueError: a row to be normalised is not finite.
        """
        return unit_length(_NAME, argument, features) if self.normalize else features

    def _mined_loss(
        self,
        sides: tuple[Side, Side],
        weights: Tensor | None,
        quadruplets: Quadruplets | None,
        bank: Bank | None,
    ) -> Tensor:
        sketches, photos = sides
        past_positives = bank is None or bank.past_positives
        if quadruplets is None:
            quadruplets = self._mine(sketches, photos, past_positives)
        loss = self._loss(sketches, photos, quadruplets, weights)
        if not self.symmetric:
            return loss
        swapped = self._mine(photos, sketches, past_positives)
        return (loss + self._loss(photos, sketches, swapped, weights)) / 2

    def _mine(self, anchor: Side, other: Side, past_positives: bool) -> Quadruplets:
        assert self.negative != "all"
        count, device = len(anchor.features), anchor.features.device
        rows = torch.arange(count, device=device)
        others = len(other.features)
        return mine_quadruplets(
            anchor.features.detach(),
            other.pool,
            anchor.labels,
            other.pool_labels,
            positive=self.positive,
            negative=self.negative,
            sketch_negative=self.sketch_negative,
            distance=self.distance,
            margin=five_numbers(_NAME, "margins", self.margins, MARGINS)[0],
            paired=torch.where(rows < others, rows, -1) if self.positive == "paired" else None,
            uniforms=self._uniforms(count, device)
            if self.negative in ("distance_weighted", "random")
            else None,
            sketch_uniforms=self._uniforms(count, device)
            if self.sketch_negative == "random"
            else None,
            distinct_negatives=self._distinct_negatives,
            sketch_references=anchor.pool if anchor.banked else None,
            sketch_reference_labels=anchor.pool_labels if anchor.banked else None,
            positive_photos=None if past_positives else others,
            impl=self.impl,
        )

    def _uniforms(self, count: int, device: torch.device) -> Tensor:
        if self._processes() == 1:
            return torch.rand(count, device=device)
        # Every process mines the joined batch, and all must choose alike.
        generator = torch.Generator(device).manual_seed(shared_seed(device, self.process_group))
        return torch.rand(count, device=device, generator=generator)

    def _loss(
        self, anchor: Side, other: Side, quadruplets: Quadruplets, weights: Tensor | None
    ) -> Tensor:
        rows, (positive, negative) = chosen_rows(
            other, quadruplets.positive, quadruplets.photo_negative
        )
        references, (sketch_negative,) = chosen_rows(anchor, quadruplets.sketch_negative)
        return quadruplet_loss(
            anchor.features,
            rows,
            Quadruplets(positive, negative, sketch_negative, quadruplets.valid),
            weights=weights,
            preset=self.preset,
            coefficients=self.coefficients,
            margins=self.margins,
            cross_modal_share=self.cross_modal_share,
            distance=self.distance,
            reduction=self.reduction,
            sketch_references=references if anchor.banked else None,
            impl=self.impl,
        )

    def _all_loss(self, batch: JoinedBatch) -> Tensor:
        sketches = (self.prepare(batch.sketches, "sketches"), batch.sketch_labels)
        photos = (self.prepare(batch.photos, "photos"), batch.photo_labels)
        directions = [(sketches, photos), (photos, sketches)][: 1 + self.symmetric]
        assert self.reduction != "none"
        losses = [
            batch_all_quadruplet_loss(
                anchors,
                others,
                anchor_labels,
                other_labels,
                preset=self.preset,
                coefficients=self.coefficients,
                margins=self.margins,
                distance=self.distance,
                reduction=self.reduction,
                impl=self.impl,
            )
            for (anchors, anchor_labels), (others, other_labels) in directions
        ]
        return torch.stack(losses).mean()
