"""Wrong labels: how many, which, and that nothing else is touched."""

from __future__ import annotations

import pytest
import torch

from zsbir_fast.data.benchmarks import load_benchmark
from zsbir_fast.data.label_noise import with_label_noise


@pytest.fixture(scope="module")
def benchmark():
    return load_benchmark()


@pytest.mark.parametrize("share", [0.2, 0.4, 1.0])
def test_a_share_of_the_photos_gets_another_class(benchmark, share):
    noisy = with_label_noise(benchmark, share, seed=3)
    before, after = benchmark.train_photos.labels, noisy.train_photos.labels
    assert int((before != after).sum()) == round(share * len(before))
    assert noisy.train_photos.paths == benchmark.train_photos.paths
    assert 0 <= int(after.min()) <= int(after.max()) < len(benchmark.seen)
    assert torch.equal(after, with_label_noise(benchmark, share, seed=3).train_photos.labels)
    assert not torch.equal(after, with_label_noise(benchmark, share, seed=4).train_photos.labels)


def test_sketches_and_the_test_keep_their_classes(benchmark):
    before = benchmark.train_photos.labels.clone()
    noisy = with_label_noise(benchmark, 0.5)
    for name in ("train_sketches", "test_sketches", "test_photos", "seen", "unseen"):
        assert getattr(noisy, name) is getattr(benchmark, name)
    assert torch.equal(benchmark.train_photos.labels, before)
    assert with_label_noise(benchmark, 0.0) is benchmark


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_shares_that_cannot_be(benchmark, share):
    with pytest.raises(ValueError, match="with_label_noise: share must be"):
        with_label_noise(benchmark, share)
