"""The operator null on the CPU against its reference; its errors."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from zsbir_fast.ops.null import null
from zsbir_fast.reference import null as reference

DTYPES = [torch.float32, torch.float64]


@given(count=st.integers(0, 70), width=st.integers(0, 40), dtype=st.sampled_from(DTYPES))
def test_kernel_equals_reference(count: int, width: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(count)
    rows = torch.randn(width, count, generator=generator, dtype=dtype).t()  # strided
    found = null(rows)
    assert torch.equal(found, reference.null(rows))
    assert found.data_ptr() != rows.data_ptr() or found.numel() == 0


def test_what_is_not_finite_stays() -> None:
    rows = torch.tensor([[torch.nan, torch.inf, -torch.inf, 0.0]])
    torch.testing.assert_close(null(rows), rows, equal_nan=True, rtol=0, atol=0)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_any_number_of_threads(set_threads: Callable[[int], None], threads: int) -> None:
    set_threads(threads)
    rows = torch.arange(700.0).view(70, 10)
    assert torch.equal(null(rows), rows)


@pytest.mark.parametrize("impl", ["fused", "reference"])
def test_gradient(impl: Any) -> None:
    rows = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: null(x, impl=impl), rows)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # its own
def test_operator_keeps_the_rules_of_torch() -> None:
    rows = torch.randn(3, 4, requires_grad=True)
    torch.library.opcheck(torch.ops.zsbir.null.default, (rows,))


def test_compiled() -> None:
    rows = torch.randn(3, 4)
    assert torch.equal(torch.compile(null, fullgraph=True, backend="aot_eager")(rows), rows)


@pytest.mark.parametrize(
    ("rows", "options", "error", "text"),
    [
        ([[1.0]], {}, TypeError, "rows must be a tensor, got list"),
        (torch.eye(2).to_sparse(), {}, TypeError, "rows must be a dense tensor, got torch.sp"),
        (torch.eye(2).half(), {}, TypeError, "rows must be float32 or float64, got torch.float16"),
        (torch.zeros(3), {}, ValueError, "rows must have 2 dimensions, got [3]"),
        (torch.eye(2), {"impl": "fast"}, ValueError, "impl must be one of fused, reference, got"),
    ],
)
def test_wrong_arguments_are_named(
    rows: Any, options: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=re.escape(f"null: {text}")):
        null(rows, **options)


def test_transforms_are_refused() -> None:
    with pytest.raises(NotImplementedError, match=r"null: torch\.func transforms"):
        torch.func.grad(lambda x: null(x).sum())(torch.eye(2))
