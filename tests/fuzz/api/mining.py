"""Cases of the mining and of the loss over its quadruplets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from case import Case, Expect
from inputs import EXTREMES, FLOATS, Draw, Features, described
from spoil import spoil
from torch import Tensor

import zsbir_fast as zf
from api import oracle_mining as oracle
from api.gradients import beyond_range, compared

DISTANCES = ("euclidean", "squared_euclidean", "cosine")
PRESETS = (*oracle.COEFFICIENTS, "ramln")
#: Ways to spoil an argument that leave it good.
_OPEN = (
    "mine_quadruplets: positive_photos spoilt: zero",
    "mine_quadruplets: positive_photos spoilt: None",
    "token_weighting: temperature spoilt: infinity",
    "quadruplet_loss: weights spoilt: None",
    "WeightedQuadrupletLoss: weights spoilt: None",
    "quadruplet_loss: photos spoilt: one row more",
)
#: What is not finite is not looked for there: it shows in the scores.
_SHOW_NAN = ("token_weighting", "pairwise_token_score")
_HALF = {torch.float16: 4e-3, torch.bfloat16: 3e-2}
IMPLS = ("fused", "fused", "fused", "reference")


def rounding(distance: str, *features: Features) -> float:
    """What rounding may move a distance by; 0 where all are exact."""
    exact = distance == "squared_euclidean" and all(f.exact for f in features)
    return 0.0 if exact else _rounding(distance, features)


def _rounding(distance: str, features: Sequence[Features]) -> float:
    step = 2.0**-52 if features[0].tensor.dtype == torch.float64 else 2.0**-23
    width = features[0].values.shape[1]
    if distance == "cosine":
        return 4 * (width + 8) * step
    largest = max(float(np.linalg.norm(f.values, axis=1).max(initial=0)) for f in features)
    if distance == "euclidean":
        return (width + 8) * step * 2 * largest + 1e-17
    return (width + 8) * step * 4 * largest**2 + 1e-33


def nearness(distance: str, *features: Features, unit: bool = False) -> float:
    """The shift of margins that covers what rounding does to a hinge."""
    near = 4 * _rounding(distance, features) + 1e-12  # exact distances, but not with a margin
    if unit:  # half types are normalised as such
        near = 10 * near + _HALF.get(features[0].tensor.dtype, 0.0)
    return near


def in_range(distance: str, *features: Features, unit: bool = False) -> bool:
    """Whether lengths and squares of differences stay within float32, their gradients in float16.

    With ``unit`` rows are divided by their lengths, in their own type.
    """
    largest = max(float(np.abs(f.values).max(initial=0)) for f in features)
    half = any(f.tensor.dtype == torch.float16 for f in features)
    if unit or distance == "cosine":
        extreme = half and any(f.kind in EXTREMES for f in features)
        return not extreme and (not unit or largest < 1e17)
    return largest < (1e3 if half else 1e17)


def draw_batch(draw: Draw, most: int = 60) -> tuple[Features, Features, Tensor, Tensor]:
    """Sketches and photos of one width and dtype, with labels."""
    width, dtype = draw.size(50, least=1), draw.one(FLOATS)
    sketches = draw.features(draw.size(most), width, dtype)
    photos = draw.features(
        draw.size(most), width, dtype, sketches.kind if draw.chance(0.7) else None
    )
    return sketches, photos, *draw.pair_of_labels(len(sketches.values), len(photos.values))


def mine_quadruplets(draw: Draw) -> Case:
    """Every choice of every rule."""
    s, p, s_labels, p_labels = draw_batch(draw)
    distance = draw.one(DISTANCES)
    bank = draw.features(draw.size(60), s.values.shape[1], s.tensor.dtype)
    banked = draw.chance(0.3)
    bank_labels = draw.labels(len(bank.values))
    if len(s_labels):
        bank_labels = s_labels[
            torch.from_numpy(draw.rng.integers(0, len(s_labels), len(bank_labels)))
        ]
    good: dict[str, Any] = {
        "sketches": draw.layout(s.tensor),
        "photos": draw.layout(p.tensor),
        "sketch_labels": draw.layout(s_labels),
        "photo_labels": draw.layout(p_labels),
        "positive": draw.one(("hardest", "easiest", "semihard", "paired")),
        "negative": draw.one(("hardest", "semihard", "distance_weighted", "random")),
        "sketch_negative": draw.one(("anchor", "positive", "random", "none")),
        "distance": distance,
        "margin": draw.one((0.0, 0.3, draw.number(0, 3))),
        "distinct_negatives": draw.chance(0.3),
        "impl": draw.one(IMPLS),
    }
    photos, sketches = len(p.values), len(s.values)
    roles: dict[str, Any] = {
        "sketches": "features",
        "photos": "features",
        "sketch_labels": "labels",
        "photo_labels": "labels",
        "margin": "number",
        **dict.fromkeys(("positive", "negative", "sketch_negative", "distance", "impl"), "choice"),
    }
    if banked:
        good |= {"sketch_references": bank.tensor, "sketch_reference_labels": bank_labels}
        roles |= {"sketch_references": "features", "sketch_reference_labels": "labels"}
    if good["positive"] == "paired":
        good["paired"] = torch.from_numpy(draw.rng.integers(-1, max(photos, 1), sketches))
        good["paired"] = good["paired"].clamp_max(photos - 1)
        roles["paired"] = "labels"
    drawn = good["negative"] in ("distance_weighted", "random")
    for name, needed in (
        ("uniforms", drawn),
        ("sketch_uniforms", good["sketch_negative"] == "random"),
    ):
        if needed:
            good[name] = torch.from_numpy(draw.rng.random(sketches)).float().clamp_max(0.999)
            good[name] = good[name].to(draw.one((torch.float32, torch.float64)))
            roles[name] = "features"
    if draw.chance(0.2):
        good["positive_photos"] = int(draw.rng.integers(0, photos + 1))
        roles["positive_photos"] = "count"
    sides = (s, p, bank if banked else s)
    all_labels = (s_labels, p_labels, bank_labels if banked else s_labels)

    def check(result: Any) -> str | None:
        return _mined_complaint(result, good, sides, all_labels)

    expect: Expect = "value" if in_range(distance, *sides) else "either"
    if draw.chance(0.25):
        return spoilt(draw, "mine_quadruplets", zf.mine_quadruplets, good, roles)
    return Case(
        lambda: zf.mine_quadruplets(**good),
        described(**good),
        ("mine_quadruplets",),
        expect,
        check if in_range(distance, *sides) else None,
        good,
    )


def spoilt(
    draw: Draw, name: str, function: Any, good: dict[str, Any], roles: dict[str, Any]
) -> Case:
    """The call with one argument spoilt."""
    arguments, expect, how = spoil(draw, good, roles)
    not_finite = how.endswith((" NaN", " infinity")) and name in _SHOW_NAN
    if (
        not_finite
        or f"{name}: {how}" in _OPEN
        or (how.endswith("tokens spoilt: one row more") and good["all_pairs"])
    ):
        expect = "either"
    return Case(lambda: function(**arguments), f"{described(**arguments)}; {how}", (name,), expect)


def _mined_complaint(
    mined: Any,
    given: dict[str, Any],
    sides: tuple[Features, Features, Features],
    labels: tuple[Tensor, Tensor, Tensor],
) -> str | None:
    s, p, r = (torch.from_numpy(f.values) for f in sides)
    distance, margin = given["distance"], given["margin"]
    near = rounding(distance, *sides)
    cross = oracle.distances(s, p, distance)
    p_rows, r_rows = (_row_names(x) for x in (p, r))
    limit = given.get("positive_photos", len(p))
    for i in range(len(s)):
        same = labels[1] == labels[0][i]
        own = same & (torch.arange(len(p)) < limit)
        got = [int(x[i]) for x in mined]
        if given["positive"] == "paired":
            row = int(given["paired"][i])
            right = row if row >= 0 and bool(own[row]) else -1
            if got[0] != right:
                return f"wrong value: positive[{i}] is {got[0]}, right is {right}"
        else:
            rule = oracle.positives(cross[i], same, own, given["positive"], near)
            found = oracle.complaint(f"positive[{i}]", cross[i], rule, got[0], near, p_rows)
            if found is not None:
                return found
        if given["negative"] in ("distance_weighted", "random"):
            allowed = (~same).any()
            if (got[1] >= 0) != bool(allowed) or (got[1] >= 0 and bool(same[got[1]])):
                return f"wrong value: photo_negative[{i}] is {got[1]}, not a photo of another class"
        else:
            target = cross[i, got[0]] if got[0] >= 0 else None
            rule = oracle.negatives(cross[i], same, target, given["negative"], margin, 2 * near)
            found = oracle.complaint(f"photo_negative[{i}]", cross[i], rule, got[1], near, p_rows)
            if found is not None:
                return found
        found = _sketch_complaint(i, got, given, (s, p, r), labels, near, r_rows)
        if found is not None:
            return found
        needed = got[: 2 if given["sketch_negative"] == "none" else 3]
        if got[3] != all(x >= 0 for x in needed):
            return f"wrong value: valid[{i}] is {bool(got[3])} for {got[:3]}"
    return None


def _sketch_complaint(
    i: int,
    got: list[int],
    given: dict[str, Any],
    rows: tuple[Tensor, Tensor, Tensor],
    labels: tuple[Tensor, Tensor, Tensor],
    near: float,
    names: Tensor,
) -> str | None:
    what, mode = f"sketch_negative[{i}]", given["sketch_negative"]
    if mode == "none" or (mode == "positive" and got[0] < 0):
        return None if got[2] == -1 else f"wrong value: {what} is {got[2]}, right is none (-1)"
    other = labels[2] != labels[0][i]
    if given["distinct_negatives"]:
        if got[1] < 0:
            return None
        other &= labels[2] != labels[1][got[1]]
    if mode == "random":
        right = bool(other[got[2]]) if got[2] >= 0 else not bool(other.any())
        return None if right else f"wrong value: {what} is {got[2]}, not a sketch of another class"
    origin = rows[1][got[0]] if mode == "positive" else rows[0][i]
    d = oracle.distances(origin[None], rows[2], given["distance"])[0]
    return oracle.complaint(what, d, oracle.Wanted(other, False, False), got[2], near, names)


def _row_names(rows: Tensor) -> Tensor:
    """[n], equal for equal rows."""
    if rows.numel() == 0:
        return torch.arange(len(rows))
    _, names = np.unique(rows.numpy(), axis=0, return_inverse=True)
    return torch.from_numpy(names.reshape(-1))


def quadruplet_loss(draw: Draw) -> Case:
    """Any quadruplets, weights, presets, coefficients and margins; values and gradients."""
    s, p, _, _ = draw_batch(draw)
    width, sketches, photos = s.values.shape[1], len(s.values), len(p.values)
    bank = draw.features(draw.size(40, least=1), width, s.tensor.dtype) if draw.chance(0.3) else s
    distance, preset = draw.one(DISTANCES), draw.one(PRESETS)
    valid = torch.from_numpy(draw.rng.random(sketches) < 0.8)
    valid &= photos > 0
    rows = [
        torch.from_numpy(draw.rng.integers(0, max(1, n), sketches))
        for n in (photos, photos, len(bank.values))
    ]
    chosen = zf.Quadruplets(*(x.where(valid, draw.one((0, -1, 10**8))) for x in rows), valid)
    good: dict[str, Any] = {
        "sketches": draw.layout(s.tensor),
        "photos": draw.layout(p.tensor),
        "quadruplets": chosen,
        "weights": draw.one((None, torch.from_numpy(draw.rng.standard_normal(sketches)).float())),
        "preset": preset,
        "coefficients": draw.one((None, None, tuple(draw.rng.integers(0, 3, 5).tolist()))),
        "margins": draw.one((None, 0.1, tuple(draw.rng.random(5).tolist()))),
        "cross_modal_share": draw.one((0.0, 0.5, 1.0)),
        "distance": distance,
        "reduction": draw.one(("mean", "mean_nonzero", "sum", "none")),
        "impl": draw.one(IMPLS),
    }
    if bank is not s:
        good["sketch_references"] = bank.tensor
    roles: dict[str, Any] = {
        "sketches": "features",
        "photos": "features",
        "quadruplets": "module",
        "cross_modal_share": "number",
        **dict.fromkeys(("preset", "distance", "reduction", "impl"), "choice"),
    }
    if good["weights"] is not None:
        roles["weights"] = "features"
    if draw.chance(0.25):
        return spoilt(draw, "quadruplet_loss", zf.quadruplet_loss, good, roles)
    sides = {"sketches": s, "photos": p}
    if bank is not s:
        sides["sketch_references"] = bank
    near = nearness(distance, *sides.values())

    def oracle_of(leaves: Sequence[Tensor], shift: float) -> Tensor:
        shifted = {**good, "margins": tuple(m + shift for m in _parts(good)[1])}
        return loss_of(
            leaves[0], leaves[1], leaves[-1 if bank is not s else 0], rows, valid, shifted
        )

    fits = in_range(distance, *sides.values())

    def check(result: Tensor) -> str | None:
        if not fits:
            return beyond_range(result, oracle_of, sides, near)
        return compared(result, zf.quadruplet_loss, good, sides, oracle_of, near)

    return Case(
        lambda: zf.quadruplet_loss(**good),
        described(**{k: v for k, v in good.items() if k != "quadruplets"}),
        ("quadruplet_loss",),
        "value" if fits else "either",
        check,
        good,
    )


def five(margins: float | tuple[float, ...] | None) -> tuple[float, ...]:
    """Five margins from what a user may give."""
    if margins is None:
        return oracle.MARGINS
    return margins if isinstance(margins, tuple) else (margins,) * 5


def _parts(good: dict[str, Any]) -> tuple[tuple[float, ...], tuple[float, ...], float | None]:
    """Coefficients, margins and RAMLN's share."""
    single = good["preset"] == "ramln" and good["coefficients"] is None
    coefficients = good["coefficients"] or oracle.COEFFICIENTS.get(good["preset"], ())
    share = good["cross_modal_share"] if single else None
    return tuple(coefficients), five(good["margins"]), share


def loss_of(
    a: Tensor, b: Tensor, c: Tensor, rows: list[Tensor], valid: Tensor, good: dict[str, Any]
) -> Tensor:
    hinges = a.sum(1) * 0
    if len(b):
        coefficients, margins, share = _parts(good)
        found = oracle.hinges(
            a[valid],
            b,
            c,
            tuple(x[valid] for x in rows),
            coefficients=coefficients,
            margins=margins,
            share=share,
            distance=good["distance"],
        )
        hinges = hinges.masked_scatter(valid, found)
    losses = hinges if good["weights"] is None else hinges * good["weights"].double()
    if good["reduction"] == "none":
        return losses
    if good["reduction"] == "sum":
        return losses.sum()
    counted = valid if good["reduction"] == "mean" else hinges > 0
    return losses.sum() / max(1, int(counted.sum()))
