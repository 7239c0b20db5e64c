from __future__ import annotations

import csv
import importlib
import re
from pathlib import Path

import pytest

from benchmarks.harness import main
from benchmarks.records import (
    PER_ITEM,
    Result,
    Row,
    document,
    markdown,
    plain,
    quantile,
    read_records,
    report,
    significant,
    table,
    with_limits,
    write_records,
)

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


def make_row(provider="ours", p50=10.0, **changes):
    values = {
        "date": "2026-01-01",
        "op": "batched_map",
        "provider": provider,
        "title": f"title of {provider}",
        "kind": "ours",
        "case": "tiny",
        "dtype": "float32",
        "device": "cpu",
        "threads": 2,
        "torch": "2.0",
        "n": 1000,
        "repeats": 5,
        "p20_us": 0.9 * p50,
        "p50_us": p50,
        "p80_us": 1.1 * p50,
        "peak_bytes": 3 * 2**20,
        "gb_per_s": None,
        "gflop_per_s": None,
        "pct_of_limit": None,
        "floor_p50_us": None,
        "over_floor": None,
        "max_err": 1e-7,
        "other_load": 0.0,
        "definition": "ap=standard",
        "note": "a, note",
    }
    return Row(**(values | changes))


@pytest.fixture
def result():
    facts = {
        "date": "2026-01-01T00:00:00+00:00",
        "commit": "abc",
        "cpu": "Some CPU",
        "cpu_family_model": "1/2",
        "simd": ["avx2"],
        "cores": 2,
        "memory_GiB": 4,
        "threads": 2,
        "versions": {"torch": "2.0"},
    }
    rows = [make_row(), make_row("rival", 25.0, gb_per_s=12.5, other_load=0.5)]
    return Result(
        facts, rows, skipped=["ranx: needs ranx"], verdicts=["met: something"], failed=["oml: bad"]
    )


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.8, 1.0])
def test_quantile_agrees_with_numpy(share):
    import numpy as np

    values = [3.0, 1.0, 4.0, 1.5, 9.0, 2.6]
    assert quantile(values, share) == pytest.approx(np.quantile(values, share))
    assert quantile([7.0], share) == 7.0


@pytest.mark.parametrize(
    ("value", "text"),
    [(1234.5, "1,234"), (12.345, "12.3"), (0.012345, "0.0123"), (0, "0"), (float("inf"), "inf")],
)
def test_significant(value, text):
    assert significant(value) == text


