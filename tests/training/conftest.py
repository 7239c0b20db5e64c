from __future__ import annotations

import contextlib

import lightning.pytorch as pl
import pytest
import torch
from torch import nn
from torch.utils.data import Dataset

from zsbir_fast.data.image_spec import ImageSpec
from zsbir_fast.methods.contract import Losses, Method
from zsbir_fast.methods.identity import ModelIdentity
from zsbir_fast.methods.settings import OptimConfig
from zsbir_fast.training.module import MethodModule
from zsbir_fast.training.run_config import RunConfig
from zsbir_fast.training.streams import ResumableLoader, RunBatches, seed_everything
from zsbir_fast.training.trainer import run_trainer


class Killed(BaseException):
    """Stands for the end of the process: nothing in the training code may catch it."""


class _Net(Method):
    """As random as a real model: dropout, noisy items, running statistics."""

    def __init__(self, kill_after):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
        self.head = nn.Linear(4, 2)
        self.dropout = nn.Dropout(0.5)
        self.left = kill_after
        self.progress = []

    def image_spec(self):
        return ImageSpec(1, (0.0,) * 3, (1.0,) * 3)

    def backbone(self):
        return self.encoder

    def embed(self, images, modality):
        return self.encoder(images)

    def losses(self, batch, at):
        if self.left == 0:
            raise Killed
        self.left -= 1
        self.progress.append((at.step, at.epoch))
        out = self.head(self.dropout(self.encoder(batch)))
        return Losses([(out**2).mean()], {"part": out.mean()})


class _TwoNets(_Net):
    """Its head has an optimizer and a loss of its own, and rests in the first epoch."""

    def optimizers(self, optim):
        return [
            torch.optim.AdamW(self.encoder.parameters(), lr=optim.lr_backbone),
            torch.optim.SGD(self.head.parameters(), lr=optim.lr_head, momentum=0.9),
        ]

    def losses(self, batch, at):
        (loss,) = super().losses(batch, at).per_optimizer
        return Losses([loss, None if at.epoch == 0 else 100 * loss])


class _Items(Dataset):
    def __getitem__(self, index):
        return torch.randn(4) + index


class _Epochs:
    def __init__(self, batches):
        self.batches, self.epoch = batches, 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __len__(self):
        return self.batches

    def __iter__(self):
        generator = torch.Generator().manual_seed(self.epoch)
        for _ in range(self.batches):
            yield torch.randint(9, (3,), generator=generator).tolist()


class _Data(pl.LightningDataModule):
    def __init__(self, batches, epochs):
        super().__init__()
        self.batches, self.epochs = batches, epochs

    def train_dataloader(self):
        total = self.batches * self.epochs
        return ResumableLoader(_Items(), RunBatches(_Epochs(self.batches), batches=total, seed=0))


@pytest.fixture
def small_run():
    """Run 3 epochs of 4 steps of a small network; returns weights, validated steps, outcome."""

    def run(out, *, kill_after=-1, resume=False, method="dmwan", two=False, **changes):
        clip = changes.pop("gradient_clip", 1.0)
        accumulate = changes.pop("accumulate", 1)
        optim = OptimConfig(
            lr_backbone=1e-2,
            lr_head=1e-2,
            warmup_steps=2,
            accumulate=accumulate,
            gradient_clip=clip,
        )
        settings = RunConfig(
            out=str(out),
            accelerator="cpu",
            **{
                "epochs": 3,
                "steps_per_epoch": 4,
                "checkpoint_every": 3,
                "log_every": 1,
                "progress": False,
                **changes,
            },
        )
        seed_everything(0)
        net = (_TwoNets if two else _Net)(kill_after)
        identity = ModelIdentity(method, {"encoder": "x"}, ("a", "b"))
        module = MethodModule(net, optim, settings, identity)
        validated = []

        def validate(trainer):
            validated.append(module.steps)
            return {"val/map": -float((module.steps - 8) ** 2)}  # best at step 8

        fitted = None
        with contextlib.suppress(Killed):
            fitted = run_trainer(
                module,
                _Data(4 * accumulate, 3),
                validate=validate,
                resume_from=out / "checkpoints" / "last.ckpt" if resume else None,
            )
        weights = {k: v.clone() for k, v in net.state_dict().items()}
        run.progress = net.progress
        return weights, validated, fitted

    run.net, run.two_nets = _Net, _TwoNets
    return run
