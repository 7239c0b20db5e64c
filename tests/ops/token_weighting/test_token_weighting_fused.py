"""The fused token weighting against the reference: values, gradients, and how torch sees it."""

from __future__ import annotations

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zsbir_fast.ops.token_weighting import pairwise_token_score, token_weighting

FLOATS = ["text", "sketch_keys", "sketch_values", "photo_keys", "photo_values"]
DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
# Halves: sums are float32, gradients are rounded once.
TOLERANCE = dict(zip(DTYPES, (2e-4, 1e-9, 4e-3, 3e-2), strict=True))
LEVELS = ["baseline", "avx2", "avx512"]


def arguments(
    words=4,
    sketch_patches=7,
    photo_patches=3,
    width=6,
    value_width=8,
    *,
    pairs=5,
    photos=None,
    classes=3,
    dtype=torch.float64,
    seed=0,
):
    g = torch.Generator().manual_seed(seed)

    def random(*shape):
        return torch.randn(*shape, generator=g, dtype=torch.float64).to(dtype)

    photos = pairs if photos is None else photos
    mask = torch.rand(classes, words, generator=g) < 0.7
    mask[0] = False  # a class without words
    return {
        "text": random(classes, words, width),
        "text_mask": mask,
        "sketch_keys": random(pairs, sketch_patches, width),
        "sketch_values": random(pairs, sketch_patches, value_width),
        "photo_keys": random(photos, photo_patches, width),
        "photo_values": random(photos, photo_patches, value_width),
        "labels": torch.arange(pairs) % classes,
    }


def leaves(case, names=FLOATS):
    return {k: v.detach().clone().requires_grad_() if k in names else v for k, v in case.items()}


def results(case, **options):
    """Scores, pooled rows where there are some, and the gradients of a sum with weights."""
    case = leaves(case)
    out = token_weighting(**case, **options)
    out = [out] if isinstance(out, torch.Tensor) else list(out[:3])
    g = torch.Generator().manual_seed(1)
    loss = sum((x * torch.randn(x.shape, generator=g).to(x)).sum() for x in out)
    loss.backward()
    gradients = [case[name].grad for name in FLOATS]
    return [x.detach() for x in out] + [
        torch.zeros_like(case[n]) if x is None else x
        for n, x in zip(FLOATS, gradients, strict=True)
    ]


def assert_close(got, wanted, dtype):
    tolerance = TOLERANCE[dtype]
    for a, b in zip(got, wanted, strict=True):
        assert a.dtype == b.dtype
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data())
def test_fused_equals_reference(data):
    draw = data.draw
    dtype = draw(st.sampled_from(DTYPES))
    pairs = draw(st.integers(0, 5))
    case = arguments(
        draw(st.sampled_from([0, 1, 5, 16, 77])),
        draw(st.sampled_from([1, 3, 49, 50])),
        draw(st.sampled_from([1, 4, 49, 66])),
        draw(st.sampled_from([1, 15, 16, 33, 64])),
        draw(st.sampled_from([1, 17, 64, 70])),
        pairs=pairs,
        dtype=dtype,
        seed=draw(st.integers(0, 1000)),
    )
    if draw(st.booleans()):
        case["sketch_values"][:1] = 0  # zero rows
    if draw(st.booleans()):  # other strides
        case["photo_keys"] = case["photo_keys"].transpose(0, 1).contiguous().transpose(0, 1)
        case["sketch_values"] = case["sketch_values"].repeat_interleave(2, 2)[:, :, ::2]
    options = {
        "temperature": draw(st.sampled_from([1.0, 0.2])),
        "return_pooled": draw(st.booleans()),
        "beta": draw(st.sampled_from(["uniform", "text_attention"])),
        "text_global": case["text"].sum(1),
    }
    wanted = results(case, impl="reference", **options)
    assert_close(results(case, **options), wanted, dtype)


@pytest.mark.parametrize(
    ("words", "patches", "width"), [(77, 196, 512), (16, 197, 768), (5, 257, 512), (77, 50, 64)]
)
def test_sizes_of_real_models(words, patches, width):
    case = arguments(words, patches, 49, width, width, pairs=3, dtype=torch.float32)
    assert_close(results(case), results(case, impl="reference"), torch.float32)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_simd_levels_agree(monkeypatch, dtype):
    case = arguments(19, 37, 50, 70, 75, dtype=dtype)
    tokens = case["sketch_keys"], case["photo_keys"]
    wanted = results(case, impl="reference"), pairwise_token_score(*tokens, impl="reference")
    for level in LEVELS:
        monkeypatch.setenv("ZSBIR_SIMD", level)
        assert_close(results(case), wanted[0], dtype)
        torch.testing.assert_close(pairwise_token_score(*tokens), wanted[1], rtol=1e-5, atol=1e-5)


def test_threads_change_no_bit(set_threads):
    case = arguments(9, 33, 50, 64, 64, pairs=40, dtype=torch.float32)
    found = []
    for threads in (1, 2, 3):
        set_threads(threads)
        found.append(results(case))
    assert all(
        torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True)
    )


