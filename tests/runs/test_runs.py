"""Runs that are taken up, finished, damaged or stopped, through the command line."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch
from lightning.pytorch.utilities.exceptions import SIGTERMException

from zsbir_fast.cli.app import main
from zsbir_fast.data.benchmarks import load_benchmark
from zsbir_fast.runs import fit
from zsbir_fast.training.interrupts import InterruptBetweenSteps

SMALL = [
    "--config=dmwan-qd_caltech",
    "--model.encoder.image_size=32",
    "--model.weighting.kind=pairwise",
    "--model.encoder.weights=random",
    "--data.classes_per_batch=3",
    "--data.validation_classes=0",
    "--run.steps_per_epoch=2",
    "--run.checkpoint_every=1",
    "--run.progress=false",
    "--run.accelerator=cpu",
]
CONSTANT = "--optim.schedule=constant"


def _few(benchmark):
    def every(images, step):
        return images.subset(torch.arange(0, len(images), step))

    return replace(
        benchmark,
        test_sketches=every(benchmark.test_sketches, 20),
        test_photos=every(benchmark.test_photos, 20),
    )


@pytest.fixture(scope="module", autouse=True)
def _few_images():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fit, "load_benchmark", lambda *a, **kw: _few(load_benchmark(*a, **kw)))
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        yield
        torch.set_num_threads(before)


def _train(out, epochs, *more):
    return main(["train", *SMALL, f"--run.out={out}", f"--run.epochs={epochs}", *more])


@pytest.fixture(scope="module")
def finished_runs(tmp_path_factory):
    """A finished run of one epoch, and one of two, with constant learning rates."""
    folder = tmp_path_factory.mktemp("runs")
    for epochs in (1, 2):
        assert _train(folder / str(epochs), epochs, CONSTANT) == 0
    return folder


@pytest.fixture
def finished(finished_runs, tmp_path):
    return shutil.copytree(finished_runs / "1", tmp_path / "run")


def _content(folder):
    files = (p for p in folder.rglob("*") if p.is_file() and p.name != ".lock")
    return {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in files}


def _weights(folder):
    return (folder / "model" / "model.safetensors").read_bytes()


def test_a_finished_run_says_so_and_writes_nothing(finished, capsys):
    before = _content(finished)
    assert _train(finished, 1, CONSTANT, "--resume") == 0
    told = capsys.readouterr()
    assert told.out == (
        f"the run in {finished} is finished: 2 steps are done, 2 are asked for; nothing was "
        "written\n"
    )
    assert told.err == ""
    assert _content(finished) == before


def test_more_epochs_go_on_as_if_they_had_been_asked_for_at_first(finished_runs, finished):
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    left = finished / "model" / f".{child.pid}-ab@{os.uname().nodename[:64]}.zsbir-part"
    left.write_bytes(b"half of a file, of a process that was killed")
    assert _train(finished, 2, CONSTANT, "--resume") == 0
    assert not left.exists()
    assert _weights(finished) == _weights(finished_runs / "2")
    ours, whole = (
        json.loads((folder / "metrics.json").read_text())
        for folder in (finished, finished_runs / "2")
    )
    assert (ours["steps"], ours["trained"]) == (4, whole["trained"])
    assert "epochs: 2" in (finished / "config.yaml").read_text()


def test_fewer_epochs_of_a_longer_run(finished_runs, tmp_path, capsys):
    out = shutil.copytree(finished_runs / "2", tmp_path / "run")
    assert _train(out, 1, CONSTANT, "--resume") == 0
    assert "4 steps are done, 2 are asked for; nothing was written" in capsys.readouterr().out
    (out / "metrics.json").unlink()  # stopped before its results: no run of one epoch any more
    assert _train(out, 1, CONSTANT, "--resume") == 1
    assert "run.epochs must be at least 2, as the run in" in capsys.readouterr().err


def test_results_that_a_kill_left_out_are_written(finished_runs, finished):
    shutil.rmtree(finished / "model")
    (finished / "metrics.json").unlink()
    assert _train(finished, 1, CONSTANT, "--resume") == 0
    assert _weights(finished) == _weights(finished_runs / "1")
    assert json.loads((finished / "metrics.json").read_text())["steps"] == 2


@pytest.mark.parametrize(
    ("epochs", "more", "text"),
    [
        (2, "--optim.lr_head=0.5", "optim.lr_head must stay 0.001, as the run in {} was begun "
         "with, got 0.5; a new run needs another run.out"),
        (1, "--run.seed=1", "run.seed must stay 0, as the run in {}"),
        (1, "--data.photos_per_class=4", "data.photos_per_class must stay 3, as the run in {}"),
        (1, "--optim.schedule=cosine", "optim.schedule must stay 'constant', as"),
    ],
)  # fmt: skip
def test_settings_that_make_another_run_are_refused(finished, capsys, epochs, more, text):
    before = _content(finished)
    assert _train(finished, epochs, CONSTANT, "--resume", more) == 1
    err = capsys.readouterr().err
    assert err.startswith(f"zsbir: error: train: {text.format(finished)}")
    assert err.count("\n") == 1
    assert _content(finished) == before


def test_learning_rates_over_the_whole_run_refuse_another_length(tmp_path, capsys):
    assert _train(tmp_path, 1) == 0
    before = _content(tmp_path)
    capsys.readouterr()
    assert _train(tmp_path, 3, "--resume") == 1
    assert capsys.readouterr().err == (
        f"zsbir: error: train: run.epochs must stay 1, as the run in {tmp_path} was begun with, "
        "got 3: optim.schedule=cosine spreads the learning rates over the whole run, so that only "
        "runs with optim.schedule=constant can change their length\n"
    )
    assert _content(tmp_path) == before


@pytest.mark.parametrize("damage", ["empty", "flipped", "missing"])
def test_the_checkpoint_before_is_taken_where_the_newest_is_damaged(
    finished_runs, finished, capsys, damage
):
    last = finished / "checkpoints" / "last.ckpt"
    content = bytearray(last.read_bytes())
    for place in range(1000, len(content), len(content) // 2000):
        content[place] ^= 1
    last.write_bytes(b"" if damage == "empty" else content)
    if damage == "missing":
        last.unlink()
    assert _train(finished, 2, CONSTANT, "--resume") == 0
    why = {
        "empty": "(it is empty)",
        "flipped": "(it is damaged: its checksum differs)",
        "missing": "last.ckpt is missing",
    }
    lines = capsys.readouterr().err.splitlines()
    (line,) = [line for line in lines if not line.startswith("zsbir: epoch")]
    previous = finished / "checkpoints" / "previous.ckpt"
    assert line.startswith("zsbir: ")
    assert line.endswith(f"{why[damage]}; going on from {previous}, 1 steps into the run")
    assert _weights(finished) == _weights(finished_runs / "2")
    assert (finished / "checkpoints" / "damaged.ckpt").exists() == (damage != "missing")


@pytest.mark.parametrize(
    ("how", "text"),
    [
        (["--rerank.kind=icfrr", "--rerank.gallery_k=99"], "gallery_k must be in [1, 31], got 99"),
        (["--rerank.kind=expansion", "--rerank.power=-1"], "power must be finite and not negative"),
    ],
)
def test_reranking_that_cannot_be_is_said_before_training(tmp_path, capsys, how, text):
    assert _train(tmp_path, 1, *how) == 1
    err = capsys.readouterr().err
    assert text in err
    assert err.count("\n") == 1
    assert not (tmp_path / "checkpoints").exists()


def test_no_whole_checkpoint_left(finished, capsys):
    for name in ("last", "previous"):
        (finished / "checkpoints" / f"{name}.ckpt").write_bytes(b"")
    assert _train(finished, 2, CONSTANT, "--resume") == 1
    err = capsys.readouterr().err
    assert err.count("(it is empty)") == 2
    assert err.count("\n") == 1
    assert _train(finished, 2, CONSTANT) == 1
    assert "run.out must be a new folder" in capsys.readouterr().err


def test_the_weights_alone_cannot_be_resumed(finished, capsys):
    folder = finished / "checkpoints"
    content = torch.load(folder / "last.ckpt", weights_only=True)
    del content["optimizer_states"]
    torch.save(content, folder / "last.ckpt")
    (folder / "previous.ckpt").unlink()
    assert _train(finished, 2, CONSTANT, "--resume") == 1
    assert "must be a whole checkpoint of a run, got one without the state of" in (
        capsys.readouterr().err
    )


def test_one_run_at_a_time_and_ctrl_c(tmp_path, capsys):
    """A second run is refused with the pid of the first; that one ends with 130 and one line."""
    command = [
        sys.executable,
        "-m",
        "zsbir_fast.cli",
        "train",
        *SMALL,
        "--run.steps_per_epoch=9999",
    ]
    process = subprocess.Popen(
        [*command, f"--run.out={tmp_path}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    last = tmp_path / "checkpoints" / "last.ckpt"
    while not last.exists() and process.poll() is None:
        time.sleep(0.02)
    for more in (["--resume"], []):
        assert _train(tmp_path, 1, *more) == 1
        assert f"where process {process.pid} on {os.uname().nodename} is at work" in (
            capsys.readouterr().err
        )
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert err == (
        f"zsbir: error: interrupted; go on with: zsbir train --config {tmp_path / 'config.yaml'} "
        "--resume\n"
    )


def test_ctrl_c_and_sigterm_keep_their_meaning_and_their_handlers():
    before = signal.getsignal(signal.SIGINT)
    interrupts = InterruptBetweenSteps()
    with pytest.raises(KeyboardInterrupt), interrupts.installed():  # noqa: PT012
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupts.asked  # not in the middle of a step
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)  # at once, the second time
        try:
            interrupts.on_train_batch_end(None, None, None, None, 0)
        except KeyboardInterrupt:  # as Lightning does
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            sys.exit(1)
    assert signal.getsignal(signal.SIGINT) is before
    with pytest.raises(SystemExit, match="143"), InterruptBetweenSteps().installed():
        raise SIGTERMException


def test_a_stop_before_the_first_checkpoint_says_so(tmp_path, monkeypatch, capsys):
    def stop(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(fit, "load_benchmark", stop)
    assert _train(tmp_path / "new", 1) == 130
    assert capsys.readouterr().err == (
        "zsbir: error: interrupted before the first checkpoint; the same command starts anew\n"
    )
