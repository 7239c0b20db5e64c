"""One of several processes: losses of joined batches and their gradients, written as JSON or .pt.

Run as `python distributed_worker.py RANK SIZE FOLDER`. Size 1 needs no group: it is what the
others are compared with.
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
from zsbir_fast.losses.gathering import share_rows

ROWS = 16
LABELS = torch.tensor([0, 1, 2, 0, 1, 3, 3, 2, 0, 4, 4, 1, 5, 5, 2, 0])
# Where the joined batch is cut for the ranks: evenly, or not (one process has nothing).
CUTS = {
    "even": {1: [0, 16], 2: [0, 8, 16], 4: [0, 4, 8, 12, 16]},
    "uneven": {1: [0, 16], 2: [0, 5, 16], 4: [0, 1, 1, 9, 16]},
}


class Embedder(nn.Module):
    """A small network in double precision, the same in every process."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, 4)).double()

    def forward(self, images):
        return self.layers(images)


def images(seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(ROWS, 6, generator=generator, dtype=torch.float64)


def losses():
    """Name -> loss of (sketches, photos, labels, weights) of this process."""
    names = {
        "hardest": {},
        "symmetric": {"symmetric": True, "preset": "full"},
        "nonzero": {"reduction": "mean_nonzero", "negative": "semihard"},
        "paired": {"positive": "paired", "preset": "cross_symmetric"},
    }
    for name, options in names.items():
        loss = zf.WeightedQuadrupletLoss(margins=0.5, **options)
        yield name, loss
    every = zf.WeightedQuadrupletLoss(negative="all", margins=0.5)
    yield "all", lambda s, p, labels, weights: every(s, p, labels)
    triplets = zf.BatchAllTripletLoss(margin=0.5)
    yield "triplets", lambda s, p, labels, weights: triplets(s + p, labels)
    memory = zf.CrossBatchMemory(zf.WeightedQuadrupletLoss(margins=0.5), size=20, width=4)
    yield "memory", memory
    own = zf.WeightedQuadrupletLoss(margins=0.5, reduction="none")
    yield "none", lambda s, p, labels, weights: own(s, p, labels, weights).sum()

    def by_hand(s, p, labels, weights):
        joined = [zf.gather_with_gradient(x) for x in (s, p)]
        classes = zf.gather_labels(labels)
        return zf.batch_all_triplet_loss(joined[0], classes, joined[1], classes, margin=0.5)

    yield "by hand", by_hand


def step(loss, rank, cuts, dtype=torch.float64):
    """Loss and parameter gradients of two steps of this process's part of the batch."""
    network = Embedder().to(dtype)
    model = DistributedDataParallel(network) if dist.is_initialized() else network
    part = slice(cuts[rank], cuts[rank + 1])
    out = []
    for seed in (0, 2):
        network.zero_grad()
        sketches, photos = images(seed)[part], images(seed + 1)[part]
        weights = torch.linspace(0.2, 1.8, ROWS, dtype=torch.float64)[part]
        count = len(sketches)
        features = model(torch.cat([sketches, photos]).to(dtype))
        value = loss(features[:count], features[count:], LABELS[part], weights.to(dtype))
        value.backward()
        grads = torch.cat([p.grad.flatten() for p in network.parameters()])
        out.append((value.detach(), grads))
    return torch.stack([value for value, _ in out]), torch.stack([grad for _, grad in out])


def message_of(call):
    try:
        call()
    except (TypeError, ValueError, RuntimeError) as error:
        return f"{type(error).__name__}: {error}"
    return "no error"


def mistakes(rank):
    """What every process is told if process 1 is wrong."""
    features = torch.randn(4, 3 if rank != 1 else 5)
    yield "width", message_of(lambda: zf.gather_with_gradient(features))
    loss = zf.WeightedQuadrupletLoss()
    weights = torch.ones(4)
    if rank == 1:
        weights[2] = torch.nan
    rows, labels = torch.randn(4, 3), torch.arange(4) // 2
    yield "weights", message_of(lambda: loss(rows, rows, labels, weights))
    missing = None if rank == 1 else rows
    yield "missing", message_of(lambda: loss(missing, rows, labels))
    memory = zf.CrossBatchMemory(loss, size=20, width=3)
    yield "memory", message_of(lambda: memory(rows[:, : 2 + (rank != 1)], rows, labels))
    infinite = rows.clone()
    if rank == 1:
        infinite[2, 1] = torch.inf
    yield "infinite", message_of(lambda: loss(infinite, rows, labels))
    given = loss.mine(rows, rows, labels)
    yield "quadruplets", message_of(lambda: loss(rows, rows, labels, quadruplets=given))
    alone = zf.WeightedQuadrupletLoss(gather="off")
    yield "alone", message_of(lambda: alone(rows, rows, labels, quadruplets=given))
    drawn = zf.WeightedQuadrupletLoss(negative="distance_weighted")
    torch.manual_seed(rank)
    joined = drawn.join(rows, rows, labels)
    yield "drawn", drawn.mine(*joined[:2], joined.sketch_labels).photo_negative.tolist()
    (share,) = share_rows("caller", x=torch.zeros(rank, 2))
    yield "share", (share.counts, share.own)


def main(rank, size, folder):
    torch.set_num_threads(1)
    if size > 1:
        store = dist.FileStore(str(folder / f"store{size}"), size)
        timeout = datetime.timedelta(seconds=60)
        dist.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=timeout)
    out = {
        kind: {name: step(loss, rank, cuts[size]) for name, loss in losses()}
        for kind, cuts in CUTS.items()
    }
    out["single precision"] = {
        name: step(loss, rank, CUTS["uneven"][size], torch.float32) for name, loss in losses()
    }
    if size > 1:
        out["mistakes"] = dict(mistakes(rank))
    torch.save(out, folder / f"{size}_{rank}.pt")
    if size > 1:
        dist.barrier()
        dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
