"""The ImageNet head of encoders, and the bundled EfficientNet-Lite0."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from zsbir_fast.data import bundled
from zsbir_fast.encoders.build import build_encoder
from zsbir_fast.encoders.efficientnet_lite import dequantised

WEIGHTS = bundled.path("weights")
LITE = WEIGHTS / "tf_efficientnet_lite0_imagenet_uint8.safetensors"


def pixels(paths, encoder):
    root = bundled.path("qd_caltech")
    images = [Image.open(root / path).convert("RGB").resize((224, 224), 2) for path in paths]
    values = np.stack([np.asarray(image, np.float32) for image in images]) / 255
    values = (values - np.float32(encoder.mean)) / np.float32(encoder.std)
    return torch.from_numpy(values).permute(0, 3, 1, 2)


def test_bundled_lite_weights_reproduce_the_network_of_their_origin():
    """Features that the float16 weights of the origin gave for ten bundled images, 224 pixels."""
    encoder = build_encoder("bundled:efficientnet_lite0", weights="imagenet").eval()
    assert (encoder.width, encoder.image_size, encoder.mean) == (1280, 224, (0.5, 0.5, 0.5))
    with np.load(Path(__file__).with_name("efficientnet_lite0_features.npz")) as stored:
        expected = torch.from_numpy(stored["features"].astype(np.float32))
        images = pixels(stored["paths"], encoder)
    with torch.no_grad():
        features = encoder(images).global_
    assert torch.cosine_similarity(features, expected).min() > 0.995
    torch.testing.assert_close(features.norm(dim=1), expected.norm(dim=1), rtol=0.02, atol=0)


@pytest.mark.parametrize("name", ["mobilenet_v2", "efficientnet_lite0"])
def test_bundled_heads_know_their_classes_in_the_order_of_imagenet(name):
    encoder = build_encoder(f"bundled:{name}", weights="imagenet", head=True).eval()
    root = bundled.path("qd_caltech")
    photos = [
        p.relative_to(root)
        for of in ("flamingo", "piano")
        for p in sorted((root / "photo" / of).iterdir())[:6]
    ]
    with torch.no_grad():
        logits = encoder.logits(encoder(pixels(photos, encoder)).global_)
    assert logits.shape == (12, 1000)
    labels = (WEIGHTS / "imagenet_labels_1001.txt").read_text().splitlines()[1:]
    found = [labels[i] for i in logits.argmax(1)]
    assert found[:6].count("flamingo") >= 3
    assert found[6:].count("grand piano, grand") >= 3


def test_the_head_of_mobilenet_is_that_of_the_file_without_the_background():
    encoder = build_encoder("bundled:mobilenet_v2", weights="imagenet", head=True)
    with np.load(WEIGHTS / "mobilenet_v2_1.0_224_imagenet_uint8.npz") as arrays:
        w, scale, zero, bias = (
            arrays[f"Logits/Conv2d_1c_1x1:{part}"].astype(np.float64)
            for part in ("w", "scale", "zero", "b")
        )
    features = np.random.default_rng(0).random((3, 1280))
    expected = features @ (scale * (w - zero)).reshape(1001, 1280).T + bias
    found = encoder.logits(torch.from_numpy(features).float()).detach().numpy()
    np.testing.assert_allclose(found, expected[:, 1:], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("bundled:efficientnet_lite0", 64),
        ("timm:resnet10t", 64),
        ("timm:mobilenetv3_small_050", 64),  # a layer between mean and classifier
        ("timm:convnextv2_atto", 64),  # a norm between them
        ("timm:test_vit", 160),
    ],
)
def test_logits_are_those_of_the_whole_network(name, size):
    torch.manual_seed(0)
    encoder = build_encoder(name, image_size=size, head=True).eval()
    images = torch.randn(2, 3, size, size)
    with torch.no_grad():
        whole = encoder.network(images)
        torch.testing.assert_close(
            encoder.logits(encoder(images).global_), whole, rtol=1e-3, atol=1e-4
        )
    assert isinstance(encoder.head, nn.Linear)
    assert encoder.head.out_features == whole.shape[1] == 1000
    own = {id(p) for p in encoder.parameters()}
    assert {id(p) for p in encoder.head.parameters()} <= own


@pytest.mark.parametrize("name", ["bundled:mobilenet_v2", "bundled:efficientnet_lite0"])
def test_without_a_head_nothing_of_it_is_there(name):
    encoder = build_encoder(name, weights="imagenet")
    assert encoder.head is None
    assert not any("classifier" in key for key in encoder.state_dict())
    with pytest.raises(RuntimeError, match=r"Encoder.logits: .* built with head=True"):
        encoder.logits(torch.zeros(1, 1280))


@pytest.mark.parametrize(
    "name",
    [
        "open_clip:ViT-B-32",
        "timm:deit_tiny_distilled_patch16_224",  # two heads over two tokens
        "timm:convnextv2_atto.fcmae",  # trained without classes
        "timm:mobilenetv3_large_100.miil_in21k",  # other classes
    ],
)
def test_a_network_without_an_imagenet_head_is_refused(name):
    message = (
        "name must be a network with an ImageNet head (a layer of 1000 classes over the global "
        f"feature) for head=True, got '{name}'"
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        build_encoder(name, head=True)


@pytest.mark.parametrize("name", ["timm:resnet10t", "bundled:efficientnet_lite0"])
def test_a_head_comes_from_a_local_file_that_has_it(name, tmp_path):
    source = build_encoder(name, head=True)
    torch.save(source.network.state_dict(), tmp_path / "whole.pt")
    loaded = build_encoder(name, weights=str(tmp_path / "whole.pt"), head=True)
    torch.testing.assert_close(loaded.head.weight, source.head.weight, rtol=0, atol=0)
    torch.save(build_encoder(name).network.state_dict(), tmp_path / "headless.pt")
    with pytest.raises(ValueError, match=r"weights must fit the network, got 2 missing \(\w+.bias"):
        build_encoder(name, weights=str(tmp_path / "headless.pt"), head=True)


def test_weights_in_eight_bits():
    rng = np.random.default_rng(0)
    whole = rng.integers(0, 256, (3, 2, 5, 5), dtype=np.uint8)
    scale, zero = rng.random(3).astype(np.float32), np.float32([0, 128, 255])
    half = rng.random(4).astype(np.float16)
    arrays = {"w": whole, "w_scale": scale, "w_zero": zero, "half": half, "n": np.int64([7])}
    state = {name: torch.from_numpy(array) for name, array in arrays.items()}
    found = dequantised(state)
    assert found.keys() == {"w", "half", "n"}
    expected = np.stack([scale[c] * (whole[c].astype(np.float32) - zero[c]) for c in range(3)])
    np.testing.assert_allclose(found["w"].numpy(), expected, rtol=1e-6)
    assert found["half"].dtype == torch.float32
    np.testing.assert_array_equal(found["half"].numpy(), half.astype(np.float32))
    assert found["n"].tolist() == [7]
    for wrong in ({}, {"w_scale": torch.ones(2)}):
        damaged = {k: v for k, v in state.items() if k != "w_scale"} | wrong
        with pytest.raises(ValueError, match=r"hold w_scale and w_zero, float32 \[3\], beside"):
            dequantised(damaged)


def test_the_bundled_weights_are_small_and_name_their_layers():
    assert LITE.stat().st_size < 5.5e6
    with LITE.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(length))
    assert header["classifier.weight"]["shape"] == [1000, 1280]
    whole = [name for name, entry in header.items() if entry["dtype"] == "U8"]
    assert all({f"{name}_scale", f"{name}_zero"} <= header.keys() for name in whole)
    assert len(whole) == 33  # pointwise convolutions and the classifier
