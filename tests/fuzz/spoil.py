"""Bad arguments: one of the good ones is replaced by what no user should get away with.

Every way to spoil says whether it must be refused, or whether the documentation leaves it open.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from case import Expect
from inputs import Draw
from torch import Tensor

Role = Literal["features", "labels", "number", "choice", "flag", "count", "mask", "module", "names"]


class Odd:
    """An object of a foreign class."""

    def __repr__(self) -> str:
        return "<Odd>"


def spoil(
    draw: Draw, arguments: Mapping[str, Any], roles: Mapping[str, Role]
) -> tuple[dict[str, Any], Expect, str]:
    """Replace one argument.

    Args:
        draw: random choices.
        arguments: good arguments.
        roles: what the arguments that may be spoilt are.

    Returns:
        The arguments with one replaced, what must come of it, and its name with the way.
    """
    name = draw.one(tuple(roles))
    ways = _WAYS[roles[name]]
    way = draw.one(tuple(ways))
    value, expect = ways[way](draw, arguments[name])
    return {**arguments, name: value}, expect, f"{name} spoilt: {way}"


def _with(tensor: Tensor, draw: Draw, value: float) -> tuple[Any, Expect]:
    if not isinstance(tensor, Tensor) or not tensor.is_floating_point() or tensor.numel() == 0:
        return None, "refusal"
    spoilt = tensor.detach().clone(memory_format=torch.contiguous_format)
    spoilt.view(-1)[int(draw.rng.integers(tensor.numel()))] = value
    return spoilt, "refusal"


def _as_tensor(value: Any) -> Tensor:
    return value if isinstance(value, Tensor) else torch.ones(2, 3)


def _sparse(tensor: Tensor) -> Tensor:
    dtype = torch.float32 if tensor.is_floating_point() else torch.int64
    return torch.zeros(tensor.shape, dtype=dtype).to_sparse()


def _longer(value: Any) -> Tensor:
    tensor = _as_tensor(value).detach()
    return torch.cat([tensor, torch.ones((1, *tensor.shape[1:])).to(tensor.dtype)])


_ANYTHING = {
    "None": lambda d, v: (None, "refusal"),
    "text": lambda d, v: ("x", "refusal"),
    "object": lambda d, v: (Odd(), "refusal"),
    "dict": lambda d, v: ({"a": 1}, "refusal"),
    "list of text": lambda d, v: (["a", "b"], "refusal"),
}
_TENSOR = {
    **_ANYTHING,
    "number": lambda d, v: (3, "refusal"),
    "sparse": lambda d, v: (_sparse(_as_tensor(v)), "refusal"),
    "meta": lambda d, v: (_as_tensor(v).detach().to("meta"), "refusal"),
    "one dimension more": lambda d, v: (_as_tensor(v)[None], "refusal"),
    "one row more": lambda d, v: (_longer(v), "refusal"),
    "scalar tensor": lambda d, v: (torch.tensor(1.0), "refusal"),
    "complex": lambda d, v: (torch.zeros_like(_as_tensor(v), dtype=torch.complex64), "refusal"),
}
_FEATURES = {
    **_TENSOR,
    "NaN": lambda d, v: _with(v, d, math.nan),
    "infinity": lambda d, v: _with(v, d, d.one((math.inf, -math.inf))),
    "bool": lambda d, v: (_as_tensor(v).detach().double() > 0, "refusal"),
    "ragged list": lambda d, v: ([[1.0], [1.0, 2.0]], "refusal"),
    "array of objects": lambda d, v: (np.array([Odd()] * 2), "refusal"),
    "array of text": lambda d, v: (np.array([["a"] * 2] * 2), "refusal"),
    "array of dates": lambda d, v: (np.zeros((2, 2), "datetime64[s]"), "refusal"),
}
_LABELS = {
    **_TENSOR,
    "float": lambda d, v: (_as_tensor(v).detach().float(), "refusal"),
    "bool": lambda d, v: (_as_tensor(v).detach().double() > 0, "refusal"),
    "beyond int64": lambda d, v: ([2**70] * max(1, len(_as_tensor(v))), "refusal"),
    "uint64 beyond int64": lambda d, v: (
        np.full(max(1, len(_as_tensor(v))), 2**63 + 5, dtype=np.uint64),
        "refusal",
    ),
    "half numbers": lambda d, v: ([0.5] * max(1, len(_as_tensor(v))), "refusal"),
}
_NUMBER = {
    **{k: w for k, w in _ANYTHING.items() if k != "None"},
    "NaN": lambda d, v: (math.nan, "refusal"),
    "infinity": lambda d, v: (d.one((math.inf, -math.inf)), "refusal"),
    "negative": lambda d, v: (-d.number(0.1, 1e3), "refusal"),
    "huge integer": lambda d, v: (10**400, "refusal"),
    "complex number": lambda d, v: (1 + 2j, "refusal"),
    "tensor": lambda d, v: (torch.ones(3), "refusal"),
    "NumPy number": lambda d, v: (np.float64(v) if isinstance(v, float) else v, "either"),
    "true": lambda d, v: (True, "either"),
}
_CHOICE = {
    **_ANYTHING,
    "wrong word": lambda d, v: ("no such choice", "refusal"),
    "number": lambda d, v: (1, "refusal"),
    "wrong case": lambda d, v: (str(v).upper(), "refusal"),
    "list": lambda d, v: ([v], "refusal"),
}
_FLAG = {
    "object": lambda d, v: (Odd(), "either"),
    "text": lambda d, v: ("x", "either"),
    "tensor of two": lambda d, v: (torch.ones(2), "refusal"),
}
_COUNT = {
    **_ANYTHING,
    "zero": lambda d, v: (0, "refusal"),
    "negative": lambda d, v: (-int(d.rng.integers(1, 2**40)), "refusal"),
    "fraction": lambda d, v: (2.5, "refusal"),
    "true": lambda d, v: (True, "refusal"),
    "NaN": lambda d, v: (math.nan, "refusal"),
    "beyond int64": lambda d, v: (2**63, "either"),
    "far beyond int64": lambda d, v: (10**30, "either"),
}
_MASK = {
    **_TENSOR,
    "float": lambda d, v: (_as_tensor(v).detach().float(), "refusal"),
    "integers": lambda d, v: (_as_tensor(v).detach().long(), "refusal"),
}
_NAMES = {
    **{k: w for k, w in _ANYTHING.items() if k not in ("dict", "list of text")},
    "none": lambda d, v: ([], "refusal"),
    "numbers": lambda d, v: ([1, 2], "refusal"),
    "number": lambda d, v: (3, "refusal"),
    "bytes": lambda d, v: (b"cat", "refusal"),
    "None among them": lambda d, v: (["cat", None], "refusal"),
}
_WAYS: dict[str, dict[str, Any]] = {
    "features": _FEATURES,
    "labels": _LABELS,
    "number": _NUMBER,
    "choice": _CHOICE,
    "flag": _FLAG,
    "count": _COUNT,
    "mask": _MASK,
    "module": _ANYTHING,
    "names": _NAMES,
}
