"""The dense product of an evaluation, by the fastest exact route of this machine.

The float32 product of the same two matrices differs by a factor of two to three between the BLAS
libraries that torch carries: oneDNN beats MKL on AMD processors. Which is used hangs on a global
switch of torch, so the first product of a process times the routes on a small sample, checks each
against float64, and remembers the winner. The switch is put back after every product; products of
other threads that run at the same time see it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import torch
from torch import Tensor

Precision = Literal["float32", "tf32", "bfloat16"]
# Value of the switch for each route of an exact product on the CPU. With `bf16` oneDNN computes in
# bfloat16 only where the processor has matrix units for it (AMX), which the probe finds out.
_ROUTES = {"default": "ieee", "onednn": "bf16"}
_LEGACY = {"ieee": "highest", "tf32": "high", "bf16": "medium"}
# A route is exact if its error is no more than this many times that of the default route: oneDNN in
# float32 sums in another order (2-3 times); its bfloat16 errs 10^4 times as much.
_EXACT_FACTOR = 8.0


@dataclass(frozen=True)
class Route:
    """How float32 products are computed on the CPU.

    Attributes:
        name: ``default`` (the BLAS of torch, MKL on x86) or ``onednn``.
        seconds: Time of the probe's product by each route.
        errors: Largest error of each route against float64.
    """

    name: str
    seconds: dict[str, float]
    errors: dict[str, float]


def _switch_of(device: str) -> Any:
    """The switch for one kind of device; None where torch has only one for all (before 2.9)."""
    backend = torch.backends.mkldnn if device == "cpu" else torch.backends.cuda
    switch = getattr(backend, "matmul", None)
    return switch if hasattr(switch, "fp32_precision") else None


@contextmanager
def _float32_as(value: str, device: str) -> Iterator[None]:
    """float32 products on ``device`` as ``ieee``, ``tf32`` or ``bf16``, then as before."""
    switch = _switch_of(device)
    if switch is None:
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision(_LEGACY[value])
    else:
        before = switch.fp32_precision
        switch.fp32_precision = value
    try:
        yield
    finally:
        if switch is None:
            torch.set_float32_matmul_precision(before)
        else:
            switch.fp32_precision = before


def cpu_route() -> Route:
    """The fastest route whose error is that of float32; probed once per number of threads."""
    return _probe(torch.get_num_threads())


@lru_cache(maxsize=8)
def _probe(threads: int) -> Route:
    generator = torch.Generator().manual_seed(0)
    cpu = torch.device("cpu")
    left = torch.randn(192, 512, generator=generator, dtype=torch.float32, device=cpu)
    right = torch.randn(512, 4096, generator=generator, dtype=torch.float32, device=cpu)
    exact = left[:8].double() @ right.double()
    out = torch.empty(192, 4096, dtype=torch.float32, device=cpu)
    seconds, errors = {}, {}
    for name, value in _ROUTES.items():
        with _float32_as(value, "cpu"):
            runs = []
            for _ in range(4):  # the first warms up
                start = time.perf_counter()
                torch.mm(left, right, out=out)
                runs.append(time.perf_counter() - start)
        seconds[name] = min(runs[1:])
        errors[name] = float((out[:8] - exact).abs().max())
    exact_enough = [n for n in _ROUTES if errors[n] <= _EXACT_FACTOR * errors["default"]]
    return Route(min(exact_enough, key=seconds.__getitem__), seconds, errors)


def matmul_into(out: Tensor, left: Tensor, right: Tensor, *, precision: Precision) -> Tensor:
    """``out = left @ right`` by the chosen route.

    Args:
        out: [Q, G], float32 or float64, of the dtype of the factors.
        left: [Q, D].
        right: [D, G].
        precision: ``float32`` exact to rounding; ``tf32`` and ``bfloat16`` let the hardware round
            the factors where it gains by it (see ``docs/metrics.md``, precision). Ignored for
            float64.
    """
    if left.dtype != torch.float32:
        return torch.mm(left, right, out=out)
    device = left.device.type
    if precision != "float32":
        value = "tf32" if precision == "tf32" or device != "cpu" else "bf16"
    elif device == "cpu":
        value = _ROUTES[cpu_route().name]
    else:
        value = "ieee"
    with _float32_as(value, device):
        return torch.mm(left, right, out=out)
