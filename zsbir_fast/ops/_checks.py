"""Checks of tensors that operators and losses share: one clear error before any work."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from zsbir_fast.reference.token_weighting import ZERO_ROW, accumulation_dtype

Impl = Literal["fused", "reference"]

_SHORTEST = 1e-12  # a row above it loses no digits, nor do the squares in its length


def kind_of(value: Any) -> str:
    """The words of an error for a value that is no tensor."""
    if isinstance(value, np.ndarray):
        return f"an array of {value.dtype}"
    return "None" if value is None else type(value).__name__


def check_tensor(function: str, argument: str, value: Any) -> None:
    """Raise unless the value is a dense tensor."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{function}: {argument} must be a tensor, got {kind_of(value)}")
    if value.layout != torch.strided:
        raise TypeError(f"{function}: {argument} must be a dense tensor, got {value.layout}")


def check_has_values(function: str, argument: str, value: Tensor) -> None:
    """Raise for a tensor on the meta device, which has a shape and nothing else."""
    if value.device.type == "meta":
        raise ValueError(f"{function}: {argument} must hold values, got a tensor on device meta")


def check_dtype(function: str, argument: str, tensor: Tensor, dtype: torch.dtype) -> None:
    """Raise TypeError unless the elements are of that type."""
    if tensor.dtype != dtype:
        raise TypeError(f"{function}: {argument} must be {dtype}, got {tensor.dtype}")


def check_floating(function: str, argument: str, tensor: Tensor) -> None:
    """Raise TypeError unless the elements are of any floating-point type."""
    if not tensor.is_floating_point():
        raise TypeError(f"{function}: {argument} must be floating point, got {tensor.dtype}")


def check_kernel_float(function: str, argument: str, tensor: Tensor) -> None:
    """Raise TypeError unless the elements are of a type that all kernels take."""
    if tensor.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"{function}: {argument} must be float32 or float64, got {tensor.dtype}")


