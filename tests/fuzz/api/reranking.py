"""Cases of the rankers that re-rank: their scores do not depend on other queries or on lengths."""

from __future__ import annotations

from typing import Any

import torch
from case import Case, close, first_complaint
from inputs import FLOATS, Draw, described
from spoil import spoil

import zsbir_fast as zf

_NAMES = ("rerank", "ExpandedRanker", "IterativeRanker", "ReciprocalRanker", "DiffusionRanker")


def rerank(draw: Draw) -> Case:
    """Embeddings of any type and length, any rule, options at their limits."""
    queries, gallery = draw.size(12, least=1), draw.size(150, least=2)
    width, dtype = draw.size(20, least=1), draw.one(FLOATS)
    q, g = draw.features(queries, width, dtype), draw.features(gallery, width, dtype)

    def count(most: int) -> int:
        return int(draw.rng.integers(1, most + 1))

    by = draw.one(("expansion", "icfrr", "k-reciprocal", "diffusion"))
    options: dict[str, Any] = {
        "expansion": lambda: {"augment": count(gallery), "expand": count(gallery) - 1},
        "icfrr": lambda: {"gallery_k": count(gallery - 1), "query_k": count(gallery), "rounds": 2},
        "k-reciprocal": lambda: {"k1": count(gallery - 1), "k2": count(gallery), "lam": 0.3},
        "diffusion": lambda: {"graph_k": count(gallery - 1), "start_k": count(gallery)},
    }[by]()
    k = draw.one((None, count(gallery)))
    good = {
        "queries": draw.array_form(q.tensor),
        "gallery": draw.array_form(g.tensor),
        "k": k,
        "by": by,
        **options,
    }
    if draw.chance(0.3):
        roles = {"queries": "features", "gallery": "features", "by": "choice"}
        roles.update(dict.fromkeys((n for n in options if n not in ("lam", "expand")), "count"))
        arguments, expect, how = spoil(draw, good, roles)
        if how == "augment spoilt: zero":
            expect = "either"  # an expansion without augmentation
        if how.startswith(("queries spoilt: one row more", "gallery spoilt: one row more")):
            expect = "either"  # no labels that it could disagree with
        says = f"{described(**arguments)}; {how}"
        return Case(lambda: zf.rerank(**arguments), says, _NAMES, expect)
    inputs = {"queries": good["queries"], "gallery": good["gallery"]}

    def check(found: Any) -> str | None:
        rows, scores = found.rows.numpy(), found.scores
        if rows.shape != (queries, gallery if k is None else k):
            return f"wrong value: rows have shape {rows.shape}"
        if any(len(set(row)) < len(row) or row.min() < 0 or row.max() >= gallery for row in rows):
            return "wrong value: rows that are no different photos"
        if bool((scores[:, 1:] > scores[:, :-1]).any()):
            return "wrong value: scores that rise"
        last = zf.rerank(**{**good, "queries": q.tensor[-1:]})
        alone = close("scores of the last query alone", last.scores, scores[-1:], atol=1e-4)
        if dtype != torch.float32:
            return alone
        longer = zf.rerank(**{**good, "queries": q.tensor * draw.one((0.125, 16))})
        return first_complaint(
            alone, close("scores of longer queries", longer.scores, scores, atol=1e-4)
        )

    return Case(lambda: zf.rerank(**good), described(**good), _NAMES, "value", check, inputs)
