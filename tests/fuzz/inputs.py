"""Random arguments: features, labels, and the forms in which users pass them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

T = TypeVar("T")
HALVES = (torch.float16, torch.bfloat16)
FLOATS = (torch.float32, torch.float32, torch.float64, torch.float16, torch.bfloat16)
INTEGERS = (
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.uint16,
    torch.uint32,
    torch.uint64,
)
#: Kinds of features whose products and squared distances are exact in float32.
EXACT = ("integers", "signs", "collapsed", "zeros")
KINDS = ("normal", *EXACT, "duplicates", "unit", "offset")
EXTREMES = ("tiny", "huge", "mixed")


class Features(NamedTuple):
    """Features as a tensor, the same numbers in float64, and how they were drawn."""

    tensor: Tensor
    values: np.ndarray
    kind: str

    @property
    def exact(self) -> bool:
        """Whether products of them are exact in float32."""
        return self.kind in EXACT


@dataclass
class Draw:
    """The random choices of a case."""

    rng: np.random.Generator
    _refused: str = ""  # torch takes no gradient beside inference tensors

    def one(self, options: Sequence[T]) -> T:
        """One of several options."""
        return options[int(self.rng.integers(len(options)))]

    def chance(self, share: float) -> bool:
        """True in this share of the cases."""
        return bool(self.rng.random() < share)

    def size(self, most: int = 200, least: int = 0) -> int:
        """A size: small ones and odd ones often, up to ``most``."""
        if self.chance(0.12):
            return max(least, int(self.rng.integers(0, 3)))
        drawn = int(np.exp(self.rng.uniform(0, np.log(most + 1))))
        return min(most, max(least, drawn))

    def number(self, low: float, high: float) -> float:
        """A number, evenly."""
        return float(self.rng.uniform(low, high))

    def features(
        self, rows: int, width: int, dtype: torch.dtype = torch.float32, kind: str | None = None
    ) -> Features:
        """Features [rows, width] of a kind, rounded to the dtype."""
        kind = kind or self.one(KINDS if self.chance(0.8) else EXTREMES)
        values = _DRAWN[kind](self, rows, width)
        if dtype.is_floating_point:
            top = torch.finfo(dtype).max
            tensor = torch.from_numpy(np.clip(values, -top, top)).to(dtype)
        else:
            low = 0 if str(dtype).startswith("torch.uint") else -3
            tensor = torch.from_numpy(np.clip(np.rint(values), low, 3)).to(torch.int64).to(dtype)
        exact = kind if dtype.is_floating_point else "integers"
        return Features(tensor, _double(tensor), exact)

    def labels(self, rows: int, classes: int | None = None, spread: str | None = None) -> Tensor:
        """int64 labels: few or many classes, one, all different; near 0, negative or huge."""
        classes = classes or self.one((1, 2, 3, 5, 10, max(1, rows)))
        numbers = self.rng.integers(0, classes, rows)
        if self.chance(0.1):
            numbers = np.arange(rows)
        if self.chance(0.2):
            numbers = np.sort(numbers)
        spread = spread or self.one(("near", "near", "negative", "huge"))
        if spread == "negative":
            numbers = numbers - classes
        if spread == "huge":
            ends = np.array([2**62, -(2**62), 2**63 - 200, -(2**63), 2**31, 2**32])
            numbers = ends[numbers % len(ends)] + numbers
        return torch.from_numpy(numbers.astype(np.int64))

    def pair_of_labels(self, first: int, second: int) -> tuple[Tensor, Tensor]:
        """Labels of two modalities from the same classes."""
        both = self.labels(first + second)
        if self.chance(0.5):
            both = both[torch.from_numpy(self.rng.permutation(len(both)))]
        return both[:first].clone(), both[first:].clone()

    def integer_form(self, labels: Tensor) -> Any:
        """Labels in another integer type, as NumPy, or as a list; the same values."""
        fitting = [
            d
            for d in INTEGERS
            if not len(labels)
            or (int(labels.min()) >= torch.iinfo(d).min and int(labels.max()) <= torch.iinfo(d).max)
        ]
        form = labels.to(self.one(fitting))
        way = self.one(("tensor", "tensor", "numpy", "strided", "list", "reversed"))
        if way == "numpy":
            return form.numpy()
        if way == "list":
            return labels.tolist() if len(labels) else []
        if way == "reversed":
            return form.numpy()[::-1].copy()[::-1]
        if way == "strided":
            return form.repeat_interleave(2)[::2]
        return form

    def layout(self, tensor: Tensor) -> Tensor:
        """The same numbers with other strides, offsets, flags."""
        way = self.one(tuple(name for name in _LAYOUTS if name != self._refused))
        if way in _EITHER:
            self._refused = _EITHER[way]
        return _LAYOUTS[way](tensor)

    def array_form(self, tensor: Tensor) -> Any:
        """The same numbers as a NumPy array of any kind, or as nested lists."""
        if tensor.dtype == torch.bfloat16:
            return self.layout(tensor)
        array = tensor.detach().numpy().copy()
        return _ARRAYS[self.one(tuple(_ARRAYS))](array)


def _double(tensor: Tensor) -> np.ndarray:
    if tensor.dtype in (torch.uint16, torch.uint32, torch.uint64):
        return tensor.numpy().astype(np.float64)
    return tensor.double().numpy()


def _duplicates(draw: Draw, rows: int, width: int) -> np.ndarray:
    few = draw.rng.standard_normal((draw.one((1, 2, 5)), width))
    return few[draw.rng.integers(0, len(few), rows)]


def _unit(draw: Draw, rows: int, width: int) -> np.ndarray:
    values = draw.rng.standard_normal((rows, width))
    return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)


def _mixed(draw: Draw, rows: int, width: int) -> np.ndarray:
    return draw.rng.standard_normal((rows, width)) * 10.0 ** draw.rng.uniform(-30, 30, (rows, 1))


_DRAWN = {
    "normal": lambda d, n, w: d.rng.standard_normal((n, w)),
    "integers": lambda d, n, w: d.rng.integers(-3, 4, (n, w)).astype(np.float64),
    "signs": lambda d, n, w: d.rng.choice([-1.0, 1.0], (n, w)),
    "collapsed": lambda d, n, w: np.tile(d.rng.integers(-3, 4, (1, w)).astype(float), (n, 1)),
    "zeros": lambda d, n, w: d.rng.integers(-1, 2, (n, w)) * (d.rng.random((n, 1)) < 0.5),
    "duplicates": _duplicates,
    "unit": _unit,
    "offset": lambda d, n, w: d.rng.standard_normal((n, w)) + d.number(-100, 100),
    "tiny": lambda d, n, w: d.rng.standard_normal((n, w)) * 10.0 ** d.number(-30, -5),
    "huge": lambda d, n, w: d.rng.standard_normal((n, w)) * 10.0 ** d.number(5, 30),
    "mixed": _mixed,
}


def _every_second(tensor: Tensor) -> Tensor:
    wide = torch.repeat_interleave(tensor, 2, dim=-1)
    return wide[..., ::2]


def _negated_view(tensor: Tensor) -> Tensor:
    """A view whose numbers are stored with the other sign (``is_neg``)."""
    if tensor.dtype not in (torch.float32, torch.float64):
        return tensor
    return torch.complex(torch.zeros_like(tensor), -tensor).conj().imag


def _in_larger(tensor: Tensor) -> Tensor:
    larger = torch.full(tuple(n + 3 for n in tensor.shape), 7.0).to(tensor.dtype)
    place = larger[tuple(slice(1, 1 + n) for n in tensor.shape)]
    return place.copy_(tensor)


def _inference(tensor: Tensor) -> Tensor:
    with torch.inference_mode():
        return tensor.clone()


_LAYOUTS = {
    "plain": lambda t: t,
    "columns first": lambda t: t.mT.contiguous().mT if t.ndim > 1 else t,
    "every second column": _every_second,
    "every second row": lambda t: torch.repeat_interleave(t, 2, dim=0)[::2],
    "part of a larger one": _in_larger,
    "negated view": _negated_view,
    "inference tensor": _inference,
    "needs gradient": lambda t: t.clone().requires_grad_() if t.is_floating_point() else t,
}

_EITHER = {"inference tensor": "needs gradient", "needs gradient": "inference tensor"}


def _memory_map(array: np.ndarray) -> np.ndarray:
    if array.size == 0:
        return array
    path = Path("map.npy")
    path.unlink(missing_ok=True)
    np.save(path, array)
    return np.load(path, mmap_mode="r")


def _read_only(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array


_ARRAYS = {
    "array": lambda a: a,
    "Fortran order": np.asfortranarray,
    "reversed rows": lambda a: a[::-1].copy()[::-1],
    "reversed columns": lambda a: a[..., ::-1].copy()[..., ::-1],
    "every second row": lambda a: np.repeat(a, 2, axis=0)[::2],
    "read-only": _read_only,
    "memory map": _memory_map,
    "other byte order": lambda a: a.astype(a.dtype.newbyteorder()),
    # Of lists torch makes float32, whatever they came from.
    "lists": lambda a: a.tolist() if a.size and a.dtype != np.float64 else a,
}


def described(**arguments: Any) -> str:
    """Arguments in words: shapes and dtypes of tensors and arrays, other values as they are."""
    return ", ".join(f"{name}={_words(value)}" for name, value in arguments.items())


def _words(value: Any) -> str:
    if isinstance(value, Tensor):
        more = "".join(
            word
            for word, holds in (
                (" strided", value.layout == torch.strided and not value.is_contiguous()),
                (" neg", value.layout == torch.strided and value.is_neg()),
                (" meta", value.is_meta),
                (f" {value.layout}", value.layout != torch.strided),
            )
            if holds
        )
        return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}{more}"
    if isinstance(value, np.ndarray):
        return f"{type(value).__name__} {value.dtype}{list(value.shape)}"
    if isinstance(value, tuple) and any(isinstance(v, Tensor) for v in value):
        return f"({', '.join(_words(v) for v in value)})"
    text = repr(value)
    return text if len(text) <= 60 else f"{type(value).__name__} {text[:50]}..."
