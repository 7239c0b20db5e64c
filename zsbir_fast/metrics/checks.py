"""Argument checks shared by every entrance of the metrics: one clear error before any work."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zsbir_fast.ops._checks import as_int64, as_torch_takes_it, kind_of

_UNSIGNED = (torch.uint16, torch.uint32, torch.uint64)  # torch can store them and little else
_EXACT_INTEGERS = 2**53  # the integers that float64 holds one by one
_BLOCK = (
    2**22
)  # elements that a check looks at in one go, so that no temporary grows with the input


def as_tensor(caller: str, name: str, value: Any) -> Tensor:
    """Tensors as they are (detached); arrays and sequences of numbers as tensors."""
    if isinstance(value, Tensor):
        if value.layout != torch.strided:
            raise TypeError(f"{caller}: {name} must be a dense tensor, got layout {value.layout}")
        if value.is_meta:
            raise TypeError(f"{caller}: {name} must hold numbers, got a tensor on the meta device")
        return value.detach()
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{caller}: {name} must have all its values, got a masked array")
    if isinstance(value, np.ndarray):
        value = as_torch_takes_it(value)
    try:
        return torch.as_tensor(value, device="cpu")
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise TypeError(
            f"{caller}: {name} must be a tensor or an array of numbers, got {kind_of(value)}"
        ) from error


def check_matrix(caller: str, name: str, value: Any, *, shape: str) -> Tensor:
    """A floating or integer matrix with at least one row and column."""
    tensor = as_tensor(caller, name, value)
    if tensor.dim() != 2:
        raise ValueError(f"{caller}: {name} must be {shape}, got shape {list(tensor.shape)}")
    if tensor.is_complex() or tensor.dtype == torch.bool:
        raise TypeError(f"{caller}: {name} must be real numbers, got {tensor.dtype}")
    if 0 in tensor.shape:
        raise ValueError(f"{caller}: {name} must not be empty, got shape {list(tensor.shape)}")
    return tensor


def check_labels(caller: str, name: str, value: Any, length: int, *, of: str) -> Tensor:
    """Integer labels, one for each row of ``of``; returned as int64 on the CPU."""
    labels = as_int64(caller, name, as_tensor(caller, name, value).cpu())
    if labels.dim() != 1 or len(labels) != length:
        raise ValueError(
            f"{caller}: {name} must be [{length}], one label for each row of {of}, "
            f"got shape {list(labels.shape)}"
        )
    return labels.contiguous()


def check_ks(
    caller: str, ks: int | Iterable[int], gallery: int, *, stacklevel: int
) -> tuple[int, ...]:
    """Cut-offs as a tuple without repeats; one warning if some exceed the gallery."""
    if isinstance(ks, (int, np.integer)) and not isinstance(ks, bool):
        ks = (int(ks),)
    elif isinstance(ks, (str, bytes)) or not isinstance(ks, Iterable):
        raise TypeError(f"{caller}: ks must be integers, got {ks!r}")
    out: list[int] = []
    for k in ks:
        if isinstance(k, bool) or not isinstance(k, (int, np.integer)):
            raise TypeError(f"{caller}: ks must be integers, got {k!r}")
        if not 1 <= k < 2**63:
            bound = "at least 1" if k < 1 else "below 2^63"
            raise ValueError(f"{caller}: every k of ks must be {bound}, got {k}")
        if int(k) not in out:
            out.append(int(k))
    beyond = [k for k in out if k > gallery]
    if beyond:
        warnings.warn(
            f"{caller}: k = {beyond} exceeds the gallery of {gallery} items: the ranking ends "
            "there (docs/metrics.md, 'k beyond the gallery', says what Prec@k is divided by)",
            UserWarning,
            stacklevel=stacklevel,
        )
    return tuple(out)


def check_finite(caller: str, name: str, matrix: Tensor, first_row: int = 0) -> None:
    """Raise unless all numbers are finite, naming the first bad row, counted from ``first_row``."""
    if not matrix.is_floating_point():
        return
    # NaN and infinity survive a sum. The sum of finite numbers may overflow too, so that a bad sum
    # is a suspicion, not a verdict.
    at_once = matrix.element_size() >= 4
    blocks = [matrix] if at_once else (b.float() for _, b in row_blocks(matrix))
    if all(math.isfinite(b.sum()) for b in blocks):
        return
    bad_rows, first = 0, None
    for start, block in row_blocks(matrix):
        bad = ~torch.isfinite(block.float() if block.element_size() < 4 else block)
        rows = torch.nonzero(bad.any(dim=1))[:, 0]
        if first is None and len(rows) > 0:
            row = int(rows[0])
            first = (start + row, block[row][bad[row]][0].item())
        bad_rows += len(rows)
    if first is not None:
        raise ValueError(
            f"{caller}: {name} must be finite, got {first[1]} in row {first_row + first[0]} "
            f"({bad_rows} such row{'s' if bad_rows > 1 else ''})"
        )


def largest_norm(matrix: Tensor) -> float:
    """The largest Euclidean norm of a row of a finite matrix, as float64 holds it."""
    most = 0.0
    for _, block in row_blocks(matrix):
        rows = block.double()
        norm = float(torch.linalg.vector_norm(rows, dim=1).max())
        if math.isinf(norm):  # squares beyond the range
            size = rows.abs().max()
            norm = float(size) * float(torch.linalg.vector_norm(rows / size, dim=1).max())
        most = max(most, norm)
    return most


def check_product_range(
    caller: str, metric: str, dtype: torch.dtype, query_norm: float, gallery_norm: float
) -> None:
    """Raise if a score could overflow: infinities tie, and their differences are no numbers."""
    bound = query_norm * gallery_norm
    if metric == "euclidean":
        bound = gallery_norm * gallery_norm + 2 * bound
    if not bound < torch.finfo(dtype).max / 4:
        raise ValueError(
            f"{caller}: embeddings must have scores within the range of {dtype} for "
            f"metric={metric!r}, got norms up to {query_norm:.3g} (queries) and {gallery_norm:.3g} "
            "(gallery); scale them down"
        )


def work_dtype(*dtypes: torch.dtype) -> torch.dtype:
    """The type in which products of matrices of these types are computed: float32 or float64."""
    narrow = all(d.itemsize <= 2 or d == torch.float32 for d in dtypes)
    return torch.float32 if narrow else torch.float64


def as_kernel_float(caller: str, name: str, matrix: Tensor) -> Tensor:
    """The matrix in a type that the kernels take, without changing the order of its values."""
    if not matrix.is_floating_point() and matrix.element_size() == 8:
        signed = matrix.to(torch.int64) if matrix.dtype in _UNSIGNED else matrix
        low, high = (int(x) for x in torch.aminmax(signed))
        wrapped = matrix.dtype in _UNSIGNED and low < 0
        if wrapped or max(high, -low) > _EXACT_INTEGERS:
            raise ValueError(f"{caller}: {name} must be at most 2^53 in size, got larger integers")
    return matrix.to(work_dtype(matrix.dtype))


def row_blocks(matrix: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Blocks of rows of a bounded size, each behind the number of its first row."""
    rows = max(1, _BLOCK // max(1, matrix.shape[1]))
    for start in range(0, len(matrix), rows):
        yield start, matrix[start : start + rows]
