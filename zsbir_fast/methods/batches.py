"""The plan of the training batches: a dataset and a sampler."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch.utils.data import Dataset

from zsbir_fast.data.benchmarks import Benchmark
from zsbir_fast.data.image_spec import ImageSpec
from zsbir_fast.data.images import ImageSet
from zsbir_fast.data.pairs import MixedImages, SketchPhotoPairs
from zsbir_fast.data.samplers import ClassBalancedBatchSampler, EpochSampler, MixedBatchSampler
from zsbir_fast.data.transforms import train_transform
from zsbir_fast.methods.settings import DataConfig


@dataclass(frozen=True)
class BatchPlan:
    """Where batches come from.

    Attributes:
        items: gives the item of a key; default collation makes batches of items.
        sampler: called with ``batches`` (of an epoch), ``seed``, ``rank`` and ``world_size``; gives
            lists of keys, which follow from these and the number of the epoch alone.
    """

    items: Dataset[Any]
    sampler: Callable[..., EpochSampler]


def balanced_pairs(benchmark: Benchmark, data: DataConfig, spec: ImageSpec) -> BatchPlan:
    """Plan batches of P classes with K sketches and K photos each, as pairs of one class.

    Args:
        benchmark: its training sketches and photos are used.
        data: P and K.
        spec: size and normalisation of the images.

    Returns:
        A plan whose batches are dicts as :class:`zsbir_fast.data.pairs.PairItem` says.
    """
    sketches, photos = _training_images(benchmark, spec)

    def sampler(**how: int) -> EpochSampler:
        return ClassBalancedBatchSampler(
            sketches.labels,
            photos.labels,
            classes_per_batch=data.classes_per_batch,
            sketches_per_class=data.sketches_per_class,
            photos_per_class=data.photos_per_class,
            **how,
        )

    return BatchPlan(SketchPhotoPairs(sketches, photos), sampler)


def mixed_images(benchmark: Benchmark, data: DataConfig, spec: ImageSpec) -> BatchPlan:
    """Plan batches of sketches and photos of any classes, in the ratio of ``sketch_share``.

    Args:
        benchmark: its training sketches and photos are used.
        data: batch size and share of sketches.
        spec: size and normalisation of the images.

    Returns:
        A plan whose batches are dicts as :class:`zsbir_fast.data.pairs.MixedItem` says.
    """
    sketches, photos = _training_images(benchmark, spec)

    def sampler(**how: int) -> EpochSampler:
        return MixedBatchSampler(
            sketches=len(sketches),
            photos=len(photos),
            batch_size=data.batch_size,
            sketch_share=data.sketch_share,
            **how,
        )

    return BatchPlan(MixedImages(sketches, photos), sampler)


def _training_images(benchmark: Benchmark, spec: ImageSpec) -> tuple[ImageSet, ImageSet]:
    sketches, photos = (
        images.with_transform(train_transform(*spec, modality=images.modality))
        for images in (benchmark.train_sketches, benchmark.train_photos)
    )
    return sketches, photos
