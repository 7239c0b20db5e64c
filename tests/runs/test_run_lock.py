"""One run per folder."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading

import pytest

from zsbir_fast.runs import run_lock
from zsbir_fast.runs.run_lock import LOCK, lock_run

HELD = rf"got .*, where process {os.getpid()} on {socket.gethostname()} is at work; wait for it"


def _lock_here(folder):
    with lock_run(folder, say=pytest.fail):
        pass


def test_another_thread_is_refused_by_name_and_the_same_one_is_not(tmp_path):
    refused = []

    def second():
        try:
            _lock_here(tmp_path / "run")
        except RuntimeError as error:
            refused.append(str(error))

    with lock_run(tmp_path / "run", say=pytest.fail):
        _lock_here(tmp_path / "run")  # `train` inside `zsbir train`
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    assert len(refused) == 1
    assert re.search(HELD, refused[0])
    _lock_here(tmp_path / "run")  # given back
    assert (tmp_path / "run" / LOCK).read_text() == ""


def test_a_lock_vanishes_with_its_process_though_its_workers_live(tmp_path):
    """The lock of a killed process is taken over, and said so in one line."""
    code = f"""
import fcntl, os, sys, time
sys.modules["lightning.pytorch.utilities"] = type(sys)("stand-in")  # seconds to import
sys.modules["lightning.pytorch.utilities"].rank_zero_only = None
for name in ("lightning", "lightning.pytorch"):
    sys.modules[name] = type(sys)(name)
from zsbir_fast.runs.run_lock import lock_run
with lock_run({str(tmp_path)!r}, say=print):
    ready, tell = os.pipe()
    if os.fork() == 0:
        os.write(tell, b"x")
        time.sleep(60)
    os.read(ready, 1)
    print(os.getpid(), flush=True)
    time.sleep(60)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        pid = int(process.stdout.readline())
        with pytest.raises(RuntimeError, match=rf"where process {pid} on .* is at work"):
            _lock_here(tmp_path)
        os.kill(pid, signal.SIGKILL)
        process.wait()
        said = []
        with lock_run(tmp_path, say=said.append):
            holder = (tmp_path / LOCK).read_text()
        assert holder == f"process {os.getpid()} on {socket.gethostname()}"
        assert said == [
            f"{tmp_path} was locked by process {pid} on {socket.gethostname()}, which has ended: "
            "this run takes over"
        ]
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.stdout.close()


def test_only_the_first_process_of_a_run_locks(tmp_path, monkeypatch):
    monkeypatch.setattr(run_lock.rank_zero_only, "rank", 1, raising=False)
    _lock_here(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_file_system_without_locks_is_said(tmp_path, monkeypatch):
    def refuse(handle, what):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(run_lock.fcntl, "flock", refuse)
    said = []
    with lock_run(tmp_path, say=said.append):
        pass
    assert said == [
        f"{tmp_path} cannot be locked (Operation not supported): let no other run write there"
    ]
