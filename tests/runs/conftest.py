"""The bundled benchmark, small enough for whole runs."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from zsbir_fast.data.benchmarks import load_benchmark
from zsbir_fast.runs import fit, quickstart


def _few(benchmark):
    def every(images, step):
        return images.subset(torch.arange(0, len(images), step))

    return replace(
        benchmark,
        train_sketches=every(benchmark.train_sketches, 4),
        train_photos=every(benchmark.train_photos, 8),
        test_sketches=every(benchmark.test_sketches, 8),
        test_photos=every(benchmark.test_photos, 8),
    )


@pytest.fixture
def few():
    """Leaves the most of a benchmark's images out."""
    return _few


@pytest.fixture
def few_images(monkeypatch):
    for module in (fit, quickstart):
        monkeypatch.setattr(
            module, "load_benchmark", lambda *args, **kw: _few(load_benchmark(*args, **kw))
        )
