"""Real processes: killed and resumed, and several at once."""

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

from zsbir_fast.cli.app import main

COMMON = [
    "--config=dmwan-qd_caltech",
    "--model.encoder.image_size=32",
    "--model.encoder.weights=random",  # no rows before training, which are not what is tested here
    "--data.classes_per_batch=3",
    "--data.validation_classes=3",
    "--run.epochs=2",
    "--run.steps_per_epoch=5",
    "--run.checkpoint_every=3",
    "--run.progress=false",
    "--run.accelerator=cpu",
]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def _command(out, *more):
    return [sys.executable, "-m", "zsbir_fast.cli", "train", *COMMON, f"--run.out={out}", *more]


def _finish(command):
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # as the processes have: sums in another order round differently
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
def test_killed_and_resumed_run_equals_the_uninterrupted_one(tmp_path, one_thread, monkeypatch):
    monkeypatch.setenv("ZSBIR_DEBUG", "1")
    assert main(["train", *COMMON, f"--run.out={tmp_path / 'whole'}"]) == 0
    out = tmp_path / "cut"
    last = out / "checkpoints" / "last.ckpt"
    process = subprocess.Popen(
        _command(out), env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while not last.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert torch.load(last, weights_only=True)["steps"] < 10
    assert not (out / "model").exists()
    _finish(_command(out, "--resume"))
    whole, cut = (load_file(p / "model" / "model.safetensors") for p in (tmp_path / "whole", out))
    assert whole.keys() == cut.keys()
    assert all(torch.equal(whole[name], cut[name]) for name in whole)
    metrics = [json.loads((p / "metrics.json").read_text()) for p in (tmp_path / "whole", out)]
    assert metrics[0]["trained"] == metrics[1]["trained"]
    assert metrics[0]["best_step"] == metrics[1]["best_step"]


@pytest.mark.slow
def test_two_processes_under_torchrun(tmp_path):
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    python, *command = _command(tmp_path, "--run.epochs=1")
    _finish([python, *launcher, *command])
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["best_step"] == 5
    assert 0 < metrics["trained"]["map"] < 1
    # the checkpoint alone gives the same result as the two processes together
    argv = ["eval", "--model", str(tmp_path / "model"), "--out", str(tmp_path / "eval")]
    assert main(argv) == 0
    again = json.loads((tmp_path / "eval" / "metrics.json").read_text())
    assert again["trained"]["map"] == pytest.approx(metrics["trained"]["map"], abs=1e-6)
