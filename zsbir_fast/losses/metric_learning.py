"""Drop-in parts for pytorch-metric-learning: a batch-all triplet loss and a hard miner.

They follow its calling conventions (``loss(embeddings, labels, indices_tuple, ref_emb,
ref_labels)``, ``miner(embeddings, labels, ref_emb, ref_labels)``) and do not import it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from zsbir_fast._arguments import as_margin, check_choice
from zsbir_fast._types import Integers
from zsbir_fast._words import options_of
from zsbir_fast.losses.gathering import Gather, ProcessGroup, share_rows
from zsbir_fast.ops._checks import (
    Impl,
    as_labels,
    check_feature_shape,
    check_has_values,
    kind_of,
    unit_length,
    unseen,
)
from zsbir_fast.ops.quadruplet_mining import (
    Quadruplets,
    batch_all_triplet_loss,
    mine_quadruplets,
    quadruplet_loss,
)
from zsbir_fast.ops.quadruplet_mining.batch_all import ScalarReduction
from zsbir_fast.reference.quadruplet_mining import Distance

IndicesTuple = tuple[Tensor, ...]
MinerNegative = Literal["hardest", "semihard"]


class BatchAllTripletLoss(nn.Module):
    """Triplet margin loss over all triplets of a batch, without writing the triplets out.

    It has the values and gradients of pytorch-metric-learning's ``TripletMarginLoss`` with its
    default distance, reducer and options.

    Args:
        margin: in units of ``distance``; the default is pytorch-metric-learning's.
        distance: ``"euclidean"``, ``"squared_euclidean"`` or ``"cosine"`` (1 - cosine).
        normalize: L2-normalise the embeddings first, as pytorch-metric-learning does by default.
        reduction: ``"mean_nonzero"`` over triplets above 0, which is pytorch-metric-learning's
            default reducer; ``"mean"`` over all triplets, or ``"sum"``.
        gather: ``"auto"``: in a distributed run join the batches of all processes, see
            :class:`zsbir_fast.WeightedQuadrupletLoss`; not where ``ref_emb`` or an
            ``indices_tuple`` is given. ``"off"``: this process alone.
        process_group: which processes; default: all.
        impl: ``"fused"``: the kernels. ``"reference"``: plain PyTorch.

    Raises:
        ValueError: an option is unknown.

    Source: Hermans et al., arXiv 1703.07737 ("batch all").
    """

    def __init__(
        self,
        *,
        margin: float = 0.05,
        distance: Distance = "euclidean",
        normalize: bool = True,
        reduction: ScalarReduction = "mean_nonzero",
        gather: Gather = "auto",
        process_group: ProcessGroup = None,
        impl: Impl = "fused",
    ) -> None:
        super().__init__()
        name = "BatchAllTripletLoss"
        check_choice(name, "distance", distance, Distance)
        check_choice(name, "reduction", reduction, ScalarReduction)
        check_choice(name, "gather", gather, Gather)
        check_choice(name, "impl", impl, Impl)
        self.margin = as_margin(name, margin)
        self.distance: Distance = distance
        self.normalize = normalize
        self.reduction: ScalarReduction = reduction
        self.gather: Gather = gather
        self.process_group = process_group
        self.impl: Impl = impl

    def extra_repr(self) -> str:
        """Return the options, for ``repr``."""
        return options_of(self)

    def forward(
        self,
        embeddings: Tensor,
        labels: Integers,
        indices_tuple: IndicesTuple | None = None,
        ref_emb: Tensor | None = None,
        ref_labels: Integers | None = None,
    ) -> Tensor:
        """Compute the loss of a batch.

        Args:
            embeddings: [B, D] float, the anchors.
            labels: [B] integers: a tensor, an array or a list.
            indices_tuple: None: all triplets. (anchors, positives, negatives) from a miner: these
                triplets. Four tensors (anchors, positives, anchors, negatives): accepted where
                they are all pairs, or all but one positive of each anchor, as
                pytorch-metric-learning's ``CrossBatchMemory`` passes them.
            ref_emb: [R, D] float, where positives and negatives are found, all of them: an anchor
                that is there, too, is its own positive. Default: the embeddings themselves, without
                the pairs of an anchor with itself.
            ref_labels: [R] integers, needed with ``ref_emb``.

        Returns:
            Scalar; 0 with zero gradients where there is no triplet.

        Raises:
            ValueError: shapes do not fit, a feature is not finite (on CUDA and in compiled code the
                loss is NaN then), or ``indices_tuple`` is something else.
            TypeError: labels or indices are not integers, or features no dense floating-point
                tensors.
            RuntimeError: another process's batch is wrong.
        """
        name = "BatchAllTripletLoss"
        if ref_emb is None and indices_tuple is None and ref_labels is None:
            return self._of_the_joined_batch(embeddings, labels)
        labels = _labels_of(name, "embeddings", embeddings, "labels", labels)
        references, reference_labels = _references(name, embeddings, labels, ref_emb, ref_labels)
        indices = _indices(name, indices_tuple, len(embeddings), len(references))
        anchors = self._prepare(embeddings, "embeddings")
        references = anchors if ref_emb is None else self._prepare(references, "ref_emb")
        if indices is None:
            return self._all(anchors, labels, references, reference_labels, exclude_self=False)
        if len(indices) == 3:
            return self._given(anchors, references, indices)
        order = _all_but_own(labels, reference_labels, indices)
        if order is None:
            return self._all(anchors, labels, references, reference_labels, exclude_self=False)
        return self._all(
            anchors, labels, references[order], reference_labels[order], exclude_self=True
        )

    if TYPE_CHECKING:  # nn.Module would say Any
        __call__ = forward

    def _of_the_joined_batch(self, embeddings: Tensor, labels: Integers) -> Tensor:
        name = "BatchAllTripletLoss"
        (share,) = share_rows(
            name,
            self.process_group,
            lambda: _check_labelled(name, embeddings, labels),
            gather=self.gather,
            embeddings=embeddings,
        )
        labels = _labels_of(name, "embeddings", embeddings, "labels", labels)
        features = self._prepare(share.join(embeddings), "embeddings")
        return self._all(features, share.join(labels), None, None, exclude_self=True)

    def _prepare(self, features: Tensor, argument: str) -> Tensor:
        return (
            unit_length("BatchAllTripletLoss", argument, features) if self.normalize else features
        )

    def _all(
        self,
        anchors: Tensor,
        labels: Tensor,
        references: Tensor | None,
        reference_labels: Tensor | None,
        *,
        exclude_self: bool,
    ) -> Tensor:
        return batch_all_triplet_loss(
            anchors,
            labels,
            references,
            reference_labels,
            margin=self.margin,
            distance=self.distance,
            reduction=self.reduction,
            exclude_self=exclude_self,
            impl=self.impl,
        )

    def _given(self, anchors: Tensor, references: Tensor, triplets: IndicesTuple) -> Tensor:
        anchor, positive, negative = triplets
        if len(anchor) == 0:
            return anchors[:0].sum() + references[:0].sum()
        chosen = Quadruplets(
            positive, negative, torch.zeros_like(anchor), torch.ones_like(anchor).bool()
        )
        return quadruplet_loss(
            anchors[anchor],
            references,
            chosen,
            preset="triplet",
            margins=self.margin,
            distance=self.distance,
            reduction=self.reduction,
            impl=self.impl,
        )


class HardTripletMiner(nn.Module):
    """For each anchor its farthest positive and a hard negative, without a matrix of distances.

    With its defaults it makes the choices of pytorch-metric-learning's ``BatchHardMiner``; among
    equal distances it takes the lowest index.

    Args:
        negative: ``"hardest"``, or ``"semihard"``: the nearest farther than the positive by less
            than ``margin``, else the farthest of all.
        distance: ``"euclidean"``, ``"squared_euclidean"`` or ``"cosine"``.
        normalize: L2-normalise the embeddings first, as pytorch-metric-learning does by default.
        margin: of the semi-hard negatives.
        impl: ``"fused"``: the kernels. ``"reference"``: plain PyTorch.

    Raises:
        ValueError: an option is unknown.

    Source: Hermans et al., arXiv 1703.07737; semi-hard: Schroff et al., arXiv 1503.03832.
    """

    def __init__(
        self,
        *,
        negative: MinerNegative = "hardest",
        distance: Distance = "euclidean",
        normalize: bool = True,
        margin: float = 0.2,
        impl: Impl = "fused",
    ) -> None:
        super().__init__()
        name = "HardTripletMiner"
        check_choice(name, "negative", negative, MinerNegative)
        check_choice(name, "distance", distance, Distance)
        check_choice(name, "impl", impl, Impl)
        self.negative: MinerNegative = negative
        self.distance: Distance = distance
        self.normalize = normalize
        self.margin = as_margin(name, margin)
        self.impl: Impl = impl

    def extra_repr(self) -> str:
        """Return the options, for ``repr``."""
        return options_of(self)

    @torch.no_grad()
    def forward(
        self,
        embeddings: Tensor,
        labels: Integers,
        ref_emb: Tensor | None = None,
        ref_labels: Integers | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Mine a batch.

        Args:
            embeddings: [B, D] float, the anchors.
            labels: [B] integers: a tensor, an array or a list.
            ref_emb: [R, D] float, where positives and negatives are found, all of them. Default:
                the embeddings themselves, an anchor never being its own positive.
            ref_labels: [R] integers, needed with ``ref_emb``.

        Returns:
            Indices int64 [T] of anchors, positives and negatives, T up to B: the anchors that have
            both. Anchors index ``embeddings``, the others ``ref_emb``.

        Raises:
            ValueError: shapes do not fit, or a feature is not finite.
            TypeError: labels are not integers, or features no dense floating-point tensors.
        """
        name = "HardTripletMiner"
        labels = _labels_of(name, "embeddings", embeddings, "labels", labels)
        references, reference_labels = _references(name, embeddings, labels, ref_emb, ref_labels)
        if self.normalize:
            embeddings = unit_length(name, "embeddings", embeddings)
            references = embeddings if ref_emb is None else unit_length(name, "ref_emb", references)
        mined = mine_quadruplets(
            embeddings,
            references,
            labels,
            reference_labels,
            negative=self.negative,
            distance=self.distance,
            margin=self.margin,
            sketch_negative="none",
            impl=self.impl,
        )
        positive = mined.positive
        if ref_emb is None:
            positive = _not_itself(positive, labels)
        anchors = ((positive >= 0) & (mined.photo_negative >= 0)).nonzero()[:, 0]
        return anchors, positive[anchors], mined.photo_negative[anchors]

    if TYPE_CHECKING:  # nn.Module would say Any
        __call__ = forward


