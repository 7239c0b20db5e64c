from __future__ import annotations

import json

import pytest
import torch

from benchmarks import ceilings
from benchmarks.ceilings import main, product_rate, tensor_float


def test_everything_is_measured_written_and_shown(tmp_path, capsys):
    stem = tmp_path / "ceilings"
    assert main(["--mib", "1", "--side", "48", "--out", str(stem)]) == 0
    printed = capsys.readouterr().out
    record = json.loads(stem.with_suffix(".json").read_text())
    assert [row["unit"] for row in record["ceilings"]] == [
        "GB/s",
        *3 * ["TFLOP/s"],
        *2 * ["us/call"],
    ]
    assert all(0 < row["p20"] <= row["p50"] <= row["p80"] for row in record["ceilings"])
    assert main(["--show", str(stem.with_suffix(".json"))]) == 0
    assert capsys.readouterr().out == printed


def test_a_wrong_product_is_a_failure(monkeypatch, capsys):
    monkeypatch.setattr(ceilings, "_product_error", lambda a, b, out: 0.5)
    with pytest.raises(ArithmeticError, match=r"float32 product is off by 5\.0e-01"):
        product_rate("float32", "cpu", 16)
    assert main(["--mib", "1", "--side", "16"]) == 1
    assert "failed: ArithmeticError: bfloat16 product is off" in capsys.readouterr().out


def test_the_precision_switch_is_put_back():
    before = torch.get_float32_matmul_precision()
    with tensor_float(True):
        assert torch.get_float32_matmul_precision() == "high"
    assert torch.get_float32_matmul_precision() == before
