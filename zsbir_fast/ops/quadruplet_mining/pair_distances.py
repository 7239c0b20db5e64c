"""Distances of all pairs of rows, exact and differentiable: the basis of batch-all losses."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from zsbir_fast import _C
from zsbir_fast.ops._checks import (
    as_kernel_input,
    check_dimensions,
    check_dtype,
    check_enum,
    check_kernel_float,
    check_one_device,
    check_shape,
)
from zsbir_fast.ops._library import (
    LIB,
    current_stream,
    refuse_second_derivatives,
    register,
)
from zsbir_fast.ops.row_products import row_products
from zsbir_fast.reference import quadruplet_mining as reference
from zsbir_fast.reference.quadruplet_mining import Distance
from zsbir_fast.reference.token_weighting import unit_rows

# Numbers of the C++ enum. The kernels take rows of length 1 for "cosine".
CODES: dict[Distance, int] = {"euclidean": 0, "squared_euclidean": 1, "cosine": 2}
_DISTANCES: list[Distance] = list(CODES)


def half_as_float(features: Tensor) -> Tensor:
    """float16 and bfloat16 as float32, others as they are."""
    return features.float() if features.element_size() < 4 else features


def kernel_rows(features: Tensor, distance: Distance) -> Tensor:
    """Features as the kernels take them: halves as float32, of length 1 for ``"cosine"``."""
    features = half_as_float(features)
    return unit_rows(features) if distance == "cosine" else features


def pair_distances(a: Tensor, b: Tensor | None, distance: Distance) -> Tensor:
    """Distances of rows from :func:`kernel_rows`.

    Args:
        a: [A, D], float32 or float64.
        b: [B, D]; None: ``a`` itself, at half the cost.
        distance: which.

    Returns:
        [A, B]. A Euclidean distance below 1e-6 passes no gradient.

    Cost: A B D multiply-adds and as many subtractions; the gradient takes one matrix product for
    each of ``a`` and ``b``.
    """
    out: Tensor = torch.ops.zsbir.pair_distances(a, b, CODES[distance])
    return out


def rows_struct(rows: Tensor) -> Any:
    """The C++ view of a contiguous matrix."""
    return _C.Rows(data=rows.data_ptr(), count=rows.shape[0], width=rows.shape[1])


def check_kernel_rows(op: str, **rows: Tensor) -> list[Tensor]:
    """Contiguous matrices of one width, dtype and device, ready for their addresses to be taken.

    Raises:
        TypeError: a matrix is neither float32 nor float64, or not of the dtype of the first.
        ValueError: shapes or devices do not fit.
    """
    check_one_device(op, **rows)
    (name, first), *_ = rows.items()
    check_kernel_float(op, name, first)
    if first.ndim != 2:
        raise ValueError(f"{op}: {name} must be a matrix, got {list(first.shape)}")
    width = first.shape[1]
    return [
        as_kernel_input(op, n, x, first.dtype, (x.shape[0] if x.ndim else 0, width))
        for n, x in rows.items()
    ]


def is_double(rows: Tensor) -> bool:
    """Whether the kernels run in double; the callers let only the two types in."""
    return rows.dtype == torch.float64


# --- operators ------------------------------------------------------------------------------------

LIB.define("pair_distances(Tensor a, Tensor? b, int distance) -> Tensor")
LIB.define(
    "pair_distances_backward(Tensor grad, Tensor distances, Tensor a, Tensor? b, int distance) -> "
    "(Tensor, Tensor)"
)


def check_distance(op: str, distance: int) -> None:
    """Raise unless the number is one of ``CODES``."""
    check_enum(op, "distance", distance, len(_DISTANCES))


def _checked(op: str, a: Tensor, b: Tensor | None, distance: int) -> tuple[Tensor, Tensor]:
    check_distance(op, distance)
    if b is None:
        (a,) = check_kernel_rows(op, a=a)
        return a, a
    a, b = check_kernel_rows(op, a=a, b=b)
    return a, b


def _native(a: Tensor, b: Tensor | None, distance: int) -> Tensor:
    a, b = _checked("pair_distances", a, b, distance)
    out = a.new_empty(len(a), len(b))
    arguments = (is_double(a), rows_struct(a), rows_struct(b), distance, out.data_ptr())
    if a.is_cuda:
        _C.pair_distances_cuda(*arguments, a.get_device(), current_stream(a.device))
    else:
        _C.pair_distances_cpu(*arguments)
    return out


def _reference(a: Tensor, b: Tensor | None, distance: int) -> Tensor:
    return reference.pair_distances(a, a if b is None else b, _DISTANCES[distance])


def _fake(a: Tensor, b: Tensor | None, distance: int) -> Tensor:
    a, b = _checked("pair_distances", a, b, distance)
    return a.new_empty(len(a), len(b))


def _backward(
    grad: Tensor, distances: Tensor, a: Tensor, b: Tensor | None, distance: int
) -> tuple[Tensor, Tensor]:
    """With W the weight of each pair, the gradient of row i is sum_j W_ij (a_i - b_j)."""
    _check_backward(grad, distances, a, b, distance)
    weights = _weights_cpu if grad.device.type == "cpu" else _weights_of
    w, rows, columns = weights(grad, distances, distance, b is None)
    other = a if b is None else b
    if distance == CODES["cosine"]:
        return -_product(w, other), a.new_empty(0) if b is None else -_product(w.mT, a)
    # Differences do not change with a common shift, and rows near 0 cancel less.
    centre = other.mean(0) if len(other) else 0
    a, other = a - centre, other - centre
    grad_a = _product(w, other).neg_().addcmul_(rows[:, None], a)
    if b is None:
        return grad_a, a.new_empty(0)
    return grad_a, _product(w.mT, a).neg_().addcmul_(columns[:, None], other)


def _check_backward(
    grad: Tensor, distances: Tensor, a: Tensor, b: Tensor | None, distance: int
) -> None:
    op = "pair_distances_backward"
    rows, columns = _checked(op, a, b, distance)
    check_one_device(op, a=a, grad=grad, distances=distances)
    check_dimensions(op, 2, grad=grad, distances=distances)
    shape = (len(rows), len(columns))
    for name, matrix in (("grad", grad), ("distances", distances)):
        check_dtype(op, name, matrix, a.dtype)
        check_shape(op, name, matrix, shape)


def _weights_of(
    grad: Tensor, distances: Tensor, distance: int, itself: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Weights [A, B] and their sums by row and column; of a set with itself W + W^T."""
    weights = 2 * grad if distance == CODES["squared_euclidean"] else grad
    if distance == CODES["euclidean"]:
        weights = grad / distances.masked_fill(distances < 1e-6, torch.inf)
    if itself:
        weights = weights + weights.mT
    return weights, weights.sum(1), weights.sum(0)


