"""The torch operator library ``zsbir``, and the functions that every room's op file needs."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from functools import cache, wraps
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.autograd import forward_ad

from zsbir_fast import _C

# One object for the whole process: dropping it would unregister the operators.
LIB = torch.library.Library("zsbir", "DEF")

_Function = TypeVar("_Function", bound=Callable[..., Any])
_told: set[str] = set()


def why_not_native(device: torch.device) -> str | None:
    """Why tensors on ``device`` run the PyTorch reference, not a kernel; None if they do not."""
    if device.type == "cpu":
        return None
    if device.type != "cuda":
        return f"there are no kernels for {device.type} devices"
    if not _C.built_with_cuda:
        return "this build has no CUDA kernels (rebuild with nvcc: see `zsbir env`)"
    return None


def notice_fallback(op: str, reference: _Function) -> _Function:
    """The reference as the operator of devices without a kernel; it says so once.

    ``ZSBIR_STRICT=1`` turns the notice into an error: tests and benchmarks on a GPU set it.
    """

    @wraps(reference)
    def fallback(*args: Any, **kwargs: Any) -> Any:
        device = next(a.device for a in args if isinstance(a, Tensor))
        reason = (
            why_not_native(device) or f"there is no kernel for the given dtype on {device.type}"
        )
        message = f"{op}: {reason}; using the PyTorch reference on {device}: slower, same results."
        if os.environ.get("ZSBIR_STRICT") == "1":
            raise RuntimeError(f"{message} (an error because ZSBIR_STRICT=1)")
        if op not in _told:
            _told.add(op)
            warnings.warn(message, RuntimeWarning, stacklevel=2)
        return reference(*args, **kwargs)

    return fallback  # type: ignore[return-value]


def register(
    op: str,
    native: _Function,
    fake: _Function,
    reference: _Function | None,
) -> None:
    """Give an operator of ``LIB`` its implementations.

    Args:
        op: its name.
        native: the kernels, for the CPU and, where built, CUDA.
        fake: shapes of its results, after the checks of ``native``.
        reference: for devices without a kernel.
    """
    LIB.impl(op, _only_dense(op, native), "CPU")
    if _C.built_with_cuda:
        LIB.impl(op, _only_dense(op, native), "CUDA")
    if reference is not None:
        fallback = notice_fallback(op, reference)
        LIB.impl(op, _only_dense(op, fallback), "CompositeExplicitAutograd")
    torch.library.register_fake(f"zsbir::{op}", _only_dense(op, fake), lib=LIB)


def _only_dense(op: str, function: _Function) -> _Function:
    """The function with a check of inputs that torch lets through: None, sparse tensors."""

    @cache
    def tensors() -> list[tuple[int, str, bool]]:
        arguments = getattr(torch.ops.zsbir, op).default._schema.arguments
        kinds = [(place, x.name, str(x.type)) for place, x in enumerate(arguments)]
        return [(p, n, k == "Tensor") for p, n, k in kinds if "Tensor" in k]

    @wraps(function)
    def checked(*args: Any) -> Any:
        for place, name, required in tensors():
            x = args[place]
            if x is None and required:
                raise TypeError(f"{op}: {name} must be a tensor, got None")
            if x is not None and x.layout != torch.strided:
                raise TypeError(f"{op}: {name} must be a dense tensor, got {x.layout}")
        return function(*args)

    return checked  # type: ignore[return-value]


def refuse_transforms(op: str, *tensors: Tensor | None) -> None:
    """Raise under ``torch.func`` transforms and forward-mode AD, which would give wrong tangents.

    Raises:
        NotImplementedError: naming what works instead.
    """
    if torch.compiler.is_compiling():
        return
    what = ""
    if torch._C._functorch.peek_interpreter_stack() is not None:
        what = "torch.func transforms (grad, vmap, jvp, ...)"
    elif forward_ad._current_level >= 0 and any(
        t is not None and forward_ad.unpack_dual(t).tangent is not None for t in tensors
    ):
        what = "forward-mode differentiation"
    if what:
        raise NotImplementedError(
            f"{op}: {what} are not supported by the kernels; backward() and torch.autograd.grad "
            "are. Use impl='reference'."
        )


def refuse_second_derivatives(op: str) -> Callable[..., Any]:
    """The derivative of a backward operator: an error that says so."""

    def refuse(*_: Any) -> Any:
        raise NotImplementedError(
            f"{op}: second derivatives are not supported by the kernels. Use impl='reference'."
        )

    return refuse


def address(tensor: Tensor | None) -> int:
    """Where the data of a tensor begin; 0 stands for None."""
    return 0 if tensor is None else tensor.data_ptr()


def current_stream(device: torch.device) -> int:
    """The caller's CUDA stream as the integer that the launchers take."""
    return int(torch.cuda.current_stream(device).cuda_stream)
