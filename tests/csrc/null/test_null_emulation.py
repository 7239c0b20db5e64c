"""The CUDA kernel of null on CPU threads, under the operator."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import pytest
import torch

from zsbir_fast.ops.null import functions


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (1, 1), (40, 7)])
def test_operator_gives_the_bits_of_the_cpu(
    emulated_module: Callable[[str], ModuleType],
    monkeypatch: pytest.MonkeyPatch,
    shape: tuple[int, int],
    dtype: torch.dtype,
) -> None:
    rows = torch.randn(shape, dtype=dtype)
    expected = functions.null(rows)
    monkeypatch.setattr(functions, "_C", emulated_module("null"))
    assert torch.equal(functions.null(rows), expected)
