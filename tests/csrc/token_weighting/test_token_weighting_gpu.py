"""token_weighting on a GPU through the operators: equal to the CPU, on any stream, in a graph."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from zsbir_fast.ops.token_weighting import pairwise_token_score, token_weighting

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
FLOATS = ("text", "sketch_keys", "sketch_values", "photo_keys", "photo_values")


def arguments(
    words: int, patches: int, width: int, dtype: torch.dtype, device: str = "cpu"
) -> dict[str, Any]:
    g = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=g).to(device, dtype).requires_grad_()

    mask = torch.arange(words) < torch.tensor([[words], [max(1, words // 2)], [0]])
    return {
        "text": random(3, words, width),
        "text_mask": mask.to(device),
        "sketch_keys": random(5, patches, width),
        "sketch_values": random(5, patches, width),
        "photo_keys": random(5, patches + 1, width),
        "photo_values": random(5, patches + 1, width),
        "labels": torch.tensor([0, 1, 2, 0, 1], device=device),
    }


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16], ids=str
)
@pytest.mark.parametrize(
    ("words", "patches", "width"),
    [(1, 1, 64), (5, 49, 512), (77, 196, 512), (16, 257, 768), (77, 50, 520), (17, 33, 60)],
)
def test_cuda_equals_cpu(words: int, patches: int, width: int, dtype: torch.dtype) -> None:
    tolerance = 1e-3 if dtype == torch.float32 else 1e-9 if dtype == torch.float64 else 2e-2
    results = []
    for device in ("cpu", "cuda"):
        given = arguments(words, patches, width, dtype, device)
        result = token_weighting(**given, return_pooled=True)
        assert not isinstance(result, Tensor)
        (result.scores.sum() + result.photo_pooled.square().sum()).backward()
        pair = pairwise_token_score(given["sketch_values"], given["photo_values"])
        every = token_weighting(**given, all_pairs=True)
        gradients = [given[name].grad for name in FLOATS]
        results.append([result.scores, result.sketch_pooled, pair, every, *gradients])
    for cpu, cuda in zip(*results, strict=True):
        torch.testing.assert_close(cuda.cpu(), cpu, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_gradient_is_the_same_to_the_last_bit(dtype: torch.dtype) -> None:
    gradients = []
    for _ in range(2):
        given = arguments(77, 196, 512, dtype, "cuda")
        token_weighting(**given).sum().backward()
        gradients.append([given[name].grad for name in FLOATS])
    assert all(map(torch.equal, *gradients))


def test_other_stream_and_graph() -> None:
    given = arguments(5, 49, 64, torch.float32, "cuda")
    expected = token_weighting(**given)
    gradients = torch.autograd.grad(expected.sum(), given["sketch_keys"])
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        other = token_weighting(**given)
    torch.cuda.current_stream().wait_stream(stream)
    assert torch.equal(other, expected)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):  # fails if anything is queued on another stream, or waits
        scores = token_weighting(**given)
        (gradient,) = torch.autograd.grad(scores.sum(), given["sketch_keys"])
    graph.replay()
    assert torch.equal(scores, expected)
    assert torch.equal(gradient, gradients[0])
