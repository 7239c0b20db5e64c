"""The table of methods by encoders: planning, resuming, failing, and its numbers."""

from __future__ import annotations

import json
import statistics
from dataclasses import replace

import pytest
import yaml

from zsbir_fast.cli.app import main
from zsbir_fast.cli.parsing import find_config
from zsbir_fast.runs import zoo as module
from zsbir_fast.runs.settings import read_settings
from zsbir_fast.runs.zoo import ZooRow, plan_zoo, run_zoo

SMALL = {
    "method": "finetune",
    "model": {"encoder": {"name": "bundled:mobilenet_v2", "image_size": 32}},
    "data": {"name": "qd_caltech", "classes_per_batch": 3, "validation_classes": 3},
    "run": {"epochs": 1, "steps_per_epoch": 1, "accelerator": "cpu"},
}


def config(folder, name, **model):
    held = {**SMALL, "model": {**SMALL["model"], **model}}
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(held))
    return str(path)


@pytest.fixture
def configs():
    names = ("dmwan-qd_caltech", "finetune-qd_caltech")
    return {name: read_settings(find_config(name)) for name in names}


def test_every_config_with_every_encoder_from_every_seed(configs, tmp_path):
    encoders = ["bundled:mobilenet_v2", "timm:resnet10t", "open_clip:ViT-B-32-quickgelu/openai"]
    runs = plan_zoo(configs, tmp_path, encoders=encoders, seeds=(3, 1))
    assert [(run.name, run.seed) for run in runs[:4]] == [
        ("dmwan-qd_caltech, bundled:mobilenet_v2", 3),
        ("dmwan-qd_caltech, timm:resnet10t", 3),
        ("dmwan-qd_caltech, open_clip:ViT-B-32-quickgelu/openai", 3),
        ("finetune-qd_caltech, bundled:mobilenet_v2", 3),
    ]
    assert len({run.folder for run in runs}) == len(runs) == 12
    encoder = [run.settings.model["encoder"] for run in runs[:3]]
    assert [(e["name"], e["weights"], e["image_size"]) for e in encoder] == [
        ("bundled:mobilenet_v2", "imagenet", 128),
        ("timm:resnet10t", "pretrained", 128),
        ("open_clip:ViT-B-32-quickgelu", "openai", 128),
    ]
    assert runs[0].settings.run.seed == 3
    assert runs[0].settings.model["terms"] == configs["dmwan-qd_caltech"].model["terms"]
    alone = plan_zoo(configs, tmp_path)
    assert [run.settings.model for run in alone] == [s.model for s in configs.values()]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"seeds": ()}, "configs and seeds must be at least one each, got none"),
        ({"seeds": (1, 1)}, "seeds must differ, got '1', '1'"),
        ({"encoders": ["a", "a"]}, "encoders must"),
        ({"encoders": ["open_clip:ViT-B-32"]}, "encoders of open_clip must have a tag"),
    ],
)
def test_plans_that_cannot_be(configs, tmp_path, options, text):
    with pytest.raises(ValueError, match=text):
        plan_zoo(configs, tmp_path, **options)


def test_configs_of_two_benchmarks_are_refused(configs, tmp_path):
    other = configs["dmwan-qd_caltech"]
    other = replace(other, data=replace(other.data, name="sketchy-25"))
    text = r"configs must be of one benchmark, got data\.name 'qd_caltech' .* and 'sketchy-25' of x"
    with pytest.raises(ValueError, match=text):
        plan_zoo({**configs, "x": other}, tmp_path)


def test_a_row_is_the_mean_over_its_seeds():
    row = ZooRow("it", [0.5, 0.3], [0.2, 0.4], [0.5, 0.75], 12, [3.2, 5.0])
    spread = statistics.stdev([0.5, 0.3])
    assert row.cells == ["it", 2, 0.4, spread, pytest.approx(0.3), 0.625, "12", 4]
    assert ZooRow("frozen", [0.25], [0.1]).cells == [
        "frozen", None, 0.25, None, 0.1, None, None, None
    ]  # fmt: skip
    small = ZooRow("small", [0.25], [None], seconds=[1.0])  # a gallery of fewer than 100 photos
    assert small.cells == ["small", 1, 0.25, None, None, None, None, 1]


