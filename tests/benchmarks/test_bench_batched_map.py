from __future__ import annotations

import csv
import json
import subprocess
import sys
from dataclasses import replace
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

import benchmarks
from benchmarks.bench_batched_map import SUITE
from benchmarks.harness import main, parse_args
from benchmarks.records import Result, Row
from benchmarks.suite import FULL, QUICK


def test_quick_is_the_default_and_the_smaller_choice():
    quick, default, full = (parse_args(SUITE, argv) for argv in (["--quick"], [], ["--full"]))
    assert (quick.cases, quick.names) == (default.cases, default.names)
    assert quick.cases == ["quickdraw"]
    assert quick.settings is QUICK
    assert full.settings is FULL
    assert full.cases == ["quickdraw", "tuberlin", "tiny"]
    assert set(quick.names) < set(full.names) == set(SUITE.providers)


def test_cuda_brings_the_full_query_set():
    assert "quickdraw_full" in parse_args(SUITE, ["--full", "--device", "cuda"]).cases


def test_rows_can_be_picked():
    args = parse_args(SUITE, ["--case", "tiny,tuberlin", "--only", "oml,faiss"])
    assert (args.cases, args.names) == (["tiny", "tuberlin"], ["oml", "faiss"])


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["--case", "huge"], "--case must be of quickdraw, tuberlin"),
        (["--only", "nobody"], "got 'nobody'"),
        (["--quick", "--full"], "not allowed with"),
    ],
)
def test_bad_arguments_are_explained(argv, text, capsys):
    with pytest.raises(SystemExit):
        parse_args(SUITE, argv)
    assert text in capsys.readouterr().err


def test_list_names_every_provider(capsys):
    assert main(SUITE, ["--list"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in SUITE.providers)


def row(provider, p50, **changes):
    values = dict.fromkeys(Row.__dataclass_fields__) | {
        "provider": provider,
        "case": "quickdraw",
        "device": "cpu",
        "p50_us": p50,
        "peak_bytes": 40 * 2**20,
        "n": 2000,
        "other_load": 0.0,
    }
    return Row(**(values | changes))


def test_verdicts_and_shares():
    result = Result(
        {},
        [
            row("copy", 10.0, gb_per_s=20.0),
            row("product_onednn", 100.0, gflop_per_s=500.0),
            row("ours", 125.0, over_floor=1.25),
            row("ours_counting", 15.0, gb_per_s=10.0),
            row("numpy_sort_same_product", 400.0),
            row("oml", 125.0 * 23),
        ],
    )
    SUITE.finish(result)
    shares = {r.provider: r.pct_of_limit for r in result.rows}
    assert shares["ours"] == pytest.approx(80.0)
    assert shares["ours_counting"] == pytest.approx(50.0)
    assert shares["product_onednn"] == pytest.approx(100.0)
    text = "\n".join(result.verdicts)
    assert "MISSED: ours / the bare product, quickdraw: 1.25x, target at most 1.15x" in text
    assert "met: peak memory of ours, n=2,000, quickdraw: 40.0 MiB" in text
    assert "met: counting alone, quickdraw: 15.0 us/query" in text
    assert "met: NumPy sort of values, same product / ours, quickdraw: 3.20x" in text
    assert "MISSED: OML / ours, quickdraw: 23.0x" in text
    assert len(result.verdicts) == 5


def test_disturbed_runs_say_so():
    result = Result({}, [row("ours", 60.0, over_floor=1.2, other_load=0.9)])
    SUITE.finish(result)
    assert all(line.endswith("(disturbed run)") for line in result.verdicts)
    assert result.verdicts


def test_tuberlin_has_its_own_target():
    result = Result({}, [row("ours", 60.0, over_floor=1.2, case="tuberlin")])
    SUITE.finish(result)
    assert result.verdicts[0].startswith("met: ours / the bare product, tuberlin: 1.20x")


def test_cuda_targets():
    ours = row("ours", 10.0, over_floor=1.2, device="cuda", case="quickdraw_full")
    result = Result({}, [ours, replace(ours, provider="torch_argsort", p50_us=150.0)])
    SUITE.finish(result)
    assert [line.partition(":")[0] for line in result.verdicts] == ["met", "MISSED"]


def test_installed_package_is_preferred_to_bare_source(tmp_path):
    root = tmp_path / "repository"
    (root / "zsbir_fast").mkdir(parents=True)
    (root / "zsbir_fast" / "_C.pyi").touch()  # its types are no module
    path = [str(root), "/site-packages"]
    assert benchmarks._prefer_installed_package(root, path) == ["/site-packages", str(root)]
    assert benchmarks._prefer_installed_package(root, ["/site-packages"]) == ["/site-packages"]
    (root / "zsbir_fast" / f"_C{EXTENSION_SUFFIXES[0]}").touch()
    assert benchmarks._prefer_installed_package(root, path) == path


def test_command_line_measures_and_records(repository: Path, tmp_path: Path):
    stem = tmp_path / "run"
    names = "product_torch,numpy_sort,torch_argsort"
    command = [sys.executable, "-m", "benchmarks.bench_batched_map", "--quick", "--case", "tiny"]
    done = subprocess.run(
        [*command, "--only", names, "--out", str(stem)],
        cwd=repository,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "NumPy sort of values + searchsorted" in done.stdout
    with stem.with_suffix(".csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [r["provider"] for r in rows] == names.split(",")
    for r in rows:
        assert 0 < float(r["p20_us"]) <= float(r["p50_us"]) <= float(r["p80_us"])
        assert float(r["max_err"]) < 1e-5
    facts = json.loads(stem.with_suffix(".json").read_text())["facts"]
    assert facts["cores"] >= 1
    assert facts["versions"]["torch"]
