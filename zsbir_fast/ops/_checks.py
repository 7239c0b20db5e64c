"""Argument checks that operators and losses share: one clear error before any work."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from zsbir_fast.reference.token_weighting import ZERO_ROW, accumulation_dtype

Impl = Literal["fused", "reference"]

# Below it cosines and logits that are divided by a temperature leave the range of float32.
SMALLEST_TEMPERATURE = 1e-30
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


def check_device(function: str, argument: str, tensor: Tensor, first: str, other: Tensor) -> None:
    """Raise unless the tensor is where ``other``, called ``first``, is: kernels take addresses."""
    if tensor.device != other.device:
        raise ValueError(
            f"{function}: {argument} must be on {other.device} like {first}, got {tensor.device}"
        )


def as_number(function: str, argument: str, value: Any) -> float:
    """The value as a float.

    Raises:
        TypeError: it is no real number.
        ValueError: it is an integer beyond the range of floats.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{function}: {argument} must be a number, got {value!r}")
    try:
        return float(value)
    except OverflowError:
        raise ValueError(
            f"{function}: {argument} must be in the range of floats, got an integer of "
            f"{int(value).bit_length()} bits"
        ) from None


def as_count(function: str, argument: str, value: Any, most: int) -> int:
    """The value as an integer from 0 to ``most``.

    Raises:
        TypeError: it is no integer.
        ValueError: it is out of range.
    """
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{function}: {argument} must be an integer, got {kind_of(value)}")
    if not 0 <= value <= most:
        got = value if abs(int(value)) < 2**63 else f"an integer of {int(value).bit_length()} bits"
        raise ValueError(f"{function}: {argument} must be in [0, {most}], got {got}")
    return int(value)


def as_margin(function: str, value: Any) -> float:
    """A margin as a float.

    Raises:
        TypeError: it is no real number.
        ValueError: it is negative or not finite.
    """
    margin = as_number(function, "margin", value)
    if not 0 <= margin < math.inf:
        raise ValueError(f"{function}: margin must be finite and not negative, got {margin}")
    return margin


def as_share(function: str, argument: str, value: Any) -> float:
    """A number in [0, 1] as a float."""
    share = as_number(function, argument, value)
    if not 0 <= share <= 1:
        raise ValueError(f"{function}: {argument} must be in [0, 1], got {share}")
    return share


def as_temperature(function: str, value: Any, argument: str = "temperature") -> float:
    """A temperature as a float.

    Raises:
        TypeError: it is no real number.
        ValueError: it is not positive, infinite, or so small that a quotient overflows.
    """
    temperature = as_number(function, argument, value)
    if not temperature > 0:
        raise ValueError(f"{function}: {argument} must be positive, got {temperature}")
    if not SMALLEST_TEMPERATURE <= temperature < math.inf:
        raise ValueError(
            f"{function}: {argument} must be finite and at least {SMALLEST_TEMPERATURE}, "
            f"got {temperature}"
        )
    return temperature


def check_choice(function: str, argument: str, value: Any, choices: Any) -> None:
    """Raise unless the value is one of a ``Literal``."""
    known = choices.__args__  # typing.get_args: torch 2.6 cannot compile it
    if not isinstance(value, str) or value not in known:
        raise ValueError(f"{function}: {argument} must be one of {', '.join(known)}, got {value!r}")


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
    if given.is_floating_point() or given.is_complex() or given.dtype == torch.bool:
        raise TypeError(f"{function}: {argument} must be integers, got {given.dtype}")
    if given.shape != (count,):
        raise ValueError(f"{function}: {argument} must be [{count}], got {tuple(given.shape)}")
    check_device(function, argument, given, first, features)
    if given.dtype == torch.int64:
        return given
    out = given.to(torch.int64)
    if given.dtype == torch.uint64 and count and not unseen(out) and int(out.min()) < 0:
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
