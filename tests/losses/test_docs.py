"""The code of docs/losses.md runs as it stands there, from top to bottom."""

from __future__ import annotations

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


def test_documented_names_are_public():
    rows = re.findall(r"^\| (`.*?`) \|", DOCS.read_text(encoding="utf-8"), re.MULTILINE)
    named = [name for row in rows for name in re.findall(r"`([A-Za-z_]+)`", row)]
    assert len(named) > 8
    for name in named:
        assert name in zf.__all__
