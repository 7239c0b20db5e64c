"""Losses over several processes: values and gradients are those of one process, joined batch."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch

import zsbir_fast as zf
from zsbir_fast.losses.gathering import share_rows

LOSSES = (
    "hardest",
    "symmetric",
    "nonzero",
    "paired",
    "all",
    "triplets",
    "memory",
    "by hand",
)


def run_processes(worker, size, folder):
    """Run `worker RANK SIZE FOLDER` once per rank."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    logs = [folder / f"{size}_{rank}.log" for rank in range(size)]
    with ExitStack() as stack:
        processes = []
        for rank, log in enumerate(logs):
            err = stack.enter_context(log.open("w"))
            command = [sys.executable, worker, str(rank), str(size), folder]
            processes.append(subprocess.Popen(command, env=environment, stderr=err))
            stack.callback(processes[-1].wait)
            stack.callback(processes[-1].kill)
        for process, log in zip(processes, logs, strict=True):
            assert process.wait(timeout=180) == 0, log.read_text()
    return [torch.load(folder / f"{size}_{rank}.pt", weights_only=False) for rank in range(size)]


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """World size -> what each process got."""
    folder = tmp_path_factory.mktemp("processes")
    worker = Path(__file__).with_name("distributed_worker.py")
    return {size: run_processes(worker, size, folder) for size in (1, 2, 4)}


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("cuts", ["even", "uneven"])
@pytest.mark.parametrize("name", LOSSES)
def test_loss_and_gradient_are_those_of_the_joined_batch(outputs, size, cuts, name):
    values, gradients = outputs[1][0]["even"][name]
    assert (values > 0).all()
    assert gradients.abs().sum(1).min() > 0
    for output in outputs[size]:
        got_values, got_gradients = output[cuts][name]
        torch.testing.assert_close(got_values, values, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(got_gradients, gradients, rtol=1e-9, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("name", LOSSES)
def test_in_single_precision_they_agree_to_rounding(outputs, size, name):
    values, gradients = outputs[1][0]["single precision"][name]
    for output in outputs[size]:
        got_values, got_gradients = output["single precision"][name]
        torch.testing.assert_close(got_values, values, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(got_gradients, gradients, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 4])
def test_unreduced_losses_are_those_of_the_own_sketches(outputs, size):
    values, gradients = outputs[1][0]["even"]["none"]
    own = [output["uneven"]["none"] for output in outputs[size]]
    torch.testing.assert_close(sum(value for value, _ in own), values)
    for _, gradient in own:  # of the mean over processes, of which each took a sum of its part
        torch.testing.assert_close(gradient * size, gradients)


@pytest.mark.slow
def test_processes_that_differ_fail_together(outputs):
    one, two, *_ = (output["mistakes"] for output in outputs[4])
    for output in outputs[4]:
        told = output["mistakes"]
        assert told["width"] == (
            "ValueError: gather_with_gradient: features must have the same width and dtype on all "
            "processes, got others in process 1 than in process 0"
        )
        assert "quadruplets must be None where batches of several" in told["quadruplets"]
        assert told["alone"] == "no error"
        assert told["drawn"] == one["drawn"]
        assert told["share"][0] == (0, 1, 2, 3)
    assert outputs[4][3]["mistakes"]["share"][1] == slice(3, 6)
    assert two["missing"] == (
        "TypeError: WeightedQuadrupletLoss: sketches must be a tensor, got None"
    )
    assert "sketches must be [B, 3], got [4, 2]" in two["memory"]
    for other in ("missing", "memory"):
        assert one[other].endswith("process 1 of 4 failed, see its message")
    for output in outputs[4]:  # all look at the joined batch
        assert "sketches must be finite, got inf in row 6" in output["mistakes"]["infinite"]
    assert two["weights"] == (
        "ValueError: WeightedQuadrupletLoss: weights must be finite, got nan in row 2"
    )
    assert one["weights"] == (
        "RuntimeError: WeightedQuadrupletLoss: process 1 of 4 failed, see its message"
    )


def test_alone_nothing_is_gathered():
    features, labels = torch.randn(3, 2), torch.arange(3)
    assert zf.gather_with_gradient(features) is features
    assert zf.gather_labels(labels) is labels
    (share,) = share_rows("caller", x=features)
    assert share.own == slice(0, 3)


def test_a_failed_check_is_raised_as_it_is():
    def check():
        raise TypeError("wrong")

    with pytest.raises(TypeError, match="wrong"):
        share_rows("caller", None, check, x=torch.zeros(1))
