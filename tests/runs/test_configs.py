"""The shipped configs build their models: random weights, small images, stand-in text."""

from __future__ import annotations

import re
from types import SimpleNamespace

import open_clip
import pytest
import timm
import torch

from zsbir_fast._hub import require_own_activation
from zsbir_fast.cli.parsing import find_config, shipped_configs
from zsbir_fast.data.splits import load_split
from zsbir_fast.methods.build import build_model
from zsbir_fast.methods.clusterretri import ClusterRetri
from zsbir_fast.methods.cmaan.model import CMAAN
from zsbir_fast.methods.contract import Progress
from zsbir_fast.methods.distilled import DistilledMethod
from zsbir_fast.methods.dmwan.model import DMWAN
from zsbir_fast.methods.finetune import FineTune
from zsbir_fast.methods.identity import ModelIdentity
from zsbir_fast.methods.sbka import SBKA
from zsbir_fast.runs.settings import check_settings, read_settings

_CLASSES = {
    "dmwan": DMWAN,
    "cmaan": CMAAN,
    "clusterretri": ClusterRetri,
    "sbka": SBKA,
    "finetune": FineTune,
}
_SMALL = {
    "dmwan": "timm:vit_tiny_patch16_224",
    "cmaan": "timm:vit_tiny_patch16_224",
    "finetune": "timm:vit_tiny_patch16_224",
    "clusterretri": "timm:seresnet18",
    "sbka": "timm:convnextv2_atto",
}


def _text(classes, *, source, **options):
    model, _, tag = source.partition(":")[2].partition("/")
    if model:
        require_own_activation("config", "weighting.text_source", model, tag)
    assert source in ("glove", "glove:sentences") or source.startswith("open_clip:ViT-B-")
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(len(classes), 3, 16, generator=generator)
    mask = torch.ones(len(classes), 3, dtype=torch.bool)
    words = [[name] * 3 for name in classes]
    return SimpleNamespace(
        tokens=tokens, mask=mask, global_=tokens.mean(1), words=words, summary="text"
    )


@pytest.mark.parametrize("name", shipped_configs())
def test_config_builds_its_model_and_takes_a_step(name, monkeypatch):
    monkeypatch.setattr("zsbir_fast.text.class_text.ClassText", _text)
    settings = read_settings(find_config(name))
    check_settings(settings)
    seen = load_split(settings.data.name).seen
    trains_on_all = name in ("clusterretri-qd_caltech.yaml", "sbka-qd_caltech.yaml")
    assert (settings.data.validation_classes == 0) == trains_on_all
    assert settings.data.validation_classes < len(seen) / 4
    assert settings.data.classes_per_batch <= len(seen) - settings.data.validation_classes
    encoder = settings.model.get("encoder", {})
    small = {**encoder, "weights": None, "image_size": 64}
    if not name.endswith("-qd_caltech.yaml"):
        zoo, _, model_name = encoder["name"].partition(":")
        if zoo == "timm":
            assert timm.list_pretrained(f"{model_name}.{encoder['weights']}")
        else:
            assert encoder["weights"] in open_clip.list_pretrained_tags_by_model(model_name)
            require_own_activation("config", "encoder.name", model_name, encoder["weights"])
        small["name"] = _SMALL[settings.method]  # the same code, a fraction of the weights
    identity = ModelIdentity.of(settings.method, {**settings.model, "encoder": small}, seen)
    model = build_model(identity)
    assert isinstance(model, _CLASSES[settings.method])
    optimizers = model.optimizers(settings.optim)
    names = {group["name"] for group in optimizers[0].param_groups}
    mode = encoder.get("tuning", {}).get("mode", "full")
    backbone = {"full": {"backbone", "backbone (no decay)"}, "norm": {"backbone (no decay)"}}
    head = set() if settings.method == "finetune" else {"head"}  # it has nothing but its encoder
    assert backbone.get(mode, {"backbone"}) | head <= names
    assert backbone.get(mode, {"backbone"}) == {each for each in names if "backbone" in each}
    labels = torch.tensor([0, 0, 1, 1])
    images = torch.randn(4, 3, 64, 64)
    pairs = {"sketches": images, "photos": images.flip(3), "labels": labels}
    batches = {
        DMWAN: pairs,
        CMAAN: pairs,
        FineTune: pairs,
        DistilledMethod: {"images": images, "labels": labels, "is_photo": labels == 0},
    }
    batch = next(given for kind, given in batches.items() if isinstance(model, kind))
    late = Progress(step=99, epoch=settings.run.epochs - 1, total_steps=100, epochs=1)
    losses = model.losses(batch, late)
    for loss in losses.per_optimizer:
        loss.backward(retain_graph=True)
    for optimizer in optimizers:
        optimizer.step()
    assert torch.isfinite(model.eval().embed(images, "photo")).all()


def test_what_cannot_be_read_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"^read_settings: no such config: .*none\.yaml$"):
        read_settings(tmp_path / "none.yaml")
    with pytest.raises(IsADirectoryError, match=r"^read_settings: .* must be a readable config"):
        read_settings(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: {lambda_cls: 1.0}", "method dmwan has no argument 'lambda_cls', in {}"),
        ("model: {encoder: x}", "'encoder' of method dmwan must be an object of settings, got 'x'"),
        ("model: {terms: {clss: 1}}", r"no argument 'terms.clss' (did you mean 'cls'?), in {}"),
        (
            "method: dmwam",
            "clusterretri, sbka, finetune, got 'dmwam' (did you mean 'dmwan'?), in {}",
        ),
        (
            "method: 3",
            "one of dmwan, cmaan, clusterretri, sbka, finetune, got 3, in {}",
        ),
        ("a: !!timestamp x", "path must be a YAML config, got"),
        ("? [a, b]\n: 1", "path must be a YAML config, got"),
        (
            "learning_rate: 1",
            "config must be among data, method, model, optim, rerank, run, got",
        ),
    ],
)
def test_a_config_of_an_older_layout_is_one_line(tmp_path, text, message):
    path = tmp_path / "old.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=re.escape(message.format(path))) as told:
        read_settings(path)
    assert str(told.value).startswith("read_settings: ")
    assert str(path) in str(told.value)
    assert "\n" not in str(told.value)
