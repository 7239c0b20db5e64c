"""Output that is closed, full or not there: files are written first, and one line at most."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from zsbir_fast.cli.app import main


@pytest.fixture
def evaluation(tmp_path):
    rng = np.random.default_rng(0)
    for name, count in (("q", 6), ("g", 12)):
        np.savez(
            tmp_path / f"{name}.npz",
            embeddings=rng.normal(size=(count, 4)),
            labels=np.arange(count) % 3,
        )
    files = ["--queries", str(tmp_path / "q.npz"), "--gallery", str(tmp_path / "g.npz")]
    return ["eval", *files, "--out", str(tmp_path / "out")]


def _closed_pipe():
    reader, writer = os.pipe()
    os.close(reader)
    return os.fdopen(writer, "w")


def _full():
    return os.fdopen(os.open("/dev/full", os.O_WRONLY), "w")


@pytest.mark.parametrize("kind", ["closed pipe", "full", "none"])
def test_files_are_written_whatever_becomes_of_the_output(
    evaluation, tmp_path, monkeypatch, capsys, kind
):
    stream = None  # as `>&-` leaves it
    if kind != "none":
        stream = _full() if kind == "full" else _closed_pipe()
    monkeypatch.setattr(sys, "stdout", stream)
    code = main(evaluation)
    monkeypatch.undo()
    if stream is not None:
        stream.close()  # what Python does at the end: quiet, as its rest goes nowhere
    assert (tmp_path / "out" / "metrics.json").is_file()
    assert (tmp_path / "out" / "per_class.csv").is_file()
    full = "zsbir: error: standard output: No space left on device\n"
    assert (code, capsys.readouterr().err) == ((1, full) if kind == "full" else (0, ""))


def test_a_real_pipe_and_a_full_device():
    """The interpreter's own end is quiet, too."""
    command = f"{sys.executable} -m zsbir_fast.cli --help"
    done = subprocess.run(
        ["bash", "-c", f"{command} | true; echo ${{PIPESTATUS[0]}}; {command} >/dev/full; echo $?"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "0\n1\n"
    assert done.stderr == "zsbir: error: standard output: No space left on device\n"


def test_an_error_beside_a_closed_stderr_keeps_its_code(monkeypatch):
    for stream in (_closed_pipe(), None):
        monkeypatch.setattr(sys, "stderr", stream)
        assert main(["env", "--nonsense"]) == 2
        assert main(["nonsense"]) == 2
        monkeypatch.undo()
        if stream is not None:
            stream.close()