def _weights_cpu(
    grad: Tensor, distances: Tensor, distance: int, itself: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The same in one pass over the matrices."""
    if grad.numel() == 0:
        return _weights_of(grad, distances, distance, itself)
    grad, distances = grad.contiguous(), distances.contiguous()
    weights = torch.empty_like(grad)
    rows, columns = grad.new_empty(grad.shape[0]), grad.new_empty(grad.shape[1])
    _C.distance_weights_cpu(
        is_double(grad),
        grad.data_ptr(),
        distances.data_ptr(),
        *grad.shape,
        distance,
        weights.data_ptr(),
        rows.data_ptr(),
        0 if itself else columns.data_ptr(),
    )
    return weights, rows, columns


def _product(left: Tensor, right: Tensor) -> Tensor:
    """``left @ right`` in the precision of its factors, independent of switches and autocast."""
    out = right.new_empty(left.shape[0], right.shape[1])
    return row_products(left, right.mT.contiguous(), out=out)


def _backward_fake(
    grad: Tensor, distances: Tensor, a: Tensor, b: Tensor | None, distance: int
) -> tuple[Tensor, Tensor]:
    _check_backward(grad, distances, a, b, distance)
    return a.new_empty(a.shape), a.new_empty(0 if b is None else b.shape)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    a, b, ctx.distance = inputs
    ctx.save_for_backward(output, a, b)


def _autograd(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, None]:
    distances, a, b = ctx.saved_tensors
    grad_a, grad_b = torch.ops.zsbir.pair_distances_backward(grad, distances, a, b, ctx.distance)
    return grad_a, None if b is None else grad_b, None


register("pair_distances", _native, _fake, _reference)
register("pair_distances_backward", _backward, _backward_fake, _backward)
torch.library.register_autograd(
    "zsbir::pair_distances", _autograd, setup_context=_setup_context, lib=LIB
)
torch.library.register_autograd(
    "zsbir::pair_distances_backward", refuse_second_derivatives("pair_distances"), lib=LIB
)
