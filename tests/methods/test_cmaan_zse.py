"""Weights in the form that ZSE-SBIR publishes: all names, and what they compute."""

from __future__ import annotations

import re

import pytest
import torch
from torch.nn import functional as F

import zsbir_fast as zf
from zsbir_fast.methods.cmaan.zse import own_name, zse_state

WIDTH, LAYERS, HEADS = 768, 12, 12


def linear(state, name, *, bias=True):
    return state[f"{name}.weight"], state[f"{name}.bias"] if bias else None


def published_state():
    """Random weights with the names and shapes of ZSE-SBIR's `Model`."""
    shapes = {
        "sa.model.cls": (1, 1, WIDTH),
        "sa.model.pos_embedding": (1, 197, WIDTH),
        "sa.model.embedding.weight": (WIDTH, 3, 16, 16),
        "sa.model.embedding.bias": (WIDTH,),
        "sa.model.scale.seq.0.weight": (64, 3, 7, 7),
        "sa.model.scale.seq.2.weight": (128, 64, 3, 3),
        "sa.model.scale.seq.4.weight": (256, 128, 3, 3),
        "sa.model.scale.seq.6.weight": (WIDTH, 256, 3, 3),
        "conv2d.weight": (512, WIDTH, 2, 2),
        "conv2d.bias": (512,),
    }

    def layer(name, inner, outer):
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (outer, inner), (outer,)

    def norm(name, weight="weight", bias="bias"):
        shapes[f"{name}.{weight}"] = shapes[f"{name}.{bias}"] = (WIDTH,)

    norm("sa.model.transformer.encoder_norm")
    for i in range(LAYERS):
        block = f"sa.model.transformer.layers.{i}.0"
        norm(f"{block}.layer_norm_input")
        norm(f"{block}.layer_norm_out")
        layer(f"{block}.attention.to_qkv", WIDTH, 3 * WIDTH)
        layer(f"{block}.attention.to_out.0", WIDTH, WIDTH)
        layer(f"{block}.mlp.net.0", WIDTH, 4 * WIDTH)
        layer(f"{block}.mlp.net.3", 4 * WIDTH, WIDTH)
    for stream in ("layers", "layer1", "layer2"):
        block = f"ca.encoder.{stream}.0"
        for i in range(4):
            layer(f"{block}.self_attn.linears.{i}", WIDTH, WIDTH)
        layer(f"{block}.feed_forward.w_1", WIDTH, 1024)
        layer(f"{block}.feed_forward.w_2", 1024, WIDTH)
        norm(f"{block}.sublayer.0.norm", "a", "b")
        norm(f"{block}.sublayer.1.norm", "a", "b")
    for place, inner, outer in ((0, 2401, 343), (3, 343, 49), (6, 49, 1)):
        layer(f"rn.rn.{place}", inner, outer)
    torch.manual_seed(0)
    return {
        name: torch.randn(shape) * (1 / shape[-1] ** 0.5 if len(shape) > 1 else 0.5)
        for name, shape in shapes.items()
    }


