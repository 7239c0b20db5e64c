"""row_products on a GPU through the operators: equal to the CPU in all bits, on any stream."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from zsbir_fast.ops.row_products import pack_rows, row_products, row_squares

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def case(queries: int, gallery: int, width: int, dtype: torch.dtype) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(gallery)
    left = torch.randn(queries, width, generator=generator, dtype=dtype)
    right = torch.randn(gallery, width, generator=generator, dtype=dtype)
    scale = torch.randn(gallery, generator=generator, dtype=dtype)
    return left, right, scale, scale.flip(0)


def scores(left: Tensor, right: Tensor, scale: Tensor, offset: Tensor) -> Tensor:
    out = left.new_empty(len(left), len(scale))
    return row_products(left, right, scale=scale, offset=offset, out=out)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sizes", [(1, 1, 1), (300, 1000, 512), (129, 127, 65), (0, 5, 3)])
def test_bits_of_the_cpu(sizes: tuple[int, int, int], dtype: torch.dtype) -> None:
    given = case(*sizes, dtype)
    on_gpu = [x.cuda() for x in given]
    assert torch.equal(scores(*on_gpu).cpu(), scores(*given))
    assert torch.equal(row_squares(on_gpu[1]).cpu(), row_squares(given[1]))
    packed = [on_gpu[0], pack_rows(on_gpu[1]), *on_gpu[2:]]
    assert torch.equal(scores(*packed).cpu(), scores(*given))


def test_strided_rows() -> None:
    left, right, scale, offset = (x.cuda() for x in case(40, 90, 33, torch.float32))
    expected = scores(left, right, scale, offset)
    wide = torch.cat([right, right], dim=1)
    assert torch.equal(scores(left, wide[:, :33], scale, offset), expected)
    assert torch.equal(scores(left.t().contiguous().t(), right, scale, offset), expected)


def test_in_a_graph_on_another_stream() -> None:
    given = [x.cuda() for x in case(70, 200, 64, torch.float32)]
    expected = scores(*given)
    out = torch.empty_like(expected)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        row_products(given[0], given[1], scale=given[2], offset=given[3], out=out)
    out.fill_(torch.nan)
    graph.replay()
    torch.cuda.synchronize()
    assert torch.equal(out, expected)
