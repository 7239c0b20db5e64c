"""One of several processes that train CMAAN and the baseline together; writes losses and weights.

Run as `python cmaan_worker.py RANK SIZE FOLDER`. Size 1 needs no group: it is what the others are
compared with.
"""

from __future__ import annotations

import datetime
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import zsbir_fast as zf

CLASSES = ("cat", "dog", "piano", "car")
PAIRS, STEPS = 8, 10
CUTS = {1: [0, 8], 2: [0, 3, 8]}
OPTIM = zf.OptimConfig(lr_backbone=1e-3, lr_head=1e-3, weight_decay=1e-3)
ENCODER = zf.EncoderOptions("timm:test_vit", weights=None, image_size=32, shared=False)
SMALL = {"heads": 2, "hidden": 8, "dropout": 0.0}  # dropout draws differently in each process
TEXT = zf.ClassTextOptions(width=8, heads=2, hidden=8, dropout=0.0)


def cmaan(relation=None, loss=None, **exchange):
    relation = zf.RelationOptions(**{"width": 8, "dropout": 0.0, **(relation or {})})
    return zf.CMAAN(
        CLASSES,
        encoder=ENCODER,
        text=TEXT,
        exchange=zf.ExchangeOptions(**SMALL, **exchange),
        relation=relation,
        loss=zf.CorrespondenceOptions(**(loss or {})),
        centre=True,
    )


MODELS = {
    "text": lambda: cmaan(loss={"cls": 0.5}),
    "anchor": lambda: cmaan(negative_text="anchor", loss={"negative": "hardest"}),
    "words": lambda: cmaan(relation={"match": "words"}),
    "images": lambda: cmaan(partner="image", style="zse"),
    "contrastive": lambda: zf.FineTune(CLASSES, encoder=ENCODER, centre=True),
    "triplet": lambda: zf.FineTune(CLASSES, encoder=ENCODER, loss="triplet"),
}


class Training(nn.Module):
    """DDP gathers gradients of what runs in `forward`."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, batch, at):
        return self.model.losses(batch, at)


def batch(step, rows):
    g = torch.Generator().manual_seed(step)
    images = torch.randn(2, PAIRS, 3, 32, 32, generator=g, dtype=torch.float64)
    labels = torch.randint(0, len(CLASSES), (PAIRS,), generator=g)
    return {"sketches": images[0, rows], "photos": images[1, rows], "labels": labels[rows]}


def train(make, own, size):
    torch.manual_seed(0)
    model = make().double()
    training = Training(model)
    wrapped = DistributedDataParallel(training) if size > 1 else training
    (optimizer,) = model.optimizers(OPTIM)
    history = []
    for step in range(STEPS):
        at = zf.Progress(step=step, epoch=0, total_steps=STEPS, epochs=1)
        losses = wrapped(batch(step, own), at)
        optimizer.zero_grad()
        losses.per_optimizer[0].backward()
        optimizer.step()
        history.append(losses.per_optimizer[0].detach())
    return history, model.state_dict()


def main(rank, size, folder):
    torch.set_num_threads(1)
    if size > 1:
        store = dist.FileStore(str(folder / f"store{size}"), size)
        timeout = datetime.timedelta(seconds=60)
        dist.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=timeout)
    own = slice(CUTS[size][rank], CUTS[size][rank + 1])
    out = {name: train(make, own, size) for name, make in MODELS.items()}
    torch.save(out, folder / f"{size}_{rank}.pt")
    if size > 1:
        dist.barrier()
        dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
