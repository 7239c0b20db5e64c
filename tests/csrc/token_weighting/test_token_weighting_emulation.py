"""The CUDA kernels of token_weighting on CPU threads (cuda_emulation.h) against the reference."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from zsbir_fast.reference import token_weighting as reference

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
# Halves: inputs are exact, sums float32; rounded are gradients and, on tensor cores, weights.
TOLERANCE = {
    torch.float32: 1e-4,
    torch.float64: 1e-10,
    torch.float16: 4e-3,
    torch.bfloat16: 3e-2,
}


@pytest.fixture(scope="module")
def kernels(emulated_library: Callable[[str], ctypes.CDLL]) -> ctypes.CDLL:
    library = emulated_library("token_weighting")
    library.emulated_tensor_cores.restype = ctypes.c_bool
    return library


def addresses(tensors: list[Tensor]) -> ctypes.Array[ctypes.c_void_p]:
    assert all(t.is_contiguous() for t in tensors)
    return (ctypes.c_void_p * len(tensors))(*(t.data_ptr() for t in tensors))


def sizes(*values: int) -> ctypes.Array[ctypes.c_int64]:
    return (ctypes.c_int64 * len(values))(*values)


def close(a: Tensor, b: Tensor, dtype: torch.dtype) -> None:
    tolerance = TOLERANCE[dtype]
    torch.testing.assert_close(a.double(), b.double(), rtol=tolerance, atol=tolerance)


def check_words(
    kernels: ctypes.CDLL,
    dtype: torch.dtype,
    mask: Tensor,
    labels: Tensor,
    patches: tuple[int, int],
    width: int,
    value_width: int,
    *,
    few: bool,
    temperature: float,
    seed: int,
    zero_rows: bool = False,
) -> None:
    """Forward and backward pass of the emulated kernels against the reference in float64."""
    pairs, (classes, words) = len(labels), mask.shape
    g = torch.Generator().manual_seed(seed)
    accumulator = reference.accumulation_dtype(dtype)

    def random(*shape: int, of: torch.dtype = dtype) -> Tensor:
        return torch.randn(shape, generator=g, dtype=torch.float64).to(of)

    text = random(classes, words, width)
    inputs = [text]
    for n in patches:
        inputs += [random(pairs, n, width), random(pairs, n, value_width)]
    if zero_rows and pairs:
        inputs[2][0] = 0
    weights = reference.word_weights(text, mask, None, "uniform")
    shape = (pairs, words, value_width)
    grads = [random(pairs, of=accumulator), *(random(*shape, of=accumulator) for _ in range(2))]
    out = [torch.full((pairs,), torch.nan, dtype=accumulator)]
    out += [torch.full(shape, torch.nan, dtype=accumulator) for _ in range(2)]
    out += [
        torch.full((5, pairs, words), torch.nan, dtype=accumulator),
        torch.full((pairs, words, width), torch.nan, dtype=accumulator),
    ]
    out += [torch.full_like(t, torch.nan) for t in inputs]
    given_tensors = addresses([text, mask, labels, weights, *inputs[1:], *grads])
    half = dtype in (torch.float16, torch.bfloat16)
    for backward in (False, True):
        kernels.emulated_words(
            ctypes.c_int32(DTYPES.index(dtype)),
            sizes(pairs, classes, words, width, value_width, *patches),
            ctypes.c_double(1 / (math.sqrt(width) * temperature)),
            ctypes.c_bool(few),
            given_tensors,
            addresses(out),
            ctypes.c_bool(backward),
        )
        tensor_cores = half and width % 8 == 0 and value_width % 8 == 0
        assert not pairs or kernels.emulated_tensor_cores() == tensor_cores
    exact = [t.double().requires_grad_() for t in inputs]
    wanted = reference.token_weighting(exact[0], mask, *exact[1:], labels, temperature=temperature)
    for got, want in zip(out, wanted[:3], strict=False):
        close(got, want.detach(), dtype)
    total = sum((a * b.double()).sum() for a, b in zip(wanted[:3], grads, strict=True))
    gradients = torch.autograd.grad(total, exact, allow_unused=True)
    for got, want in zip(out[5:], gradients, strict=True):
        close(got, torch.zeros_like(got) if want is None else want, dtype)


@settings(max_examples=6, deadline=None, derandomize=True)
@given(data=st.data())
def test_emulated_words_equal_the_reference(kernels: ctypes.CDLL, data: st.DataObject) -> None:
    draw = data.draw
    pairs, classes = draw(st.integers(0, 2)), draw(st.integers(1, 3))
    words = draw(st.sampled_from([1, 5, 10]))
    seed = draw(st.integers(0, 2**31))
    g = torch.Generator().manual_seed(seed)
    check_words(
        kernels,
        draw(st.sampled_from(DTYPES)),
        torch.rand(classes, words, generator=g) < 0.7,
        torch.randint(0, classes, (pairs,), generator=g),
        (draw(st.sampled_from([1, 5, 35])), draw(st.sampled_from([1, 5, 35]))),
        draw(st.sampled_from([1, 6, 33])),
        draw(st.sampled_from([1, 7, 40])),
        few=draw(st.booleans()),
        temperature=draw(st.sampled_from([1.0, 0.3])),
        seed=seed,
        zero_rows=draw(st.booleans()),
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    ("words", "patches", "width", "value_width", "share", "few"),
    [
        (1, (1, 49), 64, 64, 1.0, False),
        (5, (49, 50), 512, 64, 0.6, False),
        (16, (50, 1), 64, 520, 1.0, False),
        (17, (197, 196), 64, 64, 0.7, False),
        (77, (49, 50), 520, 512, 0.2, False),
        (77, (50, 49), 64, 64, 1.0, True),
        (77, (196, 197), 64, 520, 1.0, False),
        (5, (196, 197), 512, 512, 0.8, False),
    ],
)
def test_emulated_tensor_cores_equal_the_reference(
    kernels: ctypes.CDLL,
    words: int,
    patches: tuple[int, int],
    width: int,
    value_width: int,
    share: float,
    few: bool,
    dtype: torch.dtype,
) -> None:
    g = torch.Generator().manual_seed(words)
    mask = torch.rand(2, words, generator=g) < share
    mask[1] = False  # a text without words
    check_words(
        kernels,
        dtype,
        mask,
        torch.tensor([0, 1]),
        patches,
        width,
        value_width,
        few=few,
        temperature=1.0,
        seed=words,
    )


def run_pairwise(
    kernels: ctypes.CDLL, sketch: Tensor, photo: Tensor, grad: Tensor, *, all_pairs: bool, few: bool
) -> list[Tensor]:
    """Scores, norms, cosines, best photo tokens and both gradients of the emulated kernels."""
    dtype, pairs = grad.dtype, tuple(grad.shape)
    out = [
        torch.full(pairs, torch.nan, dtype=dtype),
        torch.full(sketch.shape[:2], torch.nan, dtype=dtype),
        torch.full(photo.shape[:2], torch.nan, dtype=dtype),
        torch.full((*pairs, sketch.shape[1]), torch.nan, dtype=dtype),
        torch.full((*pairs, sketch.shape[1]), -1, dtype=torch.int32),
        torch.full_like(sketch, torch.nan),
        torch.full_like(photo, torch.nan),
    ]
    kernels.emulated_pairwise(
        ctypes.c_int32(DTYPES.index(sketch.dtype)),
        sizes(*sketch.shape[:2], *photo.shape),
        ctypes.c_bool(all_pairs),
        ctypes.c_bool(few),
        addresses([sketch, photo, grad]),
        addresses(out),
    )
    return out


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("all_pairs", [False, True])
def test_emulated_pairwise_keeps_what_is_not_finite(
    kernels: ctypes.CDLL, value: float, all_pairs: bool
) -> None:
    """A maximum passes over NaN; the kernels do not, wherever the token is."""
    g = torch.Generator().manual_seed(0)
    sketch, photo = torch.randn(3, 5, 40, generator=g), torch.randn(3, 70, 40, generator=g)
    photo[1, 3], sketch[2, 4] = 0, 0
    photo[1, 3, 35] = sketch[2, 4, 35] = value
    grad = torch.ones((3, 3)[: 1 + all_pairs])
    found = run_pairwise(kernels, sketch, photo, grad, all_pairs=all_pairs, few=False)
    wanted = reference.pairwise_token_score(sketch, photo, all_pairs=all_pairs)
    assert torch.equal(found[0].isnan(), wanted.isnan())
    assert wanted.isnan().any()
    assert not wanted.isnan().all()


def test_emulated_words_keep_what_is_not_finite(kernels: ctypes.CDLL) -> None:
    """A pooled row of NaN beside zeros is no row of zeros."""
    g = torch.Generator().manual_seed(0)
    text, keys = torch.randn(1, 2, 6, generator=g), torch.randn(2, 3, 6, generator=g)
    values = torch.zeros(2, 3, 6)
    values[1, 2, 5] = torch.nan
    shape, mask, labels = (2, 2, 6), torch.ones(1, 2, dtype=torch.bool), torch.zeros(2).long()
    out = [torch.zeros(2), torch.zeros(shape), torch.zeros(shape), torch.zeros(5, 2, 2)]
    out += [torch.zeros(shape), *(torch.zeros(s) for s in ((1, 2, 6), *[(2, 3, 6)] * 4))]
    given_tensors = [text, mask, labels, torch.full((1, 2), 0.5), keys, values, keys, keys]
    given_tensors += [torch.zeros(2), torch.zeros(shape), torch.zeros(shape)]
    kernels.emulated_words(
        ctypes.c_int32(0),
        sizes(2, 1, 2, 6, 6, 3, 3),
        ctypes.c_double(0.5),
        ctypes.c_bool(False),
        addresses(given_tensors),
        addresses(out),
        ctypes.c_bool(False),
    )
    assert out[0].isnan().tolist() == [False, True]


@settings(max_examples=6, deadline=None, derandomize=True)
@given(data=st.data())
def test_emulated_pairwise_equals_the_reference(kernels: ctypes.CDLL, data: st.DataObject) -> None:
    draw = data.draw
    dtype = draw(st.sampled_from(DTYPES))
    all_pairs, few = draw(st.booleans()), draw(st.booleans())
    sketches = draw(st.integers(0, 2))
    photos = draw(st.integers(0, 2)) if all_pairs else sketches
    patches = [draw(st.sampled_from([1, 5, 33])) for _ in range(2)]
    width = draw(st.sampled_from([1, 6, 40]))
    g = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    accumulator = reference.accumulation_dtype(dtype)
    sketch = torch.randn(sketches, patches[0], width, generator=g).to(dtype)
    photo = torch.randn(photos, patches[1], width, generator=g).to(dtype)
    if draw(st.booleans()):  # ties, and a zero row
        photo[:, -1] = photo[:, 0]
        sketch[:, 0] = 0
    grad = torch.randn((sketches, photos)[: 1 + all_pairs], generator=g).to(accumulator)
    out = run_pairwise(kernels, sketch, photo, grad, all_pairs=all_pairs, few=few)
    exact = [t.to(accumulator).requires_grad_() for t in (sketch, photo)]
    scores = reference.pairwise_token_score(*exact, all_pairs=all_pairs)
    close(out[0], scores.detach(), dtype)
    if width > 1 and dtype == torch.float64:  # cosines of one column are all 1: any rounding wins
        for got, want in zip(out[5:], torch.autograd.grad(scores, exact, grad), strict=True):
            close(got, want, dtype)
