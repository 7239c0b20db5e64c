"""Batches, data and the float64 references of the mining and loss benchmarks.

Features are unnormalised float32 Gaussians around class centres, so weakly clustered that most
triplets violate the margin, as at the start of a training. Rows stand in random order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

TRIPLET_MARGIN = 0.2
MARGIN = 0.3  # of the quadruplets; that between the two negatives is 0.15
NEGATIVES_MARGIN = 0.15


@dataclass(frozen=True)
class Case:
    """A batch of P classes with K sketches and K photos each, and a bank of past features."""

    name: str
    P: int
    K: int
    bank: int = 0
    D: int = 512
    devices: tuple[str, ...] = ("cpu", "cuda")

    @property
    def B(self) -> int:
        """Rows of the batch, of each modality."""
        return self.P * self.K

    @property
    def title(self) -> str:
        """Name and sizes."""
        bank = f", bank of {self.bank:,}" if self.bank else ""
        return f"{self.name}: B={self.B:,} ({self.P} classes x {self.K}), D={self.D}{bank}"


CASES = {
    case.name: case
    for case in (
        Case("b1024", P=64, K=16),
        Case("b256", P=32, K=8),
        Case("b64", P=16, K=4),
        Case("b4096", P=256, K=16),
        Case("bank", P=32, K=8, bank=65_536),
        Case("b8192", P=512, K=16, devices=("cuda",)),
    )
}
BATCHES = tuple(name for name, case in CASES.items() if not case.bank)
# Checked by brute force over all quadruplets; no size is a power of two.
SMALL = Case("small", P=7, K=3, bank=45, D=20)


@dataclass(frozen=True)
class MiningData:
    """Sketches and photos [B, D], their common labels [B], and a bank of normalised features.

    ``exact`` holds the float64 loss of those definitions that can be computed at this size.
    """

    case: Case
    sketches: Tensor
    photos: Tensor
    labels: Tensor
    bank: Tensor
    bank_labels: Tensor
    exact: dict[str, float]

    def to(self, device: str, dtype: torch.dtype = torch.float32) -> MiningData:
        """A copy on a device, in a dtype."""
        features = (x.to(device, dtype) for x in (self.sketches, self.photos, self.bank))
        sketches, photos, bank = features
        labels, bank_labels = self.labels.to(device), self.bank_labels.to(device)
        return MiningData(self.case, sketches, photos, labels, bank, bank_labels, self.exact)


def generate(case: Case, seed: int = 0) -> MiningData:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    centres, shift = normal(case.P, case.D), 0.3 * normal(case.D)
    labels = torch.arange(case.B) // case.K
    labels = labels[torch.randperm(case.B, generator=generator)]
    bank_labels = torch.randint(case.P, (case.bank,), generator=generator)
    sketches = 2 * (normal(case.B, case.D) + 0.3 * centres[labels])
    photos = 3 * (normal(case.B, case.D) + 0.3 * centres[labels] + shift)
    bank = F.normalize(normal(case.bank, case.D) + 0.3 * centres[bank_labels], dim=1)
    data = MiningData(case, sketches, photos, labels, bank, bank_labels, {})
    data.exact.update(exact_losses(data.to("cpu", torch.float64)))
    return data


def save(case: Case, folder: Path) -> None:
    data = generate(case)
    torch.save({k: v for k, v in vars(data).items() if k != "case"}, folder / "data.pt")


def load(case: Case, folder: Path) -> MiningData:
    return MiningData(case, **torch.load(folder / "data.pt", weights_only=True))


# --- brute force in float64, at the small size ---------------------------------------------------


def _distances(a: Tensor, b: Tensor) -> Tensor:
    """Distances of normalised rows; equal rows have distance 0 and pass no gradient."""
    a, b = F.normalize(a, dim=1), F.normalize(b, dim=1)
    return (a[:, None] - b[None]).square().sum(2).clamp_min(1e-12).sqrt()


def _mean_nonzero(hinges: Tensor) -> Tensor:
    return hinges.sum() / (hinges > 0).sum()


def _triplet_hinges(data: MiningData) -> tuple[Tensor, Tensor]:
    """Hinges [a, p, n] and which triplets there are, for the sketches alone."""
    d = _distances(data.sketches, data.sketches)
    same = data.labels[:, None] == data.labels
    positive = same & ~torch.eye(len(same), dtype=torch.bool)
    triplets = positive[:, :, None] & ~same[:, None, :]
    return (d[:, :, None] - d[:, None, :] + TRIPLET_MARGIN).relu() * triplets, triplets


def _all_triplets(data: MiningData) -> Tensor:
    return _mean_nonzero(_triplet_hinges(data)[0])


def _all_triplets_mean(data: MiningData) -> Tensor:
    hinges, triplets = _triplet_hinges(data)
    return hinges.sum() / triplets.sum()


def _semihard_triplets(data: MiningData) -> Tensor:
    hinges, _ = _triplet_hinges(data)
    return _mean_nonzero(hinges * (hinges < TRIPLET_MARGIN))


def _hardest(d: Tensor, same: Tensor) -> tuple[Tensor, Tensor]:
    """Distances to the farthest of the same class and to the nearest of another."""
    return d.masked_fill(~same, -torch.inf).amax(1), d.masked_fill(same, torch.inf).amin(1)


def _hard_triplets(data: MiningData) -> Tensor:
    d = _distances(data.sketches, data.sketches)
    far, near = _hardest(d, data.labels[:, None] == data.labels)
    return _mean_nonzero((far - near + TRIPLET_MARGIN).relu())


def _hard_bank(data: MiningData) -> Tensor:
    d = _distances(data.sketches, data.bank)
    far, near = _hardest(d, data.labels[:, None] == data.bank_labels)
    return _mean_nonzero((far - near + TRIPLET_MARGIN).relu())


def _hard_quadruplets(data: MiningData) -> Tensor:
    same = data.labels[:, None] == data.labels
    far, near = _hardest(_distances(data.sketches, data.photos), same)
    _, sketch = _hardest(_distances(data.sketches, data.sketches), same)
    return ((far - near + MARGIN).relu() + (far - sketch + MARGIN).relu()).mean()


def _all_quadruplets(data: MiningData, chen: bool) -> tuple[Tensor, Tensor]:
    """Hinges [s, i+, i-, s-] and which quadruplets there are."""
    same = data.labels[:, None] == data.labels
    cross = _distances(data.sketches, data.photos)
    terms = same[:, :, None, None] & ~same[:, None, :, None] & ~same[:, None, None, :]
    hinges = (cross[:, :, None, None] - cross[:, None, :, None] + MARGIN).relu()
    if chen:
        terms = terms & ~same[None, None]
        away = cross.T[None, None]  # [i-, s-]
        hinges = hinges + (cross[:, :, None, None] - away + NEGATIVES_MARGIN).relu()
    else:
        within = _distances(data.sketches, data.sketches)
        hinges = hinges + (cross[:, :, None, None] - within[:, None, None, :] + MARGIN).relu()
    return hinges * terms, terms


def _chen_mean(data: MiningData) -> Tensor:
    hinges, terms = _all_quadruplets(data, chen=True)
    return hinges.sum() / terms.sum()


def _multi_similarity(data: MiningData) -> Tensor:
    """Wang et al. 2019: pairs within 0.1 of the hardest; alpha 2, beta 50, base 0.5."""
    x = F.normalize(data.sketches, dim=1)
    cosines = x @ x.T
    same = data.labels[:, None] == data.labels
    positive = same & ~torch.eye(len(same), dtype=torch.bool)
    least = cosines.masked_fill(~positive, torch.inf).amin(1, keepdim=True)
    most = cosines.masked_fill(same, -torch.inf).amax(1, keepdim=True)
    positive, negative = positive & (cosines - 0.1 < most), ~same & (cosines + 0.1 > least)
    near = ((-2 * (cosines - 0.5)).exp() * positive).sum(1).log1p() / 2
    far = ((50 * (cosines - 0.5)).exp() * negative).sum(1).log1p() / 50
    return (near + far).mean()


DEFINITIONS: dict[str, Callable[[MiningData], Tensor]] = {
    "distances": lambda data: _distances(data.sketches, data.sketches).sum(),
    "two distances": lambda data: (
        _distances(data.sketches, data.photos).sum()
        + _distances(data.sketches, data.sketches).sum()
    ),
    "bank distances": lambda data: _distances(data.sketches, data.bank).sum(),
    "all triplets": _all_triplets,
    "all triplets, mean": _all_triplets_mean,
    "semi-hard triplets": _semihard_triplets,
    "hard triplets": _hard_triplets,
    "hard triplets, bank": _hard_bank,
    "hard quadruplets": _hard_quadruplets,
    "all quadruplets": lambda data: _mean_nonzero(_all_quadruplets(data, chen=False)[0]),
    "all quadruplets, chen2017": lambda data: _mean_nonzero(_all_quadruplets(data, chen=True)[0]),
    "all quadruplets, chen2017, mean": _chen_mean,
    "multi-similarity": _multi_similarity,
}


# --- exact values in float64, at every size ------------------------------------------------------


def _product_distances(a: Tensor, b: Tensor) -> Tensor:
    a, b = F.normalize(a, dim=1), F.normalize(b, dim=1)
    return (2 - 2 * a @ b.T).clamp_min(0).sqrt()


def _active(away: Tensor, same: Tensor, reach: Tensor) -> tuple[Tensor, Tensor]:
    """For each p: sum of ``[reach_p - away_n]+`` over negatives n, and how many are above 0.

    Rows are anchors: distances [A, B], which of them are no negatives, and reaches [A, K].
    """
    away = away.masked_fill(same, torch.inf).sort(1).values
    sums = F.pad(away.masked_fill(away.isinf(), 0).cumsum(1), (1, 0))
    count = torch.searchsorted(away, reach)
    return count * reach - sums.gather(1, count), count


def exact_losses(data: MiningData) -> dict[str, float]:
    """Loss values that a sort makes cheap enough for every size."""
    case, labels = data.case, data.labels
    same = labels[:, None] == labels
    within = _product_distances(data.sketches, data.sketches)
    cross = _product_distances(data.sketches, data.photos)
    members = labels.argsort().view(case.P, case.K)[labels]  # [B, K], rows of the anchor's class
    negatives = case.B - case.K
    sums = dict.fromkeys(("triplets", "triplet count", "quadruplets", "quadruplet count"), 0.0)
    for rows in torch.split(torch.arange(case.B), 512):  # a bound on the memory
        mine, own = members[rows], same[rows]
        reach = within[rows].gather(1, mine) + TRIPLET_MARGIN
        reach = reach.masked_fill(mine == rows[:, None], -1)  # an anchor is no positive of itself
        total, count = _active(within[rows], own, reach)
        sums["triplets"] += float(total.sum())
        sums["triplet count"] += float(count.sum())
        reach = cross[rows].gather(1, mine) + MARGIN
        photo_total, photos = _active(cross[rows], own, reach)
        sketch_total, sketches = _active(within[rows], own, reach)
        sums["quadruplets"] += float(negatives * (photo_total + sketch_total).sum())
        none = (negatives - photos) * (negatives - sketches)
        sums["quadruplet count"] += float((negatives**2 - none).sum())
    far, near = _hardest(cross, same)
    _, sketch = _hardest(within, same)
    alone_far, alone_near = _hardest(within, same)
    exact = {
        "all triplets": sums["triplets"] / max(1.0, sums["triplet count"]),
        "all quadruplets": sums["quadruplets"] / max(1.0, sums["quadruplet count"]),
        "hard triplets": float(_mean_nonzero((alone_far - alone_near + TRIPLET_MARGIN).relu())),
        "hard quadruplets": float(
            ((far - near + MARGIN).relu() + (far - sketch + MARGIN).relu()).mean()
        ),
    }
    if len(data.bank):
        d = _product_distances(data.sketches, data.bank)
        bank_far, bank_near = _hardest(d, data.labels[:, None] == data.bank_labels)
        hinges = (bank_far - bank_near + TRIPLET_MARGIN).relu()
        exact["hard triplets, bank"] = float(_mean_nonzero(hinges))
    return exact
