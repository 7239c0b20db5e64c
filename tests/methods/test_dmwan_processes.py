"""DM-WAN trained by several processes: step by step what one process does on the joined batch."""

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
    """World size -> what each process got; one size after the other."""
    folder = tmp_path_factory.mktemp("processes")
    worker = Path(__file__).with_name("dmwan_worker.py")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    results = {}
    for size in (1, 2, 4):
        with ExitStack() as stack:
            processes = []
            for rank in range(size):
                log = stack.enter_context((folder / f"{size}_{rank}.log").open("w"))
                command = [sys.executable, worker, str(rank), str(size), folder]
                processes.append(subprocess.Popen(command, env=environment, stderr=log))
                stack.callback(processes[-1].wait)
                stack.callback(processes[-1].kill)
            for rank, process in enumerate(processes):
                code = process.wait(timeout=240)
                assert code == 0, (folder / f"{size}_{rank}.log").read_text()
        results[size] = [torch.load(folder / f"{size}_{rank}.pt") for rank in range(size)]
    return results


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize(
    "variant", ["mined", "paired", "patches", "relation", "switches", "memory"]
)
def test_training_is_that_of_one_process(outputs, size, variant):
    history, state = outputs[1][0][variant]
    for output in outputs[size]:
        got_history, got_state = output[variant]
        for got, expected in zip(got_history, history, strict=True):
            assert got.keys() == expected.keys()
            for name, value in expected.items():
                torch.testing.assert_close(got[name], value, rtol=1e-6, atol=1e-9)
        assert got_state.keys() == state.keys()
        for name, value in state.items():
            torch.testing.assert_close(got_state[name], value, rtol=1e-6, atol=1e-7, msg=name)
    assert history[0]["quadruplet"] > 0
    assert history[0]["loss"] != history[-1]["loss"]
