"""The Lightning data module: balanced batches of sketches and photos of seen classes."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl

from zsbir_fast.data.benchmarks import Benchmark
from zsbir_fast.data.pairs import SketchPhotoPairs
from zsbir_fast.data.samplers import ClassBalancedBatchSampler
from zsbir_fast.data.transforms import train_transform
from zsbir_fast.runs.settings import DataConfig
from zsbir_fast.training.streams import ResumableLoader, RunBatches


class SeenClasses(pl.LightningDataModule):
    """Gives the training batches of a whole run, resumable at any of them.

    Args:
        benchmark: its training sketches and photos are used, nothing else of it.
        data: batch make-up.
        encoder: gives ``image_size``, ``mean`` and ``std`` for the transforms.
        epoch_batches: batches of an epoch.
        epochs: epochs of the run.
        seed: seed of batches and augmentation.
    """

    def __init__(
        self,
        benchmark: Benchmark,
        data: DataConfig,
        encoder: Any,
        *,
        epoch_batches: int,
        epochs: int,
        seed: int,
    ) -> None:
        super().__init__()
        self.benchmark = benchmark
        self.data = data
        self.encoder = encoder
        self.epoch_batches = epoch_batches
        self.epochs = epochs
        self.seed = seed

    def train_dataloader(self) -> ResumableLoader:
        """Build the loader of this process; Lightning calls this."""
        rank, world = (
            (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        )
        sketches, photos = (
            images.with_transform(
                train_transform(
                    self.encoder.image_size,
                    mean=self.encoder.mean,
                    std=self.encoder.std,
                    modality=images.modality,
                )
            )
            for images in (self.benchmark.train_sketches, self.benchmark.train_photos)
        )
        sampler = ClassBalancedBatchSampler(
            sketches.labels,
            photos.labels,
            classes_per_batch=self.data.classes_per_batch,
            sketches_per_class=self.data.sketches_per_class,
            photos_per_class=self.data.photos_per_class,
            batches=self.epoch_batches,
            seed=self.seed,
            rank=rank,
            world_size=world,
        )
        batches = RunBatches(
            sampler, batches=self.epochs * self.epoch_batches, seed=self.seed, rank=rank
        )
        return ResumableLoader(
            SketchPhotoPairs(sketches, photos), batches, workers=self.data.workers
        )
