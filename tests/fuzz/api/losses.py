"""Cases of the losses: values and gradients against plain loops."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from case import Case
from inputs import Draw, Features, described
from torch import Tensor

import zsbir_fast as zf
from api import oracle_mining as oracle
from api.gradients import beyond_range, compared
from api.mining import DISTANCES, IMPLS, draw_batch, five, in_range, nearness, spoilt
from zsbir_fast.losses.alignment import alignment_loss as contrast
from zsbir_fast.losses.alignment import supervised_contrastive_loss as supervised

_MOST = 24  # loops over triplets and quadruplets are slow


def batch_all_triplet_loss(draw: Draw) -> Case:
    """All triplets of one set, or against another one."""
    a, r, a_labels, r_labels = draw_batch(draw, 60)
    apart = draw.chance(0.6)
    good: dict[str, Any] = {
        "anchors": draw.layout(a.tensor),
        "labels": draw.layout(a_labels),
        "margin": draw.one((0.0, 0.2, draw.number(0, 2))),
        "distance": draw.one(DISTANCES),
        "reduction": draw.one(("mean", "mean_nonzero", "sum", "none")),
        "impl": draw.one(IMPLS),
    }
    roles: dict[str, Any] = {
        "anchors": "features",
        "labels": "labels",
        "margin": "number",
        **dict.fromkeys(("distance", "reduction", "impl"), "choice"),
    }
    sides = {"anchors": a}
    if apart:
        good |= {"references": draw.layout(r.tensor), "reference_labels": r_labels}
        good["exclude_self"] = draw.chance(0.3)
        roles |= {"references": "features", "reference_labels": "labels"}
        sides["references"] = r
    others = (r_labels if apart else a_labels).tolist()

    def right(leaves: Sequence[Tensor], shift: float) -> Tensor:
        return _triplets(
            leaves[0],
            leaves[-1],
            a_labels.tolist(),
            others,
            good["margin"] + shift,
            good["distance"],
            good["reduction"],
            exclude_self=good.get("exclude_self", not apart),
        )

    return _loss_case(
        draw, "batch_all_triplet_loss", zf.batch_all_triplet_loss, good, roles, sides, right
    )


def batch_all_quadruplet_loss(draw: Draw) -> Case:
    """All quadruplets."""
    s, p, s_labels, p_labels = draw_batch(draw, _MOST)
    preset = draw.one(tuple(oracle.COEFFICIENTS))
    good: dict[str, Any] = {
        "sketches": draw.layout(s.tensor),
        "photos": draw.layout(p.tensor),
        "sketch_labels": draw.layout(s_labels),
        "photo_labels": draw.layout(p_labels),
        "preset": preset,
        "coefficients": draw.one((None, None, tuple(draw.rng.integers(0, 3, 5).tolist()))),
        "margins": draw.one((None, 0.1, tuple(draw.rng.random(5).tolist()))),
        "distance": draw.one(DISTANCES),
        "reduction": draw.one(("mean", "mean_nonzero", "sum")),
        "impl": draw.one(IMPLS),
    }
    c = good["coefficients"] or oracle.COEFFICIENTS[preset]
    if c[4] and (c[1] or c[2]) and good["reduction"] == "mean_nonzero":
        good["reduction"] = "mean"
    roles: dict[str, Any] = {
        "sketches": "features",
        "photos": "features",
        "sketch_labels": "labels",
        "photo_labels": "labels",
        **dict.fromkeys(("preset", "distance", "reduction", "impl"), "choice"),
    }

    def right(leaves: Sequence[Tensor], shift: float) -> Tensor:
        first, second = leaves
        d = good["distance"]
        parts = oracle.all_quadruplets(
            oracle.distances(first, second, d),
            oracle.distances(first, first, d),
            oracle.distances(second, second, d),
            (s_labels.tolist(), p_labels.tolist()),
            tuple(map(float, c)),
            tuple(m + shift for m in five(good["margins"])),
        )
        return _reduced(parts, good["reduction"], first)

    name = "batch_all_quadruplet_loss"
    return _loss_case(
        draw, name, zf.batch_all_quadruplet_loss, good, roles, {"sketches": s, "photos": p}, right
    )


def triplet_module(draw: Draw) -> Case:
    """``BatchAllTripletLoss``: itself, a reference set, equal or identical labels, triplets."""
    a, r, labels, r_labels = draw_batch(draw, 50)
    options: dict[str, Any] = {
        "margin": draw.one((0.0, 0.05, draw.number(0, 1))),
        "distance": draw.one(DISTANCES),
        "normalize": draw.chance(0.6),
        "reduction": draw.one(("mean", "mean_nonzero", "sum")),
        "impl": draw.one(IMPLS),
    }
    good: dict[str, Any] = {"embeddings": draw.layout(a.tensor), "labels": labels}
    roles: dict[str, Any] = {"embeddings": "features", "labels": "labels"}
    sides = {"embeddings": a}
    way = draw.one(("itself", "apart", "same labels"))
    if way != "itself":
        if way == "same labels":
            r = draw.features(len(labels), a.values.shape[1], a.tensor.dtype, a.kind)
            r_labels = draw.one((labels, labels.clone()))
        good |= {"ref_emb": draw.layout(r.tensor), "ref_labels": r_labels}
        roles |= {"ref_emb": "features", "ref_labels": "labels"}
        sides["ref_emb"] = r
    rows = None
    if draw.chance(0.2) and len(labels) and len(r_labels if way != "itself" else labels):
        count = draw.size(30)
        ends = (len(labels), *(len(good.get("ref_labels", labels)),) * 2)
        rows = tuple(torch.from_numpy(draw.rng.integers(0, n, count)) for n in ends)
        good["indices_tuple"] = rows
    module = zf.BatchAllTripletLoss(**options)

    def right(leaves: Sequence[Tensor], shift: float) -> Tensor:
        ready = [oracle.unit(x) if options["normalize"] else x for x in leaves]
        margin = options["margin"] + shift
        if rows is None:
            others = good.get("ref_labels", labels).tolist()
            return _triplets(
                ready[0],
                ready[-1],
                labels.tolist(),
                others,
                margin,
                options["distance"],
                options["reduction"],
                exclude_self=way == "itself",
            )
        if len(rows[0]) == 0:
            return leaves[0].sum() * 0
        found = oracle.hinges(
            ready[0][rows[0]],
            ready[-1],
            ready[-1],
            (rows[1], rows[2], rows[2]),
            coefficients=oracle.COEFFICIENTS["triplet"],
            margins=(margin,) * 5,
            share=None,
            distance=options["distance"],
        )
        return _reduced([found], options["reduction"], leaves[0])

    case = _loss_case(
        draw,
        "BatchAllTripletLoss",
        module,
        good,
        roles,
        sides,
        right,
        distance=options["distance"],
        unit=options["normalize"],
    )
    if rows is not None and case.says.endswith((" NaN", " infinity")):
        case.expect = "either"  # only rows that the triplets name are looked at
    case.says += f"; {way}, {described(**options)}"
    case.names = ("BatchAllTripletLoss", "batch_all_triplet_loss", "quadruplet_loss")
    return case


def contrastive(draw: Draw) -> Case:
    """The two losses that contrast cosines."""
    rows, width = draw.size(40), draw.size(40, least=1)
    dtype = draw.one((torch.float32, torch.float64))
    a, b = draw.features(rows, width, dtype), draw.features(rows, width, dtype)
    labels = draw.labels(rows)
    temperature = draw.one((0.1, 1.0, draw.number(0.01, 5)))
    if draw.chance(0.5):
        good = {"sketches": a.tensor, "photos": b.tensor, "labels": labels}
        name, function, sides = "alignment_loss", contrast, {"sketches": a, "photos": b}
    else:
        good = {"features": a.tensor, "labels": labels}
        name, function, sides = "supervised_contrastive_loss", supervised, {"features": a}
    good["temperature"] = temperature
    roles: dict[str, Any] = dict.fromkeys(sides, "features") | {
        "labels": "labels",
        "temperature": "number",
    }
    others = labels.tolist()

    def right(leaves: Sequence[Tensor], shift: float) -> Tensor:
        ready = [oracle.unit(x) for x in leaves]
        cosines = ready[0] @ ready[-1].T / temperature
        if len(sides) == 1:
            return _info_nce(cosines, others, exclude_self=True)
        return (_info_nce(cosines, others) + _info_nce(cosines.T, others)) / 2

    return _loss_case(draw, name, function, good, roles, sides, right, unit=True)


def _loss_case(
    draw: Draw,
    name: str,
    function: Callable[..., Tensor],
    good: dict[str, Any],
    roles: dict[str, Any],
    sides: dict[str, Features],
    right: Callable[[Sequence[Tensor], float], Tensor],
    *,
    distance: str = "cosine",
    unit: bool = False,
) -> Case:
    if draw.chance(0.25):
        return spoilt(draw, name, function, good, roles)
    distance = "cosine" if unit else good.get("distance", distance)
    near = nearness(distance, *sides.values(), unit=unit)
    fits = in_range(distance, *sides.values(), unit=unit)

    def check(result: Tensor) -> str | None:
        if not fits:
            unknown = unit or good.get("reduction") == "mean_nonzero"
            return None if unknown else beyond_range(result, right, sides, near)
        return compared(result, function, good, sides, right, near)

    return Case(
        lambda: function(**good),
        described(**good),
        (name,),
        "value" if fits else "either",
        check,
        good,
    )


def _triplets(
    anchors: Tensor,
    references: Tensor,
    labels: list[int],
    others: list[int],
    margin: float,
    distance: str,
    reduction: str,
    *,
    exclude_self: bool,
) -> Tensor:
    d = oracle.distances(anchors, references, distance)
    per_anchor, _, terms = oracle.all_triplets(d, labels, others, margin, exclude_self)
    if reduction == "none":
        return per_anchor
    return _reduced(terms, reduction, anchors)


def _reduced(parts: list[Tensor], reduction: str, like: Tensor) -> Tensor:
    terms = torch.cat([p.flatten() for p in parts]) if parts else like.sum(1) * 0
    if reduction == "sum":
        return terms.sum()
    count = len(terms) if reduction == "mean" and parts else int((terms > 0).sum())
    return terms.sum() / max(1, count)


def _info_nce(logits: Tensor, labels: list[int], *, exclude_self: bool = False) -> Tensor:
    rows = []
    for i, label in enumerate(labels):
        others = [j for j in range(len(labels)) if not (exclude_self and j == i)]
        same = [j for j in others if labels[j] == label]
        if same:
            rows.append(logits[i, others].logsumexp(0) - logits[i, same].mean())
    return torch.stack(rows).mean() if rows else logits.sum() * 0
