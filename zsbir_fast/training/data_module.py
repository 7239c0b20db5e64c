"""The Lightning data module: the batches that a method plans, resumable at any of them."""

from __future__ import annotations

import lightning.pytorch as pl

from zsbir_fast._words import shown
from zsbir_fast.methods.batches import BatchPlan
from zsbir_fast.training.streams import ResumableLoader, RunBatches


class RunData(pl.LightningDataModule):
    """Gives the training batches of a whole run.

    Args:
        plan: dataset and sampler of the batches.
        epoch_batches: batches of an epoch.
        epochs: epochs of the run.
        seed: seed of batches and augmentation.
        workers: processes that load images.

    Raises:
        TypeError: ``plan`` is no plan, but whatever a method gave.
    """

    def __init__(
        self, plan: BatchPlan, *, epoch_batches: int, epochs: int, seed: int, workers: int = 0
    ) -> None:
        super().__init__()
        if not isinstance(plan, BatchPlan):
            raise TypeError(f"RunData: plan must be a zsbir_fast.BatchPlan, got {shown(plan)}")
        self.plan = plan
        self.epoch_batches = epoch_batches
        self.epochs = epochs
        self.seed = seed
        self.workers = workers

    def train_dataloader(self) -> ResumableLoader:
        """Build the loader of this process; Lightning calls this."""
        rank, world_size = 0, 1
        if self.trainer is not None:
            rank, world_size = self.trainer.global_rank, self.trainer.world_size
        sampler = self.plan.sampler(
            batches=self.epoch_batches, seed=self.seed, rank=rank, world_size=world_size
        )
        batches = RunBatches(
            sampler, batches=self.epochs * self.epoch_batches, seed=self.seed, rank=rank
        )
        return ResumableLoader(self.plan.items, batches, workers=self.workers)
