"""Cases of ``HardTripletMiner``."""

from __future__ import annotations

from typing import Any

import torch
from case import Case
from inputs import Draw, described
from torch import Tensor

import zsbir_fast as zf
from api import oracle_mining as oracle
from api.mining import DISTANCES, IMPLS, draw_batch, in_range, nearness, rounding, spoilt


def hard_triplet_miner(draw: Draw) -> Case:
    """One set of embeddings, or two, whose labels may be equal or even the same tensor."""
    a, r, labels, r_labels = draw_batch(draw, 50)
    way = draw.one(("itself", "apart", "same labels"))
    options: dict[str, Any] = {
        "negative": draw.one(("hardest", "semihard")),
        "distance": draw.one(DISTANCES),
        "normalize": draw.chance(0.5),
        "margin": draw.one((0.0, 0.2, draw.number(0, 1))),
        "impl": draw.one(IMPLS),
    }
    good: dict[str, Any] = {"embeddings": draw.layout(a.tensor), "labels": labels}
    roles: dict[str, Any] = {"embeddings": "features", "labels": "labels"}
    if way == "itself":
        r, r_labels = a, labels
    else:
        if way == "same labels":
            r = draw.features(len(labels), a.values.shape[1], a.tensor.dtype, a.kind)
            r_labels = draw.one((labels, labels.clone()))
        good |= {"ref_emb": r.tensor, "ref_labels": r_labels}
        roles |= {"ref_emb": "features", "ref_labels": "labels"}
    miner = zf.HardTripletMiner(**options)
    names = ("HardTripletMiner", "mine_quadruplets")
    if draw.chance(0.25):
        case = spoilt(draw, names[0], miner, good, roles)
        case.names = names
        return case
    distance = options["distance"]
    unit = options["normalize"]
    near = nearness("cosine", a, r, unit=True) if unit else rounding(distance, a, r)
    rows, others = (torch.from_numpy(x.values) for x in (a, r))
    if unit:
        rows, others = oracle.unit(rows), oracle.unit(others)
        near = near**0.5 if distance == "euclidean" else near

    def check(mined: tuple[Tensor, Tensor, Tensor]) -> str | None:
        cross = oracle.distances(rows, others, distance)
        found = {int(x): (int(y), int(z)) for x, y, z in zip(*mined, strict=True)}
        for i in range(len(rows)):
            same = r_labels == labels[i]
            own = same.clone()
            if way == "itself":
                own[i] = False
            if not bool(own.any()) or not bool((~same).any()):
                if i in found:
                    return f"wrong value: anchor {i} has no triplet, got {found[i]}"
                continue
            if i not in found:
                return f"wrong value: anchor {i} is missing"
            complaint = _chosen(cross[i], same, own, found[i], options, near)
            if complaint is not None:
                return f"{complaint} (anchor {i})"
        return None

    fits = in_range(distance, a, r, unit=unit)
    return Case(
        lambda: miner(**good),
        f"{described(**good)}; {way}, {described(**options)}",
        names,
        "value" if fits else "either",
        check if fits else None,
        good,
    )


def _chosen(
    d: Tensor, same: Tensor, own: Tensor, got: tuple[int, int], options: dict[str, Any], near: float
) -> str | None:
    apart = torch.arange(len(d))
    rule = oracle.positives(d, same, own, "hardest", near)
    complaint = oracle.complaint("positive", d, rule, got[0], max(near, 1e-300), apart)
    if complaint is not None:
        return complaint
    rule = oracle.negatives(d, same, d[got[0]], options["negative"], options["margin"], 2 * near)
    return oracle.complaint("negative", d, rule, got[1], max(near, 1e-300), apart)