@pytest.mark.parametrize("scale", [1e-20, 1e15])
def test_any_scale_of_values(scale):
    case = arguments(dtype=torch.float32)
    for name in ("sketch_values", "photo_values"):
        case[name] *= scale
    scores, *gradients = results(case)
    torch.testing.assert_close(scores, results(case, impl="reference")[0])
    assert all(x.isfinite().all() for x in gradients)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_the_largest_finite_halves_give_finite_scores(dtype):
    case = arguments(dtype=dtype)
    for name in FLOATS:
        case[name] = torch.full_like(case[name], 6e4) * case[name].sign()
    assert token_weighting(**case).isfinite().all()


def test_attention_maps_are_differentiable():
    case = leaves(arguments())
    fused = token_weighting(**case, return_attention=True)
    wanted = token_weighting(**case, return_attention=True, impl="reference")
    torch.testing.assert_close(fused.photo_attention, wanted.photo_attention)
    assert fused.sketch_attention.requires_grad


# --- all pairs ------------------------------------------------------------------------------------


@pytest.mark.parametrize("photos", [0, 1, 4, 7])
@pytest.mark.parametrize("chunk", [1, 10**6])
def test_all_pairs_equal_the_pairs_one_by_one(monkeypatch, photos, chunk):
    monkeypatch.setattr("zsbir_fast.ops.token_weighting.pairs._CHUNK_ELEMENTS", chunk)
    case = arguments(photos=photos)
    fused, wanted = results(case, all_pairs=True), results(case, all_pairs=True, impl="reference")
    assert fused[0].shape == (5, photos)
    assert_close(fused, wanted, torch.float64)


def test_all_pairs_return_scores_alone():
    with pytest.raises(ValueError, match="return_pooled and return_attention must be False with"):
        token_weighting(**arguments(), all_pairs=True, return_pooled=True)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(data=st.data())
def test_pairwise_equals_reference(data):
    draw = data.draw
    dtype, all_pairs = draw(st.sampled_from(DTYPES)), draw(st.booleans())
    g = torch.Generator().manual_seed(draw(st.integers(0, 1000)))
    sketches = draw(st.integers(0, 4))
    photos = draw(st.integers(0, 4)) if all_pairs else sketches
    width = draw(st.sampled_from([2, 16, 33, 64]))
    sketch = torch.randn(sketches, draw(st.sampled_from([1, 5, 49])), width, generator=g)
    photo = torch.randn(photos, draw(st.sampled_from([1, 6, 50])), width, generator=g)
    if draw(st.booleans()):  # ties, and a zero row
        photo[:, -1] = photo[:, 0]
        sketch[:, 0] = 0
    found = []
    for impl in ("fused", "reference"):
        tokens = [t.to(dtype).requires_grad_() for t in (sketch, photo)]
        scores = pairwise_token_score(*tokens, all_pairs=all_pairs, impl=impl)
        gradients = torch.autograd.grad(scores.square().sum(), tokens, allow_unused=True)
        found.append([scores, *gradients])
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-4, atol=1e-4)
    if dtype in (torch.float32, torch.float64):  # among halves rounding decides near ties
        assert_close(found[0], found[1], dtype)


# --- torch ----------------------------------------------------------------------------------------


def flat(case, **options):
    """A function of the differentiable tensors alone."""

    def function(*tensors):
        out = token_weighting(**{**case, **dict(zip(FLOATS, tensors, strict=True))}, **options)
        return out if isinstance(out, torch.Tensor) else tuple(out)[:3]

    return function, [case[name].clone().requires_grad_() for name in FLOATS]


def pairwise(all_pairs=False):
    tokens = [arguments()[name].requires_grad_() for name in ("sketch_keys", "photo_keys")]
    return lambda a, b: pairwise_token_score(a, b, all_pairs=all_pairs), tokens


