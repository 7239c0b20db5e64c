"""Forward and backward of a loss as a timed step, floors, and the rivals of the mining kernels.

Every step starts from raw features that want a gradient and normalises them itself. A maker
returns the loss of the features and the features; ``step`` times both directions.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.mining_cases import BATCHES, MARGIN, TRIPLET_MARGIN, Case, MiningData
from benchmarks.suite import Prepared, Provider

Loss = tuple[Callable[..., Tensor], tuple[Tensor, ...]]  # of the features, and the features
Maker = Callable[[MiningData], Loss]
FloorKind = Literal["distances", "two distances", "bank distances"]
BOTH = ("cpu", "cuda")


def distances(a: Tensor, b: Tensor) -> Tensor:
    """Euclidean distances of normalised rows from one product: the cheap form."""
    return (2 - 2 * a @ b.T).clamp_min(1e-12).sqrt()


# --- steps and floors ----------------------------------------------------------------------------


def forward_backward(loss: Callable[..., Tensor], leaves: tuple[Tensor, ...]) -> Any:
    """Value and gradients."""
    value = loss(*leaves)
    return value.detach(), torch.autograd.grad(value, leaves)


def step(maker: Maker, floor: FloorKind, compiled: bool = False) -> Callable[..., Prepared]:
    """``prepare`` of a provider; compilation is not timed."""

    def prepare(data: MiningData, device: str) -> Prepared:
        placed = data.to(device)
        loss, leaves = maker(placed)
        if compiled:
            import_module("torch._inductor.config").compile_threads = 1  # no pool of processes
            loss = torch.compile(loss, dynamic=False)
            forward_backward(loss, leaves)
        return Prepared(lambda n: forward_backward(loss, leaves), floor=_floor(placed, floor))

    return prepare


def _floor(data: MiningData, kind: FloorKind) -> Callable[[int], object]:
    """Normalise, distances, and their backward pass for a dense gradient."""
    sketches, photos = leaves_of(data.sketches), leaves_of(data.photos)
    ones = torch.ones(len(sketches), len(sketches), device=sketches.device)
    others = ones.clone().fill_diagonal_(0)  # self pairs pass no gradient
    to_bank = torch.ones(len(sketches), len(data.bank), device=sketches.device)

    def run(n: int) -> Any:
        s = F.normalize(sketches, dim=1)
        if kind == "bank distances":
            d = distances(s, data.bank)
            return None, torch.autograd.grad(d, (sketches,), to_bank)
        within = distances(s, s)
        if kind == "distances":
            return None, torch.autograd.grad(within, (sketches,), others)
        cross = distances(s, F.normalize(photos, dim=1))
        return None, torch.autograd.grad((cross, within), (sketches, photos), (ones, others))

    return run


def leaves_of(features: Tensor) -> Tensor:
    """The same features, wanting a gradient."""
    return features.detach().clone().requires_grad_()


def floor_provider(name: str, title: str, kind: FloorKind, cases: tuple[str, ...]) -> Provider:
    def prepare(data: MiningData, device: str) -> Prepared:
        return Prepared(_floor(data.to(device), kind))

    return Provider(name, title, "floor", prepare, kind, devices=BOTH, bound="flop", cases=cases)


# --- rivals that users write themselves ----------------------------------------------------------


def _hinges(far: Tensor, near: Tensor, margin: float) -> Tensor:
    return (far - near + margin).relu()


def _hardest(d: Tensor, same: Tensor) -> tuple[Tensor, Tensor]:
    return d.masked_fill(~same, -torch.inf).amax(1), d.masked_fill(same, torch.inf).amin(1)


def mean_nonzero(hinges: Tensor) -> Tensor:
    return hinges.sum() / (hinges > 0).sum().clamp_min(1)


def torch_hard_triplets(data: MiningData) -> Loss:
    same = data.labels[:, None] == data.labels

    def loss(features: Tensor) -> Tensor:
        x = F.normalize(features, dim=1)
        return mean_nonzero(_hinges(*_hardest(distances(x, x), same), TRIPLET_MARGIN))

    return loss, (leaves_of(data.sketches),)


def torch_hard_bank(data: MiningData) -> Loss:
    same = data.labels[:, None] == data.bank_labels

    def loss(features: Tensor) -> Tensor:
        d = distances(F.normalize(features, dim=1), data.bank)
        return mean_nonzero(_hinges(*_hardest(d, same), TRIPLET_MARGIN))

    return loss, (leaves_of(data.sketches),)


def torch_hard_quadruplets(data: MiningData) -> Loss:
    same = data.labels[:, None] == data.labels

    def loss(sketches: Tensor, photos: Tensor) -> Tensor:
        s, i = F.normalize(sketches, dim=1), F.normalize(photos, dim=1)
        far, near = _hardest(distances(s, i), same)
        _, sketch = _hardest(distances(s, s), same)
        return (_hinges(far, near, MARGIN) + _hinges(far, sketch, MARGIN)).mean()

    return loss, (leaves_of(data.sketches), leaves_of(data.photos))


def torch_broadcast(data: MiningData) -> Loss:
    """All B^3 triplets in one tensor, as libraries' batch-all losses of that form do."""
    same = data.labels[:, None] == data.labels
    positive = same & ~torch.eye(len(same), dtype=torch.bool, device=same.device)
    triplets = (positive[:, :, None], ~same[:, None, :])

    def loss(features: Tensor) -> Tensor:
        x = F.normalize(features, dim=1)
        d = distances(x, x)
        hinges = (d[:, :, None] - d[:, None, :] + TRIPLET_MARGIN).relu()
        return mean_nonzero(hinges * (triplets[0] & triplets[1]))

    return loss, (leaves_of(data.sketches),)


