"""CMAAN and the baseline over two processes: step by step what one does on the joined batch."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch

KINDS = ["text", "anchor", "words", "images", "contrastive", "triplet"]


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """World size -> what each process got."""
    folder = tmp_path_factory.mktemp("processes")
    worker = Path(__file__).with_name("cmaan_worker.py")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with ExitStack() as stack:
        running = {}
        for size, rank in ((1, 0), (2, 0), (2, 1)):
            log = stack.enter_context((folder / f"{size}_{rank}.log").open("w"))
            command = [sys.executable, worker, str(rank), str(size), folder]
            process = subprocess.Popen(command, env=environment, stderr=log)
            stack.callback(process.wait)
            stack.callback(process.kill)
            running[size, rank] = process
        for (size, rank), process in running.items():
            code = process.wait(timeout=240)
            assert code == 0, (folder / f"{size}_{rank}.log").read_text()
    return {key: torch.load(folder / f"{key[0]}_{key[1]}.pt") for key in running}


@pytest.mark.parametrize("kind", KINDS)
def test_training_is_that_of_one_process(outputs, kind):
    history, state = outputs[1, 0][kind]
    for rank in (0, 1):
        got_history, got_state = outputs[2, rank][kind]
        torch.testing.assert_close(got_history, history, rtol=1e-6, atol=1e-9)
        assert got_state.keys() == state.keys()
        for name, value in state.items():
            torch.testing.assert_close(got_state[name], value, rtol=1e-5, atol=1e-7, msg=name)
    assert history[0] != history[-1]
