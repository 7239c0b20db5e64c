"""Cases of the ranking metrics."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from case import Case, Expect, as_float64, close, first_complaint
from inputs import FLOATS, Draw, Features, described
from spoil import spoil

import zsbir_fast as zf
from api import oracle_ranking as oracle

_TIES = ("index", "optimistic", "pessimistic", "grouped", "expected")
_SCORES = (*FLOATS, torch.int32, torch.int64, torch.uint8, torch.int8)
_GOOD_K = (1, 2, 3, 5, 10, 100, 1000, 2**31, 2**40)
_HALF_STEP = {"float32": 2.0**-24, "tf32": 2.0**-11, "bfloat16": 2.0**-8}


def draw_rules(draw: Draw) -> tuple[Any, oracle.Rules]:
    """A protocol by name, with other ties, or of one's own; and its rules."""
    name = draw.one(tuple(oracle.PRESETS))
    rules = oracle.PRESETS[name]
    if draw.chance(0.5):
        return name, rules
    rules = oracle.Rules(
        draw.one(("standard", "voc")),
        draw.one(("all_relevant", "min_relevant_k", "prefix_positive", "at_k")),
        draw.one(("k", "min_relevant_k")),
        draw.one(("query", "class")),
        draw.one(_TIES),
        draw.one(("skip", "zero")),
    )
    if rules.ties == "expected" and (rules.ap == "voc" or rules.normaliser == "prefix_positive"):
        rules = rules._replace(ties="index")
    return zf.Protocol("mine", **rules._asdict()), rules


def draw_ks(draw: Draw) -> tuple[int, ...]:
    """Cut-offs, each once."""
    return tuple(dict.fromkeys(draw.one(_GOOD_K) for _ in range(int(draw.rng.integers(0, 4)))))


@dataclass(frozen=True)
class Ranking:
    """What the oracle needs.

    Attributes:
        distances: [Q, G] in float64.
        near: what rounding may move a distance by; 0: they are exact.
        reach: the largest size that a score could have.
        rows: [G], equal for equal rows of the gallery, which must tie.
        query_labels: [Q].
        gallery_labels: [G].
        ks: cut-offs.
        rules: the definition.
    """

    distances: np.ndarray
    near: float
    reach: float
    rows: np.ndarray
    query_labels: list[int]
    gallery_labels: list[int]
    ks: tuple[int, ...]
    rules: oracle.Rules

    def shares_a_label(self) -> bool:
        """Whether there is something to evaluate."""
        return bool(set(self.query_labels) & set(self.gallery_labels))

    def check(self, result: Any) -> str | None:
        """Compare a ``RetrievalResult`` with the oracle, query by query and mean by mean."""
        want = oracle.per_query(
            self.distances, self.query_labels, self.gallery_labels, self.ks, self.rules
        )
        clear = np.array([self._is_clear(row) for row in self.distances])
        got = as_float64(result.columns)
        complaint = close("columns", got, want, rtol=1e-12, atol=1e-12, where=clear[:, None])
        complaint = first_complaint(complaint, self._within_bounds(got, clear))
        if complaint is not None or not clear.all():
            return complaint
        means = {"map": (result.map, want[:, 1]), "mrr": (result.mrr, want[:, 4])}
        for i, k in enumerate(self.ks):
            first = oracle.FIXED + oracle.AT_K * i
            for j, at in enumerate((result.map_at, result.precision_at, result.recall_at)):
                means[f"{('map', 'precision', 'recall')[j]}@{k}"] = (at[k], want[:, first + j])
        return first_complaint(
            *(
                close(name, value, self.mean(rows), rtol=1e-12, atol=1e-12)
                for name, (value, rows) in means.items()
            ),
            _can_be_shown(result),
        )

    def mean(self, values: np.ndarray) -> float:
        """The mean of one metric over the queries or classes."""
        relevant = np.array([self.gallery_labels.count(y) for y in self.query_labels])
        return oracle.mean(values, relevant, self.query_labels, self.rules)

    def map(self) -> float:
        """mAP@all."""
        return self.mean(
            oracle.per_query(
                self.distances, self.query_labels, self.gallery_labels, (), self.rules
            )[:, 1]
        )

    def is_clear(self) -> bool:
        """Whether no two distances are so near that rounding may exchange them."""
        return all(self._is_clear(row) for row in self.distances)

    def _is_clear(self, distances: np.ndarray) -> bool:
        if self.near == 0:
            return True
        order = np.lexsort((self.rows, distances))
        near = np.diff(distances[order]) <= self.near
        return not bool((near & (np.diff(self.rows[order]) != 0)).any())

    def _within_bounds(self, got: np.ndarray, clear: np.ndarray) -> str | None:
        """Where rounding may exchange items: AP must be that of some order of those items."""
        if self.rules.ap != "standard":
            return None
        gallery = np.array(self.gallery_labels, dtype=object)
        for i in np.flatnonzero(~clear):
            relevant = (gallery == self.query_labels[i]).astype(bool)
            if not relevant.any():
                continue
            low, high = oracle.bounds_of_ap(self.distances[i], relevant, self.near)
            if not low - 1e-12 <= got[i, 1] <= high + 1e-12:
                return f"wrong value: ap[{i}] is {got[i, 1]}, right is from {low} to {high}"
        return None


