"""Embeddings made ready for one kind of distance, and a gallery made ready for counting."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from zsbir_fast.metrics.checks import row_blocks, work_dtype
from zsbir_fast.ops.batched_map import GalleryClasses

Metric = Literal["cosine", "euclidean", "dot"]
METRICS: tuple[Metric, ...] = get_args(Metric)


def larger_is_closer(metric: Metric) -> bool:
    """Whether the score that :func:`query_side` and :func:`gallery_side` give is a similarity."""
    return metric != "euclidean"


def query_side(queries: Tensor, metric: Metric, dtype: torch.dtype) -> Tensor:
    """Queries [Q, D] so that one product with the gallery side gives the score."""
    if metric == "cosine":
        return normalise_rows_(queries.to(dtype, copy=True))
    if metric == "euclidean":
        return torch.nn.functional.pad(queries.to(dtype), (0, 1), value=1.0)
    return queries.to(dtype)


def gallery_side(gallery: Tensor, metric: Metric, dtype: torch.dtype) -> Tensor:
    """Gallery [G, D] likewise."""
    if metric == "dot":
        return gallery.to(dtype)
    out = _place_for(len(gallery), gallery.shape[1], metric, dtype, gallery.device)
    out[:, : gallery.shape[1]] = gallery
    return _finish_(out, metric)


def _place_for(
    rows: int, width: int, metric: Metric, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Memory for the gallery side, whose first ``width`` columns take the embeddings."""
    return torch.empty(rows, width + (metric == "euclidean"), dtype=dtype, device=device)


def _finish_(placed: Tensor, metric: Metric) -> Tensor:
    """From embeddings in place to the gallery side.

    Euclidean distance ranks like |g|^2 - 2 q.g (the query's own norm is the same for all), which is
    the product of [q, 1] and [-2 g, |g|^2]. A row of zeros has cosine 0 with everything.
    """
    if metric == "cosine":
        return normalise_rows_(placed)
    if metric == "euclidean":
        for start, block in row_blocks(placed):
            embeddings = block[:, :-1]
            placed[start : start + len(block), -1] = embeddings.square().sum(dim=1)
            embeddings.mul_(-2)
    return placed


def normalise_rows_(rows: Tensor) -> Tensor:
    """Each row over its Euclidean norm, in place; rows of zeros stay."""
    info = torch.finfo(rows.dtype)
    norm = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    # Squares of very small or large numbers leave the range of floats: such rows are scaled first.
    odd = (norm < 1e4 * math.sqrt(info.tiny)) | (norm > 0.1 * math.sqrt(info.max))
    if bool(odd.any()):
        at = odd[:, 0]
        scaled = rows[at] / rows[at].abs().amax(dim=1, keepdim=True).clamp_min(info.smallest_normal)
        rows[at] = scaled
        norm[at] = torch.linalg.vector_norm(scaled, dim=1, keepdim=True)
        norm[norm == 0] = 1.0
    return rows.div_(norm)


@dataclass(frozen=True)
class LabelIndex:
    """Labels of a whole gallery as class numbers.

    Attributes:
        labels: int64 [classes], ascending.
        counts: int64 [classes], gallery items of each.
    """

    labels: Tensor
    counts: Tensor

    def classes_of(self, labels: Tensor) -> Tensor:
        """Class number of each label, int32; -1 where the gallery has none."""
        at = torch.searchsorted(self.labels, labels).clamp_(max=len(self.labels) - 1)
        return torch.where(self.labels[at] == labels, at, -1).to(torch.int32)

    def offsets(self) -> Tensor:
        """int64 [classes + 1]: where each class begins in a gallery sorted by class."""
        return torch.nn.functional.pad(self.counts.cumsum(0), (1, 0))


@dataclass(frozen=True)
class GroupedLabels:
    """The labels of a gallery, and its items by class.

    Attributes:
        index: Which labels there are.
        classes: int32 [G], ascending: the class numbers of the items in ``order``.
        order: int64 [G], positions of the items by class, ascending within each.
        in_order: Whether the items stand by class already.
    """

    index: LabelIndex
    classes: Tensor
    order: Tensor
    in_order: bool

    @staticmethod
    def of(labels: Tensor) -> GroupedLabels:
        """Group labels int64 [G] on the CPU: one sort."""
        values, order = torch.sort(labels, stable=True)
        unique, counts = torch.unique_consecutive(values, return_counts=True)
        number = torch.arange(len(unique), dtype=torch.int32, device="cpu")
        classes = torch.repeat_interleave(number, counts, output_size=len(labels))
        in_order = bool((order[1:] > order[:-1]).all())
        return GroupedLabels(LabelIndex(unique, counts), classes, order, in_order)

    def in_class_order(self, device: torch.device) -> GalleryClasses:
        """For scores whose columns stand in ``order``."""
        return GalleryClasses(
            self.classes.to(device),
            self.index.offsets().to(device),
            torch.arange(len(self.order), dtype=torch.int32, device=device),
            None if self.in_order else self.order.to(device, torch.int32),
        )

    def as_given(self, device: torch.device) -> GalleryClasses:
        """For scores whose columns stand as the labels came."""
        classes = torch.empty_like(self.classes)
        classes[self.order] = self.classes
        return GalleryClasses(
            classes.to(device),
            self.index.offsets().to(device),
            self.order.to(device, torch.int32),
        )


@dataclass(frozen=True)
class PreparedGallery:
    """A gallery in memory, sorted by class once, so that counting can step over relevant items.

    Attributes:
        transposed: [D', G], the gallery side of the product, a view of a [G, D'] matrix.
        classes: Which column belongs to which class, and where it stood.
        labels: The labels behind the class numbers.
        metric: The distance it was prepared for.
    """

    transposed: Tensor
    classes: GalleryClasses
    labels: LabelIndex
    metric: Metric

    @staticmethod
    def of(gallery: Tensor, labels: Tensor, metric: Metric) -> PreparedGallery:
        """Prepare a gallery [G, D] with labels int64 [G] on the CPU."""
        return PreparedGallery.of_parts(
            [gallery], GroupedLabels.of(labels), metric, work_dtype(gallery.dtype)
        )

    @staticmethod
    def of_parts(
        parts: Sequence[Tensor], labels: GroupedLabels, metric: Metric, dtype: torch.dtype
    ) -> PreparedGallery:
        """Prepare a gallery that comes in parts, one after the other, on one device.

        Cost: one copy of the gallery; none if it is one part that is sorted by class already,
        ``metric`` is ``dot`` and the type fits.
        """
        device, width = parts[0].device, parts[0].shape[1]
        if metric == "dot" and len(parts) == 1 and labels.in_order:
            rows = parts[0].to(dtype)
        else:
            rows = _place_for(len(labels.order), width, metric, dtype, device)
            place = torch.empty_like(labels.order)
            place[labels.order] = torch.arange(len(place), device="cpu")
            _scatter(parts, place.to(device), rows[:, :width], labels.in_order)
            rows = _finish_(rows, metric)
        return PreparedGallery(rows.t(), labels.in_class_order(device), labels.index, metric)

    def __len__(self) -> int:
        return self.transposed.shape[1]


def _scatter(parts: Sequence[Tensor], place: Tensor, out: Tensor, in_order: bool) -> None:
    """Row i of all parts together into row ``place[i]`` of out, block by block."""
    first = 0
    for part in parts:
        for start, block in row_blocks(part):
            to = slice(first + start, first + start + len(block))
            if in_order:
                out[to] = block
            else:
                out.index_copy_(0, place[to], block.to(out.dtype))
        first += len(part)
