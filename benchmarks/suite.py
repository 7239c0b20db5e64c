"""The parts of a bench: providers (its rows), settings, and the suite that holds them."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from benchmarks.records import PER_ITEM, Layout, Result


@dataclass(frozen=True)
class Prepared:
    """A provider that has its inputs: ``run(n)`` works on the first ``n`` items.

    ``floor(n)`` is timed in turn with ``run(n)``, so that their ratio does not drift with the
    machine. ``limit`` caps n.
    """

    run: Callable[[int], Any]
    floor: Callable[[int], object] | None = None
    limit: int | None = None


@dataclass(frozen=True)
class Provider:
    """One row of a table. ``prepare(data, device)`` is not timed."""

    name: str
    title: str
    kind: Literal["floor", "ours", "rival", "partial"]
    prepare: Callable[[Any, str], Prepared]
    definition: Any = None
    requires: tuple[str, ...] = ()  # modules, optional packages
    devices: tuple[str, ...] = ("cpu",)
    quick: bool = True  # part of --quick
    bound: Literal["bytes", "flop", ""] = ""  # what limits it; decides the unit of its rate
    note: str = ""
    cases: tuple[str, ...] = ()  # it is meant for; () is all
    unfit: Callable[[Any], str] = lambda case: ""  # why it cannot run on a case, if it cannot
    against: str = ""  # the provider whose time is 1 in the ratio column; default: the suite's

    def missing(self) -> str:
        """The first required module that is not installed, or an empty string."""
        return next((m for m in self.requires if importlib.util.find_spec(m) is None), "")


@dataclass(frozen=True)
class Settings:
    """How long things may take: a call, a row, the whole run; and the repeats of a call."""

    call_s: float
    total_s: float
    min_repeats: int = 3
    max_repeats: int = 21
    timeout_s: float = 90.0  # of one row; then it has failed
    run_s: float = 870.0  # of the run; rows that have not begun by then are left out
    patience_s: float = 0.0  # of the run, for waiting for idle cores and repeating disturbed rows
    remarks: bool = False  # also find the lines of the suite beside its rows


QUICK = Settings(call_s=0.2, total_s=0.5, timeout_s=15.0, run_s=50.0)
FULL = Settings(call_s=1.2, total_s=5.0, patience_s=150.0, remarks=True)


@dataclass(frozen=True)
class Suite:
    """A bench. ``module`` holds it under the name SUITE, so that a child process finds it."""

    op: str
    module: str
    cases: dict[str, Any]  # with .name, .title, .devices and, unless it is float32, .dtype
    quick_cases: tuple[str, ...]
    providers: dict[str, Provider]
    ours: str  # the provider whose time is 1 in the ratio column
    make_data: Callable[[Any, Path], None]  # writes the inputs of a case to a folder
    load_data: Callable[[Any, Path], Any]
    # Loads libraries on a small case, before memory is measured; may return the error there.
    warm_up: Callable[[Provider, Any, str], float | None]
    items: Callable[[Any], int]
    check_items: Callable[[Any], int]  # this many are checked against the reference
    error: Callable[[Provider, Any, Any], float]  # of the result of run(check_items)
    work: Callable[[Provider, Any, int], float]  # bytes or FLOP of n items
    finish: Callable[[Result], None]  # shares of the limits, verdicts
    tolerance: Callable[[Any], float] = lambda data: 1e-4
    layout: Layout = PER_ITEM
    quick: Settings = QUICK
    full: Settings = FULL
    # Lines beside the rows, about these providers; found by --full in a process of its own.
    remarks: Callable[[Sequence[str], str], list[str]] | None = None


def one_step(data: Any) -> int:
    """``items`` and ``check_items`` of a suite whose item is a whole training step."""
    del data
    return 1


STEPS_QUICK = Settings(call_s=0.0, total_s=0.6, max_repeats=101, timeout_s=30.0, run_s=50.0)
STEPS_FULL = Settings(
    call_s=0.0, total_s=2.0, max_repeats=301, timeout_s=120.0, patience_s=150.0, remarks=True
)
