"""The public operators of the token weighting: what they return and what they refuse."""

from __future__ import annotations

import re

import pytest
import torch

from zsbir_fast.ops.token_weighting import (
    TokenWeighting,
    alignment_weights,
    pairwise_token_score,
    token_weighting,
)
from zsbir_fast.reference import token_weighting as reference


def arguments():
    g = torch.Generator().manual_seed(0)
    return {
        "text": torch.randn(3, 4, 6, generator=g),
        "text_mask": torch.tensor([[True] * n + [False] * (4 - n) for n in (4, 1, 0)]),
        "sketch_keys": torch.randn(5, 7, 6, generator=g),
        "sketch_values": torch.randn(5, 7, 8, generator=g),
        "photo_keys": torch.randn(5, 3, 6, generator=g),
        "photo_values": torch.randn(5, 3, 8, generator=g),
        "labels": torch.tensor([0, 1, 2, 0, 1]),
    }


def test_it_returns_scores_unless_asked_for_more():
    given = arguments()
    expected = reference.token_weighting(**given)
    scores = token_weighting(**given)
    torch.testing.assert_close(scores, expected.scores)
    pooled = token_weighting(**given, return_pooled=True)
    assert isinstance(pooled, TokenWeighting)
    assert pooled.sketch_attention is None
    torch.testing.assert_close(pooled.photo_pooled, expected.photo_pooled)
    full = token_weighting(**given, return_attention=True)
    assert full.sketch_attention.shape == (5, 4, 7)
    # Attention sums to 1 for valid words and to 0 for padding.
    mask = given["text_mask"][given["labels"]].float()
    torch.testing.assert_close(full.photo_attention.sum(2), mask)


def test_options_reach_the_reference():
    given = arguments()
    text_global = torch.ones(3, 6)
    scores = token_weighting(
        **given, text_global=text_global, beta="text_attention", temperature=0.1
    )
    expected = reference.token_weighting(
        **given, text_global=text_global, beta="text_attention", temperature=0.1
    )
    torch.testing.assert_close(scores, expected.scores)
    assert not torch.allclose(scores, token_weighting(**given))


def test_global_block_is_the_case_of_one_word():
    given = arguments()
    del given["text_mask"]
    whole = given.pop("text")[:, :1]
    scores = token_weighting(whole, torch.ones(3, 1, dtype=torch.bool), **given)
    query = whole[given["labels"]]
    pooled = [
        (query @ given[f"{m}_keys"].mT / 6**0.5).softmax(2) @ given[f"{m}_values"]
        for m in ("sketch", "photo")
    ]
    torch.testing.assert_close(scores, torch.cosine_similarity(*pooled, dim=2)[:, 0])


def test_an_empty_batch_gives_no_scores():
    given = {k: v[:0] if "text" not in k else v for k, v in arguments().items()}
    assert token_weighting(**given).shape == (0,)


@pytest.mark.parametrize("impl", ["fused", "reference"])
def test_all_pairs_without_sketches_give_gradients_of_zeros(impl):
    given = arguments()
    given |= {k: given[k][:0] for k in ("sketch_keys", "sketch_values", "labels")}
    leaves = {k: given[k].requires_grad_() for k in given if given[k].is_floating_point()}
    scores = token_weighting(**given, all_pairs=True, impl=impl)
    assert scores.shape == (0, 5)
    scores.sum().backward()
    for name, leaf in leaves.items():
        assert torch.equal(leaf.grad, torch.zeros_like(leaf)), name


@pytest.mark.parametrize("impl", ["fused", "reference"])
def test_all_pairs_take_tensors_of_inference_mode(impl):
    with torch.inference_mode():
        given = arguments()
    want = token_weighting(**arguments(), all_pairs=True)
    scores = token_weighting(**given, all_pairs=True, impl=impl)
    torch.testing.assert_close(scores, want)


