"""Check, time and record: the code that every ``bench_<room>.py`` shares.

Each measurement runs in a process of its own (a clean fork of a server that has only imported
torch), so that peak memory and thread pools of one provider do not touch the next. A provider's
result is checked before anything is timed. A row has the median and the p20-p80 spread of repeats.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.machine import (
    Clock,
    PeakMemory,
    busy_core_seconds,
    machine_facts,
    wait_for_idle_cores,
)
from benchmarks.processes import call_apart
from benchmarks.records import Result, Row, document, quantile, read_records, write_records
from benchmarks.records import report as text_report
from benchmarks.suite import Provider, Settings, Suite
from zsbir_fast._files import write_text

# --- one measurement, in a process of its own --------------------------------------------------


def choose_n(time_call: Callable[[int], float], start: int, limit: int, call_s: float) -> int:
    """How many items make a call that takes ``call_s`` seconds above its fixed cost.

    The fixed cost (building an index, say) is left out, so that it is spread over as many items as
    it would be in use. The number grows from ``start``, up to ``limit`` at most.
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
    small_error = suite.warm_up(provider, data, device) or 0.0
    prepared = provider.prepare(data, device)
    limit = min(suite.items(data), prepared.limit or sys.maxsize)
    clock, memory = Clock(device), PeakMemory(device)
    checked = suite.check_items(data)
    error = suite.error(provider, data, prepared.run(checked))
    tolerance = suite.tolerance(data)
    for found in (small_error, error):
        if not found <= tolerance:
            raise ArithmeticError(f"result is off by {found:.2e}, more than {tolerance:.0e}")
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
        "max_err": max(small_error, error),
        "other_load": max(0.0, others / wall),
    }


def _measure_by_name(
    module: str, name: str, case: str, folder: str, device: str, how: Settings
) -> dict[str, Any]:
    if device == "cuda":
        os.environ["ZSBIR_STRICT"] = "1"  # a missing kernel must not be timed as its reference
    suite: Suite = importlib.import_module(module).SUITE
    data = suite.load_data(suite.cases[case], Path(folder))
    return measure(suite, suite.providers[name], data, device, how)


def measure_apart(
    suite: Suite, name: str, case: str, folder: Path, device: str, how: Settings
) -> dict[str, Any] | str:
    """``measure`` in a fresh process; the reason as a string if it gave no numbers."""
    arguments = (suite.module, name, case, str(folder), device, how)
    answer: dict[str, Any] | str = call_apart(_measure_by_name, arguments, how.timeout_s)
    return answer


# --- a whole suite -----------------------------------------------------------------------------


WAIT_S = 10.0  # for idle cores, before a row


def run_suite(
    suite: Suite,
    cases: Sequence[str],
    names: Sequence[str],
    device: str,
    how: Settings,
    keep: Callable[[Result], None] = lambda result: None,
) -> Result:
    """Measure ``names`` on ``cases``; stderr names the row under way.

    ``keep`` is called with every new row, so that a run that is killed leaves its finished rows.
    """
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
                if provider.cases and case not in provider.cases:
                    continue
                if reason := provider.unfit(suite.cases[case]):
                    result.skipped.append(f"{provider.name} on {case}: {reason}")
                    continue
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
                    keep(result)
    suite.finish(result)
    if suite.remarks and how.remarks:
        print("remarks".ljust(60), end="\r", file=sys.stderr, flush=True)
        arguments = (suite.module, [provider.name for provider in usable], device)
        said = call_apart(_remarks_by_name, arguments, how.timeout_s)
        if isinstance(said, str):
            result.failed.append(f"remarks: {said}")
        else:
            result.verdicts += said
    print(" " * 60, end="\r", file=sys.stderr)
    return result


def _remarks_by_name(module: str, names: list[str], device: str) -> list[str]:
    suite: Suite = importlib.import_module(module).SUITE
    assert suite.remarks is not None
    return suite.remarks(names, device)


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
        dtype=getattr(suite.cases[case], "dtype", "float32"),
        device=device,
        torch=facts["versions"]["torch"],
        pct_of_limit=None,
        definition=str(provider.definition or ""),
        note=provider.note,
        against=provider.against,
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
    parser.add_argument(
        "--seconds",
        type=float,
        metavar="N",
        help="leave out rows that have not begun by then, and remarks beside the rows",
    )
    parser.add_argument("--list", action="store_true", help="list providers and end")
    parser.add_argument("--out", type=Path, metavar="STEM", help="write STEM.csv and STEM.json")
    parser.add_argument(
        "--docs", type=Path, metavar="FILE.md", help="write the tables of the run to this page"
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
    args.settings = suite.quick if short else suite.full
    if args.seconds is not None:
        args.settings = replace(args.settings, run_s=args.seconds, remarks=False)
    if args.device == "cuda":  # its times are steady, busy cores hardly touch them
        short_calls = {"call_s": min(args.settings.call_s, 0.5), "patience_s": 0.0}
        args.settings = replace(
            args.settings, total_s=min(args.settings.total_s, 1.5), **short_calls
        )
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

        def keep(result: Result) -> None:
            if args.out:
                write_records(result, args.out)

        result = run_suite(suite, args.cases, args.names, args.device, args.settings, keep)
    titles = {name: case.title for name, case in suite.cases.items()}
    print(text_report(result, titles, suite.ours, suite.module, suite.layout))
    if args.out:
        write_records(result, args.out)
    if args.docs:
        page = document(result, titles, suite.ours, suite.module, suite.layout)
        write_text(args.docs, page)
    return int(bool(result.failed))
