"""The real thing, small: bundled data and weights, few steps, tiny images."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from zsbir_fast.cli.app import main
from zsbir_fast.cli.parsing import find_config
from zsbir_fast.data.benchmarks import load_benchmark
from zsbir_fast.methods.dmwan.model import DMWAN
from zsbir_fast.methods.saving import load_model
from zsbir_fast.runs import fit, quickstart
from zsbir_fast.runs.settings import read_settings

SMALL = [
    "--config=dmwan-qd_caltech",
    "--model.encoder.image_size=32",
    "--data.classes_per_batch=3",
    "--data.validation_classes=3",
    "--run.epochs=2",
    "--run.steps_per_epoch=2",
    "--run.progress=false",
    "--run.accelerator=cpu",
]


def test_train_and_evaluate(tmp_path, few, few_images, monkeypatch, capsys):
    out = tmp_path / "run"
    assert main(["train", *SMALL, f"--run.out={out}"]) == 0
    assert "Definition" not in capsys.readouterr().err
    names = {p.name for p in out.iterdir()}
    assert {"config.yaml", "metrics.json", "per_class.csv", "report.html", "model"} <= names
    assert {"checkpoints", "logs"} <= names
    metrics = json.loads((out / "metrics.json").read_text())
    assert {"definition", "chance", "raw", "centred", "trained", "seconds", "best_step"} <= set(
        metrics
    )
    assert {"map", "map_at", "precision_at"} <= set(metrics["trained"])
    assert metrics["best_step"] in (2, 4)
    assert 0.05 < metrics["chance"]["map"] < 0.25

    # the same model through `zsbir eval`, from the export and from the checkpoint
    monkeypatch.setattr(
        "zsbir_fast.data.benchmarks.load_benchmark",
        lambda *args, _load=load_benchmark, **kw: few(_load(*args, **kw)),
    )
    for model in (out / "model", out / "checkpoints" / "best.ckpt"):
        argv = ["eval", "--model", str(model), "--out", str(tmp_path / "eval"), "--compare"]
        assert main(argv) == 0
        again = json.loads((tmp_path / "eval" / "metrics.json").read_text())
        assert again["trained"]["map"] == metrics["trained"]["map"]
        assert {"sake", "zse", "torchmetrics"} <= set(again["definitions"])
        identity = load_model(model)[1]
        assert identity.benchmark == "qd_caltech"
        assert (len(identity.classes), len(identity.chosen_by)) == (34, 3)
        assert "zero_shot" not in again
    text = capsys.readouterr().out
    assert "standard AP" in text
    assert "every definition in use" in text

    # a second run must not overwrite it, another model must not resume it
    assert main(["train", *SMALL, f"--run.out={out}"]) == 1
    assert "run.out must be a new folder, got" in capsys.readouterr().err
    argv = ["train", *SMALL, f"--run.out={out}", "--resume", "--model.weighting.width=64"]
    assert main(argv) == 1
    err = capsys.readouterr().err
    assert "checkpoint must be of a dmwan model with weighting.width=64, got one with" in err


def test_validation_uses_seen_classes_only(tmp_path, few_images, monkeypatch):
    whole = load_benchmark("qd_caltech")
    seen_paths = set(map(str, [*whole.train_sketches.paths, *whole.train_photos.paths]))
    used, trained_on = [], []

    def note(model, benchmark, **options):
        used.extend(map(str, [*benchmark.test_sketches.paths, *benchmark.test_photos.paths]))
        return real(model, benchmark, **options)

    def note_training(self, benchmark, data):
        trained_on.extend(benchmark.seen)
        trained_on.append(set(map(str, benchmark.train_photos.paths)))
        return real_batches(self, benchmark, data)

    real, real_batches = fit.embed_unseen, DMWAN.batches
    monkeypatch.setattr(fit, "embed_unseen", note)
    monkeypatch.setattr(DMWAN, "batches", note_training)
    settings = read_settings(find_config("dmwan-qd_caltech"))
    settings = replace(
        settings,
        model={**settings.model, "encoder": {"image_size": 32}},
        data=replace(settings.data, classes_per_batch=3, validation_classes=3),
        run=replace(settings.run, out=str(tmp_path), epochs=1, steps_per_epoch=1, progress=False),
    )
    fit.fit(settings)
    assert used
    assert set(used) <= seen_paths
    *classes, training_photos = trained_on
    assert len(classes) == len(whole.seen) - 3
    assert not training_photos & set(used)


def test_quickstart(tmp_path, few_images, monkeypatch, capsys):
    shipped = quickstart.quickstart_settings

    def tiny(out, **options):
        settings = shipped(out, **options)
        assert settings.data.validation_classes == 0  # all 37 seen classes are trained on
        return replace(
            settings,
            model={**settings.model, "encoder": {"image_size": 32}},
            data=replace(settings.data, classes_per_batch=3),
            run=replace(settings.run, steps_per_epoch=2, accelerator="cpu"),
        )

    monkeypatch.setattr(quickstart, "quickstart_settings", tiny)
    out = tmp_path / "qs"
    argv = ["quickstart", "--out", str(out), "--epochs", "1", "--progress", "false"]
    assert main(argv) == 0
    text = capsys.readouterr().out
    for part in ("1/4", "2/4", "3/4", "4/4", "chance", "centred features", "standard AP"):
        assert part in text
    assert "ImageNet" in text
    assert f"Open {out / 'report.html'}" in text.splitlines()[-1]
    metrics = json.loads((out / "metrics.json").read_text())
    rows = ["chance", "raw", "centred", "trained", "re-ranked"]
    assert list(metrics) == ["definition", *rows, "ranked_by", "reranked_by", "seconds"]
    assert metrics["reranked_by"] in (out / "report.html").read_text()
    assert f"re-ranked: {metrics['reranked_by']}" in text
    assert "expansion" in metrics["reranked_by"]
    for name in rows:
        assert {"map", "map_at", "precision_at"} <= set(metrics[name])
    model, identity = load_model(out / "model")
    assert isinstance(model, DMWAN)
    assert len(identity.classes) == 37
    assert main(argv) == 0  # over its own older folder
    assert json.loads((out / "metrics.json").read_text())["trained"] == metrics["trained"]


def test_quickstart_leaves_foreign_folders_alone(tmp_path, capsys):
    (tmp_path / "thesis.tex").write_text("years of work")
    assert main(["quickstart", "--out", str(tmp_path)]) == 1
    assert "which holds other files" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]
    assert main(["quickstart", "--out", str(tmp_path / "thesis.tex")]) == 1
    assert "--out must be a folder, got the file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "code", "text"),
    [
        (["train", *SMALL, "--data.root=/no/such/folder"], 1, "/no/such/folder"),
        (["train", *SMALL, "--run.epochs=0"], 1, "run.epochs must be at least 1, got 0"),
        (["eval", "--model", "/no/model.ckpt"], 1, "must be an existing file, got /no/model.ckpt"),
        (["eval"], 2, "give either --model, or --queries and --gallery"),
        (["eval", "--queries", "q.npz"], 2, "--queries and --gallery go together"),
        (["quickstart", "--epochs", "0"], 2, "--epochs must be at least 1, got 0"),
        (["quickstart", "--seed", "-1"], 2, "--seed must be at least 0, got -1"),
    ],
)
def test_wrong_use(tmp_path, monkeypatch, capsys, argv, code, text):
    monkeypatch.chdir(tmp_path)
    assert main(argv) == code
    err = capsys.readouterr().err
    assert text in err
    assert err.count("\n") == 1


def test_resume_of_nothing(tmp_path, capsys):
    assert main(["train", *SMALL, f"--run.out={tmp_path}", "--resume"]) == 1
    assert "run.out must hold a run to resume, but" in capsys.readouterr().err


def test_evaluate_features(tmp_path, capsys):
    import numpy as np

    rng = np.random.default_rng(0)
    for name, count in (("q", 12), ("g", 40)):
        labels = np.array(["cat", "dog", "owl", "bee"])[np.arange(count) % 4]
        np.savez(tmp_path / f"{name}.npz", embeddings=rng.normal(size=(count, 6)), labels=labels)
    files = ["--queries", str(tmp_path / "q.npz"), "--gallery", str(tmp_path / "g.npz")]
    argv = ["eval", *files, "--ks", "5", "10", "--out", str(tmp_path / "out"), "--protocol", "sake"]
    assert main(argv) == 0
    assert "sake: voc AP" in capsys.readouterr().out
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["definition"].startswith("sake: voc AP")
    assert set(metrics["features"]["map_at"]) == {"5", "10"}
    assert "cat,3,10," in (tmp_path / "out" / "per_class.csv").read_text()
