"""A bound on the memory that building a model takes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class AllocationLimit(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Within this context, tensors of given sizes may take so many bytes in all.

    A description of a model from elsewhere can ask for any width; what was asked for is counted
    before it is allocated.

    Args:
        limit: bytes.

    Raises:
        ValueError: at an allocation that exceeds the rest.
    """

    def __init__(self, limit: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.limit = limit
        self.taken = 0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Count, then go on; torch calls this."""
        given = dict(kwargs or {})
        for argument, value in zip(func._schema.arguments, args, strict=False):
            given.setdefault(argument.name, value)
        size = given.get("size")
        makes = not any(isinstance(value, Tensor) for value in args)  # not a view or an expansion
        if makes and isinstance(size, (list, tuple)) and min(size, default=0) >= 0:
            dtype = given.get("dtype") or torch.get_default_dtype()
            self.taken += math.prod(size) * dtype.itemsize
        if self.taken > self.limit:
            raise ValueError(
                f"its arguments ask for more than {self.taken / 1e6:,.0f} MB of memory, and its "
                f"weights allow {self.limit / 1e6:,.0f} MB"
            )
        return func(*args, **(kwargs or {}))
