"""Rows as they are."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from zsbir_fast import _C
from zsbir_fast._arguments import check_choice
from zsbir_fast.ops._checks import Impl, check_dimensions, check_kernel_float, check_tensor
from zsbir_fast.ops._library import LIB, current_stream, refuse_transforms, register
from zsbir_fast.reference import null as reference


def null(rows: Tensor, *, impl: Impl = "fused") -> Tensor:
    """A copy of the rows.

    Args:
        rows: [B, D], float32 or float64.
        impl: ``"fused"``: the kernels. ``"reference"``: plain PyTorch.

    Returns:
        [B, D].

    Raises:
        ValueError: ``rows`` is no matrix, or ``impl`` is unknown.
        TypeError: ``rows`` is no dense tensor of float32 or float64.
        NotImplementedError: fused, under a ``torch.func`` transform or in forward-mode
            differentiation.
    """
    check_choice("null", "impl", impl, Impl)
    check_tensor("null", "rows", rows)
    _check(rows)
    if impl == "reference":
        return reference.null(rows)
    refuse_transforms("null", rows)
    out: Tensor = torch.ops.zsbir.null(rows)
    return out


# --- operators ------------------------------------------------------------------------------------

LIB.define("null(Tensor rows) -> Tensor")


def _check(rows: Tensor) -> None:
    check_kernel_float("null", "rows", rows)
    check_dimensions("null", 2, rows=rows)


def _native(rows: Tensor) -> Tensor:
    _check(rows)
    rows = rows.contiguous()
    out = torch.empty_like(rows)
    arguments = (rows.dtype == torch.float64, rows.data_ptr(), *rows.shape, out.data_ptr())
    if rows.is_cuda:
        _C.null_cuda(*arguments, rows.get_device(), current_stream(rows.device))
    else:
        _C.null_cpu(*arguments)
    return out


def _fake(rows: Tensor) -> Tensor:
    _check(rows)
    return rows.new_empty(rows.shape)


def _reference(rows: Tensor) -> Tensor:
    _check(rows)
    return reference.null(rows)


def _backward(context: Any, gradient: Tensor) -> Tensor:
    del context
    return gradient


register("null", _native, _fake, _reference)
torch.library.register_autograd("zsbir::null", _backward, lib=LIB)
