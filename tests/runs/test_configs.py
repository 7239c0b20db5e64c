"""The shipped configs build their models: random weights, small images, stand-in text."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import timm
import torch

from zsbir_fast.cli.parsing import find_config, shipped_configs
from zsbir_fast.data.splits import load_split
from zsbir_fast.methods.dmwan.model import DMWAN
from zsbir_fast.methods.identity import ModelIdentity, build_model
from zsbir_fast.runs.settings import check_config, read_settings
from zsbir_fast.training.module import RetrievalModule


def _text(classes, *, source):
    assert source in ("glove", "open_clip:ViT-B-32/openai")
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(len(classes), 3, 16, generator=generator)
    mask = torch.ones(len(classes), 3, dtype=torch.bool)
    words = [[name] * 3 for name in classes]
    return SimpleNamespace(tokens=tokens, mask=mask, global_=tokens.mean(1), words=words)


@pytest.mark.parametrize("name", shipped_configs())
def test_config_builds_its_model_and_takes_a_step(name, monkeypatch):
    monkeypatch.setattr("zsbir_fast.text.class_text.ClassText", _text)
    settings = read_settings(find_config(name))
    check_config(settings.data, settings.optim, settings.run)
    seen = load_split(settings.data.name).seen
    assert 0 < settings.data.validation_classes < len(seen) / 4
    assert settings.data.classes_per_batch <= len(seen) - settings.data.validation_classes
    small = {"weights": None, "image_size": 64}
    if name != "dmwan-qd_caltech.yaml":
        encoder, tag = settings.model["encoder"], settings.model["weights"]
        assert timm.list_pretrained(f"{encoder.removeprefix('timm:')}.{tag}")
        small["encoder"] = "timm:vit_tiny_patch16_224"  # the same code, a fifteenth of the weights
    identity = ModelIdentity.of(settings.method, {**settings.model, **small}, seen)
    model = build_model(identity)
    assert isinstance(model, DMWAN)
    module = RetrievalModule(model, settings.optim, identity, total_steps=100)
    optimizer = module.configure_optimizers()["optimizer"]
    names = {group["name"] for group in optimizer.param_groups}
    assert names == {"backbone", "backbone (no decay)", "head"}
    labels = torch.tensor([0, 0, 1, 1])
    images = torch.randn(4, 3, 64, 64)
    loss = model.training_loss({"sketches": images, "photos": images.flip(3), "labels": labels})
    loss["loss"].backward()
    optimizer.step()
    assert torch.isfinite(model.eval().embed(images, "photo")).all()


def test_what_cannot_be_read_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"^read_settings: no such config: .*none\.yaml$"):
        read_settings(tmp_path / "none.yaml")
    with pytest.raises(IsADirectoryError, match=r"^read_settings: .* must be a readable config"):
        read_settings(tmp_path)
