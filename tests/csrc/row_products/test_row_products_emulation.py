"""The CUDA kernels of row_products on CPU threads, under the operators and under the evaluation."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import zsbir_fast as zf
from zsbir_fast.ops.row_products import functions as ops

few = settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture(scope="module")
def kernels(emulated_module: Callable[[str], ModuleType]) -> ModuleType:
    return emulated_module("row_products")


@few
@given(
    queries=st.integers(1, 20),
    gallery=st.integers(1, 120),
    width=st.integers(1, 40),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_operators_give_the_bits_of_the_cpu(
    kernels: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    queries: int,
    gallery: int,
    width: int,
    dtype: torch.dtype,
) -> None:
    generator = torch.Generator().manual_seed(queries * gallery + width)
    left = torch.randn(queries, width, generator=generator, dtype=dtype)
    right = torch.randn(gallery, width, generator=generator, dtype=dtype)
    scale = torch.randn(gallery, generator=generator, dtype=dtype)

    def run() -> tuple[torch.Tensor, torch.Tensor]:
        out = left.new_empty(queries, gallery)
        return ops.row_products(left, right, scale=scale, out=out), ops.row_squares(right)

    expected = run()
    with monkeypatch.context() as patch:
        patch.setattr(ops, "_C", kernels)
        found = run()
    assert all(map(torch.equal, found, expected))


def test_evaluation_gives_the_bits_of_the_cpu(
    kernels: ModuleType, monkeypatch: pytest.MonkeyPatch, generator: torch.Generator
) -> None:
    queries, gallery = (torch.randn(n, 24, generator=generator) for n in (12, 150))
    labels = [torch.randint(4, (n,), generator=generator) for n in (12, 150)]
    expected = zf.evaluate_retrieval(queries, gallery, *labels, ks=10)
    monkeypatch.setattr(ops, "_C", kernels)
    assert torch.equal(
        zf.evaluate_retrieval(queries, gallery, *labels, ks=10).columns, expected.columns
    )
