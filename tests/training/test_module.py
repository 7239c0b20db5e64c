from __future__ import annotations

import itertools
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from zsbir_fast.losses.cross_batch_memory import FeatureBank
from zsbir_fast.methods.identity import ModelIdentity
from zsbir_fast.methods.optimizers import parameter_groups
from zsbir_fast.methods.settings import DataConfig, OptimConfig
from zsbir_fast.runs.settings import Settings, check_settings
from zsbir_fast.training.module import MethodModule
from zsbir_fast.training.run_config import RunConfig
from zsbir_fast.training.schedule import lr_factor

OPTIM = OptimConfig(lr_backbone=1e-5, lr_head=1e-3, weight_decay=0.1, warmup_steps=4)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Linear(2, 3)
        self.head = nn.Linear(3, 4)
        self.frozen = nn.Linear(9, 9).requires_grad_(False)


def test_groups_hold_every_trainable_parameter_once():
    model = Model()
    groups = {
        g["name"]: g for g in parameter_groups(model.parameters(), OPTIM, backbone=model.encoder)
    }
    assert {n: (g["lr"], g["weight_decay"]) for n, g in groups.items()} == {
        "backbone": (1e-5, 0.1),
        "backbone (no decay)": (1e-5, 0.0),
        "head": (1e-3, 0.1),
        "head (no decay)": (1e-3, 0.0),
    }
    held = [p for g in groups.values() for p in g["params"]]
    assert {id(p) for p in held} == {
        id(p) for part in (model.encoder, model.head) for p in part.parameters()
    }
    assert len(held) == 4
    assert groups["backbone"]["params"][0] is model.encoder.weight


def test_banks_are_not_sent_around():
    model = Model()
    model.bank = FeatureBank(size=4, width=2)
    model.register_buffer("mean", torch.zeros(1))
    module = MethodModule(model, OPTIM, RunConfig(), ModelIdentity("dmwan", {}, ()))
    ignored = set(module._ddp_params_and_buffers_to_ignore)
    assert ignored == {"model.bank._features", "model.bank._labels"}
    assert ignored < dict(module.named_buffers()).keys()


def test_nothing_to_train():
    model = Model().requires_grad_(False)
    with pytest.raises(ValueError, match="parameter_groups: model must have a trainable parameter"):
        parameter_groups(model.parameters(), OPTIM, backbone=model.encoder)


def test_schedule():
    factors = [lr_factor(step, OPTIM, 24) for step in range(25)]
    assert factors[:4] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert factors[4] == 1.0
    assert factors[14] == pytest.approx(0.5)
    assert factors[24] == pytest.approx(0.0)
    assert all(a > b for a, b in itertools.pairwise(factors[4:]))
    assert lr_factor(99, replace(OPTIM, final_lr_ratio=0.25), 24) == pytest.approx(0.25)
    constant = replace(OPTIM, schedule="constant")
    assert [lr_factor(s, constant, 24) for s in (4, 23)] == [1.0, 1.0]
    assert math.isfinite(lr_factor(3, replace(OPTIM, warmup_steps=0), 0))


@pytest.mark.parametrize(
    ("part", "change", "text"),
    [
        ("data", {"classes_per_batch": 1}, "data.classes_per_batch must be at least 2, got 1"),
        ("optim", {"lr_head": -1.0}, "optim.lr_head must be at least 0, got -1.0"),
        ("optim", {"lr_head": math.nan}, "optim.lr_head must be a finite number, got nan"),
        (
            "optim",
            {"gradient_clip": math.inf},
            "optim.gradient_clip must be a finite number, got inf",
        ),
        ("run", {"epochs": 0}, "run.epochs must be at least 1, got 0"),
    ],
)
def test_settings_out_of_range(part, change, text):
    settings = Settings(data=DataConfig(), optim=OptimConfig(), run=RunConfig())
    check_settings(settings)
    wrong = replace(settings, **{part: replace(getattr(settings, part), **change)})
    with pytest.raises(ValueError, match=f"check_settings: {text}"):
        check_settings(wrong)


def test_folders_are_given_as_text():
    with pytest.raises(TypeError, match=r"data\.root must be text, got PosixPath\('x'\)"):
        check_settings(Settings(data=DataConfig(root=Path("x"))))
