"""Cases of the ranking metrics."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from case import Case, close, first_complaint
from inputs import FLOATS, Draw, described
from spoil import spoil
from torch import Tensor

import zsbir_fast as zf
from api import oracle_ranking as oracle
from api.truth import Ranking, draw_ks, draw_retrieval, draw_rules

_SCORES = (*FLOATS, torch.int32, torch.int64, torch.uint8, torch.int8)
_EMBEDDINGS = {
    "queries": "features",
    "gallery": "features",
    "query_labels": "labels",
    "gallery_labels": "labels",
}


def evaluate_ranking(draw: Draw) -> Case:
    """A matrix of scores of any type and layout."""
    queries, gallery = draw.size(30, least=1), draw.size(200, least=1)
    scores = draw.features(queries, gallery, draw.one(_SCORES))
    closer = draw.chance(0.5)
    labels = draw.pair_of_labels(queries, gallery)
    protocol, rules = draw_rules(draw)
    ks = draw_ks(draw)
    truth = Ranking(
        -scores.values if closer else scores.values,
        0.0,
        0.0,
        np.arange(gallery),
        labels[0].tolist(),
        labels[1].tolist(),
        ks,
        rules,
    )
    good = {
        "scores": draw.array_form(scores.tensor),
        "query_labels": draw.integer_form(labels[0]),
        "gallery_labels": draw.integer_form(labels[1]),
        "larger_is_closer": closer,
        "protocol": protocol,
        "ks": ks,
    }
    roles = {
        "scores": "features",
        "query_labels": "labels",
        "gallery_labels": "labels",
        "larger_is_closer": "choice",
        "protocol": "choice",
        "ks": "count",
    }
    return _case(draw, "evaluate_ranking", zf.evaluate_ranking, good, roles, truth)


def evaluate_retrieval(draw: Draw) -> Case:
    """Embeddings in one call."""
    good, truth = draw_retrieval(draw)
    good["workspace_mib"] = draw.one((None, 1))
    roles = {
        **_EMBEDDINGS,
        "metric": "choice",
        "protocol": "choice",
        "ks": "count",
    }
    return _case(draw, "evaluate_retrieval", zf.evaluate_retrieval, good, roles, truth)


def evaluator(draw: Draw) -> Case:
    """A gallery in shards, in memory or streamed, and the same as in one call to the bit."""
    good, truth = draw_retrieval(draw)
    stream = draw.one((True, False, None))
    cuts = np.sort(draw.rng.integers(0, len(truth.gallery_labels) + 1, int(draw.rng.integers(3))))
    options = {k: good[k] for k in ("metric", "protocol", "ks")}

    def call(queries: Any, gallery: Any, query_labels: Any, gallery_labels: Any) -> Any:
        made = zf.RetrievalEvaluator(stream=stream, **options)
        ends = [0, *cuts.tolist(), len(truth.gallery_labels)]
        shards = [slice(a, b) for a, b in itertools.pairwise(ends) if b > a]
        shards = shards if hasattr(gallery, "__getitem__") and len(cuts) else [slice(None)]
        for rows in shards:
            if len(shards) == 1:
                made.add_gallery(gallery, gallery_labels)
            else:
                made.add_gallery(gallery[rows], gallery_labels[rows])
        return made.evaluate(queries, query_labels)

    four = {k: good[k] for k in _EMBEDDINGS}
    case = _case(draw, "RetrievalEvaluator", call, four, {}, truth)
    case.says += f", stream={stream}, cuts={cuts.tolist()}, {described(**options)}"
    in_one = case.check

    def check(result: Any) -> str | None:
        return first_complaint(
            in_one(result) if in_one else None,
            _same_bits(draw, result.columns, good, truth.query_labels),
        )

    case.check = check
    return case


def _same_bits(
    draw: Draw, columns: Tensor, good: dict[str, Any], query_labels: list[int]
) -> str | None:
    """One call with the queries in another order and other threads must give the same bits."""
    order = draw.rng.permutation(len(query_labels))
    queries = good["queries"]
    moved = [queries[i] for i in order] if isinstance(queries, list) else queries[order]
    labels = [query_labels[i] for i in order]
    threads = torch.get_num_threads()
    torch.set_num_threads(draw.one((1, 2, 3)))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            again = zf.evaluate_retrieval(**{**good, "queries": moved, "query_labels": labels})
    finally:
        torch.set_num_threads(threads)
    return close("columns against one call", again.columns, columns[order], rtol=0, atol=0)


def excluding(draw: Draw) -> Case:
    """Items that have a query's id are out of its way: one call, scores, or an evaluator."""
    good, truth = draw_retrieval(draw, tensors=True)
    ids = (draw.labels(len(truth.query_labels)), draw.labels(len(truth.gallery_labels)))
    given = {"query_ids": draw.integer_form(ids[0]), "gallery_ids": draw.integer_form(ids[1])}
    truth = truth.without(ids[0].numpy()[:, None] == ids[1].numpy()[None, :])
    way = draw.one(("one call", "streamed", "in memory"))

    def call(query_ids: Any, gallery_ids: Any) -> Any:
        if way == "one call":
            return zf.evaluate_retrieval(**good, query_ids=query_ids, gallery_ids=gallery_ids)
        options = {k: good[k] for k in ("metric", "protocol", "ks")}
        made = zf.RetrievalEvaluator(**options, stream=way == "streamed")
        made.add_gallery(good["gallery"], good["gallery_labels"], gallery_ids)
        return made.evaluate(good["queries"], good["query_labels"], query_ids)

    names = ("evaluate_retrieval", "RetrievalEvaluator")
    if draw.chance(0.25):
        roles: dict[str, Any] = dict.fromkeys(given, "labels")
        arguments, expect, how = spoil(draw, given, roles)
        if how == "query_ids spoilt: None" and way != "one call":
            expect = "either"  # an evaluator's gallery may have ids that no query has
        return Case(
            lambda: call(**arguments), f"{described(**arguments)}; {way}, {how}", names, expect
        )
    says = f"{described(**good, **given)}; {way}"
    inputs = {**_inputs(good), **given}
    return Case(lambda: call(**given), says, names, truth.expect(), truth.check, inputs)


