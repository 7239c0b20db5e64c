from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from benchmarks.bench_training_step import CASES, SUITE, build, small_error
from benchmarks.records import Result, Row

TINY = replace(CASES["mobilenet"], pixels=32, P=2, K=2)


def test_ours_agrees_with_the_reference():
    assert small_error(SUITE.providers["fused"], TINY, "cpu") < 1e-3


@pytest.mark.parametrize("name", list(SUITE.providers))
def test_a_step_changes_the_model_and_leaves_no_gradients(name, monkeypatch):
    models = []

    def keep(case, impl):
        models.append(build(case, impl))
        return models[-1]

    monkeypatch.setattr("benchmarks.bench_training_step.build", keep)
    prepared = SUITE.providers[name].prepare(TINY, "cpu")
    (model,) = models
    before = torch.cat([p.detach().flatten() for p in model.encoder.parameters()])
    assert bool(prepared.run(1).isfinite())
    after = torch.cat([p.detach().flatten() for p in model.encoder.parameters()])
    assert not torch.equal(before, after)
    assert all(p.grad is None for p in model.parameters())


def test_the_same_weights_for_every_implementation():
    one, two = (build(TINY, impl) for impl in ("fused", "reference"))
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(a, b)


def test_verdict_compares_both():
    def row(provider, p50, mib):
        values = dict.fromkeys(Row.__dataclass_fields__) | {
            "provider": provider,
            "case": "mobilenet",
            "p50_us": p50,
            "peak_bytes": mib * 2**20,
            "other_load": 0.0,
        }
        return Row(**values)

    rows = [row("encoder", 300.0, 90), row("fused", 400.0, 100), row("reference", 500.0, 140)]
    result = Result({}, rows)
    SUITE.finish(result)
    assert result.verdicts == [
        "whole step, mobilenet: reference / ours 1.25x, peak memory 100 MiB, not 140"
    ]
    assert {r.provider: r.pct_of_limit for r in result.rows}["fused"] == 75.0
