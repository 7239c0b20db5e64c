"""The token weighting reference against loops that follow the equations word by word."""

from __future__ import annotations

import math

import pytest
import torch

from zsbir_fast.reference import token_weighting as reference
from zsbir_fast.reference import token_weighting_gradients as gradients


def random_case(
    *, classes=3, words=4, sketch_patches=5, photo_patches=3, width=6, values=7, seed=0
):
    g = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    batch = 5
    mask = torch.rand(classes, words, generator=g) < 0.6
    mask[0] = False
    labels = torch.tensor([0, 1, 2, 2, 1])
    return {
        "text": draw(classes, words, width),
        "text_mask": mask,
        "sketch_keys": draw(batch, sketch_patches, width),
        "sketch_values": draw(batch, sketch_patches, values),
        "photo_keys": draw(batch, photo_patches, width),
        "photo_values": draw(batch, photo_patches, values),
        "labels": labels,
        "text_global": draw(classes, width),
    }


def loop_pooled(query, keys, values, temperature):
    logits = [float(query @ k) / (math.sqrt(len(query)) * temperature) for k in keys]
    total = sum(math.exp(x) for x in logits)
    attention = [math.exp(x) / total for x in logits]
    return sum(a * v for a, v in zip(attention, values, strict=True)), attention


def loop_cosine(a, b):
    return float(a @ b) / math.sqrt(float(a @ a) * float(b @ b))


def loop_score(case, pair, temperature, beta):
    label = int(case["labels"][pair])
    words = [j for j in range(case["text"].shape[1]) if case["text_mask"][label, j]]
    if not words:
        return 0.0
    if beta == "uniform":
        betas = [1 / len(words)] * len(words)
    else:
        width = case["text"].shape[2]
        exps = [
            math.exp(float(case["text"][label, j] @ case["text_global"][label]) / math.sqrt(width))
            for j in words
        ]
        betas = [e / sum(exps) for e in exps]
    score = 0.0
    for weight, j in zip(betas, words, strict=True):
        query = case["text"][label, j]
        sketch, _ = loop_pooled(
            query, case["sketch_keys"][pair], case["sketch_values"][pair], temperature
        )
        photo, _ = loop_pooled(
            query, case["photo_keys"][pair], case["photo_values"][pair], temperature
        )
        score += weight * loop_cosine(sketch, photo)
    return score


@pytest.mark.parametrize("beta", ["uniform", "text_attention"])
@pytest.mark.parametrize("temperature", [1.0, 0.3])
def test_scores_follow_the_equations(beta, temperature):
    case = random_case()
    scores = reference.token_weighting(**case, temperature=temperature, beta=beta).scores
    expected = [loop_score(case, b, temperature, beta) for b in range(5)]
    torch.testing.assert_close(scores, torch.tensor(expected, dtype=torch.float64))
    assert scores[0] == 0  # class 0 has no valid word


def test_pooled_rows_and_attention_follow_the_equations():
    case = random_case()
    result = reference.token_weighting(**case)
    for pair in range(5):
        label = int(case["labels"][pair])
        for j in range(4):
            pooled, attention = loop_pooled(
                case["text"][label, j], case["photo_keys"][pair], case["photo_values"][pair], 1.0
            )
            valid = float(case["text_mask"][label, j])
            torch.testing.assert_close(result.photo_pooled[pair, j], pooled * valid)
            torch.testing.assert_close(
                result.photo_attention[pair, j],
                torch.tensor(attention, dtype=torch.float64) * valid,
            )


def test_a_case_computed_by_hand():
    # One word [1, 0]; sqrt(D) * temperature = 1. Sketch keys score log 3 and 0: attention 3/4, 1/4.
    text = torch.tensor([[[1.0, 0.0]]])
    keys = torch.tensor([[[math.log(3), 5.0], [0.0, -5.0]]])
    values = torch.tensor([[[4.0, 0.0], [0.0, 4.0]]])
    photo_values = torch.tensor([[[1.0, 0.0], [1.0, 0.0]]])
    result = reference.token_weighting(
        text,
        torch.tensor([[True]]),
        keys,
        values,
        keys,
        photo_values,
        torch.tensor([0]),
        temperature=1 / math.sqrt(2),
    )
    torch.testing.assert_close(result.sketch_pooled, torch.tensor([[[3.0, 1.0]]]))
    torch.testing.assert_close(result.scores, torch.tensor([3 / math.sqrt(10)]))


