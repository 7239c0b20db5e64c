"""Batch samplers: which sketches and photos meet in a training batch.

Every sampler is fixed by (seed, epoch, rank): the processes of a distributed run take turns on
one stream of batches, and a run that stops inside an epoch goes on at any batch of it.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Sampler

from zsbir_fast._arguments import as_integer, as_number
from zsbir_fast._words import options_of
from zsbir_fast.data.names import listing

Pair = tuple[int, int]


class EpochSampler(Protocol):
    """A batch sampler whose batches follow from the epoch number."""

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch."""

    def __iter__(self) -> Iterator[Sequence[Any]]:
        """Yield the batches of that epoch, each a list of dataset keys."""

    def __len__(self) -> int:
        """Return the batches of an epoch."""


class _Deck:
    """Draws without replacement; reshuffles when it is used up."""

    def __init__(self, items: np.ndarray[Any, Any], rng: np.random.Generator) -> None:
        self.items = items
        self.rng = rng
        self.left: list[int] = []

    def draw(self, count: int) -> list[int]:
        """Return ``count`` items, all of them different if there are enough."""
        if count > len(self.items):  # every item, and some of them again
            extra = self.rng.choice(self.items, count - len(self.items))
            return [*self._shuffled(), *extra.tolist()]
        if count > len(self.left):
            rest, met = self.left, set(self.left)
            fresh = [item for item in self._shuffled() if item not in met]
            drawn, kept = fresh[: count - len(rest)], fresh[count - len(rest) :]
            # The items that were drawn from the old deck wait in the new one like all others.
            self.left = self._shuffle(np.array([*kept, *rest], dtype=np.int64))
            return [*rest, *drawn]
        drawn = self.left[len(self.left) - count :]
        del self.left[len(self.left) - count :]
        return drawn

    def _shuffled(self) -> list[int]:
        return self._shuffle(self.items)

    def _shuffle(self, items: np.ndarray[Any, Any]) -> list[int]:
        shuffled: list[int] = self.rng.permutation(items).tolist()
        return shuffled


class _EpochSampler(Sampler[list[Any]], ABC):
    """The state that the samplers share: epoch, rank and position."""

    def __init__(self, *, batches: int, seed: int, rank: int, world_size: int) -> None:
        function = type(self).__name__
        batches = as_integer(function, "batches", batches, least=1)
        seed = as_integer(function, "seed", seed, least=0)
        if not 0 <= rank < world_size:
            raise ValueError(
                f"{function}: rank must be in 0..world_size-1, got {rank} of {world_size}"
            )
        self.batches = batches
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.epoch = 0
        self.start_batch = 0

    def __repr__(self) -> str:
        return f"{type(self).__name__}({options_of(self)})"

    def set_epoch(self, epoch: int, *, start_batch: int = 0) -> None:
        """Choose the epoch.

        Args:
            epoch: number of the epoch.
            start_batch: first batch to yield, to go on inside an epoch.

        Raises:
            ValueError: a negative number, or ``start_batch`` beyond the epoch.
        """
        if epoch < 0 or not 0 <= start_batch <= self.batches:
            raise ValueError(
                f"{type(self).__name__}.set_epoch: epoch must not be negative and start_batch must "
                f"be in 0..{self.batches}, got {epoch} and {start_batch}"
            )
        self.epoch = epoch
        self.start_batch = start_batch

    def __len__(self) -> int:
        """Return the batches of a whole epoch on this rank, from any ``start_batch``."""
        return self.batches

    def __iter__(self) -> Iterator[list[Any]]:
        """Yield the batches of this rank from ``start_batch`` on."""
        rng = np.random.default_rng((self.seed, self.epoch))
        stream = self._stream(rng)
        for number in range(self.batches):
            for rank in range(self.world_size):
                batch = next(stream)
                if rank == self.rank and number >= self.start_batch:
                    yield batch

    @abstractmethod
    def _stream(self, rng: np.random.Generator) -> Iterator[list[Any]]:
        """Yield batches without end, those of all ranks in turn."""