def test_records_come_back(result, tmp_path):
    write_records(result, tmp_path / "new" / "run")
    assert read_records(tmp_path / "new" / "run.json") == result
    with (tmp_path / "new" / "run.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["provider"] for line in lines] == ["ours", "rival"]
    assert float(lines[1]["p50_us"]) == 25.0
    assert lines[0]["gb_per_s"] == ""
    assert lines[0]["note"] == "a, note"
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["run.csv", "run.json"]


def test_table_shows_ratio_rate_and_disturbance(result):
    ours, rival = table(result.rows, "ours")
    assert ours[:5] == ("title of ours", "1,000", "10.0", "9.00-11.0", "1.00x")
    assert rival[0].endswith("(!)")
    assert rival[4] == "2.50x"
    assert rival[6] == "12.5 GB/s"
    assert table(result.rows[1:], "ours")[0][4] == ""  # nothing to compare with


def test_limits_are_filled_in(result):
    rows = with_limits(result.rows, lambda row: 50.0 if row.gb_per_s else None)
    assert [row.pct_of_limit for row in rows] == [None, 50.0]


def test_plain_and_markdown_hold_every_cell(result):
    lines = table(result.rows, "ours")
    for text in (plain(lines), markdown(lines)):
        for cell in (*PER_ITEM.headings, *lines[0], *lines[1]):
            assert cell in text


def test_report_names_machine_skips_and_reproduction(result):
    text = report(result, {"tiny": "tiny: sizes"}, "ours", "benchmarks.bench_x")
    for part in (
        "Some CPU",
        "tiny: sizes",
        "met: something",
        "ranx: needs ranx",
        "oml: bad",
        "0.2 core",
    ):
        assert part in text
    assert "python -m benchmarks.bench_x --full --case CASE --only METHOD" in text


def test_page_holds_machine_tables_verdicts_and_rows_left_out(result):
    text = document(result, {"tiny": "tiny: sizes"}, "ours", "benchmarks.bench_x")
    headings = [line for line in text.splitlines() if line.startswith("#")]
    assert headings == [
        "# Measurements of x on the CPU",
        "## tiny: sizes",
        "## Verdicts",
        "## Rows that could not run",
        "## Rows that failed",
    ]
    for line in (
        "`python -m benchmarks.bench_x --docs` writes this page.",
        "Some CPU",
        "| title of ours |",
        "(!) Other processes",
        "- met: something",
        "- ranx: needs ranx",
        "- oml: bad",
    ):
        assert line in text


def test_page_prints_no_empty_part(result):
    quiet = Result(result.facts, result.rows[:1])
    text = document(quiet, {}, "ours", "benchmarks.bench_x")
    assert [line for line in text.splitlines() if line.startswith("##")] == ["## tiny"]
    assert "(!)" not in text
    text = document(Result(result.facts | {"gpu": "GPU X"}), {}, "ours", "benchmarks.bench_x")
    assert text.startswith("# Measurements of x on the GPU\n")
    assert "##" not in text


def test_docs_writes_the_page_of_a_former_run(tmp_path, capsys):
    record = RESULTS / "training_step_cpu.json"
    suite = importlib.import_module("benchmarks.bench_training_step").SUITE
    arguments = ["--show", str(record), "--docs", str(tmp_path / "new" / "page.md")]
    assert main(suite, arguments) == 0
    page = (tmp_path / "new" / "page.md").read_text()
    assert page == record.with_suffix(".md").read_text()
    assert "ours: the whole step" in capsys.readouterr().out


@pytest.mark.parametrize("record", sorted(RESULTS.glob("*.json")), ids=lambda path: path.stem)
def test_committed_page_is_that_of_its_record(record):
    result = read_records(record)
    module = f"benchmarks.bench_{result.rows[0].op}"
    suite = importlib.import_module(module).SUITE
    titles = {name: case.title for name, case in suite.cases.items()}
    page = document(result, titles, suite.ours, module, suite.layout)
    assert record.with_suffix(".md").read_text() == page


def test_numbers_of_the_documentation_are_those_of_the_records():
    text = (RESULTS.parents[1] / "docs" / "performance.md").read_text()
    rows = re.findall(r"^\| \*\*([\d.,]+) .*\.\./benchmarks/results/(\w+\.md)\) \|$", text, re.M)
    assert len(rows) == 7
    for number, page in rows:
        assert f"| {number} |" in (RESULTS / page).read_text()
    cells = set(re.findall(r"(?<=\| )[^|]+(?= \|)", "".join(map(Path.read_text, _pages()))))
    measured = re.findall(r"([\d.,]+\d) (?:us|ms|MiB)\b", text.partition("## How to repeat")[0])
    for number in measured:
        assert number in cells | {"20"}, f"{number} stands in no page of benchmarks/results"
    assert len(measured) > 20


def _pages():
    return sorted(RESULTS.glob("*.md"))


def test_busy_cores_disturb_rows_of_the_cpu_alone():
    assert make_row(other_load=0.5).disturbed
    assert not make_row(other_load=0.5, device="cuda").disturbed
    assert not make_row(other_load=0.1).disturbed


def test_a_gpu_is_named_with_driver_and_cuda(result):
    result.facts.update(gpu="GPU X", driver="580.1", cuda="13.0")
    assert "GPU X, driver 580.1, CUDA 13.0; Some CPU" in report(result, {}, "ours", "module")