def check_shape(function: str, argument: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    """Raise ValueError unless the tensor is of that shape."""
    if tuple(tensor.shape) != shape:
        raise ValueError(f"{function}: {argument} must be {list(shape)}, got {list(tensor.shape)}")


def check_one_device(function: str, **tensors: Tensor | None) -> torch.device:
    """Raise unless all tensors are on one device, as the dispatcher looks at any of them.

    Raises:
        ValueError: naming the first two tensors that differ.
    """
    given = {name: t for name, t in tensors.items() if t is not None}
    (first, reference), *others = given.items()
    for name, tensor in others:
        if tensor.device != reference.device:
            raise ValueError(
                f"{function}: {name} must be on {reference.device} like {first}, "
                f"got {tensor.device}"
            )
    return reference.device


def check_dimensions(function: str, dimensions: int, **tensors: Tensor | None) -> None:
    """Raise unless all tensors have this number of dimensions.

    Raises:
        ValueError: naming the first that has not.
    """
    for name, tensor in tensors.items():
        if tensor is not None and tensor.ndim != dimensions:
            raise ValueError(
                f"{function}: {name} must have {dimensions} dimensions, got {list(tensor.shape)}"
            )


def check_enum(function: str, argument: str, value: int, count: int) -> None:
    """Raise unless the number is one of a C++ enum with ``count`` entries."""
    if not 0 <= value < count:
        raise ValueError(f"{function}: {argument} must be in [0, {count}), got {value}")


def check_margins(function: str, **margins: float | None) -> None:
    """Raise unless all margins are finite."""
    for name, margin in margins.items():
        if margin is not None and not -math.inf < margin < math.inf:
            raise ValueError(f"{function}: {name} must be finite, got {margin}")


def as_kernel_input(
    function: str, argument: str, tensor: Tensor, dtype: torch.dtype, shape: tuple[int, ...]
) -> Tensor:
    """The tensor with its elements side by side, ready for its address to be taken.

    Raises:
        TypeError: it has another dtype.
        ValueError: it has another shape.
    """
    check_dtype(function, argument, tensor, dtype)
    check_shape(function, argument, tensor, shape)
    return tensor.contiguous()


def check_feature_shape(function: str, argument: str, rows: Any, width: int | None = None) -> None:
    """Raise unless it is a floating-point tensor [B, D] that has values; D is ``width``, if any."""
    check_tensor(function, argument, rows)
    if rows.ndim != 2 or width not in (None, rows.shape[1]):
        wanted = "D" if width is None else width
        raise ValueError(f"{function}: {argument} must be [B, {wanted}], got {list(rows.shape)}")
    check_floating(function, argument, rows)
    check_has_values(function, argument, rows)


def check_features(function: str, **features: Tensor) -> None:
    """Raise unless all are [B, D] on one device, equally wide, of one dtype and finite."""
    check_feature_shapes(function, **features)
    for argument, rows in features.items():
        check_finite(function, argument, rows)


def check_feature_shapes(function: str, **features: Tensor) -> None:
    """Raise unless all are [B, D] on one device, equally wide and of one dtype."""
    (first, reference), *_ = features.items()
    for argument, rows in features.items():
        check_feature_shape(function, argument, rows)
        if rows.shape[1] != reference.shape[1]:
            raise ValueError(
                f"{function}: {argument} must be {reference.shape[1]} wide like {first}, "
                f"got {rows.shape[1]}"
            )
        if rows.dtype != reference.dtype:
            raise TypeError(
                f"{function}: {argument} must be {reference.dtype} like {first}, got {rows.dtype}"
            )
        check_one_device(function, **{first: reference, argument: rows})


def as_labels(
    function: str, argument: str, labels: Any, count: int, first: str, features: Tensor
) -> Tensor:
    """Labels as int64 [count], on the device of ``features``, called ``first``.

    Args:
        function: named in errors.
        argument: likewise.
        labels: a tensor of any integer type, beside the features; or an array, or a sequence of
            integers, which is brought there.
        count: how many there must be.
        first: named in errors.
        features: whose labels they are.

    Raises:
        TypeError: they are no integers.
        ValueError: their number, device or range does not fit.
    """
    given: Tensor = labels
    if not isinstance(labels, Tensor):
        given = _tensor_of(function, argument, labels).to(features.device)
    check_tensor(function, argument, given)
    given = as_int64(function, argument, given)
    check_shape(function, argument, given, (count,))
    check_one_device(function, **{first: features, argument: given})
    return given


def check_labels_of_classes(function: str, argument: str, labels: Tensor, classes: int) -> None:
    """Raise unless labels are in [0, classes); nothing is looked at where they are `unseen`."""
    if unseen(labels) or labels.numel() == 0:
        return
    low, high = (int(x) for x in labels.aminmax())
    if low < 0 or high >= classes:
        raise ValueError(
            f"{function}: {argument} must be in [0, {classes}), got {low if low < 0 else high}"
        )


def as_int64(function: str, argument: str, integers: Tensor) -> Tensor:
    """Integers of any type as int64.

    Raises:
        TypeError: they are no integers.
        ValueError: one is beyond the range of int64; on CUDA and in compiled code it wraps around.
    """
    if integers.is_floating_point() or integers.is_complex() or integers.dtype == torch.bool:
        raise TypeError(f"{function}: {argument} must be integers, got {integers.dtype}")
    out = integers.to(torch.int64)
    if integers.dtype == torch.uint64 and out.numel() and not unseen(out) and int(out.min()) < 0:
        raise ValueError(f"{function}: {argument} must be below 2^63, got larger integers")
    return out


def _tensor_of(function: str, argument: str, value: Any) -> Tensor:
    """An array or a sequence of numbers as a tensor on the CPU."""
    if isinstance(value, np.ndarray):
        value = as_torch_takes_it(value)
    elif isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
        raise TypeError(
            f"{function}: {argument} must be integers in a tensor, an array or a list, "
            f"got {kind_of(value)}"
        )
    elif len(value) == 0:
        return torch.zeros(0, dtype=torch.int64, device="cpu")
    try:
        tensor: Tensor = torch.as_tensor(value, device="cpu")
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(
            f"{function}: {argument} must be integers in a tensor, an array or a list, "
            f"got {kind_of(value)}"
        ) from error
    return tensor


class _Interface:
    """The memory of another object as NumPy sees it; keeps that object alive."""

    def __init__(self, array: np.ndarray[Any, Any]) -> None:
        self._owner = array
        interface = dict(array.__array_interface__)
        self.__array_interface__ = interface | {"data": (interface["data"][0], False)}


def as_torch_takes_it(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The array in this machine's byte order, with no negative stride and no mark of read-only.

    torch would warn of that mark, though the tensor that is made of the array here is only read.
    Silencing the warning would change the filters of the whole process, in which other threads may
    be at work.
    """
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if any(stride < 0 for stride in array.strides):
        array = array.copy()
    if array.flags.writeable or array.dtype.hasobject:
        return array
    return np.asarray(_Interface(array))


def unseen(values: Tensor) -> bool:
    """Whether looking at values would wait for a device, or break a graph or a transform."""
    return (
        torch.compiler.is_compiling()
        or values.device.type != "cpu"
        or torch._C._functorch.is_functorch_wrapped_tensor(values)
    )


def check_finite(function: str, argument: str, values: Tensor) -> None:
    """Raise naming the first row that is not finite; nothing is looked at where it is `unseen`."""
    if unseen(values) or values.numel() == 0:
        return
    if math.isfinite(values.detach().sum().item()):  # a finite sum has finite terms: one cheap pass
        return
    wrong = ~torch.isfinite(values.detach())  # or finite numbers whose sum overflows
    if wrong.any():
        row = int(wrong.reshape(len(wrong), -1).any(1).nonzero()[0])
        first = values[row].detach()[wrong[row]].flatten()[0]
        raise ValueError(f"{function}: {argument} must be finite, got {float(first)} in row {row}")


def nan_unless_finite(loss: Tensor, *inputs: Tensor | None) -> Tensor:
    """The loss; NaN, with gradients of NaN, if it or an input that was `unseen` is not finite.

    A ``GradScaler``, for instance, sees such a step and skips it, without a wait for a GPU.
    """
    if not unseen(loss):  # the inputs were not unseen then, either
        plain = loss.detach()
        if math.isfinite(float(plain if plain.ndim == 0 else plain.sum())):
            return loss
    given = [x for x in inputs if x is not None and x.numel() > 0]
    if not given or loss.numel() == 0:
        return loss
    largest = [torch.linalg.vector_norm(x.detach(), math.inf) for x in (loss, *given)]
    zero = torch.stack([0 * x.to(loss.dtype) for x in largest]).sum()  # or NaN
    carrier = next((x for x in given if x.requires_grad), given[0])
    # One element is enough: the tensors that it was computed from get gradients of NaN.
    return loss + zero * carrier[(0,) * carrier.ndim].to(loss.dtype)


def unit_length(function: str, argument: str, features: Tensor) -> Tensor:
    """Rows [B, D] of any size divided by their lengths.

    A row without an entry of at least 1e-30 is zero: it becomes 0 and passes no gradient. A row
    that is not finite is an error; where values are `unseen`, it becomes NaN. Halves are divided in
    float32: in float16 the parts of a gradient overflow that cancel in the whole.
    """
    dtype = accumulation_dtype(features.dtype)
    if dtype != features.dtype:
        return unit_length(function, argument, features.to(dtype)).to(features.dtype)
    lengths: Tensor = torch.linalg.vector_norm(features, 2, 1, keepdim=True)
    if lengths.numel() == 0:
        return features.div(lengths)
    if not unseen(features):
        low, high = (x.item() for x in lengths.detach().aminmax())
        if low >= _SHORTEST and high < math.inf:
            return features.div(lengths)
        check_finite(function, argument, features)
    return _of_any_length(features, lengths.detach())


def _of_any_length(features: Tensor, lengths: Tensor) -> Tensor:
    """Rows of length 1; those whose length is out of range are scaled by a power of two first."""
    if features.shape[1] == 0:
        return features.div(1)
    # Not "below infinity": compilers keep more digits than the type has.
    longest = torch.finfo(features.dtype).max
    fits = (lengths >= _SHORTEST) & (lengths <= longest)
    largest = torch.linalg.vector_norm(features.detach(), math.inf, 1, keepdim=True)
    zero = largest < ZERO_ROW
    power = largest / (2 * torch.frexp(largest).mantissa)  # NaN for rows that are not finite
    power = power.masked_fill(fits | zero, 1)
    rows = features.div(power)
    divisors = torch.linalg.vector_norm(rows, 2, 1, keepdim=True).masked_fill(zero, 1)
    return rows.div(divisors).masked_fill(zero, 0)