@pytest.mark.parametrize("beta", ["uniform", "text_attention"])
def test_gradients(beta):
    case = random_case(words=3, sketch_patches=3, photo_patches=2, width=3, values=3)
    names = ["text", "sketch_keys", "sketch_values", "photo_keys", "photo_values", "text_global"]

    def scores(*tensors):
        given = {**case, **dict(zip(names, tensors, strict=True))}
        result = reference.token_weighting(**given, beta=beta)
        return result.scores, result.sketch_pooled, result.photo_pooled

    assert torch.autograd.gradcheck(scores, [case[name].requires_grad_() for name in names])


def test_a_class_without_words_passes_no_gradient():
    case = random_case()
    for name in ("text", "sketch_keys", "sketch_values", "photo_keys", "photo_values"):
        case[name].requires_grad_()
    reference.token_weighting(**case).scores.sum().backward()
    assert (case["text"].grad[0] == 0).all()
    for name in ("sketch_keys", "sketch_values", "photo_keys", "photo_values"):
        assert (case[name].grad[0] == 0).all(), name
        assert (case[name].grad[1] != 0).any(), name


def test_zero_values_score_zero_with_zero_gradient():
    case = random_case()
    case["sketch_values"] = torch.zeros_like(case["sketch_values"]).requires_grad_()
    case["photo_values"].requires_grad_()
    scores = reference.token_weighting(**case).scores
    scores.sum().backward()
    assert (scores == 0).all()
    assert (case["sketch_values"].grad == 0).all()
    assert (case["photo_values"].grad == 0).all()


@pytest.mark.parametrize("scale", [1e-25, 1e-12, 1.0, 1e18])
def test_the_cosine_is_finite_and_right_at_any_scale(scale):
    a = (torch.tensor([[3.0, 4.0]]) * scale).requires_grad_()
    b = torch.tensor([[4.0, 3.0]]) * scale
    cosine = reference.safe_cosine(a, b)
    cosine.backward()
    torch.testing.assert_close(cosine, torch.tensor([0.96]))
    assert a.grad.isfinite().all()


def test_half_precision_is_accumulated_in_float32():
    case = random_case()
    exact = reference.token_weighting(**case).scores
    half = {k: v.bfloat16() if v.is_floating_point() else v for k, v in case.items()}
    scores = reference.token_weighting(**half).scores
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores.double(), exact, atol=0.03, rtol=0)


def test_pairwise_score_follows_its_definition():
    g = torch.Generator().manual_seed(1)
    sketch = torch.randn(2, 4, 3, generator=g, dtype=torch.float64)
    photo = torch.randn(2, 5, 3, generator=g, dtype=torch.float64)
    expected = [
        sum(max(loop_cosine(s, p) for p in photo[b]) for s in sketch[b]) / 4 for b in range(2)
    ]
    scores = reference.pairwise_token_score(sketch, photo)
    torch.testing.assert_close(scores, torch.tensor(expected, dtype=torch.float64))
    inputs = (sketch.requires_grad_(), photo.requires_grad_())
    assert torch.autograd.gradcheck(reference.pairwise_token_score, inputs)


def test_pairwise_ties_take_the_lowest_photo_token():
    sketch = torch.tensor([[[1.0, 1.0]]])
    photo = torch.tensor([[[2.0, 0.0], [2.0, 0.0]]], requires_grad=True)
    reference.pairwise_token_score(sketch, photo).sum().backward()
    assert (photo.grad[0, 0] != 0).any()
    assert (photo.grad[0, 1] == 0).all()


