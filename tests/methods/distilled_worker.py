"""One of several processes that train ClusterRetri and SBKA together; writes losses and weights.

Run as `python distilled_worker.py RANK SIZE FOLDER`. Size 1 needs no group: it is what the others
are compared with.
"""

from __future__ import annotations

import datetime
import sys
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import zsbir_fast as zf
from zsbir_fast.training.module import MethodModule
from zsbir_fast.training.run_config import RunConfig

CLASSES = ("cat", "dog", "piano", "car")
IMAGES, STEPS = 12, 10
CUTS = {1: [0, 12], 2: [0, 5, 12]}  # in the first batches the first process has no photo at all
OPTIM = zf.OptimConfig(lr_backbone=1e-3, lr_head=1e-2, weight_decay=1e-3)
ENCODER = zf.EncoderOptions("timm:test_convnext", weights=None, image_size=32)


class Training(nn.Module):
    """DDP gathers gradients of what runs in `forward`."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, batch, at):
        return self.model.losses(batch, at)


def batch(step, rows):
    g = torch.Generator().manual_seed(step)
    images = torch.randn(IMAGES, 3, 32, 32, generator=g, dtype=torch.float64)
    labels = torch.randint(0, len(CLASSES), (IMAGES,), generator=g)
    is_photo = torch.arange(IMAGES) >= (5 if step < 3 else 4)
    return {"images": images[rows], "labels": labels[rows], "is_photo": is_photo[rows]}


def at(step):
    return zf.Progress(step=step, epoch=step // 5, total_steps=STEPS, epochs=2)


def train_clusterretri(own, size):
    torch.manual_seed(0)
    model = zf.ClusterRetri(CLASSES, encoder=ENCODER, width=16, centre=True).double()
    training = Training(model)
    wrapped = DistributedDataParallel(training) if size > 1 else training
    (optimizer,) = model.optimizers(OPTIM)
    history = []
    for step in range(STEPS):
        losses = wrapped(batch(step, own), at(step))
        optimizer.zero_grad()
        losses.per_optimizer[0].backward()
        optimizer.step()
        history.append({name: value.detach() for name, value in losses.parts.items()})
    return history, model.state_dict()


def train_sbka(own, size):
    torch.manual_seed(0)
    model = zf.SBKA(
        CLASSES, encoder=ENCODER, one_way_epochs=1, detach_targets=False, centre=True
    ).double()
    optimizers = model.optimizers(OPTIM)
    identity = zf.ModelIdentity.of("sbka", {}, CLASSES)
    module = MethodModule(model, OPTIM, RunConfig(epochs=2, steps_per_epoch=5), identity)
    history = []
    for step in range(STEPS):
        losses = model.losses(batch(step, own), at(step))
        module._pass_back(losses, optimizers)
        loop = SimpleNamespace(
            trainer=SimpleNamespace(world_size=size), device=torch.device("cpu"), _due=module._due
        )
        MethodModule._exchange(loop, optimizers)  # of the loop, which has no trainer here
        for place, optimizer in enumerate(optimizers):
            if place in module._due:
                optimizer.step()
        module._due.clear()
        model.zero_grad()
        history.append({name: value.detach() for name, value in losses.parts.items()})
    return history, model.state_dict()


def main(rank, size, folder):
    torch.set_num_threads(1)
    if size > 1:
        store = dist.FileStore(str(folder / f"store{size}"), size)
        timeout = datetime.timedelta(seconds=60)
        dist.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=timeout)
    own = slice(CUTS[size][rank], CUTS[size][rank + 1])
    out = {"clusterretri": train_clusterretri(own, size), "sbka": train_sbka(own, size)}
    torch.save(out, folder / f"{size}_{rank}.pt")
    if size > 1:
        dist.barrier()
        dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
