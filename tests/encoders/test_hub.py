"""Weights of the hub: from the cache without a request, or one clear line at once."""

from __future__ import annotations

import json
import re

import pytest
import torch
from safetensors.torch import save_file

from zsbir_fast.encoders.build import build_encoder
from zsbir_fast.text.class_text import ClassText

TIMM = "vit_tiny_patch16_224.augreg_in21k_ft_in1k"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    return tmp_path


@pytest.fixture
def lookups(monkeypatch):
    """What was looked up; there is no network in these tests."""
    tried = []

    def refuse(*arguments, **options):
        tried.append(arguments[:1])
        raise OSError("no network in this test")

    monkeypatch.setattr("socket.getaddrinfo", refuse)
    monkeypatch.setattr("socket.socket.connect", refuse)
    return tried


def _put(cache, repo, name, state):
    folder = cache / f"models--{repo.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("abc")
    (folder / "snapshots" / "abc").mkdir(parents=True)
    save_file({k: v.contiguous() for k, v in state.items()}, folder / "snapshots" / "abc" / name)


@pytest.fixture
def tiny_clip(tmp_path):
    """An open_clip model of our own, with a tag of our own."""
    import open_clip
    from open_clip import pretrained

    config = {
        "embed_dim": 24,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 8},
        "text_cfg": {
            "context_length": 8, "vocab_size": 49408, "width": 32, "heads": 1, "layers": 1,
        },
    }  # fmt: skip
    (tmp_path / "zsbir-hub-clip.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path / "zsbir-hub-clip.json")
    tag = {"hf_hub": "somebody/tiny/", "mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6)}
    pretrained._PRETRAINED["zsbir-hub-clip"] = {"mine": tag}
    yield open_clip.create_model("zsbir-hub-clip").state_dict()
    del pretrained._PRETRAINED["zsbir-hub-clip"]


@pytest.mark.parametrize(
    ("build", "missing"),
    [
        (lambda: build_encoder("timm:vit_tiny_patch16_224", weights="pretrained"), f"timm/{TIMM}"),
        (
            lambda: build_encoder("timm:vit_base_patch16_224", weights="sam_in1k"),
            "timm/vit_base_patch16_224.sam_in1k",
        ),
        (
            lambda: build_encoder("open_clip:ViT-B-32-quickgelu", weights="openai"),
            "timm/vit_base_patch32_clip_224.openai",
        ),
        (
            lambda: ClassText(["cat"], source="open_clip:ViT-B-32-quickgelu/openai"),
            "timm/vit_base_patch32_clip_224.openai",
        ),
    ],
)
def test_without_a_network_one_request_is_made_and_the_missing_file_is_named(
    cache, lookups, build, missing
):
    message = (
        rf"could not be fetched: {re.escape(missing)} is not in the cache {re.escape(str(cache))}, "
        rf"and https://huggingface\.co cannot be reached; where there is a network, run 'hf "
        rf"download {re.escape(missing)} \S+\.safetensors' and copy the cache here, or give a local"
    )
    with pytest.raises(RuntimeError, match=message):
        build()
    assert len(lookups) <= 1  # no retries


def test_cached_weights_of_timm_need_no_request(cache, lookups):
    import timm

    network = timm.create_model("vit_tiny_patch16_224")
    _put(cache, f"timm/{TIMM}", "model.safetensors", network.state_dict())
    encoder = build_encoder("timm:vit_tiny_patch16_224", weights="pretrained")
    assert torch.equal(encoder.network.blocks[0].mlp.fc1.weight, network.blocks[0].mlp.fc1.weight)
    assert lookups == []


def test_cached_weights_of_open_clip_need_no_request(cache, lookups, tiny_clip):
    _put(cache, "somebody/tiny", "open_clip_model.safetensors", tiny_clip)
    encoder = build_encoder("open_clip:zsbir-hub-clip", weights="mine")
    assert torch.equal(encoder.network.conv1.weight, tiny_clip["visual.conv1.weight"])
    assert (encoder.mean, encoder.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    text = ClassText(["cat"], source="open_clip:zsbir-hub-clip/mine")
    assert text.global_.shape == (1, 24)
    assert lookups == []
