from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.harness import choose_n, measure, measure_apart, parse_args, run_suite
from benchmarks.machine import Clock, PeakMemory, machine_facts, wait_for_idle_cores
from benchmarks.suite import Prepared, Provider, Settings, Suite

FAST = Settings(call_s=0.01, total_s=0.02, timeout_s=20.0)

# Providers of a suite that a child process imports by the name of its module.
MODULE = """
import os, time
from types import SimpleNamespace
from benchmarks.suite import Prepared, Provider, Suite

def prepare(run):
    return lambda data, device: Prepared(run)

def crash(n):
    os._exit(3)

def fail(n):
    raise RuntimeError("no such luck")

def dawdle(n):
    time.sleep(60)

PROVIDERS = {
    name: Provider(name, name, "rival", prepare(run))
    for name, run in {"good": lambda n: 1.0, "wrong": lambda n: 1.5, "crash": crash, "fail": fail,
                      "dawdle": dawdle}.items()
}
absent = {"requires": ("no_such_module",)}
PROVIDERS["absent"] = Provider("absent", "absent", "rival", prepare(fail), **absent)
PROVIDERS["gpu"] = Provider("gpu", "gpu", "rival", prepare(fail), devices=("cuda",))
SUITE = Suite(
    op="toy", module="toy_suite",
    cases={"one": SimpleNamespace(name="one", title="one", devices=("cpu",))},
    quick_cases=("one",), providers=PROVIDERS, ours="good",
    make_data=lambda case, folder: None, load_data=lambda case, folder: None,
    warm_up=lambda provider, data, device: None, items=lambda data: 50, check_items=lambda data: 5,
    error=lambda provider, data, result: abs(result - 1.0), work=lambda provider, data, n: 1e9 * n,
    finish=lambda result: None,
)
"""


