from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

from zsbir_fast.methods.build import build_model
from zsbir_fast.methods.checkpoint_files import read_checkpoint
from zsbir_fast.methods.identity import ModelIdentity
from zsbir_fast.methods.registry import method_class
from zsbir_fast.methods.saving import export_model, load_model

ARGUMENTS = {
    "encoder": {"weights": None},
    "weighting": {"kind": "pairwise"},
    "loss": {"margins": (0.2, 0.3, 0.3, 0.3, 0.3)},
}
CLASSES = ("cat", "dog", "owl")


@pytest.fixture(scope="module")
def identity():
    return ModelIdentity.of("dmwan", ARGUMENTS, CLASSES)


@pytest.fixture(scope="module")
def exported(identity, tmp_path_factory):
    torch.manual_seed(0)
    model = build_model(identity).eval()
    return model, export_model(model, identity, tmp_path_factory.mktemp("export"))


def test_export_and_load_give_the_same_embeddings(identity, exported):
    model, folder = exported
    assert sorted(p.name for p in folder.iterdir()) == ["model.json", "model.safetensors"]
    loaded, its_identity = load_model(folder)
    assert its_identity == identity
    assert not loaded.training
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(loaded.embed(images, "sketch"), model.embed(images, "sketch"))


def test_export_of_tensors_that_share_memory(identity, tmp_path):
    class Shared(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("a", torch.arange(6.0).view(2, 3))
            self.register_buffer("b", self.a[1])
            self.register_buffer("c", self.a.T)

    export_model(Shared(), identity, tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    assert stored["b"].tolist() == [3, 4, 5]
    assert stored["c"].tolist() == [[0, 3], [1, 4], [2, 5]]


def test_arguments_left_out_are_stored_with_their_defaults(identity):
    assert identity.arguments["weighting"]["width"] == 256
    spelled_out = ModelIdentity.of(
        "dmwan", {**ARGUMENTS, "weighting": {"kind": "pairwise", "width": 256}}, CLASSES
    )
    assert spelled_out == identity
    assert not {"classes", "text"} & set(identity.arguments)


def test_identity_survives_json(identity):
    assert ModelIdentity.from_dict(json.loads(json.dumps(identity.to_dict()))) == identity
    identity.require_same(identity.to_dict())


@pytest.mark.parametrize(
    ("method", "arguments", "classes", "text"),
    [
        ("cmaan", ARGUMENTS, CLASSES, "must be of method 'dmwan', got one of method 'cmaan'"),
        (
            "dmwan",
            {**ARGUMENTS, "encoder": {"name": "timm:resnet18", "weights": None}},
            CLASSES,
            r"with encoder\.name='bundled:mobilenet_v2', got one with enc.*='timm:resnet18'",
        ),
        (
            "dmwan",
            ARGUMENTS,
            ("cat", "dog"),
            r"same 3 classes, got one trained on 2 .*'cat', 'dog'",
        ),
    ],
)
def test_checkpoint_of_another_model(identity, method, arguments, classes, text):
    its = ModelIdentity.of("dmwan", arguments, classes)
    with pytest.raises(ValueError, match=text):
        identity.require_same({**its.to_dict(), "method": method})


def test_checkpoint_from_elsewhere(identity):
    with pytest.raises(ValueError, match="checkpoint must be one written by zsbir"):
        identity.require_same(None)
    with pytest.raises(ValueError, match="format must be 2, got 7"):
        ModelIdentity.from_dict({**identity.to_dict(), "format": 7})


def test_unknown_method():
    with pytest.raises(ValueError, match="cmaan, clusterretri, sbka, finetune, got 'dmvan'"):
        method_class("dmvan")


def test_weights_of_another_shape(exported, tmp_path):
    model, _ = exported
    export_model(model, ModelIdentity.of("dmwan", ARGUMENTS, CLASSES[:2]), tmp_path)
    with pytest.raises(ValueError, match=r"stored must be the weights of this dmwan model"):
        load_model(tmp_path)


def test_incomplete_or_damaged_export(exported, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"with model\.safetensors and model\.json, but"):
        load_model(tmp_path)
    (tmp_path / "model.json").write_text("{")
    (tmp_path / "model.safetensors").write_bytes(b"x")
    with pytest.raises(ValueError, match="path must be a model written by zsbir, got"):
        load_model(tmp_path)


def test_checkpoint_files_that_are_none(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"path must be an existing file, got .*no\.ckpt"):
        load_model(tmp_path / "no.ckpt")
    (tmp_path / "text.ckpt").write_text("hello")
    with pytest.raises(ValueError, match="path must be a checkpoint written by zsbir, got"):
        read_checkpoint(tmp_path / "text.ckpt")
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match="path must be a checkpoint written by zsbir, got"):
        read_checkpoint(tmp_path / "other.ckpt")


def test_checkpoint_that_would_run_code_is_refused(tmp_path):
    torch.save({"zsbir": print}, tmp_path / "evil.ckpt")
    with pytest.raises(ValueError, match="path must be a checkpoint written by zsbir"):
        read_checkpoint(tmp_path / "evil.ckpt")


def test_how_a_model_is_computed_is_no_part_of_what_it_is():
    fused, reference, other = (
        ModelIdentity.of("dmwan", {**ARGUMENTS, **more}, CLASSES)
        for more in ({}, {"impl": "reference"}, {"loss": {**ARGUMENTS["loss"], "memory": 64}})
    )
    assert fused.arguments["impl"] == "fused"
    fused.require_same(reference.to_dict())
    with pytest.raises(ValueError, match=r"with loss\.memory=0, got one with loss\.memory=64"):
        fused.require_same(other.to_dict())


def test_a_model_with_memory_is_exported_with_it(tmp_path):
    identity = ModelIdentity.of("dmwan", {**ARGUMENTS, "loss": {"memory": 8}}, CLASSES)
    model = build_model(identity)
    model.memory.photos.add(torch.randn(3, 1280), torch.arange(3))
    loaded, _ = load_model(export_model(model, identity, tmp_path))
    assert loaded.memory.photos.labels.tolist() == [0, 1, 2]
    assert torch.equal(loaded.memory.photos.features, model.memory.photos.features)
