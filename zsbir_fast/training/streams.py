"""A stream of training batches that can be taken up again at any batch, bit for bit.

All randomness of a batch (which images, how they are augmented) follows from
(seed, rank, batch number) alone. Nothing depends on worker processes or on earlier batches.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from typing import Any, TypeVar

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from zsbir_fast.data.samplers import EpochSampler

Item_co = TypeVar("Item_co", covariant=True)


def derive_seed(*numbers: int) -> int:
    """Mix numbers into one seed.

    Args:
        numbers: non-negative integers, e.g. (seed, rank, batch, slot).

    Returns:
        A 32-bit seed; different numbers give unrelated seeds.
    """
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and PyTorch (CPU and GPU).

    Args:
        seed: 32-bit seed.
    """
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  libraries draw from the global generator
    torch.manual_seed(seed)


class RunBatches(Sampler[list[tuple[Any, int]]]):
    """All batches of a run, epoch after epoch, from a chosen one on.

    Args:
        epochs: sampler of one epoch.
        batches: batches of the whole run.
        seed: start of the augmentation's randomness.
        rank: this process among all that train together.

    Attributes:
        start: number of the first batch to yield.

    Raises:
        ValueError: in iteration, an epoch is shorter than its length says.
    """

    def __init__(self, epochs: EpochSampler, *, batches: int, seed: int, rank: int = 0) -> None:
        self.epochs = epochs
        self.batches = batches
        self.seed = seed
        self.rank = rank
        self.start = 0

    def __len__(self) -> int:
        """Return the number of batches of the whole run; ``start`` does not change it."""
        return self.batches

    def __iter__(self) -> Iterator[list[tuple[Any, int]]]:
        """Yield batches of (dataset key, augmentation seed)."""
        number = self.start
        while number < self.batches:
            epoch, done = divmod(number, len(self.epochs))
            self.epochs.set_epoch(epoch)
            before = number
            for keys in itertools.islice(self.epochs, done, done + self.batches - number):
                yield [
                    (key, derive_seed(self.seed, self.rank, number, slot))
                    for slot, key in enumerate(keys)
                ]
                number += 1
            if number == before:
                raise ValueError(
                    f"RunBatches: epochs must give {len(self.epochs)} batches, as its length says, "
                    f"got {done} in epoch {epoch}"
                )


class SeededItems(Dataset[Item_co]):
    """Items of a dataset, each drawn under its own seed.

    Args:
        items: dataset whose transforms draw from the global generators.
    """

    def __init__(self, items: Dataset[Item_co]) -> None:
        self.items = items

    def __getitem__(self, key: tuple[Any, int]) -> Item_co:
        """Return item ``key[0]``, augmented under seed ``key[1]``; global generators stay put."""
        index, seed = key
        python, numpy_ = random.getstate(), np.random.get_state()  # noqa: NPY002
        try:
            with torch.random.fork_rng(devices=[]):
                seed_everything_on_cpu(seed)
                return self.items[index]
        finally:
            random.setstate(python)
            np.random.set_state(numpy_)  # noqa: NPY002


def seed_everything_on_cpu(seed: int) -> None:
    """Seed Python, NumPy and PyTorch's CPU generator only: a worker must not touch a GPU.

    Args:
        seed: 32-bit seed.
    """
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.default_generator.manual_seed(seed)


class ResumableLoader(DataLoader[Any]):
    """A data loader that knows how many batches it gave, and can start after them.

    Args:
        items: the dataset.
        batches: the stream of batches.
        workers: processes that load images.
    """

    def __init__(self, items: Dataset[Any], batches: RunBatches, *, workers: int = 0) -> None:
        super().__init__(
            SeededItems(items),
            batch_sampler=batches,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator(),  # so that starting it draws nothing from the global one
        )
        self.batches = batches
        self._given = 0

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # a generator that counts
        """Yield batches from the position on."""
        self._given = self.batches.start
        for batch in super().__iter__():
            self._given += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Return the position; Lightning stores it in checkpoints."""
        return {"batch": self._given}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go to a position; Lightning calls this before it starts the loader."""
        self.batches.start = state["batch"]
