"""Cases of the losses: values and gradients against plain loops."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from case import Case, close
from inputs import FLOATS, Draw, Features, described
from torch import Tensor

import zsbir_fast as zf
from api import oracle_mining as oracle
from api.gradients import beyond_range, compared, fresh
from api.mining import DISTANCES, IMPLS, PRESETS, draw_batch, in_range, rounding, spoilt
from zsbir_fast.losses.alignment import alignment_loss as contrast
from zsbir_fast.losses.alignment import supervised_contrastive_loss as supervised

_HALF = {torch.float16: 4e-3, torch.bfloat16: 3e-2}
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
        good["skip_self"] = draw.chance(0.3)
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
            skip_self=good.get("skip_self", not apart),
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
            tuple(m + shift for m in _five(good["margins"])),
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
                skip_self=way == "itself",
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
        draw, "BatchAllTripletLoss", module, good, roles, sides, right, unit=options["normalize"]
    )
    case.says += f"; {way}, {described(**options)}"
    case.names = ("BatchAllTripletLoss", "batch_all_triplet_loss", "quadruplet_loss")
    return case


def weighted_quadruplet_loss(draw: Draw) -> Case:
    """The module with every option; where nothing is mined by chance the value is compared."""
    s, p, s_labels, p_labels = draw_batch(draw, _MOST)
    options = _module_options(draw)
    shared = draw.chance(0.4) and len(s_labels) == len(p_labels)
    good: dict[str, Any] = {
        "sketches": draw.layout(s.tensor),
        "photos": draw.layout(p.tensor),
        "labels": s_labels if shared else (s_labels, p_labels),
    }
    weighted = draw.chance(0.3) and options["mining"] != "all" and not options["symmetric"]
    roles: dict[str, Any] = {"sketches": "features", "photos": "features", "labels": "labels"}
    if weighted:
        good["weights"] = torch.from_numpy(draw.rng.random(len(s_labels))).float()
        roles["weights"] = "features"
    module = zf.WeightedQuadrupletLoss(**options)
    names = (
        "WeightedQuadrupletLoss",
        "mine_quadruplets",
        "quadruplet_loss",
        "batch_all_quadruplet_loss",
    )
    return _finite_case(draw, names, module, good, roles, (s, p), options)


def cross_batch_memory(draw: Draw) -> Case:
    """Three batches in a row."""
    width, dtype = draw.size(20, least=1), draw.one(FLOATS)
    options = _module_options(draw)
    if options["mining"] == "all":
        options["mining"] = "hardest"
    size, warm_up, positives = draw.size(50, least=1), draw.one((0, 0, 1)), draw.chance(0.3)
    positives = positives and options["positive"] != "paired"
    batches = []
    for _ in range(3):
        n, m = draw.size(20), draw.size(20)
        batches.append(
            (
                draw.features(n, width, dtype),
                draw.features(m, width, dtype),
                draw.pair_of_labels(n, m),
            )
        )
    s, p, labels = batches[-1]
    good = {"sketches": s.tensor, "photos": p.tensor, "labels": labels}
    roles: dict[str, Any] = {"sketches": "features", "photos": "features", "labels": "labels"}

    def module(**last: Any) -> Tensor:
        memory = zf.CrossBatchMemory(
            zf.WeightedQuadrupletLoss(**options), size, width, positives=positives, warm_up=warm_up
        )
        for a, b, y in batches[:-1]:
            memory(a.tensor, b.tensor, y)
        return memory(**last)

    sides = tuple(f for a, b, _ in batches for f in (a, b))
    names = ("CrossBatchMemory", "WeightedQuadrupletLoss", "mine_quadruplets", "quadruplet_loss")
    case = _finite_case(draw, names, module, good, roles, sides, options)
    case.says += f"; size={size}, warm_up={warm_up}, positives={positives}"
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
            return _info_nce(cosines, others, skip_self=True)
        return (_info_nce(cosines, others) + _info_nce(cosines.T, others)) / 2

    return _loss_case(draw, name, function, good, roles, sides, right, unit=True)


def gathering(draw: Draw) -> Case:
    """Alone in its process, a gather gives back what it got."""
    features = draw.features(draw.size(20), draw.size(8), draw.one(FLOATS)).tensor
    labels = draw.labels(len(features))
    if draw.chance(0.5):
        return Case(
            lambda: zf.gather_with_gradient(features),
            described(features=features),
            ("gather_with_gradient",),
            check=lambda x: close("features", x, features, rtol=0, atol=0),
        )
    return Case(
        lambda: zf.gather_labels(labels),
        described(labels=labels),
        ("gather_labels",),
        check=lambda x: None if torch.equal(x, labels) else "wrong value: labels",
    )


def _module_options(draw: Draw) -> dict[str, Any]:
    options: dict[str, Any] = {
        "mining": draw.one(("hardest", "semihard", "distance_weighted", "all")),
        "negatives": draw.one(PRESETS),
        "positive": draw.one(("hardest", "easiest", "semihard", "paired")),
        "margins": draw.one((None, 0.1, tuple(draw.rng.random(5).tolist()))),
        "distance": draw.one(DISTANCES),
        "normalize": draw.chance(0.7),
        "symmetric": draw.chance(0.3),
        "reduction": draw.one(("mean", "mean_nonzero", "sum", "none")),
        "impl": draw.one(IMPLS),
    }
    if options["mining"] == "all" and options["negatives"] == "ramln":
        options["negatives"] = "full"
    if options["reduction"] == "none" and (options["symmetric"] or options["mining"] == "all"):
        options["reduction"] = "mean"
    return options


def _loss_case(
    draw: Draw,
    name: str,
    function: Callable[..., Tensor],
    good: dict[str, Any],
    roles: dict[str, Any],
    sides: dict[str, Features],
    right: Callable[[Sequence[Tensor], float], Tensor],
    *,
    unit: bool = False,
) -> Case:
    if draw.chance(0.25):
        return spoilt(draw, name, function, good, roles)
    distance = "cosine" if unit else good.get("distance", "cosine")
    near = 4 * rounding(distance, *sides.values()) + 1e-12
    if unit:  # half types are normalised as such
        near = 10 * near + _HALF.get(next(iter(sides.values())).tensor.dtype, 0.0)
    fits = in_range(distance, *sides.values())

    def check(result: Tensor) -> str | None:
        if not fits:
            counts = good.get("reduction") == "mean_nonzero"
            return None if counts else beyond_range(result, right, sides)
        return compared(result, function, good, sides, right, near)

    return Case(
        lambda: function(**good),
        described(**good),
        (name,),
        "value" if fits else "either",
        check,
        good,
    )


def _finite_case(
    draw: Draw,
    names: tuple[str, ...],
    module: Callable[..., Tensor],
    good: dict[str, Any],
    roles: dict[str, Any],
    sides: tuple[Features, ...],
    options: dict[str, Any],
) -> Case:
    """A module whose parts have oracles of their own: it must agree with its other face."""
    if draw.chance(0.25):
        case = spoilt(draw, names[0], module, good, roles)
        case.names = names
        return case
    fits = options["normalize"] or in_range(options["distance"], *sides)

    def check(result: Tensor) -> str | None:
        if not bool(torch.isfinite(result).all()):
            return "NaN: loss from finite input"
        leaves = {k: good[k].detach().clone().requires_grad_() for k in ("sketches", "photos")}
        loss = module(**{**fresh(good), **leaves})
        loss.sum().backward()
        for k, leaf in leaves.items():
            if leaf.grad is None:
                return f"no gradient: of {k}"
            if not bool(torch.isfinite(leaf.grad).all()):
                return f"NaN: gradient by {k} from finite input"
        return None

    return Case(
        lambda: module(**good),
        f"{described(**good)}; {described(**options)}",
        names,
        "value" if fits and _allowed(options) else "either",
        check if fits else None,
        {k: v for k, v in good.items() if isinstance(v, Tensor)},
    )


def _allowed(options: dict[str, Any]) -> bool:
    h5 = options["negatives"] == "chen2017"
    return not (h5 and options["mining"] == "all" and options["reduction"] == "mean_nonzero")


def _five(margins: Any) -> tuple[float, ...]:
    if margins is None:
        return oracle.MARGINS
    return margins if isinstance(margins, tuple) else (margins,) * 5


def _triplets(
    anchors: Tensor,
    references: Tensor,
    labels: list[int],
    others: list[int],
    margin: float,
    distance: str,
    reduction: str,
    *,
    skip_self: bool,
) -> Tensor:
    d = oracle.distances(anchors, references, distance)
    per_anchor, _, terms = oracle.all_triplets(d, labels, others, margin, skip_self)
    if reduction == "none":
        return per_anchor
    return _reduced(terms, reduction, anchors)


def _reduced(parts: list[Tensor], reduction: str, like: Tensor) -> Tensor:
    terms = torch.cat([p.flatten() for p in parts]) if parts else like.sum(1) * 0
    if reduction == "sum":
        return terms.sum()
    count = len(terms) if reduction == "mean" and parts else int((terms > 0).sum())
    return terms.sum() / max(1, count)


def _info_nce(logits: Tensor, labels: list[int], *, skip_self: bool = False) -> Tensor:
    rows = []
    for i, label in enumerate(labels):
        others = [j for j in range(len(labels)) if not (skip_self and j == i)]
        same = [j for j in others if labels[j] == label]
        if same:
            rows.append(logits[i, others].logsumexp(0) - logits[i, same].mean())
    return torch.stack(rows).mean() if rows else logits.sum() * 0
