"""Encoders by name: shapes, weight files and the errors of both. Nothing is fetched."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from zsbir_fast.data import bundled
from zsbir_fast.encoders.build import build_encoder
from zsbir_fast.encoders.mobilenet_v2 import MobileNetV2, SameConv2d, read_uint8_weights


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    # The environment variable is read once, at import.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture
def tiny_clip(tmp_path):
    """An open_clip model small enough to build in a test, registered under its own name."""
    import open_clip

    config = {
        "embed_dim": 24,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 8},
        "text_cfg": {
            "context_length": 8, "vocab_size": 99, "width": 32, "heads": 1, "layers": 1,
        },
    }  # fmt: skip
    (tmp_path / "zsbir-tiny-clip.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path / "zsbir-tiny-clip.json")
    return "zsbir-tiny-clip"


@pytest.mark.parametrize(
    ("name", "size", "tokens", "width"),
    [
        ("bundled:mobilenet_v2", 64, 4, 1280),
        ("bundled:mobilenet_v2", 100, 16, 1280),
        ("bundled:efficientnet_lite0", 100, 16, 1280),
        ("timm:resnet10t", 64, 4, 512),
        ("timm:mobilenetv3_small_050", 64, 4, 288),
        ("timm:swin_tiny_patch4_window7_224", 224, 49, 768),  # channels last
    ],
)
def test_convolutional_encoders_give_positions_and_their_mean(name, size, tokens, width):
    torch.manual_seed(0)
    encoder = build_encoder(name, image_size=size).eval()
    with torch.no_grad():
        features = encoder(torch.randn(2, 3, size, size))
    assert features.tokens.shape == (2, tokens, width)
    assert features.global_.shape == (2, width)
    assert (encoder.width, encoder.image_size) == (width, size)
    torch.testing.assert_close(features.global_, features.tokens.mean(1))


def test_tokens_are_ordered_row_by_row():
    torch.manual_seed(0)
    encoder = build_encoder("timm:resnet10t", image_size=96).eval()
    image = torch.zeros(1, 3, 96, 96)
    image[:, :, :16, -16:] = 5  # something in the upper right corner
    with torch.no_grad():
        change = (encoder(image).tokens - encoder(image * 0).tokens).norm(dim=2)[0]
    assert len(change) == 9
    assert int(change.argmax()) == 2


@pytest.mark.parametrize(
    ("name", "prefix"), [("vit_tiny_patch16_224", 1), ("deit_tiny_distilled_patch16_224", 2)]
)
def test_vision_transformers_give_patches_without_prefix_tokens(name, prefix):
    torch.manual_seed(0)
    encoder = build_encoder(f"timm:{name}", image_size=64).eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        features = encoder(images)
        everything = encoder.network.forward_features(images)
    assert features.tokens.shape == (2, 16, 192)
    torch.testing.assert_close(features.tokens, everything[:, prefix:])
    if prefix == 1:
        torch.testing.assert_close(features.global_, everything[:, 0])


def test_open_clip_towers_give_projected_tokens_and_the_pooled_feature(tiny_clip):
    torch.manual_seed(0)
    encoder = build_encoder(f"open_clip:{tiny_clip}").eval()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        features = encoder(images)
        pooled = encoder.network(images)
    assert features.tokens.shape == (2, 16, 24)
    assert (encoder.width, encoder.image_size) == (24, 32)
    torch.testing.assert_close(features.global_, pooled)
    assert len(encoder.mean) == len(encoder.std) == 3
    assert build_encoder(f"open_clip:{tiny_clip}", image_size=48).image_size == 48


def test_every_parameter_is_trainable_and_gets_a_gradient():
    encoder = build_encoder("bundled:mobilenet_v2", weights="imagenet")
    features = encoder(torch.rand(2, 3, 32, 32))
    (features.tokens.sum() + features.global_.square().sum()).backward()
    assert encoder.training
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def reference_same_conv(x, weight, stride):
    """TensorFlow SAME by its definition: output o sees inputs o * stride - before + offset."""
    kernel, size = weight.shape[-1], x.shape[-1]
    out = -(-size // stride)
    before = max((out - 1) * stride + kernel - size, 0) // 2
    result = torch.zeros(out, out)
    for i in range(out):
        for j in range(out):
            for di in range(kernel):
                for dj in range(kernel):
                    r, c = i * stride - before + di, j * stride - before + dj
                    if 0 <= r < size and 0 <= c < size:
                        result[i, j] += weight[0, 0, di, dj] * x[0, 0, r, c]
    return result


@pytest.mark.parametrize("size", [6, 7])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (3, 1), (1, 1), (5, 2)])
def test_same_padding(size, kernel, stride):
    torch.manual_seed(0)
    layer = SameConv2d(1, 1, kernel, stride, bias=False)
    x = torch.randn(1, 1, size, size)
    with torch.no_grad():
        torch.testing.assert_close(layer(x)[0, 0], reference_same_conv(x, layer.weight, stride))


def test_bundled_weights_reproduce_the_integer_network():
    """Features that the original integer network gave for ten bundled images at 224 pixels."""
    root = bundled.path("qd_caltech")
    encoder = build_encoder("bundled:mobilenet_v2", weights="imagenet").eval()
    assert encoder.image_size == 224
    with np.load(Path(__file__).with_name("mobilenet_v2_features.npz")) as stored:
        expected = torch.from_numpy(stored["features"] * stored["scale"])
        images = [Image.open(root / path).convert("RGB") for path in stored["paths"]]
    pixels = np.stack([np.asarray(i.resize((224, 224), 2), np.float32) for i in images]) / 255
    pixels = (pixels - np.float32(encoder.mean)) / np.float32(encoder.std)
    with torch.no_grad():
        features = encoder(torch.from_numpy(pixels).permute(0, 3, 1, 2)).global_
    assert torch.cosine_similarity(features, expected).min() > 0.98
    torch.testing.assert_close(features.norm(dim=1), expected.norm(dim=1), rtol=0.1, atol=0)


def test_a_weight_file_of_another_network_is_refused(tmp_path):
    with np.load(bundled.path("weights") / "mobilenet_v2_1.0_224_imagenet_uint8.npz") as arrays:
        layers = json.loads(arrays["layers_json"].tobytes())
        kept = {k: arrays[k] for k in arrays.files}
    short = tmp_path / "short.npz"
    np.savez(
        short, **{**kept, "layers_json": np.frombuffer(json.dumps(layers[:5]).encode(), np.uint8)}
    )
    with pytest.raises(ValueError, match="must hold 52 convolutions and a classifier, got 5"):
        read_uint8_weights(short)
    wrong = tmp_path / "wrong.npz"
    np.savez(wrong, **{**kept, "Conv:w": kept["Conv:w"][:16]})
    with pytest.raises(ValueError, match=r"must hold layer Conv of shape .*, got \(16, 3, 3, 3\)"):
        build_encoder("bundled:mobilenet_v2", weights=str(wrong))


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_weights_from_a_local_file(tmp_path, suffix, tiny_clip):
    from safetensors.torch import save_file

    torch.manual_seed(0)
    path = tmp_path / f"weights{suffix}"
    for name in ("timm:resnet10t", "bundled:mobilenet_v2", f"open_clip:{tiny_clip}"):
        source = build_encoder(name)
        state = {k: v.contiguous() for k, v in source.network.state_dict().items()}
        if name.startswith("timm"):
            state["fc.weight"] = torch.zeros(10, 512)  # a classifier: not used, not an error
        if name.startswith("open_clip"):
            state = {f"visual.{k}": v for k, v in state.items()} | {"logit_scale": torch.ones(())}
        if suffix == ".pt":
            torch.save({"state_dict": state}, path)
        else:
            save_file(state, path)
        loaded = build_encoder(name, weights=str(path))
        for key, value in source.state_dict().items():
            torch.testing.assert_close(loaded.state_dict()[key], value)


def test_keys_that_do_not_fit_are_named(tmp_path):
    state = MobileNetV2().state_dict()
    del state["stem.weight"]
    state["head.weight"] = torch.zeros(3)
    state["last.bias"] = torch.zeros(3)
    path = tmp_path / "weights.pt"
    torch.save(state, path)
    message = (
        "build_encoder: weights must fit the network, got 1 missing (stem.weight); 1 unexpected "
        f"(head.weight); 1 of another shape (last.bias) in {path}"
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        build_encoder("bundled:mobilenet_v2", weights=str(path))


class _Code:
    def __reduce__(self):
        return (print, ("run",))


def test_a_file_with_code_is_refused(tmp_path):
    path = tmp_path / "weights.pt"
    torch.save({"a": _Code()}, path)
    with pytest.raises(
        ValueError, match=r"dict of tensors, got .* objects that would run code"
    ) as e:
        build_encoder("bundled:mobilenet_v2", weights=str(path))
    assert "weights_only" not in str(e.value)


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        (
            "resnet50",
            {},
            ValueError,
            "name must be 'bundled:mobilenet_v2', 'bundled:efficientnet_lite0', 'timm:",
        ),
        ("hub:resnet50", {}, ValueError, "got 'hub:resnet50'"),
        ("bundled:resnet50", {}, ValueError, "got 'bundled:resnet50'"),
        ("timm:no_such", {}, ValueError, "must be a model that timm knows, got 'timm:no_such'"),
        ("open_clip:no_such", {}, ValueError, "must be a model that open_clip knows"),
        ("timm:resnet10t", {"image_size": 0}, ValueError, "image_size must be at least 1, got 0"),
        (
            "bundled:mobilenet_v2",
            {"weights": "coco"},
            ValueError,
            "weights must be None, 'random', 'imagenet' or a local file for a bundled network, "
            "got 'coco'",
        ),
        (
            "bundled:mobilenet_v2",
            {"weights": "gone.pt"},
            FileNotFoundError,
            "path must be a file, got gone.pt",
        ),
        (
            "timm:resnet10t",
            {"weights": "no_tag"},
            ValueError,
            "weights must be a local file, 'pretrained' or one of c3_in1k for timm:resnet10t, "
            "got 'no_tag'",
        ),
        (
            "open_clip:ViT-B-32",
            {"weights": "no_tag"},
            ValueError,
            "weights must be a local file or one of openai, ",
        ),
        (
            "open_clip:ViT-B-32",
            {"weights": "openai"},
            ValueError,
            "name must be open_clip:ViT-B-32-quickgelu for the weights 'openai', whose activation "
            "is QuickGELU, got open_clip:ViT-B-32",
        ),
        (
            "open_clip:ViT-B-32-quickgelu",
            {"weights": "laion2b_s34b_b79k"},
            ValueError,
            "weights must be a local file or one of openai, ",
        ),
        (
            "timm:vit_tiny_patch16_224",
            {"weights": "pretrained"},
            RuntimeError,
            "weights 'pretrained' of timm:vit_tiny_patch16_224 could not be fetched",
        ),
    ],
)
def test_wrong_names_and_weights(name, options, error, message, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(error, match=re.escape(message)):
        build_encoder(name, **options)


def test_other_file_kinds_are_refused(tmp_path):
    path = tmp_path / "weights.txt"
    path.write_text("x")
    with pytest.raises(ValueError, match=r"must end in one of .*, got weights.txt"):
        build_encoder("bundled:mobilenet_v2", weights=str(path))
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(ValueError, match="path must hold a dict of tensors"):
        build_encoder("bundled:mobilenet_v2", weights=str(tmp_path / "list.pt"))


def test_open_clip_towers_that_are_no_vision_transformers_are_refused(tmp_path):
    import open_clip

    config = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8},
        "text_cfg": {
            "context_length": 8, "vocab_size": 99, "width": 32, "heads": 1, "layers": 1,
        },
    }  # fmt: skip
    (tmp_path / "zsbir-tiny-resnet.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path / "zsbir-tiny-resnet.json")
    with pytest.raises(ValueError, match=r"with a ViT-\* vision tower"):
        build_encoder("open_clip:zsbir-tiny-resnet")


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"name": None}, TypeError, "name must be text, got None"),
        ({"name": b"bundled:mobilenet_v2"}, TypeError, "name must be text, got b'bundled"),
        ({"weights": 3}, TypeError, "weights must be None or text, got 3"),
        ({"weights": "x" * 300}, ValueError, r"weights must be .* \(300 characters\)$"),
        ({"image_size": "x"}, TypeError, "image_size must be None or a whole number, got 'x'"),
        ({"image_size": 2.5}, TypeError, "image_size must be None or a whole number, got 2.5"),
        ({"image_size": True}, TypeError, "image_size must be None or a whole number, got True"),
        ({"image_size": 10**5000}, ValueError, "image_size must be at most 2048, got a int"),
    ],
)
def test_arguments_of_other_types_and_sizes_are_named(options, kind, message):
    with pytest.raises(kind, match=f"^build_encoder: {message}"):
        build_encoder(**{"name": "bundled:mobilenet_v2", **options})


@pytest.mark.parametrize("model", ["convnextv2_atto", "resnet10t"])
def test_global_features_are_those_that_timms_own_head_classifies(model):
    encoder = build_encoder(f"timm:{model}", image_size=64).eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        features = encoder(images)
        maps = encoder.network.forward_features(images)
        expected = encoder.network.forward_head(maps, pre_logits=True)
    torch.testing.assert_close(features.global_, expected)
    normed = not torch.allclose(features.global_, features.tokens.mean(1), atol=1e-3)
    assert normed == model.startswith("convnext")