@pytest.fixture
def toy(tmp_path, monkeypatch, repository) -> Suite:
    (tmp_path / "toy_suite.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "path", [*sys.path, str(repository)])  # a child needs `benchmarks`
    import importlib

    return importlib.import_module("toy_suite").SUITE


def test_choose_n_leaves_out_the_fixed_cost():
    def seconds(n):
        return 1.0 + 0.001 * n

    n = choose_n(seconds, 10, 10**6, call_s=0.5)
    assert 300 < n < 800  # 500 items take 0.5 s above the fixed second


def test_choose_n_stays_small_for_slow_items_and_stops_at_the_limit():
    asked = []

    def slow(n):
        asked.append(n)
        return 0.2 * n

    assert choose_n(slow, 10, 1000, call_s=0.5) == max(asked) <= 20
    assert choose_n(lambda n: 1e-6 * n, 10, 70, call_s=1.0) == 70
    assert choose_n(lambda n: 1e-6 * n, 10, 4, call_s=1.0) == 4


def test_peak_memory_sees_what_is_freed_again():
    memory = PeakMemory("cpu")
    if not Path("/proc/self/status").exists():
        pytest.skip("peak memory is read from /proc")
    block = np.ones(64 * 2**20, dtype=np.uint8)
    del block
    assert 60 < memory.peak() / 2**20 < 90


def test_clock_measures_the_call():
    assert 0.005 <= Clock("cpu").time(lambda n: time.sleep(0.005 * n), 1) < 0.5


def toy_provider(run, **options):
    return Provider(
        "toy", "toy", "rival", lambda data, device: Prepared(run, **options), bound="bytes"
    )


def plain_suite(**changes) -> Suite:
    suite = Suite(
        op="toy",
        module="nowhere",
        cases={},
        quick_cases=(),
        providers={},
        ours="toy",
        make_data=lambda case, folder: None,
        load_data=lambda case, folder: None,
        warm_up=lambda provider, data, device: None,
        items=lambda data: 8,
        check_items=lambda data: 8,
        error=lambda provider, data, result: result,
        work=lambda provider, data, n: 1e9 * n,
        finish=lambda result: None,
    )
    return replace(suite, **changes)


def test_measure_checks_before_it_times():
    calls = []

    def run(n):
        calls.append(n)
        return 0.5

    with pytest.raises(ArithmeticError, match=r"result is off by 5\.00e-01, more than 1e-04"):
        measure(plain_suite(), toy_provider(run), None, "cpu", FAST)
    assert calls == [8]
    with pytest.raises(ArithmeticError, match="off by nan"):
        measure(plain_suite(), toy_provider(lambda n: float("nan")), None, "cpu", FAST)


def test_measure_reports_order_statistics_rate_and_paired_floor():
    def run(n):
        time.sleep(0.006)
        return 0.0

    provider = toy_provider(run, floor=lambda n: time.sleep(0.003))
    got = measure(plain_suite(), provider, SimpleNamespace(), "cpu", FAST)
    assert got["n"] == 8
    assert got["repeats"] >= 3
    assert got["p20_us"] <= got["p50_us"] <= got["p80_us"]
    assert got["p50_us"] >= 6000 / 8
    assert got["gb_per_s"] == pytest.approx(8 / (got["p50_us"] * 8 / 1e6), rel=1e-6)
    assert got["gflop_per_s"] is None
    assert got["over_floor"] > 1.2


def test_peak_memory_is_that_of_the_provider_alone():
    provider = toy_provider(lambda n: 0.0, floor=lambda n: np.ones(2**26, dtype=np.uint8))
    assert measure(plain_suite(), provider, None, "cpu", FAST)["peak_bytes"] < 2**25


def test_measure_respects_the_provider_limit():
    provider = toy_provider(lambda n: 0.0, limit=9)
    got = measure(plain_suite(items=lambda data: 100), provider, None, "cpu", FAST)
    assert got["n"] == 9


def test_processes_apart_report_numbers_and_failures(toy, tmp_path):
    answers = {
        name: measure_apart(toy, name, "one", tmp_path, "cpu", replace(FAST, timeout_s=timeout))
        for name, timeout in {
            "good": 60,
            "wrong": 30,
            "crash": 30,
            "fail": 30,
            "dawdle": 0.5,
        }.items()
    }
    assert answers["good"]["n"] == 50
    assert answers["wrong"].startswith("ArithmeticError: result is off by 5.00e-01")
    assert answers["crash"] == "the process ended with code 3 (out of memory?)"
    assert answers["fail"] == "RuntimeError: no such luck"
    assert answers["dawdle"] == "no result within 0 s"


def test_run_suite_keeps_going_and_says_what_it_skipped(toy):
    result = run_suite(toy, ["one"], ["fail", "absent", "gpu", "good"], "cpu", FAST)
    assert [row.provider for row in result.rows] == ["good"]
    assert result.rows[0].op == "toy"
    assert "gpu: has no cpu path" in result.skipped
    assert "absent: needs no_such_module (pip install '.[bench]')" in result.skipped
    assert result.failed == ["fail on one: RuntimeError: no such luck"]


def test_rows_that_come_too_late_are_left_out(toy):
    result = run_suite(toy, ["one"], ["good"], "cpu", replace(FAST, run_s=0.5))
    assert result.rows == []
    assert result.skipped == [
        "good on one: left out, a run may take 0 s; --case and --only pick rows"
    ]


def test_rows_are_kept_as_they_come(toy):
    seen = []
    run_suite(
        toy, ["one"], ["good", "fail", "good"], "cpu", FAST, lambda r: seen.append(len(r.rows))
    )
    assert seen == [1, 2]


def test_a_run_can_be_given_less_time(toy):
    args = parse_args(toy, ["--full", "--seconds", "30"])
    assert args.settings == replace(toy.full, run_s=30.0, remarks=False)


def test_nobody_waits_for_idle_cores_before_a_gpu(toy):
    settings = parse_args(toy, ["--full", "--device", "cuda", "--only", "gpu"]).settings
    assert settings.patience_s == 0.0 < toy.full.patience_s
    assert settings.total_s < toy.full.total_s


def test_a_commit_can_be_named(monkeypatch):
    monkeypatch.setenv("ZSBIR_COMMIT", "abc1234")
    assert machine_facts("cpu", [])["commit"] == "abc1234"


def test_facts_name_the_machine():
    facts = machine_facts("cpu", ["no-such-package"])
    assert facts["cores"] >= 1
    assert "no-such-package" not in facts["versions"]
    assert facts["versions"]["numpy"] == np.__version__


def test_waiting_without_patience_returns_at_once():
    start = time.perf_counter()
    wait_for_idle_cores(0.0)
    assert time.perf_counter() - start < 0.2
