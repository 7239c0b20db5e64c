"""The contract is true: a method that touches no file of the package lives through a whole run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

import zsbir_fast as zf
from zsbir_fast.cli.app import main
from zsbir_fast.data.benchmarks import load_benchmark
from zsbir_fast.methods.arguments import plain_arguments
from zsbir_fast.methods.build import build_model


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # as the processes have: other sums round differently
    yield
    torch.set_num_threads(before)


def arguments(root, out, *more):
    return [
        "train",
        "--method=toy",
        "--model.teacher=edges",
        "--data.name=few",
        f"--data.root={root}",
        "--data.unseen=[piano, cup]",
        "--data.validation_classes=0",
        "--data.classes_per_batch=3",
        "--optim.lr_head=0.01",
        "--optim.gradient_clip=0.5",
        "--optim.accumulate=2",
        "--run.epochs=3",
        "--run.steps_per_epoch=4",
        "--run.checkpoint_every=1",
        "--run.progress=false",
        "--run.accelerator=cpu",
        f"--run.out={out}",
        *more,
    ]


def _weights(run):
    return load_file(run / "model" / "model.safetensors")


def test_a_run_from_the_first_batch_to_search(offer, few_classes, tmp_path, one_thread, capsys):
    folder = offer(toy="Toy")
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert main(arguments(few_classes, whole)) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("zsbir: ")]
    assert [line.partition(", loss ")[0] for line in lines] == [
        "zsbir: epoch 1/3, step 4/12",
        "zsbir: epoch 2/3, step 8/12",
        "zsbir: epoch 3/3, step 12/12",
    ]
    assert "loss_2" not in lines[0]
    assert ", loss_2 " in lines[1]

    # killed without a warning, and taken up: the same bits
    environment = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "zsbir_fast.cli", *arguments(few_classes, cut)]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    last = cut / "checkpoints" / "last.ckpt"
    while not last.exists() and process.poll() is None:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    steps = torch.load(last, weights_only=True)["steps"]
    assert 0 < steps < 12
    assert main(arguments(few_classes, cut, "--resume")) == 0
    expected, got = _weights(whole), _weights(cut)
    assert expected.keys() == got.keys()
    assert all(torch.equal(expected[name], got[name]) for name in expected)
    first, second = (json.loads((run / "metrics.json").read_text()) for run in (whole, cut))
    assert first["trained"] == second["trained"]
    assert first["ranked_by"] == "bilinear scores"
    # It names no encoder to compare with, and ranks in a way of its own.
    assert [*first][:4] == ["definition", "chance", "cosine", "trained"]
    report = (whole / "report.html").read_text()
    assert "ranks all photos by bilinear scores" in report
    assert "ImageNet" not in report

    # loaded, and ranked by scores of its own: not by cosine
    model, identity = zf.load_model(whole / "model")
    assert (identity.method, identity.arguments["teacher"]) == ("toy", "edges")
    assert identity.arguments["student"] == {"dropout": 0.1}
    benchmark = load_benchmark("few", few_classes, unseen=["piano", "cup"])
    queries = zf.embed_images(model, benchmark.test_sketches)
    gallery = zf.embed_images(model, benchmark.test_photos)
    labels = (benchmark.test_sketches.labels, benchmark.test_photos.labels)
    scores = queries @ model.relation.detach() @ gallery.T
    by_hand = zf.evaluate_ranking(scores, *labels, larger_is_closer=True, ks=(8,))
    assert by_hand.map == pytest.approx(first["trained"]["map"], abs=1e-6)
    assert not torch.allclose(model.relation, torch.eye(12), atol=1e-3)
    capsys.readouterr()
    assert main(["eval", "--model", str(whole / "model"), "--out", str(tmp_path / "eval")]) == 0
    again = json.loads((tmp_path / "eval" / "metrics.json").read_text())
    assert again["trained"]["map"] == first["trained"]["map"]
    assert (tmp_path / "eval" / "report.html").is_file()
    assert main(["eval", "--model", str(whole / "model"), "--metric", "cosine"]) == 0
    assert main(["eval", "--model", str(whole / "model"), "--compare"]) == 1
    assert "--compare must be left out for a model that ranks by scores of its own, got one that " \
        "ranks by bilinear scores" in capsys.readouterr().err  # fmt: skip


@pytest.mark.slow
def test_two_processes_with_two_optimizers_keep_the_same_weights(offer, few_classes, tmp_path):
    """Also where one of them rests on one process alone; the method compares the weights."""
    folder = offer(uneven="Uneven")
    environment = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command = [*launcher, "-m", "zsbir_fast.cli", *arguments(few_classes, tmp_path / "run")]
    command = [word.replace("--method=toy", "--method=uneven") for word in command]
    done = subprocess.run(
        [sys.executable, *command], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["steps"] == 12
    argv = ["eval", "--model", str(tmp_path / "run" / "model"), "--out", str(tmp_path / "eval")]
    assert main(argv) == 0
    again = json.loads((tmp_path / "eval" / "metrics.json").read_text())
    assert again["trained"]["map"] == pytest.approx(metrics["trained"]["map"], abs=1e-6)


def test_help_shows_the_arguments_of_the_method(offer, capsys):
    offer(toy="Toy")
    assert main(["train", "--method", "toy", "--help"]) == 0
    text = capsys.readouterr().out
    for part in ("--model.teacher {colours,edges}", "--model.student.dropout", "dropped in trai"):
        assert part in text
    assert "--model.encoder" not in text
    assert main(["train", "--help"]) == 0
    text = capsys.readouterr().out
    assert "--model.loss.preset" in text
    assert "--model.teacher" not in text
    assert "--method {dmwan,cmaan,clusterretri,sbka,finetune,toy}" in text


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["--method=toy"], "the following arguments are required: model.teacher"),
        (["--method=toy", "--model.teacher=x"], "Got value: x"),
        (
            ["--method=toy", "--model.loss.preset=full"],
            "--model.loss.preset must be an argument of the method toy, got one of dmwan",
        ),
        (
            ["--model.teacher", "edges"],
            "--model.teacher must be an argument of the method dmwan, got one of sbka, toy",
        ),
        (
            ["--model.encodr.name=x"],
            "must be an argument of the method dmwan, got none (did you mean 'encoder.name'?)",
        ),
        (
            ["--method=toi"],
            "clusterretri, sbka, finetune, toy, got 'toi' (did you mean 'toy'?)",
        ),
    ],
)
def test_arguments_of_another_method(offer, capsys, argv, text):
    offer(toy="Toy")
    assert main(["train", *argv]) == 2
    err = capsys.readouterr().err
    assert err.startswith("zsbir train: error: ")
    assert text in err
    assert err.count("\n") == 1


def test_a_config_of_another_method(offer, tmp_path, capsys):
    offer(toy="Toy")
    config = tmp_path / "toy.yaml"
    config.write_text("method: toy\nmodel:\n  teacher: edges\n  terms: {cls: 1.0}\n")
    assert main(["train", "--config", str(config)]) == 2
    err = capsys.readouterr().err
    assert f"--config must have keys of this command, got 'model.terms' in {config}" in err
    assert main(["train", "--config", str(config), "--method=dmwan"]) == 2
    assert capsys.readouterr().err == (
        "zsbir train: error: a run has one method, and arguments of another do not fit it, but "
        f"--method says 'dmwan' and {config} is of method 'toy'\n"
    )


def test_a_checkpoint_of_a_method_that_is_not_there(offer, tmp_path, few_classes, capsys):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(offer(toy="Toy")), *sys.path])
        identity = zf.ModelIdentity.of("toy", {"teacher": "edges"}, ["cat", "dog"])
        zf.export_model(build_model(identity), identity, tmp_path / "model")
    sys.path[:] = [p for p in sys.path if "toys" not in p]
    text = (
        rf"load_model: {tmp_path / 'model'} cannot be loaded: method_class: method must be one of"
    )
    with pytest.raises(ValueError, match=text):
        zf.load_model(tmp_path / "model")
    assert main(["eval", "--model", str(tmp_path / "model")]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_a_required_argument_is_named(toy):
    with pytest.raises(ValueError, match="method toy needs the argument 'teacher', got none"):
        plain_arguments("toy", toy.Toy, {})
    with pytest.raises(ValueError, match=r"'student' of method toy must be an object of .* got 3"):
        plain_arguments("toy", toy.Toy, {"teacher": "edges", "student": 3})
    with pytest.raises(ValueError, match=r"has no argument 'student\.drop' \(did you mean 'dropo"):
        plain_arguments("toy", toy.Toy, {"teacher": "edges", "student": {"drop": 3}})
