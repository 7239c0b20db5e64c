"""ClusterRetri and SBKA over two processes: step by step what one does on the joined batch."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """World size -> what each process got."""
    folder = tmp_path_factory.mktemp("processes")
    worker = Path(__file__).with_name("distilled_worker.py")
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


@pytest.mark.parametrize("method", ["clusterretri", "sbka"])
def test_training_is_that_of_one_process(outputs, method):
    history, state = outputs[1, 0][method]
    for rank in (0, 1):
        got_history, got_state = outputs[2, rank][method]
        for got, expected in zip(got_history, history, strict=True):
            assert got.keys() == expected.keys()
            for name, value in expected.items():
                torch.testing.assert_close(got[name], value, rtol=1e-6, atol=1e-9, msg=name)
        assert got_state.keys() == state.keys()
        for name, value in state.items():
            torch.testing.assert_close(got_state[name], value, rtol=1e-5, atol=1e-7, msg=name)
    assert history[0]["distill"] != history[-1]["distill"]
    assert ("teach" in history[-1]) == (method == "sbka")
