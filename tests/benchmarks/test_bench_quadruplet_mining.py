from __future__ import annotations

import warnings
from dataclasses import replace

import pytest
import torch

from benchmarks.bench_quadruplet_mining import MAKERS, SUITE, small_error
from benchmarks.harness import measure, parse_args
from benchmarks.mining_cases import CASES, DEFINITIONS, SMALL, generate, load, save
from benchmarks.records import Result, Row
from benchmarks.suite import Settings

FAST = Settings(call_s=0.0, total_s=0.01)


@pytest.fixture(autouse=True)
def uncompiled(monkeypatch):
    """Rows that compile take many seconds each; here only what surrounds the compiler runs."""
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)


@pytest.mark.parametrize("name", list(SUITE.providers))
def test_every_provider_agrees_with_brute_force(name):
    provider = SUITE.providers[name]
    if missing := provider.missing():
        pytest.skip(f"{name} needs {missing}: pip install '.[bench]'")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of third-party packages
        assert small_error(provider, "cpu") < 2e-6


def test_a_wrong_definition_is_noticed():
    wrong = replace(SUITE.providers["torch_hard"], definition="all triplets")
    assert small_error(wrong, "cpu") > 1e-2


def test_exact_values_agree_with_brute_force():
    data = generate(SMALL)
    exact = data.to("cpu", torch.float64)
    assert len(data.exact) == 5
    for definition, value in data.exact.items():
        assert value == pytest.approx(float(DEFINITIONS[definition](exact)), rel=1e-9)


def test_data_come_back_from_files(tmp_path):
    save(SMALL, tmp_path)
    data, again = generate(SMALL), load(SMALL, tmp_path)
    assert again.exact == data.exact
    assert torch.equal(again.photos, data.photos)
    assert torch.equal(again.bank_labels, data.bank_labels)
    assert data.labels.bincount().tolist() == [SMALL.K] * SMALL.P


def test_a_row_is_measured_with_its_floor():
    got = measure(SUITE, SUITE.providers["torch_hard"], generate(SMALL), "cpu", FAST)
    assert got["n"] == 1
    assert got["over_floor"] > 0
    assert got["max_err"] < 1e-5


def test_a_wrong_value_at_full_size_is_noticed():
    data = generate(SMALL)
    data.exact["hard triplets"] *= 1.01
    with pytest.raises(ArithmeticError, match=r"result is off by 9\.90e-03"):
        measure(SUITE, SUITE.providers["torch_hard"], data, "cpu", FAST)


def test_quick_is_one_batch_and_the_rows_that_do_not_compile():
    quick = parse_args(SUITE, ["--quick"])
    assert quick.cases == ["b1024"]
    assert not any("compiled" in name for name in quick.names)
    assert "b8192" not in parse_args(SUITE, ["--full"]).cases
    assert "b8192" in parse_args(SUITE, ["--full", "--device", "cuda"]).cases


def test_rows_that_cannot_run_say_why():
    case = CASES["b1024"]
    assert "18 GB" in SUITE.providers["torch_broadcast"].unfit(case)
    assert "31.7 GB" in SUITE.providers["oml_all"].unfit(case)
    assert SUITE.providers["pml_all"].unfit(case) == ""
    assert "B^3" in SUITE.providers["pml_all"].unfit(CASES["b4096"])


def test_every_row_has_its_case_and_rival():
    for provider in SUITE.providers.values():
        assert set(provider.cases) <= set(CASES)
        assert not provider.against or provider.against in SUITE.providers
        assert provider.definition in DEFINITIONS
        assert provider.kind == "floor" or provider.name.removesuffix("_compiled") in MAKERS


def test_remarks_say_what_compiles(monkeypatch):
    def compile_only_ours(function, **options):
        assert options == {"fullgraph": True, "backend": "aot_eager"}
        if "bench_quadruplet_mining" not in function.__module__:
            raise NotImplementedError("graph break")
        return function

    monkeypatch.setattr(torch, "compile", compile_only_ours)
    assert SUITE.remarks(["floor", "ours_hard_triplet", "torch_hard"], "cpu") == [
        "met: fullgraph capture of ours: batch-hard triplets",
        "fullgraph capture fails: PyTorch batch-hard triplets (NotImplementedError)",
    ]


def row(provider, p50, **changes):
    values = dict.fromkeys(Row.__dataclass_fields__) | {
        "provider": provider,
        "title": f"title of {provider}",
        "case": "b1024",
        "device": "cpu",
        "p50_us": p50,
        "peak_bytes": 10 * 2**20,
        "other_load": 0.0,
    }
    return Row(**(values | changes))


def test_verdicts_and_shares():
    result = Result(
        {},
        [
            row("floor", 20_000.0),
            row("ours_all_triplet", 35_000.0, over_floor=1.75, peak_bytes=140 * 2**20),
            row("ours_chen", 110_000.0, over_floor=5.5),
            row("ours_hard_triplet", 25_000.0, over_floor=1.25),
            row("ours_hard_quadruplet", 50_000.0, over_floor=1.25, peak_bytes=50 * 2**20),
            row("pml_all", 700_000.0),
            row("pml_hard", 30_000.0),
            row("torch_hard", 22_000.0),
        ],
    )
    SUITE.finish(result)
    assert {r.provider: r.pct_of_limit for r in result.rows}["ours_hard_triplet"] == 80.0
    text = "\n".join(result.verdicts)
    for line in (
        "met: batch-all triplets / floor, b1024: 1.75x, target at most 2.00x",
        "MISSED: batch-all quadruplets, chen2017, mean_nonzero / floor, b1024: 5.50x",
        "met: batch-hard triplets / floor, b1024: 1.25x, target at most 1.30x",
        "met: peak memory of batch-all triplets, b1024: 140 MiB, target at most 150 MiB",
        "MISSED: title of pml_all / title of ours_all_triplet, b1024: 20.0x",
        "MISSED: title of torch_hard / title of ours_hard_triplet, b1024: 0.880x",
        "target at most 32.0 MiB",  # 8 n D floats + 16 MiB, one side
        "MISSED: peak memory of title of ours_hard_quadruplet (8 n D floats + 16 MiB)",
    ):
        assert line in text
    assert len(result.verdicts) == 9


def test_cuda_target():
    changes = {"device": "cuda", "case": "b8192", "over_floor": 1.0}
    rows = [row("ours_hard_triplet", 10.0, **changes), row("torch_hard", 25.0, **changes)]
    result = Result({}, rows)
    SUITE.finish(result)
    assert "MISSED: title of torch_hard / ours, b8192: 2.50x, target at least 3.00x" in (
        result.verdicts
    )
