"""``zsbir train`` with a tuned encoder: what it prints and writes, resume, and evaluation."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from zsbir_fast.cli.app import main
from zsbir_fast.data.benchmarks import load_benchmark
from zsbir_fast.methods.checkpoint_files import read_checkpoint
from zsbir_fast.methods.saving import load_model
from zsbir_fast.runs import fit

ARGUMENTS = [
    "--config=dmwan-qd_caltech",
    "--model.encoder.name=timm:test_vit",
    "--model.encoder.weights=random",
    "--model.encoder.image_size=32",
    "--model.mirror_scale=1",
    "--model.weighting.kind=pairwise",
    "--data.classes_per_batch=3",
    "--data.validation_classes=0",
    "--optim.schedule=constant",
    "--optim.warmup_steps=0",
    "--run.steps_per_epoch=2",
    "--run.progress=false",
    "--run.accelerator=cpu",
]
LORA = ["--model.encoder.tuning.mode=lora", "--model.encoder.tuning.per_modality=true"]


@pytest.fixture
def few_images(monkeypatch):
    def few(*args, **more):
        whole = load_benchmark(*args, **more)
        parts = {
            name: getattr(whole, name).subset(torch.arange(0, len(getattr(whole, name)), 8))
            for name in ("train_sketches", "train_photos", "test_sketches", "test_photos")
        }
        return replace(whole, **parts)

    monkeypatch.setattr(fit, "load_benchmark", few)


def test_a_tuned_run_says_what_it_trains_and_resumes_exactly(tmp_path, few_images, capsys):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert main(["train", *ARGUMENTS, *LORA, "--run.epochs=2", f"--run.out={whole}"]) == 0
    # Rank 8 on qkv and proj of six blocks of width 64, twice; 8 * (64 + 192 + 64 + 64) each.
    told = "of the encoder 36,864 of 336,"
    printed = capsys.readouterr().out
    assert told in printed
    assert "LoRA of rank 8 on 12 layers, one set for sketches and one for photos" in printed
    assert told in (whole / "report.html").read_text()
    metrics = json.loads((whole / "metrics.json").read_text())
    model = load_model(whole / "model")[0]
    assert metrics["parameters"] == sum(p.numel() for p in model.parameters())
    assert metrics["trained_parameters"] == sum(
        p.numel() for p in model.parameters() if p.requires_grad
    )
    assert main(["train", *ARGUMENTS, *LORA, "--run.epochs=1", f"--run.out={cut}"]) == 0
    again = ["train", f"--config={cut / 'config.yaml'}", "--run.epochs=2", "--resume"]
    assert main(again) == 0
    one, other = (
        read_checkpoint(out / "checkpoints" / "last.ckpt")["state_dict"] for out in (whole, cut)
    )
    assert list(one) == list(other)
    assert all(torch.equal(one[name], other[name]) for name in one)
    moved = model.encoder.photo_parts[1]  # the second factor of the first layer; it starts at 0
    assert moved.abs().max() > 0


def test_a_run_that_can_train_nothing_stops_before_it_writes(tmp_path, few_images, capsys):
    out = tmp_path / "run"
    nothing = ["--model.encoder.tuning.mode=frozen", "--model.terms.cls=0", "--model.terms.align=0"]
    assert main(["train", *ARGUMENTS, *nothing, f"--run.out={out}"]) == 1
    assert "train: model must have a trainable parameter, got none of its 300,096: nothing" in (
        capsys.readouterr().err
    )
    assert not (out / "config.yaml").exists()


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--model.encoder.tuning.mode=nrm", "did you mean 'norm'?"),
        ("--model.encoder.tuning.mod=norm", "did you mean 'encoder.tuning.mode'?"),
        ("--model.encoder.tuning.lora_rank=x", "model.encoder.tuning.lora_rank"),
    ],
)
def test_wrong_arguments_of_a_mode_are_one_line(argument, message, capsys):
    assert main(["train", argument]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_a_config_with_an_unknown_key_of_tuning_is_named(tmp_path, capsys):
    path = tmp_path / "own.yaml"
    path.write_text("model:\n  encoder:\n    tuning:\n      promts: 3\n")
    assert main(["train", "--config", str(path)]) == 2
    assert "got 'model.encoder.tuning.promts'" in capsys.readouterr().err
