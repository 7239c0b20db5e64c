from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from benchmarks.bench_token_weighting import SUITE, _step, small_error
from benchmarks.harness import measure, parse_args
from benchmarks.records import Result, Row
from benchmarks.suite import Settings
from benchmarks.token_cases import CASES, PAIRWISE, TEXT, generate, load, save
from benchmarks.token_rivals import eager

FAST = Settings(call_s=0.0, total_s=0.01)
SMALL = CASES["mixed"].small()


@pytest.fixture(autouse=True)
def uncompiled(monkeypatch):
    """Rows that compile take many seconds each; here only what surrounds the compiler runs."""
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)


ROWS = [
    (name, case)
    for name, provider in SUITE.providers.items()
    for case in ("mixed", "all77", "pairwise", "mixed_bf16")
    if case in (provider.cases or CASES)
]


@pytest.mark.parametrize(("name", "case"), ROWS)
def test_every_provider_agrees_with_brute_force(name, case):
    provider = SUITE.providers[name]
    bound = 0.02 if "bf16" in case else 5e-6
    assert small_error(provider, CASES[case], "cpu") < bound


def test_a_wrong_result_is_noticed():
    padding_counts = _step(lambda mask, *others: eager(torch.ones_like(mask), *others))
    wrong = replace(SUITE.providers["eager"], prepare=padding_counts)
    assert small_error(wrong, CASES["mixed"], "cpu") > 1e-2
    data = generate(SMALL)
    data.exact[0] += 0.01
    with pytest.raises(ArithmeticError, match=r"result is off by 1\.00e-02"):
        measure(SUITE, SUITE.providers["eager"], data, "cpu", FAST)


def test_data_are_what_they_promise(tmp_path):
    save(SMALL, tmp_path)
    data, again = generate(SMALL), load(SMALL, tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(data.features, again.features, strict=True))
    assert torch.equal(data.exact, again.exact)
    assert data.exact.dtype == torch.float64
    lengths = data.mask.sum(1)
    assert bool((data.mask == (torch.arange(SMALL.L) < lengths[:, None])).all())
    assert data.valid_words() == int(lengths[data.labels].sum())
    assert bool(generate(CASES["all77"].small()).mask.all())


def test_half_data_are_halves():
    data = generate(CASES["mixed_bf16"].small())
    assert torch.equal(data.features[1].bfloat16().float(), data.features[1])


def test_floors_move_and_multiply_what_they_say():
    data, case = generate(SMALL), SMALL
    copy, products = SUITE.providers["copy"], SUITE.providers["products"]
    assert SUITE.work(copy, data, 2) == 2 * 3 * 4 * case.B * case.N * case.D * 4
    assert SUITE.work(products, data, 1) == 24 * data.valid_words() * case.N * case.D
    moved = copy.prepare(data, "cpu").run(1)
    assert 2 * moved.nbytes == pytest.approx(SUITE.work(copy, data, 1), rel=0.01)


def test_rows_belong_to_a_mode():
    assert {case.mode for case in CASES.values()} == {"text", "pairwise"}
    assert set(TEXT) | set(PAIRWISE) == set(CASES)
    assert parse_args(SUITE, []).cases == ["mixed"]
    assert "all77_bf16" not in parse_args(SUITE, ["--full"]).cases


def row(provider, p50, **changes):
    values = dict.fromkeys(Row.__dataclass_fields__) | {
        "provider": provider,
        "title": f"title of {provider}",
        "case": "mixed",
        "device": "cpu",
        "dtype": "float32",
        "p50_us": p50,
        "peak_bytes": 120 * 2**20,
        "other_load": 0.0,
    }
    return Row(**(values | changes))


def test_verdicts_and_shares():
    rows = [
        row("copy", 8_000.0),
        row("products", 6_000.0),
        row("ours", 20_000.0, over_floor=2.5),
        row("eager", 55_000.0),
        row("compiled", 60_000.0),
        row("eager_trimmed", 24_000.0),
    ]
    result = Result({}, rows)
    SUITE.finish(result)
    assert {r.provider: r.pct_of_limit for r in result.rows}["ours"] == 40.0
    assert result.verdicts == [
        "met: best untrimmed (title of eager) / ours, mixed: 2.75x, target at least 2.50x",
        "MISSED: best trimmed (title of eager_trimmed) / ours, mixed: 1.20x, target at least 1.30x",
        "MISSED: ours / the memory floor, mixed: 2.50x, target at most 2.00x",
        "met: peak memory of ours (all gradients and one tensor as large as an input), mixed: "
        "120 MiB, target at most 125 MiB",
    ]


def test_cuda_target_is_that_of_half_precision():
    changes = {"device": "cuda", "dtype": "bfloat16", "case": "mixed_bf16", "peak_bytes": 1}
    rows = [row("ours", 10.0, **changes), row("sdpa_trimmed", 21.0, **changes)]
    result = Result({}, rows)
    SUITE.finish(result)
    assert result.verdicts[0] == (
        "met: best of all (title of sdpa_trimmed) / ours, mixed_bf16: 2.10x, target at least 2.00x"
    )
