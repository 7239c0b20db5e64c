"""Rows as they are: ours against the copy of PyTorch.

``python -m benchmarks.bench_null --quick``

One item is a row. Times are microseconds per row.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import main
from benchmarks.peers import BOTH
from benchmarks.suite import Prepared, Provider, Suite


@dataclass(frozen=True)
class Case:
    """One problem size: rows [B, D]."""

    name: str
    B: int
    D: int = 512
    devices: tuple[str, ...] = BOTH

    @property
    def title(self) -> str:
        """Name and sizes."""
        return f"{self.name}: B={self.B:,} D={self.D}"


CASES = {case.name: case for case in (Case("batch", B=1024), Case("bank", B=65_536))}


def _make_data(case: Any, folder: Path) -> None:
    rows = np.random.default_rng(0).standard_normal((case.B, case.D), dtype=np.float32)
    np.save(folder / "rows.npy", rows)


def _load_data(case: Any, folder: Path) -> Any:
    del case
    return np.load(folder / "rows.npy")


def _prepared(function: Callable[[Any], object]) -> Callable[[Any, str], Prepared]:
    def prepare(data: Any, device: str) -> Prepared:
        import torch

        rows = torch.from_numpy(data).to(device)
        return Prepared(lambda n: function(rows[:n]))

    return prepare


def _ours(rows: Any) -> object:
    from zsbir_fast.ops.null import null

    return null(rows)


def _torch(rows: Any) -> object:
    return rows.clone()


PROVIDERS = (
    Provider("ours", "ours", "ours", _prepared(_ours), devices=BOTH, bound="bytes"),
    Provider("torch", "Tensor.clone", "rival", _prepared(_torch), devices=BOTH, bound="bytes"),
)


def _warm_up(provider: Provider, data: Any, device: str) -> None:
    provider.prepare(data[:1], device).run(1)


def _error(provider: Provider, data: Any, result: Any) -> float:
    del provider
    return float(np.abs(result.cpu().numpy() - data[: len(result)]).max())


SUITE = Suite(
    op="null",
    module="benchmarks.bench_null",
    cases=CASES,
    quick_cases=("batch",),
    providers={p.name: p for p in PROVIDERS},
    ours="ours",
    make_data=_make_data,
    load_data=_load_data,
    warm_up=_warm_up,
    items=len,
    check_items=len,
    error=_error,
    work=lambda provider, data, n: 2.0 * n * data.itemsize * data.shape[1],
    finish=lambda result: None,
)

if __name__ == "__main__":
    sys.exit(main(SUITE))