class ClassBalancedBatchSampler(_EpochSampler):
    """Batches of P classes with K sketches and K photos of each, as pairs of one class.

    Within an epoch classes come up equally often, and so do the images of a class. A class with
    fewer images than asked for gives all of them and repeats some; no other class repeats an
    image within a batch. Classes that lack sketches or photos are left out, with a warning.

    Args:
        sketch_labels: class of every sketch, integers [n].
        photo_labels: class of every photo, integers [m].
        classes_per_batch: P.
        sketches_per_class: different sketches of a class in a batch.
        photos_per_class: different photos of a class in a batch. If the two numbers differ, the
            images of the smaller side appear in several pairs.
        batches: batches per epoch and rank.
        seed: start of the randomness.
        rank: this process among ``world_size``; all ranks take turns on one stream, so that they
            never draw the same batch.
        world_size: processes that train together.

    Yields:
        Lists of P * max(K) pairs (sketch index, photo index), grouped by class.

    Raises:
        ValueError: a number is out of range, or fewer than ``classes_per_batch`` classes have
            both sketches and photos.
    """

    def __init__(
        self,
        sketch_labels: Sequence[int] | Tensor,
        photo_labels: Sequence[int] | Tensor,
        *,
        classes_per_batch: int,
        sketches_per_class: int,
        photos_per_class: int,
        batches: int,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        super().__init__(batches=batches, seed=seed, rank=rank, world_size=world_size)
        name = "ClassBalancedBatchSampler"
        self.classes_per_batch = as_integer(name, "classes_per_batch", classes_per_batch, least=1)
        self.sketches_per_class = as_integer(
            name, "sketches_per_class", sketches_per_class, least=1
        )
        self.photos_per_class = as_integer(name, "photos_per_class", photos_per_class, least=1)
        self._sketches = _by_class(sketch_labels)
        self._photos = _by_class(photo_labels)
        self.classes = sorted(self._sketches.keys() & self._photos.keys())
        if len(self.classes) < classes_per_batch:
            raise ValueError(
                "ClassBalancedBatchSampler: classes_per_batch must be at most the number of "
                f"classes with both sketches and photos, {len(self.classes)}, got "
                f"{classes_per_batch}"
            )
        halves = sorted(self._sketches.keys() ^ self._photos.keys())
        if halves:
            warnings.warn(
                "ClassBalancedBatchSampler: every class must have sketches and photos, got only "
                f"one of them for the labels {listing(halves)}, which are left out",
                stacklevel=2,
            )

    def _stream(self, rng: np.random.Generator) -> Iterator[list[Pair]]:
        classes = _Deck(np.array(self.classes), rng)
        sketches = {c: _Deck(self._sketches[c], rng) for c in self.classes}
        photos = {c: _Deck(self._photos[c], rng) for c in self.classes}
        pairs = max(self.sketches_per_class, self.photos_per_class)
        while True:
            batch: list[Pair] = []
            for c in classes.draw(self.classes_per_batch):
                drawn = sketches[c].draw(self.sketches_per_class)
                found = photos[c].draw(self.photos_per_class)
                batch += [(drawn[i % len(drawn)], found[i % len(found)]) for i in range(pairs)]
            yield batch


class MixedBatchSampler(_EpochSampler):
    """Batches of sketches and photos of any classes in a fixed ratio.

    Args:
        sketches: number of sketches.
        photos: number of photos.
        batch_size: images in a batch.
        sketch_share: share of sketches in a batch, e.g. 1/3; rounded to whole images, at least
            one of each modality.
        batches: batches per epoch and rank.
        seed: start of the randomness.
        rank: this process among ``world_size``.
        world_size: processes that train together.

    Yields:
        Lists of indices into the sketches followed by the photos, as in
        ``ConcatDataset([sketches, photos])``: sketches first.

    Raises:
        ValueError: a number is out of range.

    Source: batches of 1/3 sketches and 2/3 photos, Liu et al., "Semantic-Aware Knowledge
    Preservation for Zero-Shot Sketch-Based Image Retrieval", ICCV 2019 (as in its public code).
    """

    def __init__(
        self,
        *,
        sketches: int,
        photos: int,
        batch_size: int,
        sketch_share: float,
        batches: int,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        super().__init__(batches=batches, seed=seed, rank=rank, world_size=world_size)
        name = "MixedBatchSampler"
        sketches = as_integer(name, "sketches", sketches, least=1)
        photos = as_integer(name, "photos", photos, least=1)
        batch_size = as_integer(name, "batch_size", batch_size, least=2)
        sketch_share = as_number(name, "sketch_share", sketch_share)
        if not 0 < sketch_share < 1:
            raise ValueError(
                f"MixedBatchSampler: sketch_share must be between 0 and 1, got {sketch_share}"
            )
        self.sketches = sketches
        self.photos = photos
        self.batch_size = batch_size
        self.sketch_share = sketch_share
        self.sketches_per_batch = min(max(1, round(batch_size * sketch_share)), batch_size - 1)
        self.photos_per_batch = batch_size - self.sketches_per_batch

    def _stream(self, rng: np.random.Generator) -> Iterator[list[int]]:
        sketches = _Deck(np.arange(self.sketches), rng)
        photos = _Deck(np.arange(self.sketches, self.sketches + self.photos), rng)
        while True:
            yield [*sketches.draw(self.sketches_per_batch), *photos.draw(self.photos_per_batch)]


def _by_class(labels: Sequence[int] | Tensor) -> dict[int, np.ndarray[Any, Any]]:
    values = torch.as_tensor(labels).numpy()
    if values.ndim != 1 or not np.issubdtype(values.dtype, np.integer):
        raise ValueError(
            "ClassBalancedBatchSampler: labels must be integers [n], got "
            f"{values.dtype} of shape {listing(values.shape)}"
        )
    return {int(c): np.flatnonzero(values == c) for c in np.unique(values)}