def _can_be_shown(result: Any) -> str | None:
    text, values = str(result), result.to_dict()
    return None if text and values["queries"] == len(result.query_labels) else "result has no text"


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
    good, truth = _retrieval(draw)
    good["precision"] = draw.one(("float32", "float32", "float32", "tf32", "bfloat16"))
    truth = _at_precision(truth, good["precision"])
    good["workspace_mib"] = draw.one((None, 1))
    roles = {
        **_EMBEDDINGS,
        "metric": "choice",
        "protocol": "choice",
        "precision": "choice",
        "ks": "count",
    }
    return _case(draw, "evaluate_retrieval", zf.evaluate_retrieval, good, roles, truth)


def evaluator(draw: Draw) -> Case:
    """A gallery in shards, in memory or streamed, and the same as in one call to the bit."""
    good, truth = _retrieval(draw)
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
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            whole = zf.evaluate_retrieval(**good)
        return first_complaint(
            in_one(result) if in_one else None,
            close("columns against one call", result.columns, whole.columns, rtol=0, atol=0),
        )

    case.check = check
    return case


def spoilt_evaluator(draw: Draw) -> Case:
    """An evaluator with a bad option, shard or query."""
    good, _ = _retrieval(draw)
    options = {k: good[k] for k in ("metric", "protocol", "ks")}
    options |= {"precision": "float32", "workspace_mib": 1}
    roles = {
        **_EMBEDDINGS,
        **dict.fromkeys(("metric", "protocol", "precision"), "choice"),
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
    good, truth = _retrieval(draw, tensors=True)
    half = len(truth.gallery_labels) // 2

    def call() -> Any:
        made = zf.RetrievalMetric(**{k: good[k] for k in ("metric", "protocol", "ks")})
        gallery, labels = good["gallery"], good["gallery_labels"]
        made.update(good["queries"], good["query_labels"], gallery[half:], labels[half:])
        if half:
            made.update(gallery_embeddings=gallery[:half], gallery_labels=labels[:half])
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
    return Case(call, says, names, _expect(truth), check, _inputs(good))


def compare_definitions(draw: Draw) -> Case:
    """One ranking under every preset."""
    good, truth = _retrieval(draw)
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


_EMBEDDINGS = {
    "queries": "features",
    "gallery": "features",
    "query_labels": "labels",
    "gallery_labels": "labels",
}


def _retrieval(draw: Draw, *, tensors: bool = False) -> tuple[dict[str, Any], Ranking]:
    width = draw.size(70, least=1)
    queries, gallery = draw.size(20, least=1), draw.size(200, least=1)
    dtype = draw.one(FLOATS)
    q = draw.features(queries, width, dtype)
    g = draw.features(gallery, width, dtype, q.kind if draw.chance(0.7) else None)
    metric = draw.one(("cosine", "euclidean", "dot"))
    labels = draw.pair_of_labels(queries, gallery)
    protocol, rules = draw_rules(draw)
    ks = draw_ks(draw)
    distances, near, reach = _distances(q, g, metric)
    _, rows = np.unique(g.values, axis=0, return_inverse=True)
    form = draw.layout if tensors else draw.array_form
    label_form = (lambda y: y) if tensors else draw.integer_form
    good = {
        "queries": form(q.tensor),
        "gallery": form(g.tensor),
        "query_labels": label_form(labels[0]),
        "gallery_labels": label_form(labels[1]),
        "metric": metric,
        "protocol": protocol,
        "ks": ks,
    }
    both = labels[0].tolist(), labels[1].tolist()
    return good, Ranking(distances, near, reach, rows.reshape(-1), *both, ks, rules)


def _distances(q: Features, g: Features, metric: str) -> tuple[np.ndarray, float, float]:
    """Distances in float64, equal for equal rows; what rounding moves them by; how far they go."""
    a, b = q.values, g.values
    if metric == "cosine":
        a, b = _unit(a), _unit(b)
    with np.errstate(over="ignore"):
        products = np.stack([(row * b).sum(1) for row in a])
        sizes = np.linalg.norm(a, axis=1).max() * np.linalg.norm(b, axis=1).max()
        if metric == "euclidean":
            squares = (b * b).sum(1)
            products, sizes = 2 * products - squares, squares.max() + 2 * sizes
    step = _HALF_STEP["float32"] if q.tensor.dtype.itemsize < 8 else 2.0**-53
    near = 4 * (a.shape[1] + 8) * (step * sizes + 1e-37)  # and what is lost below the range
    exact = q.exact and g.exact and metric != "cosine"
    if metric != "cosine" and np.linalg.norm(np.vstack([a, b]), axis=1).max() > 1e18:
        sizes = np.inf  # a square leaves the range of float32
    return -products, 0.0 if exact else float(near), float(sizes)


def _unit(rows: np.ndarray) -> np.ndarray:
    largest = np.abs(rows).max(1, keepdims=True)
    rows = rows / np.where(largest > 0, largest, 1)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(norms > 0, norms, 1)


def _at_precision(truth: Ranking, precision: str) -> Ranking:
    if precision == "float32":
        return truth
    return replace(truth, near=max(truth.near, 4 * _HALF_STEP[precision] * truth.reach))


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
        _expect(truth),
        truth.check,
        _inputs(good),
    )


def _expect(truth: Ranking) -> Expect:
    """Good arguments, but: no shared label is refused, and so are scores beyond float32."""
    if not truth.shares_a_label() and truth.rules.empty == "skip":
        return "refusal"
    return "value" if truth.reach < 1e37 else "either"