def _labels_of(
    function: str, argument: str, features: Tensor, labels_argument: str, labels: Integers
) -> Tensor:
    """Labels as int64 [B] beside features [B, D], both checked."""
    check_feature_shape(function, argument, features)
    check_has_values(function, argument, features)
    return as_labels(function, labels_argument, labels, len(features), argument, features)


def _check_labelled(function: str, embeddings: Tensor, labels: Integers) -> None:
    _labels_of(function, "embeddings", embeddings, "labels", labels)


def _references(
    function: str,
    embeddings: Tensor,
    labels: Tensor,
    ref_emb: Tensor | None,
    ref_labels: Integers | None,
) -> tuple[Tensor, Tensor]:
    """The rows that anchors are compared with: ``ref_emb``, or their own where there is none."""
    if ref_emb is None:
        if ref_labels is not None:
            raise ValueError(f"{function}: ref_emb must be given with ref_labels, got None")
        return embeddings, labels
    if ref_labels is None:
        raise ValueError(f"{function}: ref_labels must be given with ref_emb, got None")
    return ref_emb, _labels_of(function, "ref_emb", ref_emb, "ref_labels", ref_labels)


def _indices(
    function: str, given: IndicesTuple | None, anchors: int, references: int
) -> IndicesTuple | None:
    """Triplets or pairs as int64 tensors.

    Raises:
        TypeError: they are no tuple of integer tensors.
        ValueError: there are not three or four, or a row does not exist.
    """
    if given is None:
        return None
    if not isinstance(given, (tuple, list)):
        raise TypeError(f"{function}: indices_tuple must be a tuple, got {kind_of(given)}")
    if len(given) not in (3, 4):
        raise ValueError(
            f"{function}: indices_tuple must hold three or four tensors, got {len(given)}"
        )
    names: tuple[str, ...] = ("anchors", "positives", "negatives")
    if len(given) == 4:
        names = ("anchors", "positives", "anchors of negatives", "negatives")
    checked = []
    for name, index in zip(names, given, strict=True):
        if not isinstance(index, Tensor) or index.is_floating_point() or index.ndim != 1:
            got = f"{index.dtype} {list(index.shape)}" if isinstance(index, Tensor) else None
            raise TypeError(
                f"{function}: indices_tuple must hold integer tensors [T], "
                f"got {got or kind_of(index)} for its {name}"
            )
        rows = anchors if name.startswith("anchors") else references
        if len(index) and not unseen(index):
            low, high = (int(x) for x in index.aminmax())
            if low < 0 or high >= rows:
                raise ValueError(
                    f"{function}: indices_tuple must name {name} in [0, {rows}), "
                    f"got {low if low < 0 else high}"
                )
        checked.append(index.long())
    pairs = (checked[:2], checked[2:]) if len(checked) == 4 else (checked,)
    for together in pairs:
        if len({len(index) for index in together}) > 1:
            raise ValueError(
                f"{function}: indices_tuple must hold tensors of one length, "
                f"got {[len(index) for index in checked]}"
            )
    return tuple(checked)


