"""A bound on the memory that building a model takes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

_OF_A_SIZE = (torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn)


class AllocationLimit(TorchFunctionMode):
    """Within this context, new tensors may take up to a limit of bytes in all.

    A description of a model from elsewhere can ask for any width; a tensor is counted before it is
    allocated. Counted are the functions that make a tensor of a given size from nothing, by which
    the layers of torch and of the model zoos make their parameters. (A ``TorchDispatchMode`` would
    see every allocation, but loads torch's compiler, which takes longer than to load a model.)

    Args:
        limit: bytes.

    Raises:
        ValueError: at an allocation that exceeds the rest.
    """

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit = limit
        self.taken = 0

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Count, then go on; torch calls this."""
        given = dict(kwargs or {})
        if func in _OF_A_SIZE:
            dtype = given.get("dtype") or torch.get_default_dtype()
            self.taken += _count(args, given) * dtype.itemsize
        elif func is torch.eye:
            self.taken += math.prod([*args, *args][:2]) * torch.get_default_dtype().itemsize
        if self.taken > self.limit:
            raise ValueError(
                f"its arguments ask for more than {self.taken / 1e6:,.0f} MB of memory, and its "
                f"weights allow {self.limit / 1e6:,.0f} MB"
            )
        return func(*args, **given)


def _count(args: Sequence[Any], given: Mapping[str, Any]) -> int:
    """Count the elements of ``f(size)`` or ``f(*size)``; 0 for a size that torch refuses."""
    size = given.get("size", args[0] if args else 0)
    sizes = tuple(size) if isinstance(size, (tuple, list)) else tuple(args) or (size,)
    whole = all(isinstance(n, int) and n >= 0 for n in sizes)
    return math.prod(sizes) if whole else 0
