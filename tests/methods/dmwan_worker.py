"""One of several processes that train a small DM-WAN together; writes its losses and weights.

Run as `python dmwan_worker.py RANK SIZE FOLDER`. Size 1 needs no group: it is what the others are
compared with.
"""

from __future__ import annotations

import datetime
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import zsbir_fast as zf
from zsbir_fast.encoders.options import EncoderOptions
from zsbir_fast.methods.contract import Progress
from zsbir_fast.methods.dmwan.options import QuadrupletOptions, TermOptions, WeightingOptions

PAIRS, STEPS = 12, 3
TERMS = TermOptions(contrastive=0.3, distill=0.7)
CUTS = {1: [0, 12], 2: [0, 6, 12], 4: [0, 2, 5, 8, 12]}
VARIANTS = {
    "mined": {
        "weighting": WeightingOptions(width=16),
        "loss": QuadrupletOptions(margins=0.6, symmetric=True, preset="full"),
    },
    "paired": {
        "weighting": WeightingOptions(width=16, detach=False, temperature=0.05),
        "loss": QuadrupletOptions(margins=0.6, positive="paired"),
    },
    "patches": {
        "weighting": WeightingOptions(kind="pairwise"),
        "loss": QuadrupletOptions(margins=0.6, negative="semihard"),
        "text": None,
    },
    "relation": {
        "weighting": WeightingOptions(kind="pairwise", pair_score="relation", detach=False),
        "loss": QuadrupletOptions(margins=0.6),
        "terms": replace(TERMS, relation=4.0),
        "text": None,
    },
    "switches": {
        "weighting": WeightingOptions(
            width=16, text_layers=1, global_block="global_feature", combine="product"
        ),
        "loss": QuadrupletOptions(margins=0.6),
    },
    "memory": {
        "weighting": WeightingOptions(width=16, detach=False),
        "loss": QuadrupletOptions(margins=0.6, memory=30),
    },
}
START = Progress(step=0, epoch=0, total_steps=1, epochs=1)


class Training(nn.Module):
    """DDP gathers gradients of what runs in `forward`."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, batch):
        losses = self.model.losses(batch, START)
        return {"loss": losses.per_optimizer[0], **losses.parts}


def class_text():
    g = torch.Generator().manual_seed(0)
    return SimpleNamespace(
        summary="",
        tokens=torch.randn(4, 3, 10, generator=g),
        mask=torch.tensor([[True] * n + [False] * (3 - n) for n in (3, 2, 1, 0)]),
        global_=torch.randn(4, 10, generator=g),
        words=[["a", "b", "c"], ["d", "e"], ["f"], []],
    )


def batch(step, rows):
    g = torch.Generator().manual_seed(step)
    images = torch.randn(2, PAIRS, 3, 32, 32, generator=g, dtype=torch.float64)
    labels = torch.randint(0, 4, (PAIRS,), generator=g)
    return {"sketches": images[0, rows], "photos": images[1, rows], "labels": labels[rows]}


def train(rank, size, options):
    """Losses of each step and the final state: all in double precision."""
    torch.manual_seed(0)
    model = zf.DMWAN(
        ("a", "b", "c", "d"),
        encoder=EncoderOptions("timm:test_vit", weights=None, image_size=32),
        centre=True,
        **{"text": class_text(), "terms": TERMS, **options},
    ).double()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0  # every process draws for its own rows
    training = Training(model)
    wrapped = DistributedDataParallel(training) if size > 1 else training
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    history = []
    for step in range(STEPS):
        losses = wrapped(batch(step, slice(CUTS[size][rank], CUTS[size][rank + 1])))
        optimizer.zero_grad()
        losses["loss"].backward()
        optimizer.step()
        history.append({name: value.detach() for name, value in losses.items()})
    return history, model.state_dict()


def main(rank, size, folder):
    torch.set_num_threads(1)
    if size > 1:
        store = dist.FileStore(str(folder / f"store{size}"), size)
        timeout = datetime.timedelta(seconds=60)
        dist.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=timeout)
    out = {name: train(rank, size, options) for name, options in VARIANTS.items()}
    torch.save(out, folder / f"{size}_{rank}.pt")
    if size > 1:
        dist.barrier()
        dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
