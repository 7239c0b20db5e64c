"""The rows that quadruplet losses compare: a batch, perhaps of several processes, and a bank."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from zsbir_fast._types import Integers
from zsbir_fast.ops._checks import as_labels, check_feature_shape
from zsbir_fast.ops.quadruplet_mining.inputs import check_weights

Labels = Integers | tuple[Integers, Integers]


class Bank(NamedTuple):
    """Features of past batches; no gradient flows into them.

    The loss compares them as they are: they are L2-normalised already, if the loss does that.

    Attributes:
        sketches: [M_s, D] float.
        sketch_labels: [M_s] int64.
        photos: [M_i, D] float.
        photo_labels: [M_i] int64.
        past_positives: whether they may be positives, too, and not only negatives.
    """

    sketches: Tensor
    sketch_labels: Tensor
    photos: Tensor
    photo_labels: Tensor
    past_positives: bool


class JoinedBatch(NamedTuple):
    """The batches of all processes in the order of their ranks, or that of this process alone.

    Attributes:
        sketches: [B_s, D] float.
        photos: [B_i, D] float.
        sketch_labels: [B_s] int64.
        photo_labels: [B_i] int64.
        weights: [B_s] float, or None.
        own: which sketches are those of this process.
    """

    sketches: Tensor
    photos: Tensor
    sketch_labels: Tensor
    photo_labels: Tensor
    weights: Tensor | None
    own: slice


class Side(NamedTuple):
    """One modality: the batch, and the pool that is mined (batch first, then bank; no gradient).

    ``banked`` says whether there is a bank.
    """

    features: Tensor
    labels: Tensor
    pool: Tensor
    pool_labels: Tensor
    banked: bool


def side_of(
    features: Tensor, labels: Tensor, past: Tensor | None, past_labels: Tensor | None
) -> Side:
    """Put a batch of one modality and the bank's features together."""
    if past is None or past_labels is None:
        return Side(features, labels, features.detach(), labels, False)
    return Side(
        features,
        labels,
        torch.cat([features.detach(), past.to(features.dtype)]),
        torch.cat([labels, past_labels]),
        True,
    )


def chosen_rows(side: Side, *indices: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Find rows of the pool that were mined among fewer rows.

    Args:
        side: of which modality.
        indices: int64 [B] rows of the pool, -1 for none.

    Returns:
        The batch and the bank's rows among them, [n + B * len(indices), D], and where those rows
        are in it. Gradients of a whole bank, which are not wanted, are never made.
    """
    if not side.banked:
        return side.features, list(indices)
    rows, moved, batch = [side.features], [], len(side.features)
    for index in indices:
        past = index >= batch
        places = sum(map(len, rows)) + torch.arange(len(index), device=index.device)
        moved.append(torch.where(past, places, index))
        if len(side.pool) > 0:
            rows.append(side.pool[torch.where(past, index, 0)])
    return torch.cat(rows), moved


def split_labels(
    function: str, labels: Labels, sketches: Tensor, photos: Tensor
) -> tuple[Tensor, Tensor]:
    """Labels of the sketches and of the photos, as int64 beside them.

    Raises:
        TypeError: labels are not integers.
        ValueError: one tensor for unequal numbers, or a wrong number of labels.
    """
    if _is_pair(labels):
        of_sketches, of_photos = labels
    elif len(sketches) == len(photos):
        both = as_labels(function, "labels", labels, len(sketches), "sketches", sketches)
        return both, both
    else:
        raise ValueError(
            f"{function}: labels must be a pair (sketch labels, photo labels) for "
            f"{len(sketches)} sketches and {len(photos)} photos, got one tensor"
        )
    return (
        as_labels(function, "sketch labels", of_sketches, len(sketches), "sketches", sketches),
        as_labels(function, "photo labels", of_photos, len(photos), "photos", photos),
    )


def _is_pair(labels: Labels) -> bool:
    """Whether they are two sets of labels; a list of two numbers is one set."""
    return (
        isinstance(labels, (tuple, list))
        and len(labels) == 2
        and all(hasattr(x, "__len__") and getattr(x, "ndim", 1) > 0 for x in labels)
    )


def check_batch(
    function: str,
    sketches: Tensor,
    photos: Tensor,
    labels: Labels,
    weights: Tensor | None,
    *,
    symmetric: bool,
    all_count: bool,
    width: int | None = None,
) -> None:
    """Check features, labels and weights of this process's batch.

    Args:
        function: named in errors.
        sketches: [B_s, D]; values are checked by what compares them.
        photos: [B_i, D].
        labels: of both.
        weights: [B_s] or None.
        symmetric: whether photos are anchors, too.
        all_count: whether all quadruplets count, which takes no weights.
        width: of the features; None: any.

    Raises:
        ValueError: shapes or options do not fit, or a weight is not finite.
        TypeError: features or weights are no dense floating-point tensors, or labels not integers.
    """
    for argument, features in (("sketches", sketches), ("photos", photos)):
        check_feature_shape(function, argument, features, width)
    split_labels(function, labels, sketches, photos)
    if weights is None:
        return
    if all_count:
        raise ValueError(
            f"{function}: weights must be None for negative='all', whose terms are not pairs; "
            f"got {list(weights.shape)}"
        )
    check_weights(function, weights, len(sketches))
    if symmetric and len(sketches) != len(photos):
        raise ValueError(
            f"{function}: photos must be as many as sketches for symmetric=True with weights, "
            f"got {len(photos)} and {len(sketches)}"
        )
