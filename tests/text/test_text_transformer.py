"""The text transformer against its layers in NumPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from zsbir_fast.text.transformer import TextTransformer


def norm(x, module):
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt(centred.var(-1, keepdims=True) + module.eps)
    return scaled * array(module.weight) + array(module.bias)


def array(tensor):
    return tensor.detach().double().numpy()


def affine(x, weight, bias):
    return x @ array(weight).T + array(bias)


def one_layer(x, layer, heads):
    """Pre-norm attention and feed-forward part of a sequence [S, D] without padding."""
    width = x.shape[1]
    attention = layer.self_attn
    qkv = affine(norm(x, layer.norm1), attention.in_proj_weight, attention.in_proj_bias)
    queries, keys, values = np.split(qkv, 3, axis=1)
    size = width // heads
    outputs = []
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        logits = queries[:, part] @ keys[:, part].T / math.sqrt(size)
        weights = np.exp(logits - logits.max(1, keepdims=True))
        outputs.append(weights / weights.sum(1, keepdims=True) @ values[:, part])
    out = attention.out_proj
    x = x + affine(np.concatenate(outputs, 1), out.weight, out.bias)
    hidden = affine(norm(x, layer.norm2), layer.linear1.weight, layer.linear1.bias)
    hidden = hidden * 0.5 * (1 + np.vectorize(math.erf)(hidden / math.sqrt(2)))
    return x + affine(hidden, layer.linear2.weight, layer.linear2.bias)


@pytest.mark.parametrize("training", [True, False])
def test_layers_are_those_of_the_equations(training):
    torch.manual_seed(0)
    network = TextTransformer(5, width=8, layers=2, heads=2, hidden=6).train(training)
    tokens = torch.randn(3, 4, 5)
    mask = torch.tensor([[True] * 4, [True, True, False, False], [False] * 4])
    found = network(tokens, mask)
    for row, count in enumerate((4, 2, 0)):
        words = affine(array(tokens[row, :count]), network.project.weight, network.project.bias)
        x = np.concatenate([array(network.summary)[None], words])
        for layer in network.layers.layers:
            x = one_layer(x, layer, 2)
        x = norm(x, network.layers.norm)
        np.testing.assert_allclose(array(found.global_[row]), x[0], atol=1e-5)
        np.testing.assert_allclose(array(found.tokens[row, :count]), x[1:], atol=1e-5)
    assert not found.tokens[1, 2:].any()
    assert not found.tokens[2].any()


def test_words_have_no_order():
    torch.manual_seed(0)
    network = TextTransformer(5, width=8, layers=1, heads=4)
    tokens, order = torch.randn(1, 4, 5), torch.tensor([2, 0, 3, 1])
    mask = torch.ones(1, 4, dtype=torch.bool)
    with torch.no_grad():
        plain, mixed = network(tokens, mask), network(tokens[:, order], mask)
    torch.testing.assert_close(mixed.tokens, plain.tokens[:, order])
    torch.testing.assert_close(mixed.global_, plain.global_)


def test_every_weight_learns_and_layers_differ():
    torch.manual_seed(0)
    network = TextTransformer(5, width=8, layers=2, heads=2)
    found = network(torch.randn(2, 3, 5), torch.ones(2, 3, dtype=torch.bool))
    (found.tokens.square().sum() + found.global_.pow(3).sum()).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
    first, second = network.layers.layers
    assert not torch.equal(first.linear1.weight, second.linear1.weight)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": 3, "width": 8}, "heads must divide width, got 3 for 8"),
        ({"layers": 0}, "layers must be at least 1, got 0"),
        ({"hidden": 0}, "hidden must be at least 1, got 0"),
        ({"dropout": 1.5}, r"dropout must be in \[0, 1\], got 1.5"),
    ],
)
def test_wrong_numbers_are_named(options, message):
    with pytest.raises(ValueError, match=f"^TextTransformer: {message}"):
        TextTransformer(5, **options)
