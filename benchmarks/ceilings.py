"""The most that this machine gives, and the cost of a call: numbers that others are judged by.

``python -m benchmarks.ceilings --device cuda --out ceilings``   a few seconds
``python -m benchmarks.ceilings --show ceilings.json``   print a former run

It measures the bandwidth of a large copy, the rates of a large square product in each precision,
and the microseconds that the caller's thread spends in small calls: asking torch for the current
stream, an operator of ours, an operator of torch. Products are checked against float64 first.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.machine import Clock, machine_facts
from benchmarks.records import machine, quantile, significant
from zsbir_fast._files import write_text


@dataclass(frozen=True)
class Ceiling:
    """Median and spread of one measurement, in its unit."""

    name: str
    unit: str
    p20: float
    p50: float
    p80: float
    error: float  # of a product, relative to its largest entry


@contextmanager
def tensor_float(allowed: bool) -> Iterator[None]:
    """TF32 products on or off, then as before."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if allowed else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _rates(
    name: str, unit: str, work: float, call: Callable[[], object], device: str, error: float
) -> Ceiling:
    """``work`` per second over 21 calls, the L2 cache flushed before each, after 3 untimed."""
    clock = Clock(device)
    for _ in range(3):
        clock.time(lambda n: call(), 1)
    rates = [work / clock.time(lambda n: call(), 1) for _ in range(21)]
    return Ceiling(name, unit, *(quantile(rates, share) for share in (0.2, 0.5, 0.8)), error)


def copy_rate(device: str, size: int) -> Ceiling:
    """GB/s of a copy of ``size`` bytes: read once, written once."""
    source = torch.ones(size // 4, device=device)
    target = torch.empty_like(source)
    target.copy_(source)
    error = float((target - 1).abs().max())
    name = f"copy of {size / 2**20:,.0f} MiB"
    return _rates(name, "GB/s", 2e-9 * size, lambda: target.copy_(source), device, error)


PRODUCTS = {
    "bfloat16": (torch.bfloat16, False, 1e-2),
    "TF32": (torch.float32, True, 2e-3),
    "float32": (torch.float32, False, 1e-5),
}


def product_rate(kind: str, device: str, side: int) -> Ceiling:
    """TFLOP/s of a square product.

    Raises:
        ArithmeticError: It is off by more than its precision allows.
    """
    dtype, allowed, tolerance = PRODUCTS[kind]
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(side, side, generator=generator).to(device, dtype) for _ in range(2))
    out = torch.empty_like(a)
    with tensor_float(allowed):
        torch.mm(a, b, out=out)
        error = _product_error(a, b, out)
        if not error <= tolerance:
            raise ArithmeticError(f"{kind} product is off by {error:.1e}, more than {tolerance}")
        name = f"product {side:,} x {side:,}, {kind}"
        work = 2e-12 * side**3
        return _rates(name, "TFLOP/s", work, lambda: torch.mm(a, b, out=out), device, error)


def _product_error(a: Tensor, b: Tensor, out: Tensor) -> float:
    """The largest deviation of the first rows from float64, over the largest entry."""
    exact = a[:16].double() @ b.double()
    return float((out[:16] - exact).abs().max() / exact.abs().max())


def call_costs(device: str, calls: int = 2000) -> list[Ceiling]:
    """Microseconds of the caller's thread in one call; the GPU's work is left out."""
    from zsbir_fast.ops._library import current_stream
    from zsbir_fast.ops.quadruplet_mining.pair_distances import pair_distances

    place, x = torch.device(device), torch.ones(8, 8, device=device)
    todo: dict[str, Callable[[], object]] = {
        "pair_distances of 8 x 8 (ours)": lambda: pair_distances(x, None, "euclidean"),
        "x + x of 8 x 8 (torch)": lambda: x + x,
    }
    if device == "cuda":
        index = torch.device("cuda", torch.cuda.current_device())
        todo = {
            "torch.cuda.current_stream()": lambda: torch.cuda.current_stream(),
            "stream address as our operators ask for it": lambda: current_stream(index),
            **todo,
        }
    return [_call_cost(name, call, place, calls) for name, call in todo.items()]


def _call_cost(name: str, call: Callable[[], object], device: torch.device, calls: int) -> Ceiling:
    costs = []
    for _ in range(9):
        for _ in range(10):
            call()
        if device.type == "cuda":
            torch.cuda.synchronize()  # an empty queue: the caller never waits for a place in it
        start = time.perf_counter()
        for _ in range(min(calls, 500)):
            call()
        costs.append((time.perf_counter() - start) / min(calls, 500) * 1e6)
    return Ceiling(name, "us/call", *(quantile(costs, share) for share in (0.2, 0.5, 0.8)), 0.0)


def measure_all(device: str, size: int, side: int) -> dict[str, Any]:
    """Facts of the machine and every ceiling; one that fails is named in ``failed``."""
    rows: list[Ceiling] = []
    failed: list[str] = []
    todo: list[Callable[[], Any]] = [
        lambda: [copy_rate(device, size)],
        *(lambda kind=kind: [product_rate(kind, device, side)] for kind in PRODUCTS),
        lambda: call_costs(device),
    ]
    for measure in todo:
        try:
            rows += measure()
        except Exception as problem:
            failed.append(f"{type(problem).__name__}: {problem}".splitlines()[0])
    facts = machine_facts(device, [])
    return {"facts": facts, "ceilings": [asdict(row) for row in rows], "failed": failed}


def report(record: dict[str, Any]) -> str:
    """One line for each ceiling."""
    lines = [machine(record["facts"]), ""]
    for row in record["ceilings"]:
        spread = f"{significant(row['p20'])}-{significant(row['p80'])}"
        error = f"  max err {row['error']:.0e}" if row["error"] else ""
        lines.append(f"{row['name']:44} {significant(row['p50']):>8} {row['unit']} {spread}{error}")
    return "\n".join([*lines, *(f"failed: {reason}" for reason in record["failed"])])


def main(argv: list[str] | None = None) -> int:
    """Measure, print, write; 1 if something failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ceilings")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--mib", type=int, default=1024, help="size of the copy")
    parser.add_argument("--side", type=int, default=8192, help="of the square products")
    parser.add_argument("--out", type=Path, metavar="STEM", help="write STEM.json")
    parser.add_argument("--show", type=Path, metavar="FILE.json", help="print a former run")
    args = parser.parse_args(argv)
    if args.show:
        record = json.loads(args.show.read_text())
    else:
        record = measure_all(args.device, args.mib * 2**20, args.side)
    if args.out:
        write_text(args.out.with_suffix(".json"), json.dumps(record, indent=1) + "\n")
    print(report(record))
    return int(bool(record["failed"]))


if __name__ == "__main__":
    sys.exit(main())
