"""Products of all rows of two matrices whose bits depend on the two rows alone.

A matrix product of the vendor's library sums in an order that changes with the sizes of the
matrices, the place of a row, the number of threads and switches of the process. Two equal
photos then get two scores, and a ranking depends on how it was cut. Here a product is one chain of
fused multiply-adds, the same on the CPU and on CUDA.

None of the operators is differentiable.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import torch
from torch import Tensor

from zsbir_fast import _C
from zsbir_fast.ops._checks import as_kernel_input, check_kernel_float, check_one_device
from zsbir_fast.ops._library import (
    LIB,
    address,
    current_stream,
    register,
)
from zsbir_fast.reference import row_products as reference

_ALIGNMENT = 64  # bytes, of panels


def panel_rows(dtype: torch.dtype) -> int:
    """How many rows stand side by side in a panel."""
    return int(_C.panel_bytes) // dtype.itemsize


@cache
def bfloat16_is_faster(device_type: str) -> bool:
    """Whether products of bfloat16 with float32 sums have units of their own on a kind of device.

    The answer is kept, because asking a virtual processor takes as long as a small product.
    """
    if device_type == "cuda":
        return "dtype" in torch.ops.aten.mm.overloads()  # from torch 2.8 on they may stay float32
    return bool(_C.has_bfloat16_matrix_units()) and torch.backends.mkldnn.is_available()


def packed_like(rows: int, width: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Memory for the packed form of ``rows`` rows, its elements not set."""
    if device.type != "cpu":
        return torch.empty(rows, width, dtype=dtype, device=device)
    size = panel_rows(dtype)
    shape = (-(-rows // size), width, size)
    extra = _ALIGNMENT // dtype.itemsize
    memory = torch.empty(math.prod(shape) + extra, dtype=dtype, device=device)
    start = -memory.data_ptr() % _ALIGNMENT // dtype.itemsize
    return memory[start : start + math.prod(shape)].view(shape)


def pack_rows(rows: Tensor, out: Tensor | None = None) -> Tensor:
    """The right side of products, made ready once for many of them.

    Args:
        rows: [n, D], float32 or float64.
        out: where to, as from :func:`packed_like`, or whole panels of such; None: new memory.

    Returns:
        On the CPU panels [ceil(n / P), D, P] with P = ``panel_rows(dtype)``, whose missing rows are
        0, aligned to 64 bytes; on other devices the rows themselves, contiguous.

    Raises:
        ValueError: rows is not a matrix, or out does not fit.
        TypeError: it is neither float32 nor float64.
    """
    if out is None:
        _matrix("pack_rows", "rows", rows)
        out = packed_like(len(rows), rows.shape[1], rows.dtype, rows.device)
    torch.ops.zsbir.pack_rows(out, rows)
    return out


def row_products(
    left: Tensor,
    right: Tensor,
    *,
    first: int = 0,
    scale: Tensor | None = None,
    offset: Tensor | None = None,
    out: Tensor,
) -> Tensor:
    """``left @ right.T * scale + offset``, each sum one chain over the width.

    Args:
        left: [Q, D], float32 or float64.
        right: [n, D], or its packed form from :func:`pack_rows`.
        first: the row of ``right`` with which the columns of ``out`` begin.
        scale: [G], for each column; None: 1.
        offset: [G], for each column; None: 0.
        out: [Q, G], of the dtype of ``left``, with columns side by side; overwritten.

    Returns:
        ``out``.

    Raises:
        ValueError: mismatched shapes or devices, rows beyond the end, strided columns.
        TypeError: dtypes that differ or are neither float32 nor float64.

    Cost: Q G D fused multiply-adds; ``right`` is packed again unless it is packed already.
    """
    check_one_device(
        "row_products", left=left, right=right, scale=scale, offset=offset, out=out
    )  # the dispatcher looks at any of them
    torch.ops.zsbir.row_products(out, left, right, first, scale, offset)
    return out


def row_squares(rows: Tensor) -> Tensor:
    """The squared length of every row, float64 [n], whose bits depend on the row alone.

    Args:
        rows: [n, D], float32 or float64.

    Raises:
        ValueError, TypeError: as :func:`pack_rows`.
    """
    out: Tensor = torch.ops.zsbir.row_squares(rows)
    return out


# --- operators ------------------------------------------------------------------------------------

LIB.define("pack_rows(Tensor(a!) out, Tensor rows) -> ()")
LIB.define(
    "row_products(Tensor(a!) out, Tensor left, Tensor right, int first, Tensor? scale, "
    "Tensor? offset) -> ()"
)
LIB.define("row_squares(Tensor rows) -> Tensor")


def _matrix(op: str, name: str, rows: Tensor) -> Tensor:
    """The matrix with its columns side by side."""
    check_kernel_float(op, name, rows)
    if rows.dim() != 2:
        raise ValueError(f"{op}: {name} must be [n, D], got shape {list(rows.shape)}")
    return rows if rows.stride(1) == 1 and rows.stride(0) >= rows.shape[1] else rows.contiguous()


def _struct(rows: Tensor) -> _C.Matrix:
    count, width = rows.shape
    return _C.Matrix(data=rows.data_ptr(), count=count, width=width, stride=rows.stride(0))


def _check_pack(out: Tensor, rows: Tensor) -> Tensor:
    """The rows side by side, after a look at whether ``out`` is memory for them."""
    op = "pack_rows"
    rows = _matrix(op, "rows", rows)
    check_one_device(op, rows=rows, out=out)
    size = panel_rows(rows.dtype)
    on_cpu = rows.device.type == "cpu"
    shape = (-(-len(rows) // size), rows.shape[1], size) if on_cpu else tuple(rows.shape)
    if as_kernel_input(op, "out", out, rows.dtype, shape) is not out:
        raise ValueError(f"{op}: out must be contiguous, got strides {out.stride()}")
    return rows


def _pack_rows(out: Tensor, rows: Tensor) -> None:
    rows = _check_pack(out, rows)
    if rows.device.type != "cpu":
        out.copy_(rows)
        return
    if out.data_ptr() % _ALIGNMENT:
        raise ValueError(
            f"pack_rows: out must be aligned to {_ALIGNMENT} bytes, as from packed_like"
        )
    _C.pack_rows_cpu(rows.dtype == torch.float64, _struct(rows), out.data_ptr())


def _packed(left: Tensor, right: Tensor) -> Tensor:
    """``right`` as panels that fit ``left``."""
    if right.dim() == 2:
        return pack_rows(right)
    size = panel_rows(left.dtype)
    panels = as_kernel_input(
        "row_products", "right", right, left.dtype, (len(right), left.shape[1], size)
    )
    if panels.data_ptr() % _ALIGNMENT:
        aligned = packed_like(len(right) * size, left.shape[1], left.dtype, left.device)
        panels = aligned.copy_(panels)
    return panels


def _check(
    out: Tensor,
    left: Tensor,
    right: Tensor,
    first: int,
    scale: Tensor | None,
    offset: Tensor | None,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    op = "row_products"
    left = _matrix(op, "left", left)
    check_one_device(op, left=left, right=right, scale=scale, offset=offset, out=out)
    if right.dtype != left.dtype:
        raise TypeError(f"{op}: right must be {left.dtype} like left, got {right.dtype}")
    if right.dim() not in (2, 3) or (right.dim() == 3 and left.device.type != "cpu"):
        shapes = "[n, D] or packed" if left.device.type == "cpu" else "[n, D]"
        raise ValueError(f"{op}: right must be {shapes}, got shape {list(right.shape)}")
    if right.shape[1] != left.shape[1]:
        raise ValueError(
            f"{op}: left and right must have the same width D, "
            f"got {left.shape[1]} and {right.shape[1]}"
        )
    if out.dtype != left.dtype:
        raise TypeError(f"{op}: out must be {left.dtype} like left, got {out.dtype}")
    if out.dim() != 2 or len(out) != len(left):
        raise ValueError(f"{op}: out must be [{len(left)}, G], got shape {list(out.shape)}")
    columns = out.shape[1]
    if (columns > 1 and out.stride(1) != 1) or (len(out) > 1 and out.stride(0) < columns):
        raise ValueError(f"{op}: out must have columns side by side, got strides {out.stride()}")
    rows = len(right) if right.dim() == 2 else len(right) * right.shape[2]
    if not 0 <= first <= rows - columns:
        raise ValueError(
            f"{op}: first must be in [0, {rows - columns}] for {columns} of {rows} rows, "
            f"got {first}"
        )
    given = [
        None if x is None else as_kernel_input(op, name, x, left.dtype, (columns,))
        for name, x in (("scale", scale), ("offset", offset))
    ]
    return left, given[0], given[1]


def _row_products_native(
    out: Tensor,
    left: Tensor,
    right: Tensor,
    first: int,
    scale: Tensor | None,
    offset: Tensor | None,
) -> None:
    left, scale, offset = _check(out, left, right, first, scale, offset)
    double, scoring = left.dtype == torch.float64, (address(scale), address(offset))
    to = (out.data_ptr(), out.stride(0))
    if right.dim() == 2:
        right, first = right[first : first + out.shape[1]], 0
    if left.is_cuda:
        rows = _matrix("row_products", "right", right)
        where = (out.get_device(), current_stream(out.device))
        _C.row_products_cuda(double, _struct(left), _struct(rows), *scoring, *to, *where)
        return
    panels = _packed(left, right)
    part = (panels.data_ptr(), first, out.shape[1])
    _C.row_products_cpu(double, _struct(left), *part, *scoring, *to)


def _row_products_reference(
    out: Tensor,
    left: Tensor,
    right: Tensor,
    first: int,
    scale: Tensor | None,
    offset: Tensor | None,
) -> None:
    left, scale, offset = _check(out, left, right, first, scale, offset)
    out.copy_(reference.row_products(left, right[first : first + out.shape[1]], scale, offset))


def _row_squares_native(rows: Tensor) -> Tensor:
    rows = _matrix("row_squares", "rows", rows)
    out = torch.empty(len(rows), dtype=torch.float64, device=rows.device)
    arguments = (rows.dtype == torch.float64, _struct(rows), out.data_ptr())
    if rows.is_cuda:
        _C.row_squares_cuda(*arguments, rows.get_device(), current_stream(rows.device))
    else:
        _C.row_squares_cpu(*arguments)
    return out


def _row_squares_reference(rows: Tensor) -> Tensor:
    return reference.row_squares(_matrix("row_squares", "rows", rows))


def _pack_rows_fake(out: Tensor, rows: Tensor) -> None:
    _check_pack(out, rows)


def _row_products_fake(*given: Any) -> None:
    _check(*given)


def _row_squares_fake(rows: Tensor) -> Tensor:
    _matrix("row_squares", "rows", rows)
    return rows.new_empty(rows.shape[0], dtype=torch.float64)


register("pack_rows", _pack_rows, _pack_rows_fake, _pack_rows)
register("row_products", _row_products_native, _row_products_fake, _row_products_reference)
register("row_squares", _row_squares_native, _row_squares_fake, _row_squares_reference)