def test_alignment_weights_by_hand():
    local, global_ = torch.tensor([1.0, 0.0]), torch.tensor([0.6, 0.2])
    # mix 0.5: qualities 0.8 and 0.1
    weigh = reference.alignment_weights
    e = math.exp((0.8 - 0.1) / 0.7)
    torch.testing.assert_close(
        weigh(local, global_, temperature=0.7), torch.tensor([2 * e / (1 + e), 2 / (1 + e)])
    )
    torch.testing.assert_close(weigh(local, global_, form="mean"), torch.tensor([1.8, 1.1]) / 1.45)
    sigmoids = torch.tensor([0.8, 0.1]).div(0.7).sigmoid()
    torch.testing.assert_close(
        weigh(local, global_, form="sigmoid", temperature=0.7), sigmoids / sigmoids.mean()
    )
    torch.testing.assert_close(weigh(local, global_, form="raw"), torch.tensor([0.8, 0.1]))
    torch.testing.assert_close(
        weigh(local, global_, form="raw", mix=0.25), torch.tensor([0.7, 0.15])
    )


def test_mean_weights_of_the_worst_pairs_are_one():
    worst = torch.tensor([-1.0, -1.0], requires_grad=True)
    weights = reference.alignment_weights(worst, worst, form="mean")
    weights.sum().backward()
    torch.testing.assert_close(weights.detach(), torch.ones(2))
    assert worst.grad.isfinite().all()


@pytest.mark.parametrize("sides", [1, 2])
def test_written_out_gradients_are_those_of_autograd(sides):
    """The operators of devices without a kernel, which cannot use autograd."""
    case = random_case()
    case.pop("text_global")
    g = torch.Generator().manual_seed(3)
    weights = case["text_mask"].double() / 3
    text, mask, *patches, labels = case.values()
    photo = patches[2:] if sides == 2 else [None, None]
    given = (text, mask, weights if sides == 2 else None, *patches[:2], *photo, labels, 0.7)
    scores, *pooled, stats = gradients.token_weighting_forward(*given, 2)
    grads = [torch.randn(x.shape, generator=g, dtype=torch.float64) for x in (scores, *pooled)]
    found = gradients.token_weighting_backward(
        *(grads if sides == 2 else (None, grads[1], None)), *given, *pooled, stats
    )
    leaves = [text, weights, *patches]
    for leaf in leaves:
        leaf.requires_grad_()
    wanted = reference.token_weighting(**case, temperature=0.7)
    outputs = [(weights[labels] * stats_of(wanted)).sum(1), *wanted[1:3]]
    used = range(3) if sides == 2 else (1,)
    total = sum((outputs[i] * grads[i]).sum() for i in used)
    for got, want in zip(found, torch.autograd.grad(total, leaves, allow_unused=True), strict=True):
        torch.testing.assert_close(got, torch.zeros_like(got) if want is None else want)


def stats_of(result):
    return reference.safe_cosine(result.sketch_pooled, result.photo_pooled)


@pytest.mark.parametrize("all_pairs", [False, True])
def test_written_out_pairwise_gradients_are_those_of_autograd(all_pairs):
    g = torch.Generator().manual_seed(1)
    sketch = torch.randn(3, 4, 5, generator=g, dtype=torch.float64)
    photo = torch.randn(3, 6, 5, generator=g, dtype=torch.float64)
    scores, *kept = gradients.pairwise_forward(sketch, photo, all_pairs)
    grad = torch.randn(scores.shape, generator=g, dtype=torch.float64)
    found = gradients.pairwise_backward(grad, sketch, photo, all_pairs, *kept)
    leaves = (sketch.requires_grad_(), photo.requires_grad_())
    wanted = reference.pairwise_token_score(*leaves, all_pairs=all_pairs)
    torch.testing.assert_close(scores, wanted.detach())
    for got, want in zip(found, torch.autograd.grad(wanted, leaves, grad), strict=True):
        torch.testing.assert_close(got, want)
