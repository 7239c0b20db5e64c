"""A gallery sorted by class and made ready for products once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from zsbir_fast.metrics.checks import work_dtype
from zsbir_fast.metrics.scores import GallerySide, Metric
from zsbir_fast.ops.batched_map import GalleryClasses

_BLOCK_BYTES = 2**24  # gallery rows that are gathered and made ready at a time


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
        index: which labels there are.
        classes: int32 [G], ascending: the class numbers of the items in ``order``.
        order: int64 [G], positions of the items by class, ascending within each.
        in_order: whether the items stand by class already.
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
        side: the items in class order, ready for products.
        classes: which column belongs to which class, and where it stood.
        labels: the labels behind the class numbers.
    """

    side: GallerySide
    classes: GalleryClasses
    labels: LabelIndex

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

        Cost: one copy of the gallery, written by blocks.
        """
        device, width = parts[0].device, parts[0].shape[1]
        side = GallerySide.empty(len(labels.order), width, metric, dtype, device)
        step = side.aligned(_BLOCK_BYTES // (width * dtype.itemsize))
        order = labels.order.to(device)
        for start in range(0, len(order), step):
            if labels.in_order and len(parts) == 1:
                block = parts[0][start : start + step]
            else:
                block = _gather(parts, order[start : start + step])
            side.fill(start, block)
        return PreparedGallery(side, labels.in_class_order(device), labels.index)

    def __len__(self) -> int:
        return len(self.classes.of_column)


def _gather(parts: Sequence[Tensor], positions: Tensor) -> Tensor:
    """Rows at positions of all parts together, in the widest type of the parts."""
    if len(parts) == 1:
        return parts[0][positions]
    ends = torch.tensor([len(part) for part in parts], device=positions.device).cumsum(0)
    dtype = parts[0].dtype
    for part in parts[1:]:
        dtype = torch.promote_types(dtype, part.dtype)
    out = torch.empty(len(positions), parts[0].shape[1], dtype=dtype, device=positions.device)
    part_of = torch.bucketize(positions, ends, right=True)
    for number, part in enumerate(parts):
        here = part_of == number
        if bool(here.any()):
            out[here] = part[positions[here] - (ends[number] - len(part))].to(dtype)
    return out