# --- packages ------------------------------------------------------------------------------------


def _pml(miner: Callable[[Any], Any] | None, make_loss: Callable[[Any], Any]) -> Maker:
    """A miner and a loss of pytorch-metric-learning; its distances normalise the features."""

    def maker(data: MiningData) -> Loss:
        pml = import_module("pytorch_metric_learning")
        for part in ("losses", "miners"):
            import_module(f"pytorch_metric_learning.{part}")
        mine = miner(pml.miners) if miner else None
        loss_of = make_loss(pml.losses)

        def loss(features: Tensor) -> Tensor:
            tuples = mine(features, data.labels) if mine else None
            value: Tensor = loss_of(features, data.labels, tuples)
            return value

        return loss, (leaves_of(data.sketches),)

    return maker


def _pml_bank(data: MiningData) -> Loss:
    losses = import_module("pytorch_metric_learning.losses")
    miners = import_module("pytorch_metric_learning.miners")
    mine, loss_of = miners.BatchHardMiner(), losses.TripletMarginLoss(margin=TRIPLET_MARGIN)
    bank = {"ref_emb": data.bank, "ref_labels": data.bank_labels}

    def loss(features: Tensor) -> Tensor:
        tuples = mine(features, data.labels, **bank)
        value: Tensor = loss_of(features, data.labels, tuples, **bank)
        return value

    return loss, (leaves_of(data.sketches),)


def _pml_triplets(losses: Any) -> Any:
    return losses.TripletMarginLoss(margin=TRIPLET_MARGIN)


def _oml(miner: str) -> Maker:
    def maker(data: MiningData) -> Loss:
        places = {"HardTripletsMiner": "hard", "AllTripletsMiner": "all"}
        miners = import_module(f"oml.miners.inbatch_{places[miner]}_tri")
        triplets = import_module("oml.losses.triplet")
        loss_of = triplets.TripletLossWithMiner(TRIPLET_MARGIN, getattr(miners, miner)())

        def loss(features: Tensor) -> Tensor:
            value: Tensor = loss_of(F.normalize(features, dim=1), data.labels)
            return value

        return loss, (leaves_of(data.sketches),)

    return maker


# --- rows ----------------------------------------------------------------------------------------


def at_most(rows: int, reason: str) -> Callable[[Case], str]:
    """``unfit`` of a provider that stops at batches of ``rows``."""
    return lambda case: reason if rows < case.B else ""


