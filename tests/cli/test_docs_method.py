"""The method of docs/adding_a_method.md: its code is installed, and its commands run for real."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path

import pytest

import zsbir_fast as zf
from zsbir_fast.cli.app import main
from zsbir_fast.methods import registry
from zsbir_fast.methods.checkpoint_files import read_checkpoint

DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "adding_a_method.md"
MODULE = "teacher_student"


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A folder with the module of the page, and two images of a few classes as the benchmark."""
    (tmp_path / f"{MODULE}.py").write_text(blocks("python")[0], encoding="utf-8")
    whole = zf.load_benchmark()
    seen = whole.seen[:10]

    def few(images, names):
        chosen = images.of_classes(names)
        labels = chosen.labels.tolist()
        return chosen.subset([labels.index(k) + i for k in range(len(names)) for i in (0, 1)])

    benchmark = type(whole)(
        whole.name,
        seen,
        whole.unseen,
        *(few(images, seen) for images in (whole.train_sketches, whole.train_photos)),
        *(few(images, whole.unseen) for images in (whole.test_sketches, whole.test_photos)),
    )
    for place in ("zsbir_fast.runs.fit", "zsbir_fast.data.benchmarks"):
        monkeypatch.setattr(f"{place}.load_benchmark", lambda *a, **k: benchmark)
    monkeypatch.setattr(registry, "_registered", {})
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop(MODULE, None)


def install(folder):
    """Do to the page's pyproject.toml what pip does: write its name and its entry points."""
    (project,) = blocks("toml")
    group, name, value = re.search(r'entry-points\."(.+)"\]\n(\w+) = "(.+)"', project).groups()
    info = folder / "teacher_student-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: teacher-student\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{group}]\n{name} = {value}\n")


def documented_keys():
    """Keys of metrics.json, as docs/training.md has them."""
    page = (DOCS / "training.md").read_text(encoding="utf-8")
    table = page.partition("| key | what |")[2].partition("\n\n")[0]
    cells = re.findall(r"^\| (`.*?) \|", table, re.M)
    return {key for cell in cells for key in re.findall(r"`([\w-]+)`", cell)}


def test_commands(workplace, capsys):
    install(workplace)
    said = []
    for line in "".join(blocks("bash")).splitlines():
        program, *arguments = shlex.split(line)
        assert program == "zsbir"
        assert main(arguments) == 0, capsys.readouterr().err
        said.append(capsys.readouterr().out)
    shown, trained, finished, evaluated, by_cosine = said
    assert re.search(r"--model.teacher TEACHER\s+what the teacher starts from", shown)
    assert "--model.student.imitation" in shown
    assert "--model.weighting" not in shown
    assert "is finished: 3 steps are done, 3 are asked for" in finished
    assert "report.html" in trained
    assert "report.html" in evaluated
    assert "mAP@all" in by_cosine

    run = workplace / "runs" / "student"
    metrics, again = (
        json.loads((folder / "metrics.json").read_text()) for folder in (run, run / "again")
    )
    assert metrics["ranked_by"] == again["ranked_by"] == "relation"
    assert metrics["steps"] == 3
    assert metrics["trained"]["map"] == again["trained"]["map"]
    assert documented_keys() > {*metrics, *again}
    assert "raw" not in metrics  # the teacher started from random numbers
    assert "by relation" in (run / "report.html").read_text(encoding="utf-8")
    checkpoint = read_checkpoint(run / "checkpoints" / "last.ckpt")
    steps = [
        {int(state["step"]) for state in optimizer["state"].values() if "step" in state}
        for optimizer in checkpoint["optimizer_states"]
    ]
    assert steps == [set(), {2}]  # the student rested in the first epoch


def test_python(workplace, capsys):
    code = blocks("python")[1]
    names = {}
    exec(compile(code, str(PAGE), "exec"), names)
    metrics = json.loads((workplace / "runs" / "from_python" / "metrics.json").read_text())
    elsewhere = {"definitions", "zero_shot", "seen_classes", "re-ranked", "reranked_by"}
    elsewhere.add("rerank_choice")
    assert documented_keys() == {*metrics, *elsewhere}
    rows = ["chance", "raw", "centred", "cosine", "trained"]
    assert list(names["run"].outcome.results) == rows
    assert capsys.readouterr().out.splitlines()[-1].startswith("teacher_student tensor([")
    assert names["gallery"].shape[1] == 16


def test_what_the_table_of_members_says():
    table = PAGE.read_text(encoding="utf-8").partition("\n| member |")[2].partition("\n\n")[0]
    named = set(re.findall(r"^\| `(\w+)` \|", table, re.M))
    members = {
        name
        for name, value in vars(zf.Method).items()
        if not name.startswith("_") and (callable(value) or isinstance(value, classmethod))
    }
    assert named == members
    needed = set(re.findall(r"^\| `(\w+)` \|.*\| must be there \|$", table, re.M))
    assert needed == zf.Method.__abstractmethods__