def _not_itself(positive: Tensor, labels: Tensor) -> Tensor:
    """An anchor is its own farthest only among duplicates, or alone: take a duplicate, or none."""
    rows = torch.arange(len(labels), device=labels.device)
    own = (positive == rows).nonzero()[:, 0]
    if len(own) == 0:
        return positive
    others = (labels[own, None] == labels[None, :]) & (own[:, None] != rows[None, :])
    duplicate = torch.where(others.any(1), others.int().argmax(1), -1)
    return positive.index_copy(0, own, duplicate)


def _all_but_own(labels: Tensor, reference_labels: Tensor, pairs: IndicesTuple) -> Tensor | None:
    """Order of the references that puts each anchor's missing positive at the anchor's own place.

    None if no positive is missing.

    Raises:
        ValueError: other pairs are missing, too.
    """
    anchor, positive, negative_anchor, negative = pairs
    same = labels[:, None] == reference_labels[None, :]
    missing = same.clone()
    missing[anchor, positive] = False
    extra = (~same)[anchor, positive].any() | same[negative_anchor, negative].any()
    left_out = missing.sum(1)
    complete = len(negative) == int((~same).sum()) and not bool(extra)
    if complete and not bool(left_out.any()):
        return None
    own = missing.int().argmax(1)
    if not complete or not bool((left_out == 1).all()) or len(set(own.tolist())) < len(own):
        raise ValueError(
            "BatchAllTripletLoss: indices_tuple of pairs must be all pairs, or all but one "
            "positive of each anchor, got others; pass triplets (anchors, positives, negatives)"
        )
    taken = torch.zeros_like(reference_labels, dtype=torch.bool)
    taken[own] = True
    return torch.cat([own, (~taken).nonzero()[:, 0]])
