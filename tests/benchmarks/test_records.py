from __future__ import annotations

import csv

import pytest

from benchmarks.records import (
    PER_ITEM,
    Result,
    Row,
    markdown,
    plain,
    quantile,
    read_records,
    report,
    significant,
    table,
    update_tables,
    with_limits,
    write_records,
)


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


def test_update_tables_renews_only_its_places(result, tmp_path):
    document = tmp_path / "doc.md"
    places = [f"batched_map.cpu.{name}" for name in ("machine", "verdicts", "tiny")]
    document.write_text(
        "before\n"
        + "\n".join(f"<!-- begin {p} -->\nold\n<!-- end {p} -->" for p in places)
        + "\nend\n"
    )
    update_tables(document, result, {}, "ours")
    first = document.read_text()
    assert first.startswith("before\n")
    assert first.endswith("\nend\n")
    assert "old" not in first
    assert "| title of ours |" in first
    assert "- met: something" in first
    update_tables(document, result, {}, "ours")
    assert document.read_text() == first


def test_update_tables_wants_a_place(result, tmp_path):
    document = tmp_path / "doc.md"
    document.write_text("nothing here\n")
    with pytest.raises(
        ValueError, match=r"must hold <!-- begin batched_map\.cpu\.machine --> \.\.\."
    ):
        update_tables(document, result, {}, "ours")
    assert document.read_text() == "nothing here\n"


def test_busy_cores_disturb_rows_of_the_cpu_alone():
    assert make_row(other_load=0.5).disturbed
    assert not make_row(other_load=0.5, device="cuda").disturbed
    assert not make_row(other_load=0.1).disturbed


def test_a_gpu_is_named_with_driver_and_cuda(result):
    result.facts.update(gpu="GPU X", driver="580.1", cuda="13.0")
    assert "GPU X, driver 580.1, CUDA 13.0; Some CPU" in report(result, {}, "ours", "module")
