"""CMAAN and the baseline over two processes: step by step what one does on the joined batch."""

from __future__ import annotations

import pytest
import torch

KINDS = ["text", "anchor", "words", "images", "contrastive", "triplet"]


@pytest.fixture(scope="module")
def outputs(outputs_of):
    """(World size, rank) -> what each process got."""
    return outputs_of("cmaan_worker.py")


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