def vit(state, images):
    """The published encoder, from its own names: pre-norm blocks over two patch embeddings."""
    s = {n.removeprefix("sa.model."): v for n, v in state.items() if n.startswith("sa.model.")}
    pyramid = images
    for place in (0, 2, 4, 6):
        weight = s[f"scale.seq.{place}.weight"]
        pyramid = F.conv2d(pyramid, weight, stride=2, padding=weight.shape[2] // 2)
        pyramid = pyramid if place == 6 else pyramid.clamp_min(0)
    patches = F.conv2d(images, *linear(s, "embedding"), stride=16)
    tokens = ((patches + pyramid) / 2).flatten(2).transpose(1, 2)
    x = torch.cat([s["cls"].expand(len(images), 1, WIDTH), tokens], 1) + s["pos_embedding"]
    for i in range(LAYERS):
        block = f"transformer.layers.{i}.0"
        normed = F.layer_norm(x, (WIDTH,), *linear(s, f"{block}.layer_norm_input"), 1e-6)
        qkv = F.linear(normed, *linear(s, f"{block}.attention.to_qkv"))
        q, k, v = (t.unflatten(2, (HEADS, -1)).transpose(1, 2) for t in qkv.chunk(3, -1))
        weights = (q @ k.transpose(2, 3) * (WIDTH / HEADS) ** -0.5).softmax(-1)
        attended = (weights @ v).transpose(1, 2).flatten(2)
        x = x + F.linear(attended, *linear(s, f"{block}.attention.to_out.0"))
        normed = F.layer_norm(x, (WIDTH,), *linear(s, f"{block}.layer_norm_out"), 1e-6)
        hidden = F.gelu(F.linear(normed, *linear(s, f"{block}.mlp.net.0")))
        x = x + F.linear(hidden, *linear(s, f"{block}.mlp.net.3"))
    return F.layer_norm(x, (WIDTH,), *linear(s, "transformer.encoder_norm"), 1e-6)


def cross_attention(state, block, query, key, value):
    def heads(x, place):
        projected = F.linear(x, *linear(state, f"{block}.self_attn.linears.{place}"))
        return projected.unflatten(2, (8, -1)).transpose(1, 2)

    q, k, v = (heads(x, place) for place, x in enumerate((query, key, value)))
    weights = (q @ k.transpose(2, 3) / (WIDTH / 8) ** 0.5).softmax(-1)
    attended = (weights @ v).transpose(1, 2).flatten(2)
    attended = F.linear(attended, *linear(state, f"{block}.self_attn.linears.3"))

    def norm(x, place):
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (x.std(-1, keepdim=True) + 1e-6)
        name = f"{block}.sublayer.{place}.norm"
        return state[f"{name}.a"] * scaled + state[f"{name}.b"]

    x = norm(value + attended, 0)
    hidden = F.linear(x, *linear(state, f"{block}.feed_forward.w_1")).clamp_min(0)
    return norm(x + F.linear(hidden, *linear(state, f"{block}.feed_forward.w_2")), 1)


def relation(state, sketches, photos):
    """The published score: the other image gives the keys, and tokens are viewed as channels."""
    both = (
        cross_attention(state, "ca.encoder.layer1.0", sketches, photos, sketches),
        cross_attention(state, "ca.encoder.layer2.0", photos, sketches, photos),
    )
    reduced = []
    for tokens in both:
        grid = tokens[:, 1:].reshape(-1, WIDTH, 14, 14)
        down = F.conv2d(grid, state["conv2d.weight"], state["conv2d.bias"], stride=2)
        reduced.append(F.normalize(down.reshape(-1, 512, 49).transpose(1, 2), dim=2))
    x = (reduced[0] @ reduced[1].transpose(1, 2)).flatten(1)
    for place in (0, 3, 6):
        x = F.linear(x, *linear(state, f"rn.rn.{place}"))
        x = x if place == 6 else x.clamp_min(0)
    return x.sigmoid().squeeze(1)


@pytest.mark.slow
@torch.no_grad()
def test_published_weights_compute_what_the_published_code_computes(tmp_path):
    state = published_state()
    path = tmp_path / "published.pth"
    torch.save({"model": {f"module.{name}": weight for name, weight in state.items()}}, path)
    model = zf.load_zse_sbir(path, ["cat", "dog"])
    images = torch.randn(2, 3, 224, 224)
    sketches, photos = vit(state, images[:1]), vit(state, images[1:])
    for modality, tokens, row in (("sketch", sketches, 0), ("photo", photos, 1)):
        expected = F.normalize(tokens[:, 0], dim=1)
        found = model.embed(images[row : row + 1], modality)
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    model.rank_by = "relation"
    queries, gallery = model.embed(images[:1], "sketch"), model.embed(images, "photo")
    scores = model.ranker().scorer(gallery)(queries)[0]
    expected = relation(state, sketches.expand(2, -1, -1), torch.cat([sketches, photos]))
    torch.testing.assert_close(scores, expected, rtol=1e-3, atol=1e-4)


def test_every_published_name_has_one_of_ours_and_no_two_the_same():
    names = list(published_state())
    ours = [own_name(name) for name in names]
    assert {n for n, o in zip(names, ours, strict=True) if o is None} == {
        n for n in names if n.startswith("ca.encoder.layers.")
    }
    kept = [name for name in ours if name is not None]
    assert len(set(kept)) == len(kept) == len(zse_state(published_state()))
    assert own_name("module.ca.encoder.layer2.0.self_attn.linears.3.bias") == (
        "exchange.streams.photo.0.output.bias"
    )


@pytest.mark.parametrize(
    "name", ["fc.weight", "ca.encoder.layer3.0.feed_forward.w_1.bias", "sa.model.x",
             "ca.encoder.layer1.0.other.w_1.bias"]
)  # fmt: skip
def test_other_weights_are_refused(name, tmp_path):
    torch.save({name: torch.zeros(1)}, tmp_path / "x.pth")
    text = f"load_zse_sbir: path must hold weights of ZSE-SBIR, got one named {name}"
    with pytest.raises(ValueError, match=re.escape(text)):
        zf.load_zse_sbir(tmp_path / "x.pth", ["cat"])


def test_a_part_of_the_weights_is_refused(tmp_path):
    torch.save({"conv2d.bias": torch.zeros(512)}, tmp_path / "x.pth")
    with pytest.raises(ValueError, match=r"load_zse_sbir: path must hold .* got \d+ missing"):
        zf.load_zse_sbir(tmp_path / "x.pth", ["cat"])
