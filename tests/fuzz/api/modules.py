"""Cases of the losses that mine and compare in one call, alone and with a memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from case import Case, close
from inputs import FLOATS, Draw, Features, described
from torch import Tensor

import zsbir_fast as zf
from api import oracle_mining as oracle
from api.gradients import compared, fresh
from api.mining import (
    DISTANCES,
    IMPLS,
    PRESETS,
    draw_batch,
    five,
    in_range,
    loss_of,
    nearness,
    spoilt,
)

_MOST = 40


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
    weighted = draw.chance(0.3) and options["negative"] != "all" and not options["symmetric"]
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
    case = _finite_case(draw, names, module, good, roles, (s, p), options)
    mines = options["negative"] in ("hardest", "semihard") and not options["symmetric"]
    if case.check is not None and mines:
        sides = {"sketches": s, "photos": p}
        case.check = lambda _: _composed(module, fresh(good), sides, options)
    return case


def _composed(
    module: zf.WeightedQuadrupletLoss,
    good: dict[str, Any],
    sides: dict[str, Features],
    options: dict[str, Any],
) -> str | None:
    """The loss of what the module says that it mines; the mining has cases of its own.

    Of one copy of the features: rounding, which chooses among equals, may depend on the layout.
    """
    *rows, valid = module.mine(good["sketches"], good["photos"], good["labels"])
    chosen = [row.clamp_min(0) for row in rows]
    unit, distance = options["normalize"], options["distance"]
    parts = {
        **options,
        "cross_modal_share": 0.5,
        "weights": good.get("weights"),
    }

    def right(leaves: Sequence[Tensor], shift: float) -> Tensor:
        first, second = (oracle.unit(x) if unit else x for x in leaves)
        margins = tuple(m + shift for m in five(options["margins"]))
        return loss_of(first, second, first, chosen, valid, {**parts, "margins": margins})

    near = nearness("cosine" if unit else distance, *sides.values(), unit=unit)
    return compared(module(**good), module, good, sides, right, near)


def cross_batch_memory(draw: Draw) -> Case:
    """Three batches in a row."""
    width, dtype = draw.size(20, least=1), draw.one(FLOATS)
    options = _module_options(draw)
    if options["negative"] == "all":
        options["negative"] = "hardest"
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
            zf.WeightedQuadrupletLoss(**options),
            size=size,
            width=width,
            past_positives=positives,
            warm_up=warm_up,
        )
        for a, b, y in batches[:-1]:
            memory(a.tensor, b.tensor, y)
        return memory(**last)

    sides = tuple(f for a, b, _ in batches for f in (a, b))
    names = ("CrossBatchMemory", "WeightedQuadrupletLoss", "mine_quadruplets", "quadruplet_loss")
    case = _finite_case(draw, names, module, good, roles, sides, options)
    case.says += f"; size={size}, warm_up={warm_up}, past_positives={positives}"
    return case


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
        "negative": draw.one(("hardest", "semihard", "distance_weighted", "random", "all")),
        "preset": draw.one(PRESETS),
        "positive": draw.one(("hardest", "easiest", "semihard", "paired")),
        "coefficients": draw.one((None, None, tuple(draw.rng.integers(0, 3, 5).tolist()))),
        "margins": draw.one((None, 0.1, tuple(draw.rng.random(5).tolist()))),
        "distance": draw.one(DISTANCES),
        "normalize": draw.chance(0.7),
        "symmetric": draw.chance(0.3),
        "reduction": draw.one(("mean", "mean_nonzero", "sum", "none")),
        "impl": draw.one(IMPLS),
    }
    every = options["negative"] == "all"
    if every and options["preset"] == "ramln" and options["coefficients"] is None:
        options["preset"] = "full"
    _, h2, h3, _, h5 = _coefficients(options)
    if every and h5 and (h2 or h3) and options["reduction"] == "mean_nonzero":
        options["reduction"] = "mean"
    if options["reduction"] == "none" and (options["symmetric"] or every):
        options["reduction"] = "mean"
    return options


def _coefficients(options: dict[str, Any]) -> tuple[float, ...]:
    given: tuple[float, ...] | None = options["coefficients"]
    return given or oracle.COEFFICIENTS.get(options["preset"], (1.0, 1.0, 0.0, 0.0, 0.0))


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
    fits = in_range(options["distance"], *sides, unit=options["normalize"])

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
    h5 = _coefficients(options)[4] > 0
    return not (h5 and options["negative"] == "all" and options["reduction"] == "mean_nonzero")
