"""token_weighting on a GPU through the operators: equal to the CPU, on any stream, in a graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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


# --- every scoring, of its floating-point inputs alone --------------------------------------------


def scorings(given: dict[str, Any]) -> dict[str, tuple[Callable[..., Tensor], tuple[Tensor, ...]]]:
    """Functions, and what they are differentiated by."""
    mask, labels = given["text_mask"], given["labels"]
    floats = tuple(given[name] for name in FLOATS)
    patches = floats[2], floats[4]

    def words(all_pairs: bool) -> Callable[..., Tensor]:
        return lambda text, *rest: token_weighting(text, mask, *rest, labels, all_pairs=all_pairs)

    return {
        "pairs": (words(False), floats),
        "all pairs": (words(True), floats),
        "patches": (pairwise_token_score, patches),
        "patches, all pairs": (lambda s, p: pairwise_token_score(s, p, all_pairs=True), patches),
    }


SCORINGS = ("pairs", "all pairs", "patches", "patches, all pairs")


def with_gradients(function: Callable[..., Tensor], inputs: Sequence[Tensor]) -> list[Tensor]:
    leaves = [x.detach().requires_grad_() for x in inputs]
    scores = function(*leaves)
    return [scores.detach(), *torch.autograd.grad(scores.square().sum(), leaves)]


def assert_equal(found: Sequence[Tensor], expected: Sequence[Tensor]) -> None:
    assert all(torch.equal(a.cpu(), b.cpu()) for a, b in zip(found, expected, strict=True))


def assert_close(found: Sequence[Tensor], expected: Sequence[Tensor]) -> None:
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a.cpu(), b.cpu(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", SCORINGS)
def test_two_runs_are_equal(name: str, dtype: torch.dtype) -> None:
    function, inputs = scorings(arguments(77, 196, 512, dtype, "cuda"))[name]
    first = with_gradients(function, inputs)
    for _ in range(3):
        assert_equal(with_gradients(function, inputs), first)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", SCORINGS)
def test_work_is_queued_on_the_current_stream(name: str, dtype: torch.dtype) -> None:
    function, inputs = scorings(arguments(5, 49, 64, dtype, "cuda"))[name]
    expected = with_gradients(function, inputs)
    static = [torch.zeros_like(x) for x in inputs]
    side = torch.cuda.Stream()
    torch.cuda.synchronize()
    with torch.cuda.stream(side):
        torch.cuda._sleep(50_000_000)  # cycles; what does not wait for it sees zeros
        for x, value in zip(static, inputs, strict=True):
            x.copy_(value.detach())
        found = with_gradients(function, static)
    side.synchronize()
    assert_close(found, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", SCORINGS)
def test_a_cuda_graph_of_scores_and_gradients(name: str, dtype: torch.dtype) -> None:
    function, inputs = scorings(arguments(5, 49, 64, dtype, "cuda"))[name]
    expected = with_gradients(function, inputs)
    static = [torch.ones_like(x) for x in inputs]
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            with_gradients(function, static)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):  # fails if anything is queued on another stream, or waits
        found = with_gradients(function, static)
    for _ in range(2):
        for x, value in zip(static, inputs, strict=True):
            x.copy_(value.detach())
        graph.replay()
        assert_close(found, expected)
        for x in static:
            x.zero_()


@pytest.mark.filterwarnings("default")  # what the compiler says of itself
@pytest.mark.parametrize(
    ("name", "backend"),
    [("pairs", "inductor"), *((name, "aot_eager") for name in SCORINGS)],
)
def test_compiled_without_graph_breaks(name: str, backend: str) -> None:
    torch._dynamo.reset()
    function, inputs = scorings(arguments(5, 49, 64, torch.float32, "cuda"))[name]
    compiled = torch.compile(function, fullgraph=True, backend=backend)
    assert_close(with_gradients(compiled, inputs), with_gradients(function, inputs))


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
@pytest.mark.parametrize("name", SCORINGS)
def test_another_device_than_the_current_one(name: str) -> None:
    assert torch.cuda.current_device() == 0
    function, inputs = scorings(arguments(5, 49, 64, torch.float32, "cuda:1"))[name]
    found = with_gradients(function, inputs)
    assert all(x.device == torch.device("cuda:1") for x in found)
    function, inputs = scorings(arguments(5, 49, 64, torch.float32))[name]
    assert_close(found, with_gradients(function, inputs))
    assert torch.cuda.current_device() == 0
    assert torch.zeros(1, device="cuda").device == torch.device("cuda:0")


# --- odd inputs -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_text_that_is_all_padding_scores_0_and_passes_no_gradient(dtype: torch.dtype) -> None:
    given = arguments(7, 33, 64, dtype, "cuda")
    given["text_mask"] = torch.zeros_like(given["text_mask"])
    for name in ("pairs", "all pairs"):
        function, inputs = scorings(given)[name]
        for x in with_gradients(function, inputs):
            assert torch.equal(x, torch.zeros_like(x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", SCORINGS)
def test_inputs_that_are_not_contiguous(name: str, dtype: torch.dtype) -> None:
    function, inputs = scorings(arguments(9, 33, 48, dtype, "cuda"))[name]
    expected = with_gradients(function, inputs)
    turned = [x.detach().transpose(0, 2).contiguous().transpose(0, 2) for x in inputs]
    shifted = [torch.nn.functional.pad(x.detach(), (1, 2))[..., 1:-2] for x in inputs]
    for others in (turned, shifted):
        assert not any(x.is_contiguous() for x in others)
        assert_equal(with_gradients(function, others), expected)


@pytest.mark.parametrize("all_pairs", [False, True])
def test_among_equal_patches_the_first_takes_the_gradient(all_pairs: bool) -> None:
    g = torch.Generator().manual_seed(0)
    sketch = torch.randint(-2, 3, (4, 19, 32), generator=g).float()
    photo = torch.randint(-2, 3, (4, 21, 32), generator=g).float()
    found = []
    for device in ("cpu", "cuda"):
        pair = sketch.to(device), photo.to(device).repeat(1, 3, 1)
        found.append(
            with_gradients(lambda s, p: pairwise_token_score(s, p, all_pairs=all_pairs), pair)
        )
    assert_close(found[1], found[0])
    assert bool((found[1][2][:, :21] != 0).any())
    assert bool((found[1][2][:, 21:] == 0).all())  # copies of what came before
