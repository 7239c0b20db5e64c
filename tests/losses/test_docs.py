"""The code of docs/losses.md runs as it stands there, from top to bottom."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

import zsbir_fast as zf

DOCS = Path(__file__).parents[2] / "docs" / "losses.md"


def test_documented_code_runs():
    pytest.importorskip("pytorch_metric_learning")
    text = DOCS.read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 5
    names = {}
    for block in blocks:
        exec(compile(block, str(DOCS), "exec"), names)
        assert float(names["value"]) >= 0


def names_in_tables(text):
    rows = re.findall(r"^\| (`.*?`) \|", text, re.MULTILINE)
    return [name for row in rows for name in re.findall(r"`([A-Za-z_]+)`", row)]


def test_documented_names_are_public():
    public, _, rest = DOCS.read_text(encoding="utf-8").partition("## What the options are called")
    assert len(names_in_tables(public)) > 8
    assert set(names_in_tables(public)) <= set(zf.__all__)
    options = names_in_tables(rest.partition("\n## ")[0])
    assert len(options) > 8
    takers = (zf.WeightedQuadrupletLoss, zf.BatchAllTripletLoss, zf.batch_all_triplet_loss)
    assert set(options) <= {
        name for taker in takers for name in inspect.signature(taker).parameters
    }
