"""The shipped descriptions are what tools/descriptions.py makes of its sources."""

from __future__ import annotations

import importlib
import json
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tool():
    """The module tools.descriptions, which is not installed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT)
        yield importlib.import_module("tools.descriptions")


def test_the_shipped_files_are_up_to_date(tool):
    others, faults = tool.licensed()
    assert (tool.FOLDER / "licensed.json").read_text() == tool.as_text(others)
    assert (tool.FOLDER / "written.json").read_text() == tool.as_text(tool.written())
    assert faults["does not say enough that can be seen"] > 100


def test_every_class_says_where_its_sentences_are_from(tool):
    own = json.loads((tool.FOLDER / "written.json").read_text())
    others = json.loads((tool.FOLDER / "licensed.json").read_text())
    made = {(entry["source"], entry["licence"]) for entry in own.values()}
    assert made == {("written for zsbir_fast with a language model", "Apache-2.0")}
    assert all(entry["licence"] == "Apache-2.0" for entry in others.values())
    assert all(entry["source"].startswith("AWT-") for entry in others.values())
    raw = Counter()
    for path in tool.SOURCES.glob("*.json"):
        for entry in json.loads(path.read_text()).values():
            raw.update(" ".join(s.split()) for s in entry["sentences"])
    shipped = [s for entry in others.values() for s in entry["sentences"]]
    assert sum(s in raw for s in shipped) > 0.9 * len(shipped)  # the others were tidied


def test_new_answers_are_checked_and_replace_old_ones(tool, tmp_path):
    path = tmp_path / "new.json"
    answers = {
        "appearance": ["A zebra has a round striped body.", "It has thin white and black legs."],
        "shape": ["Its outline is long with a raised neck."],
        "parts": ["It has four thin legs below its body.", "Two round knobs sit above its muzzle."],
        "surface": ["Short hair in black and white covers it."],
        "sketch": ["It is drawn as an oval with slanted stripes."],
    }
    path.write_text(json.dumps({"Zebra": answers}))
    entries = tool.written([path])
    assert entries["zebra"]["answers"] == answers
    assert len(entries) == 300
    path.write_text(json.dumps({"zebra": {**answers, "shape": ["It is like a long horse."]}}))
    with pytest.raises(ValueError, match=r"^written: descriptions must keep .*'zebra' that has 6"):
        tool.written([path])
    path.write_text(json.dumps({"zebra": {"shape": answers["shape"]}}))
    with pytest.raises(ValueError, match=r"^written: 'zebra' must have answers to"):
        tool.written([path])
    path.write_text(json.dumps({"yeti": answers}))
    with pytest.raises(ValueError, match=r"^written: classes must be those .* 'yeti' are not"):
        tool.written([path])
