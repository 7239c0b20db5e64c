"""null on a GPU through the operator: equal to the CPU in all bits, in a CUDA graph, too."""

from __future__ import annotations

import pytest
import torch

from zsbir_fast.ops.null import null

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (1, 1), (300, 1000)])
def test_bits_of_the_cpu(shape: tuple[int, int], dtype: torch.dtype) -> None:
    rows = torch.randn(shape, dtype=dtype)
    assert torch.equal(null(rows.cuda()).cpu(), null(rows))


def test_gradient() -> None:
    rows = torch.randn(3, 4, device="cuda", requires_grad=True)
    (2 * null(rows)).sum().backward()
    assert rows.grad is not None
    assert torch.equal(rows.grad, torch.full_like(rows, 2))


def test_in_a_graph() -> None:
    rows = torch.randn(70, 20, device="cuda")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = null(rows)
    rows.fill_(3)
    graph.replay()
    assert torch.equal(out, rows)
