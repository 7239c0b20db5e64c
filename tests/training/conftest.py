from __future__ import annotations

import contextlib

import lightning.pytorch as pl
import pytest
import torch
from torch import nn
from torch.utils.data import Dataset

from zsbir_fast.methods.identity import ModelIdentity
from zsbir_fast.runs.settings import OptimConfig, RunConfig
from zsbir_fast.training.module import RetrievalModule
from zsbir_fast.training.streams import ResumableLoader, RunBatches, seed_everything
from zsbir_fast.training.trainer import run_trainer


class Killed(BaseException):
    """Stands for the end of the process: nothing in the training code may catch it."""


class _Net(nn.Module):
    """As random as a real model: dropout, noisy items, running statistics."""

    def __init__(self, kill_after):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
        self.head = nn.Linear(4, 2)
        self.dropout = nn.Dropout(0.5)
        self.left = kill_after

    def training_loss(self, batch):
        if self.left == 0:
            raise Killed
        self.left -= 1
        out = self.head(self.dropout(self.encoder(batch)))
        return {"loss": (out**2).mean(), "part": out.mean()}


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

    def run(out, *, kill_after=-1, resume=False, accumulate=1, method="dmwan", precision="32-true"):
        optim = OptimConfig(lr_backbone=1e-2, lr_head=1e-2, warmup_steps=2, accumulate=accumulate)
        settings = RunConfig(
            out=str(out),
            epochs=3,
            precision=precision,
            steps_per_epoch=4,
            checkpoint_every=3,
            log_every=1,
            progress=False,
            accelerator="cpu",
        )
        seed_everything(0)
        net = _Net(kill_after)
        module = RetrievalModule(
            net,
            optim,
            ModelIdentity(method, {"encoder": "x"}, ("a", "b")),
            total_steps=settings.total_steps,
        )
        validated = []

        def validate(trainer):
            validated.append(trainer.global_step)
            return {"val/map": -float((trainer.global_step - 8) ** 2)}  # best at step 8

        fitted = None
        with contextlib.suppress(Killed):
            fitted = run_trainer(
                module,
                _Data(4 * accumulate, 3),
                optim,
                settings,
                validate=validate,
                resume_from=out / "checkpoints" / "last.ckpt" if resume else None,
            )
        return {k: v.clone() for k, v in net.state_dict().items()}, validated, fitted

    return run