FUNCTIONS = {
    "scores": lambda: flat(arguments()),
    "pooled": lambda: flat(arguments(), return_pooled=True),
    "text_attention": lambda: flat(
        arguments(), beta="text_attention", text_global=torch.ones(3, 6, dtype=torch.float64)
    ),
    "all_pairs": lambda: flat(arguments(photos=2), all_pairs=True),
    "pairwise": pairwise,
    "pairwise_all": lambda: pairwise(all_pairs=True),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_gradcheck(name):
    function, tensors = FUNCTIONS[name]()
    assert torch.autograd.gradcheck(function, tensors)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_compile_in_one_graph(name):
    torch._dynamo.reset()
    found = []
    for compiled in (False, True):
        function, tensors = FUNCTIONS[name]()
        if compiled:
            function = torch.compile(function, fullgraph=True, backend="aot_eager")
        out = function(*tensors)
        out = [out] if isinstance(out, torch.Tensor) else list(out)
        sum(x.square().sum() for x in out).backward()
        found.append([*out, *(t.grad for t in tensors)])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_opcheck():
    case = arguments()
    weights = case["text_mask"].double().requires_grad_()
    text, mask, *patches, labels = (
        x.requires_grad_() if x.is_floating_point() else x for x in case.values()
    )
    full = (text, mask, weights, *patches, labels, 0.5, 2)
    ops = torch.ops.zsbir
    torch.library.opcheck(ops.token_weighting.default, full)
    torch.library.opcheck(
        ops.token_weighting.default, (text, mask, None, *patches[:2], None, None, labels, 0.5, 2)
    )
    with torch.no_grad():
        given = [x.detach() if isinstance(x, torch.Tensor) else x for x in full]
        scores, *kept = ops.token_weighting(*given)
        torch.library.opcheck(
            ops.token_weighting_backward.default, (scores, kept[0], None, *given[:-1], *kept)
        )
    tokens = (patches[0], patches[2], True)
    torch.library.opcheck(ops.pairwise_token_score.default, tokens)
    with torch.no_grad():
        scores, *kept = ops.pairwise_token_score(*tokens)
        torch.library.opcheck(
            ops.pairwise_token_score_backward.default,
            (scores, tokens[0].detach(), tokens[1].detach(), True, *kept),
        )


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # of torch itself
@pytest.mark.parametrize("name", ["scores", "pairwise"])
def test_what_has_no_kernel_is_refused(name):
    function, tensors = FUNCTIONS[name]()
    first, *others = tensors
    use = "not supported by the kernels"
    gradient = torch.autograd.grad(function(*tensors).sum(), first, create_graph=True)[0]
    with pytest.raises(NotImplementedError, match=f"second derivatives are {use}"):
        gradient.sum().backward()
    message = re.escape(f"torch.func transforms (grad, vmap, jvp, ...) are {use}")

    def of_first(x):
        return function(x, *(t.detach() for t in others))

    x = first.detach()
    with pytest.raises(NotImplementedError, match=message):
        torch.func.vmap(of_first)(torch.stack([x, x]))
    with pytest.raises(NotImplementedError, match=message):
        torch.func.grad(lambda x: of_first(x).sum())(x)
    dual = pytest.raises(NotImplementedError, match="forward-mode differentiation are not")
    with torch.autograd.forward_ad.dual_level(), dual:
        of_first(torch.autograd.forward_ad.make_dual(x, x))


@pytest.mark.parametrize("impl", ["fused", "reference"])
def test_autocast_casts_the_inputs(impl):
    case = arguments(dtype=torch.float32)
    halves = {k: v.bfloat16() if k in FLOATS else v for k, v in case.items()}
    tokens = case["sketch_keys"], case["photo_keys"]
    wanted = token_weighting(**halves, impl=impl)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        scores = token_weighting(**case, impl=impl)
        pair = pairwise_token_score(*tokens, impl=impl)
    assert scores.dtype == pair.dtype == torch.float32
    assert torch.equal(scores, wanted)


def test_deterministic_algorithms():
    torch.use_deterministic_algorithms(True)
    try:
        found = [results(arguments(dtype=torch.float32), all_pairs=all_) for all_ in (False, True)]
    finally:
        torch.use_deterministic_algorithms(False)
    for all_, result in zip((False, True), found, strict=True):
        wanted = results(arguments(dtype=torch.float32), all_pairs=all_, impl="reference")
        assert_close(result, wanted, torch.float32)


def test_without_gradient_nothing_is_kept():
    with torch.no_grad():
        case = arguments()
        weights = case["text_mask"].double()
        text, mask, *rest = case.values()
        given = (text, mask, weights, *rest, 1.0, 0)
        assert torch.ops.zsbir.token_weighting(*given)[1].numel() == 0
    with pytest.raises(RuntimeError, match="keep must be 1 or 2 for a backward pass, got 0"):
        torch.ops.zsbir.token_weighting(text.requires_grad_(), *given[1:])[0].sum().backward()


ERRORS = [
    ({"labels": torch.tensor([0, 1, 3, 0, 1])}, ValueError, "labels must be in [0, 3), got 3"),
    ({"labels": torch.tensor([0, 1, -1, 0, 1])}, ValueError, "labels must be in [0, 3), got -1"),
    (
        {"sketch_keys": torch.zeros(5, 7, 6)},
        TypeError,
        "sketch_keys must be torch.float64 like text, got torch.float32",
    ),
    (
        {"text": torch.zeros(3, 4, 6, dtype=torch.int64)},
        TypeError,
        "text must be one of float32, float64, float16, bfloat16, got torch.int64",
    ),
    ({"impl": "cuda"}, ValueError, "impl must be one of fused, reference, got 'cuda'"),
    (
        {"photo_values": torch.zeros(5, 3, 8, dtype=torch.float64, device="meta")},
        ValueError,
        "photo_values must be on cpu like text, got meta",
    ),
]


@pytest.mark.parametrize(("change", "error", "message"), ERRORS)
def test_wrong_arguments_are_named(change, error, message):
    with pytest.raises(error, match=re.escape(f"token_weighting: {message}")):
        token_weighting(**{**arguments(), **change})
