from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from zsbir_fast.training.streams import ResumableLoader, RunBatches, SeededItems, derive_seed


class Noise(Dataset):
    """Items that draw from every global generator, as augmentation may."""

    def __getitem__(self, index):
        return torch.tensor([index, torch.rand(()), random.random(), np.random.rand()])  # noqa: NPY002


class Epochs:
    def __init__(self, batches=3):
        self.batches, self.epoch = batches, 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __len__(self):
        return self.batches

    def __iter__(self):
        for b in range(self.batches):
            yield [100 * self.epoch + 10 * b + i for i in range(2)]


def _loader(*, workers=0, start=0, rank=0, seed=5):
    batches = RunBatches(Epochs(), batches=8, seed=seed, rank=rank)
    loader = ResumableLoader(Noise(), batches, workers=workers)
    loader.load_state_dict({"batch": start})
    return loader


def test_stream_goes_through_the_epochs_and_stops_mid_epoch():
    keys = [[key for key, _ in batch] for batch in RunBatches(Epochs(), batches=8, seed=0)]
    starts = [0, 10, 20, 100, 110, 120, 200, 210]
    assert keys == [[start, start + 1] for start in starts]


@pytest.mark.parametrize("start", range(9))
def test_stream_from_any_batch_equals_the_rest_of_the_whole(start):
    whole = list(_loader())
    rest = list(_loader(start=start))
    assert len(rest) == 8 - start
    for a, b in zip(whole[start:], rest, strict=True):
        assert torch.equal(a, b)


def test_workers_change_nothing():
    for a, b in zip(_loader(), _loader(workers=2, start=0), strict=True):
        assert torch.equal(a, b)


def test_every_item_has_its_own_randomness():
    draws = torch.cat(list(_loader()))[:, 1:]
    assert len(draws.unique()) == draws.numel()
    other = torch.cat(list(_loader(rank=1)))[:, 1:]
    assert not torch.isin(draws, other).any()
    other = torch.cat(list(_loader(seed=6)))[:, 1:]
    assert not torch.isin(draws, other).any()


def test_loader_counts_what_it_gave():
    loader = _loader(start=2)
    assert len(loader) == 8  # of the whole run, as Lightning counts
    iterator = iter(loader)
    next(iterator)
    next(iterator)
    assert loader.state_dict() == {"batch": 4}


def test_drawing_an_item_leaves_the_global_generators_alone():
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    expected = (torch.rand(()), random.random(), np.random.rand())  # noqa: NPY002
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    first = SeededItems(Noise())[3, 7]
    assert (torch.rand(()), random.random(), np.random.rand()) == expected  # noqa: NPY002
    assert torch.equal(first, SeededItems(Noise())[3, 7])


def test_seeds_differ_by_place():
    assert derive_seed(1, 2, 3) == derive_seed(1, 2, 3)
    assert len({derive_seed(a, b) for a in range(20) for b in range(20)}) == 400


def test_an_epoch_that_is_shorter_than_its_length_says():
    class Short(Epochs):
        def __iter__(self):
            return iter(list(super().__iter__())[:2])

    text = "epochs must give 3 batches, as its length says, got 2 in epoch 0"
    with pytest.raises(ValueError, match=text):
        list(RunBatches(Short(), batches=8, seed=0))