def test_a_zoo_goes_on_where_it_stopped_and_a_failure_leaves_the_others_alone(
    tmp_path, few_images, monkeypatch, capsys
):
    good, bad = config(tmp_path, "good"), config(tmp_path, "bad", loss="triplet")
    real, calls = module.train, []

    def train(settings, **how):
        calls.append(settings.run.out)
        if settings.model.get("loss") == "triplet" and len(calls) < 3:
            raise ValueError("it fails")
        return real(settings, **how)

    monkeypatch.setattr(module, "train", train)
    out = tmp_path / "zoo"
    argv = ["zoo", good, bad, "--out", str(out), "--progress=false"]
    assert main(argv) == 1
    told = capsys.readouterr()
    assert "failed: bad, seed 0: it fails" in told.out
    assert "1 of 2 runs failed" in told.err
    stored = json.loads((out / "zoo.json").read_text())
    assert [row["name"] for row in stored["rows"]] == [
        "good",
        "frozen bundled:mobilenet_v2 at 32 px, raw",
        "frozen bundled:mobilenet_v2 at 32 px, centred",
    ]
    assert stored["failed"] == {"bad, seed 0": "it fails"}

    assert main(argv) == 0  # the good one is not trained again
    assert [call.split("/")[-2] for call in calls] == ["good", "bad", "bad"]
    told = capsys.readouterr()
    assert "1/2: good, seed 0 is done" in told.err
    assert "nan" not in told.out.lower()
    assert "2,206,816" in told.out
    stored = json.loads((out / "zoo.json").read_text(), parse_constant=pytest.fail)
    rows = {row["name"]: row for row in stored["rows"]}
    assert set(rows) >= {"good", "bad"}
    metrics = json.loads((out / "good" / "0" / "metrics.json").read_text())
    assert rows["good"]["maps"] == [metrics["trained"]["map"]]
    assert rows["good"]["parameters"] == metrics["trained_parameters"] > 2_000_000
    frozen = rows["frozen bundled:mobilenet_v2 at 32 px, raw"]
    assert frozen["maps"] == [metrics["raw"]["map"]]
    assert f"{metrics['trained']['map']:.3f}" in told.out
    page = (out / "zoo.html").read_text()
    assert f"{metrics['trained']['map']:.3f}" in page
    assert "frozen bundled:mobilenet_v2 at 32 px, centred" in page
    assert (out / "zoo.md").read_text().count("\n|") >= 5


def test_a_run_that_was_begun_goes_on(tmp_path, few_images, monkeypatch):
    settings = {"it": read_settings(config(tmp_path, "it"))}
    (run,) = plan_zoo(settings, tmp_path / "zoo")
    checkpoints = run.folder / "checkpoints"
    checkpoints.mkdir(parents=True)
    (checkpoints / "last.ckpt").write_bytes(b"")
    seen, lines = [], []
    monkeypatch.setattr(module, "train", lambda settings, *, resume, say: seen.append(resume))
    found = run_zoo([run], tmp_path / "zoo", say=lines.append)
    assert seen == [True]
    assert lines == ["1/1: it, seed 0 goes on"]
    assert found.rows == []


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["nothing"], "configs must be a file or one of"),
        (["dmwan-qd_caltech", "--seeds", "-1"], "run.seed must be at least 0, got -1"),
        (["dmwan-qd_caltech", "--epochs", "0"], "run.epochs must be at least 1, got 0"),
        (["dmwan-qd_caltech", "dmwan-qd_caltech"], "configs must have names of their own"),
    ],
)
def test_wrong_usage(argv, text, capsys):
    assert main(["zoo", *argv]) == 2
    assert text in capsys.readouterr().err