def leave_one_out(draw: Draw) -> Case:
    """Every row of a matrix of scores against all others."""
    rows = draw.size(60, least=1)
    scores, labels = draw.features(rows, rows, draw.one(FLOATS)), draw.labels(rows)
    protocol, rules = draw_rules(draw)
    ks, closer, y = draw_ks(draw), draw.chance(0.5), labels.tolist()
    distances = -scores.values if closer else scores.values
    truth = Ranking(distances, 0.0, 0.0, np.arange(rows), y, y, ks, rules)
    truth = truth.without(np.eye(rows, dtype=bool))
    good = {
        "scores": draw.array_form(scores.tensor),
        "query_labels": draw.integer_form(labels),
        "gallery_labels": draw.integer_form(labels),
        "larger_is_closer": closer,
        "protocol": protocol,
        "ks": ks,
        "exclude_self": True,
    }
    roles = {"scores": "features", "query_labels": "labels", "exclude_self": "choice"}
    return _case(draw, "evaluate_ranking", zf.evaluate_ranking, good, roles, truth)


def spoilt_evaluator(draw: Draw) -> Case:
    """An evaluator with a bad option, shard or query."""
    good, _ = draw_retrieval(draw)
    options = {k: good[k] for k in ("metric", "protocol", "ks")}
    options["workspace_mib"] = 1
    roles = {
        **_EMBEDDINGS,
        **dict.fromkeys(("metric", "protocol"), "choice"),
        "ks": "count",
        "workspace_mib": "count",
    }
    arguments, expect, how = spoil(draw, {**good, **options}, roles)
    if how.startswith("workspace_mib spoilt: None"):
        expect = "either"

    def call() -> Any:
        four = [arguments[k] for k in _EMBEDDINGS]
        made = zf.RetrievalEvaluator(**{k: arguments[k] for k in options})
        made.add_gallery(four[1], four[3])
        return made.evaluate(four[0], four[2])

    return Case(call, f"{described(**arguments)}; {how}", ("RetrievalEvaluator",), expect)


def torchmetrics_metric(draw: Draw) -> Case:
    """``RetrievalMetric`` fed in batches."""
    good, truth = draw_retrieval(draw, tensors=True)
    half = len(truth.gallery_labels) // 2

    def call() -> Any:
        made = zf.RetrievalMetric(**{k: good[k] for k in ("metric", "protocol", "ks")})
        gallery, labels = good["gallery"], good["gallery_labels"]
        made.update(good["queries"], good["query_labels"], gallery[half:], labels[half:])
        if half:
            made.update(gallery=gallery[:half], gallery_labels=labels[:half])
        return made.compute()

    order = [*range(half, len(truth.gallery_labels)), *range(half)]
    moved = replace(
        truth,
        distances=truth.distances[:, order],
        rows=truth.rows[order],
        gallery_labels=[truth.gallery_labels[i] for i in order],
    )

    def check(result: Any) -> str | None:
        if not moved.is_clear():
            return None
        return close("map", result["map"], moved.map(), rtol=1e-6, atol=1e-7)

    names = ("RetrievalMetric", "evaluate_retrieval")
    says = described(**good, first=half)
    return Case(call, says, names, truth.expect(), check, _inputs(good))


def compare_definitions(draw: Draw) -> Case:
    """One ranking under every preset."""
    good, truth = draw_retrieval(draw)
    del good["protocol"]
    roles = {**_EMBEDDINGS, "metric": "choice", "ks": "count"}
    truth = replace(truth, rules=oracle.PRESETS["standard"])  # which skips, as some others do

    def check(table: Any) -> str | None:
        complaints = []
        for name, rules in oracle.PRESETS.items():
            complaints.append(replace(truth, rules=rules).check(table.results[name]))
        return first_complaint(*complaints, None if str(table) else "table has no text")

    case = _case(draw, "compare_definitions", zf.compare_definitions, good, roles, truth)
    case.check = check
    return case


def _inputs(arguments: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in arguments.items() if k in (*_EMBEDDINGS, "scores")}


def _case(
    draw: Draw,
    name: str,
    function: Callable[..., Any],
    good: dict[str, Any],
    roles: dict[str, Any],
    truth: Ranking,
) -> Case:
    if roles and draw.chance(0.25):
        arguments, expect, how = spoil(draw, good, roles)
        says = f"{described(**arguments)}; {how}"
        return Case(lambda: function(**arguments), says, (name,), expect)
    return Case(
        lambda: function(**good),
        described(**good),
        (name,),
        truth.expect(),
        truth.check,
        _inputs(good),
    )
