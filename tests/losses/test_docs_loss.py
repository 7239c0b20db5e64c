"""The loss of docs/adding_a_loss.md: its own tests pass, and its method trains on a batch."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path

import pytest
import torch

import zsbir_fast as zf

PAGE = Path(__file__).parents[2] / "docs" / "adding_a_loss.md"
MODULE, TESTS, METHOD = re.findall(
    r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL
)


@pytest.fixture
def installed(monkeypatch):
    """The module of the page, where the page puts it."""
    module = types.ModuleType("zsbir_fast.losses.class_mean")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(MODULE, str(PAGE), "exec"), vars(module))


def run(code):
    names = {}
    exec(compile(code, str(PAGE), "exec"), names)
    return names


def test_tests_of_the_page(installed):
    tests = {name: test for name, test in run(TESTS).items() if name.startswith("test_")}
    assert len(tests) == 6
    cases = tests.pop("test_nothing_to_tell_apart")
    (mark,) = cases.pytestmark
    for labels in mark.args[1]:
        cases(labels)
    for test in tests.values():
        test()


def test_compiled_it_is_one_graph(installed):
    loss = sys.modules["zsbir_fast.losses.class_mean"].ClassMeanLoss()
    sketches, photos, labels = torch.randn(6, 4), torch.randn(6, 4), torch.arange(6) // 2
    compiled = torch.compile(loss, backend="eager", fullgraph=True)
    assert float(compiled(sketches, photos, labels)) == float(loss(sketches, photos, labels))
    sketches[1, 2] = torch.nan
    assert compiled(sketches, photos, labels).isnan()


def test_method_of_the_page(installed):
    names = run(METHOD)
    small = zf.EncoderOptions(weights=None, image_size=32)
    model = names["ClassMeans"]("abcd", encoder=small, loss=names["LossOptions"](temperature=0.5))
    images = torch.randn(2, 8, 3, 32, 32)
    batch = {"sketches": images[0], "photos": images[1], "labels": torch.arange(8) // 2}
    (loss,) = model.losses(
        batch, zf.Progress(step=0, epoch=0, total_steps=1, epochs=1)
    ).per_optimizer
    loss.backward()
    assert loss > 0
    assert model.loss.temperature == 0.5
    assert next(model.encoder.parameters()).grad.abs().sum() > 0
