"""Every command of README.md, docs/ and the --help texts runs as it stands there.

Training is only set up, and a small stored model stands for the documented ones.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import re
import shlex
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import zsbir_fast as zf
from zsbir_fast.cli import bench
from zsbir_fast.cli.app import COMMANDS, main
from zsbir_fast.cli.train import parse_settings
from zsbir_fast.data.benchmarks import load_benchmark
from zsbir_fast.methods.build import build_model
from zsbir_fast.methods.identity import ModelIdentity
from zsbir_fast.runs import quickstart
from zsbir_fast.runs.settings import check_settings, write_settings
from zsbir_fast.runs.train import TrainedRun
from zsbir_fast.runs.zoo import Zoo, ZooRow

REPO = Path(__file__).parents[2]
TRAINING = REPO / "docs" / "training.md"
REAL = "adding_a_method.md"  # its commands run for real, see test_docs_method.py
PAGES = [REPO / "README.md", *sorted(p for p in (REPO / "docs").glob("*.md") if p.name != REAL)]


def _blocks(page, language):
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


def _help(command):
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert main([*command, "--help"]) == 0
    return out.getvalue().partition("examples:\n")[2]


def _commands():
    texts = [block for page in PAGES for block in _blocks(page, "bash")]
    texts += [_help([]), *(_help([command]) for command in COMMANDS)]
    found = {}
    for line in "\n".join(texts).replace("\\\n", " ").splitlines():
        for part in line.split("&&"):
            # In the overview of `zsbir --help` what a command does stands behind it.
            text = re.split(r"\s{3,}|\s>\s", re.sub(r"^\w+=\S+ ", "", part.strip()))[0]
            if text.startswith(("zsbir ", "torchrun ")) and "COMMAND" not in text:
                found[text] = shlex.split(text, comments=True)
    return list(found.values())


@pytest.fixture(scope="module")
def small():
    """Two images of each class of the bundled benchmark, and a small model for it."""
    whole = load_benchmark()

    def few(images):
        labels = images.labels.tolist()
        firsts = [labels.index(label) + i for label in range(len(images.classes)) for i in (0, 1)]
        return images.subset(firsts)

    benchmark = type(whole)(
        "small",
        whole.seen,
        whole.unseen,
        *(few(images) for images in (whole.train_sketches, whole.train_photos)),
        *(few(images) for images in (whole.test_sketches, whole.test_photos)),
    )
    arguments = {
        "encoder": {"weights": None, "image_size": 32},
        "weighting": {"kind": "pairwise"},
    }
    identity = ModelIdentity.of("dmwan", arguments, whole.seen)
    return benchmark, (build_model(identity), identity)


@pytest.fixture
def workplace(tmp_path, monkeypatch, small):
    """A folder in which the documented runs have been."""
    benchmark, model = small
    monkeypatch.chdir(tmp_path)
    settings, _ = parse_settings(["--config", "dmwan-qd_caltech"])
    for file in ("my.yaml", "runs/mine/config.yaml", "runs/dmwan-sketchy-25/config.yaml"):
        write_settings(tmp_path / file, settings)
    for place in ("runs/mine/model", "runs/dmwan-sketchy-25/model", "zsbir-quickstart/model"):
        (tmp_path / place).mkdir(parents=True)
    (tmp_path / "zsbir-quickstart" / "config.yaml").write_text("data: {name: qd_caltech}\n")
    for name in ("q.npz", "g.npz"):
        labels = np.arange(250) % 5
        np.savez(name, embeddings=np.eye(250, 8, dtype=np.float32) + 1, labels=labels)
    monkeypatch.setattr("zsbir_fast.methods.saving.load_model", lambda path: model)
    monkeypatch.setattr("zsbir_fast.data.benchmarks.load_benchmark", lambda *a, **k: benchmark)
    monkeypatch.setattr(bench, "_run", lambda room, arguments: room)
    monkeypatch.setattr(quickstart, "quickstart", lambda out, **options: {})
    done = Zoo([ZooRow("all of them", [0.5], [0.5])], {}, "AP", tmp_path)
    monkeypatch.setattr("zsbir_fast.runs.zoo.run_zoo", lambda runs, out: done)
    # The language model of `zsbir describe`: what it says keeps the rules and is never the same.
    (tmp_path / "classes.txt").write_text("zebra\nowl\n")
    said = itertools.count()
    monkeypatch.setenv("OPENAI_API_KEY", "sk-x")
    monkeypatch.setattr(
        "zsbir_fast.text.chat_model.Chat._send",
        lambda chat, messages: "\n".join(
            f"It has {next(said)} long thin red strips along its flat side." for _ in range(2)
        ),
    )
    return tmp_path


@pytest.mark.parametrize("words", _commands(), ids=" ".join)
def test_documented_command(words, workplace):
    if words[0] == "torchrun":
        words = ["zsbir", *words[words.index("zsbir_fast.cli") + 1 :]]
    program, command, *arguments = words
    assert program == "zsbir"
    assert command in COMMANDS
    if command == "train" and not {"--help", "--print_config"} & set(arguments):
        settings, _ = parse_settings(arguments)
        assert settings.method == "dmwan"
    else:
        assert main([command, *arguments]) == 0


def test_there_are_commands():
    programs = {words[1] for words in _commands()}
    assert programs >= set(COMMANDS)


def test_documented_config_is_one(tmp_path):
    (text,) = _blocks(TRAINING, "yaml")
    (tmp_path / "c.yaml").write_text(text, encoding="utf-8")
    settings, _ = parse_settings(["--config", str(tmp_path / "c.yaml")])
    assert settings.data.validation_classes == 7
    assert settings.optim.lr_head == 1e-3


def test_documented_python_runs(workplace, small, monkeypatch, capsys):
    """Its settings are possible ones; a run that is over stands for the training."""

    def train(settings):
        check_settings(settings)
        assert settings.flat()["model.loss.positive"] == "paired"
        return TrainedRun(small[1][0], small[1][1], small[0], outcome, is_first=True)

    outcome = SimpleNamespace(result="the result")
    monkeypatch.setattr("zsbir_fast.runs.train.train", train)
    (code,) = _blocks(TRAINING, "python")
    names = {}
    exec(compile(code, str(TRAINING), "exec"), names)
    assert capsys.readouterr().out == "the result\n"
    assert names["nearest"].rows.shape == (20, 10)


@pytest.mark.parametrize("code", _blocks(REPO / "README.md", "python"))
def test_python_of_the_readme_runs(code, capsys):
    torch.manual_seed(0)
    names = {}
    exec(compile(code, "README.md", "exec"), names)
    if "result" in names:
        assert "mAP@all" in capsys.readouterr().out
    else:
        assert names["sketches"].grad.abs().sum() > 0
        assert float(names["every"].detach()) > 0


def test_documented_reranking_runs(tmp_path, monkeypatch, capsys):
    (code,) = [b for b in _blocks(REPO / "docs" / "metrics.md", "python") if "ExpandedRanker" in b]
    monkeypatch.chdir(tmp_path)
    generator = torch.Generator().manual_seed(0)
    sketches, photos, new = (torch.randn(n, 6, generator=generator) for n in (8, 210, 9))
    labels = {"sketch_labels": torch.arange(8) % 3, "photo_labels": torch.arange(210) % 3}
    names = {"zf": zf, "torch": torch, "sketches": sketches, "photos": photos, "new_photos": new}
    exec(compile(code, "metrics.md", "exec"), names | labels)
    (comment,) = [line.partition("# ")[2] for line in code.splitlines() if "ranker.name" in line]
    assert capsys.readouterr().out.strip() == comment
    assert len(zf.NeighbourGraph.load("graph.safetensors")) == 210
    (code,) = [b for b in _blocks(REPO / "docs" / "metrics.md", "python") if "zf.rerank(" in b]
    exec(compile(code, "metrics.md", "exec"), names | labels)
    assert "; ranked by cosine, re-ranked (k-reciprocal, 20 neighbours," in capsys.readouterr().out


def test_documented_clusters_and_codes_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    generator = torch.Generator().manual_seed(0)
    sketches, photos = (torch.randn(n, 64, generator=generator) for n in (8, 210))
    names = {"zf": zf, "sketches": sketches, "photos": photos}
    names |= {"sketch_labels": torch.arange(8) % 3, "photo_labels": torch.arange(210) % 3}
    names |= {"seen_sketches": sketches + 1, "seen_photos": photos + 1}
    blocks = _blocks(REPO / "docs" / "metrics.md", "python")
    for sign in ("zf.ClusterRanker(", "zf.ITQ.fit("):
        (code,) = [block for block in blocks if sign in block]
        exec(compile(code, "metrics.md", "exec"), names)
        assert len(names["result"].ap) == 8
    assert "chosen without labels, M 1, photos of a cluster tie" in capsys.readouterr().out
    assert names["books"].codes.shape == (1, 210)
    assert zf.ITQ.load("codes.safetensors").bits == names["codes"].bits == 64


def test_documented_rankers_run():
    """Scores of a function rank as the whole matrix does."""
    (code,) = [b for b in _blocks(REPO / "docs" / "metrics.md", "python") if "ScoreRanker" in b]
    generator = torch.Generator().manual_seed(0)
    sketches, photos = (torch.randn(n, 6, generator=generator) for n in (8, 210))
    names = {
        "zf": zf,
        "relation": lambda queries, gallery: queries @ gallery.T,
        "sketches": sketches,
        "photos": photos,
        "sketch_labels": torch.arange(8) % 3,
        "photo_labels": torch.arange(210) % 3,
    }
    exec(compile(code, "metrics.md", "exec"), names)
    scores = sketches @ photos.T
    labels = (names["sketch_labels"], names["photo_labels"])
    whole = zf.evaluate_ranking(scores, *labels, larger_is_closer=True, protocol="sake")
    assert torch.equal(names["result"].ap, whole.ap)
    assert torch.equal(names["nearest"].rows, scores.argsort(1, descending=True)[:, :10])