ERRORS = [
    ({"text": torch.zeros(3, 6)}, ValueError, "text must be [C, L, D], got [3, 6]"),
    ({"text_mask": torch.ones(3, 4)}, TypeError, "text_mask must be bool, got torch.float32"),
    (
        {"text_mask": torch.ones(3, 5, dtype=torch.bool)},
        ValueError,
        "text_mask must be [3, 4] like text, got [3, 5]",
    ),
    (
        {"labels": torch.zeros(5)},
        TypeError,
        "labels must be integers, got torch.float32",
    ),
    (
        {"labels": torch.zeros(5, 1, dtype=torch.int64)},
        ValueError,
        "labels must be [5], got [5, 1]",
    ),
    (
        {"sketch_keys": torch.zeros(5, 7, 5)},
        ValueError,
        "sketch_keys must be [5, N, 6] with N >= 1, got [5, 7, 5]",
    ),
    (
        {"photo_keys": torch.zeros(5, 0, 6)},
        ValueError,
        "photo_keys must be [5, N, 6] with N >= 1, got [5, 0, 6]",
    ),
    (
        {"photo_values": torch.zeros(5, 4, 8)},
        ValueError,
        "photo_values must be [5, 3, V], got [5, 4, 8]",
    ),
    (
        {"photo_values": torch.zeros(5, 3, 9)},
        ValueError,
        "photo_values must be 8 wide like sketch_values, got 9",
    ),
    ({"temperature": 0.0}, ValueError, "temperature must be positive, got 0.0"),
    (
        {"temperature": 10**400},
        ValueError,
        "temperature must be in the range of floats, got an integer of 1329 bits",
    ),
    (
        {"beta": "softmax"},
        ValueError,
        "beta must be one of uniform, text_attention, got 'softmax'",
    ),
    (
        {"beta": "text_attention"},
        ValueError,
        "text_global must be [3, 6] for beta='text_attention', got None",
    ),
]


@pytest.mark.parametrize(("change", "error", "message"), ERRORS)
def test_wrong_arguments_are_named(change, error, message):
    with pytest.raises(error, match=re.escape(f"token_weighting: {message}")):
        token_weighting(**{**arguments(), **change})


@pytest.mark.parametrize(
    ("sketch", "photo", "message"),
    [
        ((2, 3), (2, 4, 3), "sketch_tokens must be [B, N, D] with N >= 1, got [2, 3]"),
        ((2, 4, 3), (2, 0, 3), "photo_tokens must be [B, N, D] with N >= 1, got [2, 0, 3]"),
        (
            (2, 4, 3),
            (2, 4, 5),
            "photo_tokens must agree with sketch_tokens in B and D, got [2, 4, 3] and [2, 4, 5]",
        ),
    ],
)
def test_pairwise_score_names_wrong_shapes(sketch, photo, message):
    with pytest.raises(ValueError, match=re.escape(f"pairwise_token_score: {message}")):
        pairwise_token_score(torch.zeros(sketch), torch.zeros(photo))


def test_pairwise_score_of_equal_tokens_is_one():
    tokens = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(pairwise_token_score(tokens, tokens.flip(1)), torch.ones(2))


@pytest.mark.parametrize("form", ["softmax", "mean", "sigmoid"])
def test_alignment_weights_have_mean_one_and_follow_the_quality(form):
    quality = torch.tensor([-0.9, 0.1, 0.8, 0.2])
    weights = alignment_weights(quality, quality, form=form)
    torch.testing.assert_close(weights.mean(), torch.tensor(1.0))
    assert weights.argsort().tolist() == quality.argsort().tolist()
    assert (weights >= 0).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"local": torch.zeros(3, 1)}, "local and global_ must both be [B], got [3, 1] and [3]"),
        ({"local": torch.zeros(2)}, "local and global_ must both be [B], got [2] and [3]"),
        ({"mix": 1.5}, "mix must be in [0, 1], got 1.5"),
        ({"temperature": -1.0}, "temperature must be positive, got -1.0"),
        ({"form": "max"}, "form must be one of softmax, mean, sigmoid, raw, got 'max'"),
    ],
)
def test_alignment_weights_name_wrong_arguments(change, message):
    given = {"local": torch.zeros(3), "global_": torch.zeros(3)}
    with pytest.raises(ValueError, match=re.escape(f"alignment_weights: {message}")):
        alignment_weights(**{**given, **change})
