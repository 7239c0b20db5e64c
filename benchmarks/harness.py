"""Check, time and record: what every ``bench_<room>.py`` shares.

Each measurement runs in a process of its own (a clean fork of a server that has only imported
torch), so that peak memory and thread pools of one provider do not touch the next. A provider's
result is checked before anything is timed. Kept are the median and the p20-p80 spread over repeats.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.util
import io
import multiprocessing
import os
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

from benchmarks.machine import (
    Clock,
    PeakMemory,
    busy_core_seconds,
    machine_facts,
    wait_for_idle_cores,
)
from benchmarks.records import Result, Row, quantile, read_records, update_tables, write_records
from benchmarks.records import report as text_report


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


QUICK = Settings(call_s=0.2, total_s=0.5, timeout_s=15.0, run_s=50.0)
FULL = Settings(call_s=1.2, total_s=5.0, patience_s=150.0)


@dataclass(frozen=True)
class Suite:
    """A bench. ``module`` holds it under the name SUITE, so that a child process finds it."""

    op: str
    module: str
    cases: dict[str, Any]  # with .name, .title, .devices
    quick_cases: tuple[str, ...]
    providers: dict[str, Provider]
    ours: str  # the provider whose time is 1 in the ratio column
    make_data: Callable[[Any, Path], None]  # writes the inputs of a case to a folder
    load_data: Callable[[Any, Path], Any]
    warm_up: Callable[[Provider, str], object]  # loads libraries, before memory is measured
    items: Callable[[Any], int]
    check_items: Callable[[Any], int]  # this many are checked against the reference
    error: Callable[[Provider, Any, Any], float]  # of the result of run(check_items)
    work: Callable[[Provider, Any, int], float]  # bytes or FLOP of n items
    finish: Callable[[Result], None]  # shares of the limits, verdicts
    tolerance: float = 1e-4


# --- one measurement, in a process of its own --------------------------------------------------


def choose_n(time_call: Callable[[int], float], start: int, limit: int, call_s: float) -> int:
    """How many items make a call that takes ``call_s`` seconds above its fixed cost.

    The fixed cost (building an index, say) is left out, so that it is spread over as many items as
    it would be in use. Found by growing from ``start``; the answer is at most ``limit``.
    """
    n = min(start, limit)
    seconds = time_call(n)
    room = 2.0
    while n < limit:
        wider = min(limit, int(n * min(8.0, room)))
        wider_seconds = time_call(wider)
        per_item = (wider_seconds - seconds) / (wider - n)
        per_item = min(max(per_item, 1e-9), wider_seconds / wider)
        n, seconds = wider, wider_seconds
        room = call_s / (per_item * n)
        if room < 1.5:
            break
    return n


def measure(
    suite: Suite, provider: Provider, data: Any, device: str, how: Settings
) -> dict[str, Any]:
    """Check, then time one provider; the numbers of a Row.

    Raises:
        ArithmeticError: The result is off by more than the suite's tolerance.
    """
    suite.warm_up(provider, device)
    prepared = provider.prepare(data, device)
    limit = min(suite.items(data), prepared.limit or sys.maxsize)
    clock, memory = Clock(device), PeakMemory(device)
    checked = suite.check_items(data)
    error = suite.error(provider, data, prepared.run(checked))
    if not error <= suite.tolerance:
        raise ArithmeticError(f"result is off by {error:.2e}, more than {suite.tolerance:.0e}")
    n = choose_n(lambda n: clock.time(prepared.run, n), checked, limit, how.call_s)
    peak = memory.peak()  # before the floor brings its own buffers
    seconds: list[float] = []
    floors: list[float] = []
    own, everyone, begin = time.process_time(), busy_core_seconds(), time.perf_counter()
    while len(seconds) < how.min_repeats or (
        time.perf_counter() - begin < how.total_s and len(seconds) < how.max_repeats
    ):
        if prepared.floor is not None:
            floors.append(clock.time(prepared.floor, n))
        seconds.append(clock.time(prepared.run, n))
    wall = time.perf_counter() - begin
    others = busy_core_seconds() - everyone - (time.process_time() - own)
    median = quantile(seconds, 0.5)
    rate = suite.work(provider, data, n) / median / 1e9
    pairs = [run / floor for run, floor in zip(seconds, floors, strict=False)]
    return {
        "threads": importlib.import_module("torch").get_num_threads(),
        "n": n,
        "repeats": len(seconds),
        "p20_us": quantile(seconds, 0.2) / n * 1e6,
        "p50_us": median / n * 1e6,
        "p80_us": quantile(seconds, 0.8) / n * 1e6,
        "peak_bytes": peak,
        "gb_per_s": rate if provider.bound == "bytes" else None,
        "gflop_per_s": rate if provider.bound == "flop" else None,
        "floor_p50_us": quantile(floors, 0.5) / n * 1e6 if floors else None,
        "over_floor": quantile(pairs, 0.5) if pairs else None,
        "max_err": error,
        "other_load": max(0.0, others / wall),
    }


def _child(
    module: str, name: str, case: str, folder: str, device: str, how: Settings, out: Connection
) -> None:
    try:
        warnings.simplefilter("ignore")  # of third-party packages, on a terminal that shows a table
        suite: Suite = importlib.import_module(module).SUITE
        with contextlib.redirect_stdout(io.StringIO()):
            data = suite.load_data(suite.cases[case], Path(folder))
            out.send(measure(suite, suite.providers[name], data, device, how))
    except Exception as problem:
        if os.environ.get("ZSBIR_BENCH_TRACE"):
            traceback.print_exc()
        out.send(f"{type(problem).__name__}: {problem}".splitlines()[0])


def measure_apart(
    suite: Suite, name: str, case: str, folder: Path, device: str, how: Settings
) -> dict[str, Any] | str:
    """``measure`` in a fresh process; the reason as a string if it gave no numbers."""
    forks = "forkserver" in multiprocessing.get_all_start_methods()
    context: Any = multiprocessing.get_context("forkserver" if forks else "spawn")
    if forks:
        context.set_forkserver_preload(["torch"])  # imported once; starts no thread pool
    receiver, sender = context.Pipe(duplex=False)
    arguments = (suite.module, name, case, str(folder), device, how, sender)
    process = context.Process(target=_child, args=arguments)
    process.start()
    sender.close()
    try:
        if not receiver.poll(how.timeout_s):
            process.kill()
            return f"no result within {how.timeout_s:.0f} s"
        answer: dict[str, Any] | str = receiver.recv()
        return answer
    except EOFError:
        process.join()
        return f"the process ended with code {process.exitcode} (out of memory?)"
    finally:
        process.join(2.0)
        process.kill()
        process.join()


# --- a whole suite -----------------------------------------------------------------------------


WAIT_S = 10.0  # for idle cores, before a row


def run_suite(
    suite: Suite, cases: Sequence[str], names: Sequence[str], device: str, how: Settings
) -> Result:
    """Measure ``names`` on ``cases``; stderr tells what is under way."""
    owners = metadata.packages_distributions()
    modules = {m.split(".")[0] for p in suite.providers.values() for m in p.requires}
    result = Result(machine_facts(device, sorted({d for m in modules for d in owners.get(m, [])})))
    usable = []
    for name in names:
        provider = suite.providers[name]
        if device not in provider.devices:
            result.skipped.append(f"{name}: has no {device} path")
        elif missing := provider.missing():
            result.skipped.append(f"{name}: needs {missing} (pip install '.[bench]')")
        else:
            usable.append(provider)
    end, patience = time.monotonic() + how.run_s, how.patience_s
    for case in cases:
        with tempfile.TemporaryDirectory(prefix="zsbir_bench_") as folder:
            suite.make_data(suite.cases[case], Path(folder))
            for provider in usable:
                left = end - time.monotonic()
                late = f"left out, a run may take {how.run_s:.0f} s; --case and --only pick rows"
                if left < 1.0:
                    result.skipped.append(f"{provider.name} on {case}: {late}")
                    continue
                print(f"{case}: {provider.name}".ljust(60), end="\r", file=sys.stderr, flush=True)
                now = replace(how, timeout_s=min(how.timeout_s, left), patience_s=patience)
                answer, spent = _measure_undisturbed(
                    suite, provider.name, case, Path(folder), device, now
                )
                patience = max(0.0, patience - spent)
                if isinstance(answer, str) and left < how.timeout_s and time.monotonic() >= end:
                    result.skipped.append(f"{provider.name} on {case}: {late}")
                elif isinstance(answer, str):
                    result.failed.append(f"{provider.name} on {case}: {answer}")
                else:
                    result.rows.append(_row(suite, provider, case, device, result.facts, answer))
    print(" " * 60, end="\r", file=sys.stderr)
    suite.finish(result)
    return result


def _row(
    suite: Suite,
    provider: Provider,
    case: str,
    device: str,
    facts: dict[str, Any],
    numbers: dict[str, Any],
) -> Row:
    return Row(
        date=facts["date"][:10],
        op=suite.op,
        provider=provider.name,
        title=provider.title,
        kind=provider.kind,
        case=case,
        dtype="float32",
        device=device,
        torch=facts["versions"]["torch"],
        pct_of_limit=None,
        definition=str(provider.definition or ""),
        note=provider.note,
        **numbers,
    )


def _measure_undisturbed(
    suite: Suite, name: str, case: str, folder: Path, device: str, how: Settings
) -> tuple[dict[str, Any] | str, float]:
    """``measure_apart`` on idle cores; again, once, if other processes took more than 0.2 core.

    Returns the quieter answer, and the seconds of patience that it took.
    """
    begin = time.monotonic()
    wait_for_idle_cores(min(WAIT_S, how.patience_s))
    spent = time.monotonic() - begin
    answer = measure_apart(suite, name, case, folder, device, how)
    if isinstance(answer, str) or answer["other_load"] <= 0.2 or spent >= how.patience_s:
        return answer, spent
    begin = time.monotonic()
    wait_for_idle_cores(min(WAIT_S, how.patience_s - spent))
    again = measure_apart(suite, name, case, folder, device, how)
    if not isinstance(again, str) and again["other_load"] < answer["other_load"]:
        answer = again
    return answer, spent + time.monotonic() - begin


# --- command line ------------------------------------------------------------------------------


def parse_args(suite: Suite, argv: Sequence[str] | None) -> argparse.Namespace:
    """Arguments of a bench; ``cases`` and ``names`` come back as checked lists."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {suite.module}", description=f"Benchmark {suite.op}."
    )
    length = parser.add_mutually_exclusive_group()
    length.add_argument(
        "--quick", action="store_true", help="under a minute, the main rows (default)"
    )
    length.add_argument(
        "--full", action="store_true", help="every case and provider, longer repeats"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--case", default="", metavar="A,B", help=f"of {', '.join(suite.cases)}")
    parser.add_argument("--only", default="", metavar="A,B", help="providers by name; see --list")
    parser.add_argument("--list", action="store_true", help="list providers and end")
    parser.add_argument("--out", type=Path, metavar="STEM", help="write STEM.csv and STEM.json")
    parser.add_argument(
        "--docs", type=Path, metavar="FILE.md", help="renew the tables in this document"
    )
    parser.add_argument(
        "--show", type=Path, metavar="FILE.json", help="print a former run, measure nothing"
    )
    args = parser.parse_args(argv)
    short = not args.full
    args.cases = [c for c in args.case.split(",") if c] or [
        name
        for name, case in suite.cases.items()
        if args.device in case.devices and (name in suite.quick_cases or not short)
    ]
    args.names = [p for p in args.only.split(",") if p] or [
        name for name, p in suite.providers.items() if p.quick or not short
    ]
    for kind, given, known in (
        ("case", args.cases, suite.cases),
        ("only", args.names, suite.providers),
    ):
        for name in given:
            if name not in known:
                parser.error(f"--{kind} must be of {', '.join(known)}, got {name!r}")
    args.settings = QUICK if short else FULL
    return args


def main(suite: Suite, argv: Sequence[str] | None = None) -> int:
    """Entry of a bench; 1 if a provider failed, 0 otherwise (a missed target is no failure)."""
    args = parse_args(suite, argv)
    if args.list:
        for p in suite.providers.values():
            print(f"{p.name:24} {p.title}" + (f"  [{p.note}]" if p.note else ""))
        return 0
    if args.show:
        result = read_records(args.show)
    else:
        result = run_suite(suite, args.cases, args.names, args.device, args.settings)
    titles = {name: case.title for name, case in suite.cases.items()}
    print(text_report(result, titles, suite.ours, suite.module))
    if args.out:
        write_records(result, args.out)
    if args.docs:
        update_tables(args.docs, result, titles, suite.ours)
    return int(bool(result.failed))
