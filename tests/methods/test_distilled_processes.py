"""ClusterRetri and SBKA over two processes: step by step what one does on the joined batch."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(scope="module")
def outputs(outputs_of):
    """(World size, rank) -> what each process got."""
    return outputs_of("distilled_worker.py")


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
