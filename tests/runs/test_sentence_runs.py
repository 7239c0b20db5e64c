"""A run that reads descriptions: what it tells, and that its model needs no text to be loaded."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch

from zsbir_fast.cli.train import parse_settings
from zsbir_fast.data.benchmarks import load_benchmark
from zsbir_fast.methods.saving import load_model
from zsbir_fast.runs import fit as runs_fit

ARGUMENTS = [
    "--config=dmwan-qd_caltech",
    "--model.encoder.name=timm:test_vit",
    "--model.encoder.weights=random",
    "--model.encoder.image_size=32",
    "--model.mirror_scale=1",
    "--model.weighting.text_source=glove:sentences",
    "--model.weighting.prompts=drawing",
    "--model.weighting.text_layers=1",
    "--model.weighting.whole=sentences",
    "--model.loss.negative=random",
    "--data.classes_per_batch=3",
    "--data.validation_classes=0",
    "--run.epochs=1",
    "--run.steps_per_epoch=2",
    "--run.accelerator=cpu",
]


@pytest.mark.parametrize("progress", [True, False])
def test_a_run_tells_how_many_tokens_a_class_has(tmp_path, monkeypatch, progress):
    whole = load_benchmark("qd_caltech")
    few = whole.train_sketches.subset(torch.arange(0, len(whole.train_sketches), 8))
    photos = whole.train_photos.subset(torch.arange(0, len(whole.train_photos), 8))
    benchmark = replace(whole, train_sketches=few, train_photos=photos)
    monkeypatch.setattr(runs_fit, "load_benchmark", lambda *args, **more: benchmark)
    out = f"--run.out={tmp_path}"
    settings, _ = parse_settings([*ARGUMENTS, out, f"--run.progress={str(progress).lower()}"])
    lines = []
    trained = runs_fit.fit(settings, say=lines.append)
    told = [line for line in lines if line.startswith("text of 37 classes from glove:sentences: ")]
    assert len(told) == progress
    text = load_model(tmp_path / "model")[0].pair_weighting
    counts = sorted(text.mask.sum(1).tolist())
    if progress:
        numbers = [float(x) for x in re.findall(r"[\d.]+", told[0].partition(":sentences: ")[2])]
        assert numbers == [counts[0], counts[18], counts[-1]]
        assert told[0].endswith("tokens a class (least / median / most); no word unknown")
    kept = trained.model.pair_weighting.transformer.summary
    torch.testing.assert_close(text.transformer.summary, kept)
