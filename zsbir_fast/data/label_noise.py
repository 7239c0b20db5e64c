"""Wrong labels on purpose: how much of a method survives them."""

from __future__ import annotations

from dataclasses import replace

import torch

from zsbir_fast._arguments import as_share
from zsbir_fast.data.benchmarks import Benchmark


def with_label_noise(benchmark: Benchmark, share: float, *, seed: int = 0) -> Benchmark:
    """Give a share of the training photos another seen class, drawn at random.

    A pair of a sketch and such a photo is then a wrong pair. Sketches keep their classes, and the
    test is left alone.

    Args:
        benchmark: its training photos are relabelled.
        share: of the photos, 0 to 1; rounded to whole photos.
        seed: fixes which ones, and their new classes.

    Returns:
        The benchmark with the wrong labels; the same one for a share of 0.

    Raises:
        ValueError: ``share`` is out of range, or there is no other class.
    """
    share = as_share("with_label_noise", "share", share)
    photos, classes = benchmark.train_photos, len(benchmark.seen)
    count = round(share * len(photos))
    if not count:
        return benchmark
    if classes < 2:
        raise ValueError(f"with_label_noise: benchmark must have two seen classes, got {classes}")
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(photos), generator=generator)[:count]
    shift = torch.randint(1, classes, (count,), generator=generator)
    labels = photos.labels.clone()
    labels[chosen] = (labels[chosen] + shift) % classes
    return replace(benchmark, train_photos=photos.with_labels(labels))
