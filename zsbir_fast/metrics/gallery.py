"""Embeddings made ready for one kind of distance, and a gallery made ready for counting."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from zsbir_fast.ops.batched_map import GalleryClasses

Metric = Literal["cosine", "euclidean", "dot"]
METRICS: tuple[Metric, ...] = get_args(Metric)


def check_metric(caller: str, metric: str) -> None:
    """Raise unless ``metric`` is known."""
    if metric not in METRICS:
        raise ValueError(f"{caller}: metric must be one of {', '.join(METRICS)}, got {metric!r}")


def larger_is_closer(metric: Metric) -> bool:
    """Whether the score that :func:`query_side` and :func:`gallery_side` give is a similarity."""
    return metric != "euclidean"


def query_side(queries: Tensor, metric: Metric) -> Tensor:
    """Queries [Q, D] so that one product with the gallery side gives the score."""
    if metric == "cosine":
        return torch.nn.functional.normalize(queries, dim=1)
    if metric == "euclidean":
        return torch.nn.functional.pad(queries, (0, 1), value=1.0)
    return queries


def gallery_side(gallery: Tensor, metric: Metric) -> Tensor:
    """Gallery [G, D] likewise.

    Euclidean distance ranks like |g|^2 - 2 q.g (the query's own norm is the same for all), which is
    the product of [q, 1] and [-2 g, |g|^2]. A row of zeros has cosine 0 with everything.
    """
    if metric == "cosine":
        return torch.nn.functional.normalize(gallery, dim=1)
    if metric == "euclidean":
        return torch.cat([gallery * -2, gallery.square().sum(1, keepdim=True)], dim=1)
    return gallery


@dataclass(frozen=True)
class LabelIndex:
    """Labels of a whole gallery as class numbers.

    Attributes:
        labels: int64 [classes], ascending.
        counts: int64 [classes], gallery items of each.
    """

    labels: Tensor
    counts: Tensor

    @staticmethod
    def of(labels: Tensor) -> LabelIndex:
        """From the labels of all gallery items, int64 [G]."""
        return LabelIndex(*torch.unique(labels, return_counts=True))

    def classes_of(self, labels: Tensor) -> Tensor:
        """Class number of each label, int32; -1 where the gallery has none."""
        at = torch.searchsorted(self.labels, labels).clamp(max=len(self.labels) - 1)
        return torch.where(self.labels[at] == labels, at, -1).to(torch.int32)


@dataclass(frozen=True)
class PreparedGallery:
    """A gallery in memory, sorted by class once, so that counting can step over relevant items.

    Attributes:
        transposed: [D', G], the gallery side of the product, a view of a [G, D'] copy.
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
        """Prepare gallery [G, D] (float32 or float64) with labels int64 [G] on the CPU."""
        index = LabelIndex.of(labels)
        classes = index.classes_of(labels)
        order = torch.argsort(classes, stable=True)
        in_order = bool((order[1:] > order[:-1]).all())
        device = gallery.device
        if not in_order:
            gallery = gallery[order.to(device)]
        return PreparedGallery(
            gallery_side(gallery, metric).t(),
            GalleryClasses.of(
                classes[order].to(device),
                len(index.labels),
                None if in_order else order.to(device, torch.int32),
            ),
            index,
            metric,
        )

    def __len__(self) -> int:
        return self.transposed.shape[1]