MAKERS: dict[str, Maker] = {
    "pml_hard": _pml(lambda miners: miners.BatchHardMiner(), _pml_triplets),
    "oml_hard": _oml("HardTripletsMiner"),
    "torch_hard": torch_hard_triplets,
    "pml_all": _pml(None, _pml_triplets),
    "pml_semihard": _pml(
        lambda miners: miners.TripletMarginMiner(TRIPLET_MARGIN, type_of_triplets="semihard"),
        _pml_triplets,
    ),
    "pml_multi_similarity": _pml(
        lambda miners: miners.MultiSimilarityMiner(epsilon=0.1),
        lambda losses: losses.MultiSimilarityLoss(alpha=2, beta=50, base=0.5),
    ),
    "oml_all": _oml("AllTripletsMiner"),
    "torch_broadcast": torch_broadcast,
    "torch_hard_quadruplet": torch_hard_quadruplets,
    "pml_bank": _pml_bank,
    "torch_bank": torch_hard_bank,
}
PML, OML = ("pytorch_metric_learning",), ("oml", "omegaconf")
HARD = {"against": "ours_hard_triplet", "definition": "hard triplets", "cases": BATCHES}
ALL = {"against": "ours_all_triplet", "definition": "all triplets", "cases": BATCHES}
QUADRUPLET = {
    "against": "ours_hard_quadruplet",
    "definition": "hard quadruplets",
    "cases": BATCHES,
    "floor": "two distances",
}
BANK = {
    "against": "ours_bank",
    "definition": "hard triplets, bank",
    "cases": ("bank",),
    "floor": "bank distances",
}


def _rival(
    name: str,
    title: str,
    *,
    floor: FloorKind = "distances",
    compile_of: str = "",
    **options: Any,
) -> Provider:
    prepare = step(MAKERS[compile_of or name], floor, compiled=bool(compile_of))
    return Provider(name, title, "rival", prepare, devices=BOTH, **options)


TUPLES = at_most(1024, "its list of triplets grows with B^3 (1.4 GB at B=1,024)")
RIVALS = [
    _rival("pml_hard", "PML BatchHardMiner + TripletMarginLoss", requires=PML, **HARD),
    _rival("oml_hard", "OML HardTripletsMiner + TripletLossWithMiner", requires=OML, **HARD),
    _rival("torch_hard", "PyTorch batch-hard triplets", **HARD),
    _rival(
        "torch_hard_compiled",
        "PyTorch batch-hard triplets, torch.compile",
        compile_of="torch_hard",
        quick=False,
        **HARD,
    ),
    _rival("pml_all", "PML TripletMarginLoss, batch-all", requires=PML, unfit=TUPLES, **ALL),
    _rival(
        "pml_semihard",
        "PML TripletMarginMiner(semihard) + loss",
        requires=PML,
        unfit=TUPLES,
        quick=False,
        **ALL | {"definition": "semi-hard triplets"},
    ),
    _rival(
        "pml_multi_similarity",
        "PML MultiSimilarityMiner + loss",
        requires=PML,
        quick=False,
        unfit=TUPLES,
        **ALL | {"definition": "multi-similarity"},
    ),
    _rival(
        "oml_all",
        "OML AllTripletsMiner + loss",
        requires=OML,
        unfit=at_most(256, "it asks for 3 features a triplet, 31.7 GB at B=1,024"),
        quick=False,
        note="the mean is over all triplets",
        **ALL | {"definition": "all triplets, mean"},
    ),
    _rival(
        "torch_broadcast",
        "PyTorch batch-all triplets, B^3 broadcast",
        unfit=at_most(256, "tensors of B^3: 18 GB at B=1,024"),
        quick=False,
        **ALL,
    ),
    _rival(
        "torch_broadcast_compiled",
        "PyTorch batch-all triplets, torch.compile",
        compile_of="torch_broadcast",
        unfit=at_most(1024, "B^3 terms"),
        quick=False,
        **ALL,
    ),
    _rival("torch_hard_quadruplet", "PyTorch hardest quadruplets", **QUADRUPLET),
    _rival(
        "torch_hard_quadruplet_compiled",
        "PyTorch hardest quadruplets, torch.compile",
        compile_of="torch_hard_quadruplet",
        quick=False,
        **QUADRUPLET,
    ),
    _rival("pml_bank", "PML BatchHardMiner + loss, bank", requires=PML, **BANK),
    _rival("torch_bank", "PyTorch batch-hard triplets, bank", **BANK),
    _rival(
        "torch_bank_compiled",
        "PyTorch batch-hard triplets, bank, torch.compile",
        compile_of="torch_bank",
        quick=False,
        **BANK,
    ),
]
