"""The parts of CMAAN against an independent transcription in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from zsbir_fast.losses.gathering import Share
from zsbir_fast.methods.cmaan.exchange import ExchangeBlock, UnbiasedLayerNorm
from zsbir_fast.methods.cmaan.options import CorrespondenceOptions, ExchangeOptions, RelationOptions
from zsbir_fast.methods.cmaan.pairs import Exchange, Text
from zsbir_fast.methods.cmaan.terms import (
    Joined,
    Triplets,
    choose_negatives,
    relation_rows,
    triplet_rows,
)
from zsbir_fast.methods.relation import RelationNetwork, TokenReduction


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def tensor(x):
    return torch.from_numpy(np.asarray(x, dtype=np.float64))


def linear(x, layer):
    return x @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def norm(x, layer, *, style):
    centred = x - x.mean(-1, keepdims=True)
    if style == "zse":  # unbiased deviation plus 1e-6
        scaled = centred / (x.std(-1, ddof=1, keepdims=True) + 1e-6)
    else:
        scaled = centred / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    return layer.weight.detach().numpy() * scaled + layer.bias.detach().numpy()


def block_by_hand(block, tokens, others, mask=None):
    values = tokens if block.style == "zse" else others
    rows = []
    for b in range(len(tokens)):
        q, k, v = (
            linear(x, layer)
            for x, layer in (
                (tokens[b], block.query),
                (others[b], block.key),
                (values[b], block.value),
            )
        )
        width = q.shape[1] // block.heads
        heads = []
        for h in range(block.heads):
            part = slice(h * width, (h + 1) * width)
            scores = q[:, part] @ k[:, part].T / np.sqrt(width)
            if mask is not None:
                scores[:, ~mask[b]] = -np.inf
            heads.append(softmax(scores) @ v[:, part])
        attended = linear(np.concatenate(heads, 1), block.output)
        x = norm(tokens[b] + attended, block.norm_attended, style=block.style)
        fed = linear(np.maximum(linear(x, block.feed[0]), 0), block.feed[3])
        rows.append(norm(x + fed, block.norm_fed, style=block.style))
    return np.stack(rows)


def randomised(module):
    torch.manual_seed(0)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return module.double().eval()


@pytest.mark.parametrize("style", ["standard", "zse"])
@pytest.mark.parametrize("heads", [1, 4])
def test_an_exchange_is_that_of_a_transcription(rng, style, heads):
    block = randomised(ExchangeBlock(8, heads=heads, hidden=6, style=style))
    tokens = rng.normal(size=(3, 5, 8))
    others = rng.normal(size=(3, 5 if style == "zse" else 7, 8))
    found = block(tensor(tokens), tensor(others)).detach().numpy()
    np.testing.assert_allclose(found, block_by_hand(block, tokens, others), rtol=0, atol=1e-12)


def test_words_that_are_not_there_are_not_asked(rng):
    block = randomised(ExchangeBlock(8, heads=2, hidden=6))
    tokens, others = rng.normal(size=(2, 5, 8)), rng.normal(size=(2, 4, 8))
    mask = np.array([[True, True, False, False], [True, False, True, True]])
    found = block(tensor(tokens), tensor(others), torch.from_numpy(mask)).detach().numpy()
    expected = block_by_hand(block, tokens, others, mask)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    others[~mask] = 1e6
    again = block(tensor(tokens), tensor(others), torch.from_numpy(mask)).detach().numpy()
    np.testing.assert_array_equal(found, again)


def test_gradients_of_an_exchange(rng):
    block = randomised(ExchangeBlock(4, heads=2, hidden=3, style="zse"))
    inputs = [tensor(rng.normal(size=(2, 3, 4))).requires_grad_() for _ in range(2)]
    assert torch.autograd.gradcheck(block, inputs)


def test_the_unbiased_norm(rng):
    x = rng.normal(size=(2, 5))
    layer = randomised(UnbiasedLayerNorm(5))
    np.testing.assert_allclose(
        layer(tensor(x)).detach().numpy(), norm(x, layer, style="zse"), rtol=0, atol=1e-12
    )


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"heads": 3}, "ExchangeBlock: heads must divide the width 8, got 3"),
        ({"heads": 0}, "heads must be at least 1, got 0"),
        ({"hidden": 0}, "hidden must be at least 1, got 0"),
        ({"dropout": 1.5}, "dropout must be"),
        ({"style": "other"}, "style must be one of standard, zse, got 'other'"),
    ],
)
def test_blocks_that_cannot_be(options, text):
    with pytest.raises(ValueError, match=text):
        ExchangeBlock(8, **options)


def test_the_published_style_needs_sequences_of_one_length():
    block = ExchangeBlock(8, style="zse")
    with pytest.raises(ValueError, match=r"as many others as tokens, .* got 4 and 5"):
        block(torch.zeros(1, 5, 8), torch.zeros(1, 4, 8))


@pytest.mark.parametrize("layers", [1, 2])
def test_images_exchange_with_each_other_as_both_were_before_a_layer(rng, layers):
    options = ExchangeOptions(partner="image", style="zse", heads=2, hidden=6, layers=layers)
    exchange = randomised(Exchange(8, options, words=False))
    sketches, photos = rng.normal(size=(2, 3, 5, 8))
    found = exchange(tensor(sketches), tensor(photos), None, None)
    for of_sketch, of_photo in zip(
        exchange.streams["sketch"], exchange.streams["photo"], strict=True
    ):
        sketches, photos = (
            block_by_hand(of_sketch, sketches, photos),
            block_by_hand(of_photo, photos, sketches),
        )
    np.testing.assert_allclose(found.sketches.detach().numpy(), sketches, rtol=0, atol=1e-12)
    np.testing.assert_allclose(found.photos.detach().numpy(), photos, rtol=0, atol=1e-12)


def test_images_and_words_exchange(rng):
    exchange = randomised(Exchange(8, ExchangeOptions(heads=2, hidden=6), words=True))
    sketches, photos = rng.normal(size=(2, 3, 5, 8))
    words, mask = (
        rng.normal(size=(3, 4, 8)),
        np.array([[True] * 4, [True] * 4, [True] + [False] * 3]),
    )
    text = Text(tensor(words), torch.from_numpy(mask))
    found = exchange(tensor(sketches), tensor(photos), text, text)
    streams = exchange.streams
    for got, expected in (
        (found.sketches, block_by_hand(streams["sketch"][0], sketches, words, mask)),
        (found.photos, block_by_hand(streams["photo"][0], photos, words, mask)),
        (found.sketch_words.tokens, block_by_hand(streams["sketch_words"][0], words, sketches)),
        (found.photo_words.tokens, block_by_hand(streams["photo_words"][0], words, photos)),
    ):
        np.testing.assert_allclose(got.detach().numpy(), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("raw_view", [False, True])
def test_tokens_are_reduced_as_by_hand(rng, raw_view):
    reduction = randomised(TokenReduction(3, 16, reduced=5, largest_grid=2, raw_view=raw_view))
    assert reduction.count == 4
    tokens = rng.normal(size=(2, 16, 3))
    weight = reduction.convolution.weight.detach().numpy()
    bias = reduction.convolution.bias.detach().numpy()
    found = reduction(tensor(tokens)).detach().numpy()
    for b in range(2):
        grid = tokens[b].reshape(3, 4, 4) if raw_view else tokens[b].T.reshape(3, 4, 4)
        for place in range(4):
            row, column = divmod(place, 2)
            patch = grid[:, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
            expected = (weight * patch).sum((1, 2, 3)) + bias
            np.testing.assert_allclose(found[b, place], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("tokens", "largest", "count"), [(196, 7, 49), (16, 7, 16), (256, 7, 25), (1, 7, 1)]
)
def test_sides_of_the_reduced_grid(tokens, largest, count):
    assert TokenReduction(2, tokens, reduced=2, largest_grid=largest).count == count


def test_tokens_without_a_grid():
    with pytest.raises(ValueError, match="TokenReduction: tokens must be a square number, got 50"):
        TokenReduction(2, 50)


def test_relation_scores_are_those_of_a_transcription(rng, monkeypatch):
    network = randomised(RelationNetwork(4))
    sketches, photos = rng.normal(size=(3, 4, 6)), rng.normal(size=(7, 4, 6))
    sketches[1, 2] = 0  # a zero vector has the cosine 0
    unit = [
        x / np.maximum(np.linalg.norm(x, axis=2, keepdims=True), 1e-300) for x in (sketches, photos)
    ]
    cosines = np.einsum("qnd,gmd->qgnm", *unit).reshape(3, 7, 16)
    x = np.maximum(linear(cosines, network.layers[0]), 0)
    assert x.shape[-1] == 28
    x = np.maximum(linear(x, network.layers[3]), 0)
    expected = 1 / (1 + np.exp(-linear(x, network.layers[6])[..., 0]))
    from zsbir_fast.methods import relation

    monkeypatch.setattr(relation, "_BLOCK_BYTES", 4 * 16 * 2)
    with torch.no_grad():
        found = network.scores(tensor(sketches), tensor(photos)).numpy()
        pairs = network(tensor(sketches), tensor(photos[:3])).numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(pairs, np.diag(expected[:, :3]), rtol=0, atol=1e-12)


def test_terms_on_a_small_tensor():
    rows = Triplets(
        torch.tensor([[0.0, 0.0], [1.0, 0.0]]),
        torch.tensor([[3.0, 4.0], [1.0, 0.0]]),
        torch.tensor([[0.0, 2.0], [1.0, 9.0]]),
    )
    both, one = torch.tensor([True, True]), torch.tensor([False, True])
    # 5 - 2 + 1 = 4; 0 - 9 + 1 < 0
    found = triplet_rows(rows, both, margin=1.0, normalize=False)
    torch.testing.assert_close(found, torch.tensor([4.0, 0.0]), rtol=0, atol=1e-5)
    assert triplet_rows(rows, one, margin=1.0, normalize=False).tolist() == [0, 0]
    # lengths 1: the positive is (0.6, 0.8), the negative (0, 1), the sketch 0
    found = triplet_rows(rows, both, margin=0.5, normalize=True)[0]
    assert float(found) == pytest.approx(1 - 1 + 0.5, abs=1e-5)
    errors = relation_rows(torch.tensor([0.5, 0.99]), torch.tensor([0.21, 0.9]), one)
    assert errors.tolist() == pytest.approx([0.49**2, 0.89**2 / 2])


def test_negatives_are_of_other_classes():
    labels = torch.tensor([0, 0, 1, 2])
    photos = torch.tensor([[0.0, 1.0], [1.0, 0.0], [2.0, 0.0], [3.0, 3.0]])[:, None]
    sketches = torch.tensor([[2.9, 2.9], [2.1, 0.0], [0.0, 0.9], [0.9, 0.0]])
    joined = Joined(Share.alone(4), photos, labels)
    noise = torch.tensor([[9, 9, 1, 2], [9, 9, 2, 1], [1, 2, 9, 0], [0, 1, 2, 9.0]])
    assert choose_negatives(sketches, joined, "random", noise).tolist() == [3, 2, 1, 2]
    assert choose_negatives(sketches, joined, "hardest", noise).tolist() == [3, 2, 0, 1]
    alone = Joined(Share.alone(2), photos[:2], labels[:2])
    for how in ("random", "hardest"):
        assert choose_negatives(sketches[:2], alone, how, noise[:2, :2]).tolist() == [-1, -1]


@pytest.mark.parametrize(
    ("make", "options", "text"),
    [
        (ExchangeOptions, {"partner": "word"}, "exchange.partner must be one of"),
        (ExchangeOptions, {"style": "zse"}, "exchange.style must be standard where .* is 'text'"),
        (ExchangeOptions, {"negative_text": "x"}, "exchange.negative_text must be one of own"),
        (ExchangeOptions, {"layers": 0}, "exchange.layers must be at least 1, got 0"),
        (ExchangeOptions, {"dropout": -1}, "exchange.dropout must be"),
        (RelationOptions, {"match": "x"}, "relation.match must be one of patches, words"),
        (RelationOptions, {"side": "x"}, "relation.side must be one of post_ca, pre_ca"),
        (RelationOptions, {"width": 0}, "relation.width must be at least 1, got 0"),
        (RelationOptions, {"match": "words", "side": "pre_ca"}, "must be post_ca where .* 'words'"),
        (CorrespondenceOptions, {"tri_on": "x"}, "loss.tri_on must be one of post_ca, pre_ca"),
        (CorrespondenceOptions, {"negative": "x"}, "loss.negative must be one of random, hardest"),
        (CorrespondenceOptions, {"rn": -1}, "loss.rn must not be negative, got -1"),
        (
            CorrespondenceOptions,
            {"tri": 0, "rn": 0},
            "loss.tri, loss.rn and loss.cls must not all be 0",
        ),
    ],
)
def test_options_that_cannot_be(make, options, text):
    with pytest.raises(ValueError, match=f"CMAAN: .*{text}"):
        make(**options)
