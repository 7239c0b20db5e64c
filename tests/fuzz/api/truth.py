"""What the ranking metrics should be: random retrievals with the oracle's answer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from case import Expect, as_float64, close, first_complaint
from inputs import FLOATS, Draw, Features

import zsbir_fast as zf
from api import oracle_ranking as oracle

_TIES = ("index", "optimistic", "pessimistic", "grouped", "expected")
_GOOD_K = (1, 2, 3, 5, 10, 100, 1000, 2**31, 2**40)


def draw_rules(draw: Draw) -> tuple[Any, oracle.Rules]:
    """A protocol by name, with other ties, or of one's own; and its rules."""
    name = draw.one(tuple(oracle.PRESETS))
    rules = oracle.PRESETS[name]
    if draw.chance(0.5):
        return name, rules
    rules = oracle.Rules(
        draw.one(("standard", "voc")),
        draw.one(("all_relevant", "min_relevant_k", "prefix_positive", "at_k")),
        draw.one(("k", "min_relevant_k", "min_gallery_k")),
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
        left_out: bool [Q, G], items that a query is not compared with; None: there are none.
    """

    distances: np.ndarray
    near: float
    reach: float
    rows: np.ndarray
    query_labels: list[int]
    gallery_labels: list[int]
    ks: tuple[int, ...]
    rules: oracle.Rules
    left_out: np.ndarray | None = None

    def relevant(self) -> np.ndarray:
        """Which items are relevant to which queries, bool [Q, G]."""
        gallery = np.array(self.gallery_labels, dtype=object)
        found = np.stack([(gallery == label).astype(bool) for label in self.query_labels])
        return found if self.left_out is None else found & ~self.left_out

    def without(self, left_out: np.ndarray) -> Ranking:
        """The same where some items are not compared with: at the end, and not relevant."""
        distances = np.where(left_out, np.inf, self.distances)
        return replace(self, distances=distances, left_out=left_out)

    def shares_a_label(self) -> bool:
        """Whether there is something to evaluate."""
        return bool(self.relevant().any())

    def expect(self) -> Expect:
        """Good arguments, but: no shared label is refused, and so are scores beyond float32."""
        if not self.shares_a_label() and self.rules.empty == "skip":
            return "refusal"
        return "value" if self.reach < 1e37 else "either"

    def check(self, result: Any) -> str | None:
        """Compare a ``RetrievalResult`` with the oracle, query by query and mean by mean."""
        want = oracle.per_query(self.distances, self.relevant(), self.ks, self.rules)
        clear = np.array([self._is_clear(row) for row in self.distances])
        got = as_float64(result.columns)
        complaint = close("columns", got, want, rtol=1e-12, atol=1e-12, where=clear[:, None])
        complaint = first_complaint(complaint, self._within_bounds(got, clear))
        if complaint is not None or not clear.all():
            return complaint
        means = {
            "map": (result.map, want[:, 1]),
            "mrr": (result.mrr, want[:, 4]),
            "map at R": (result.map_at_r, want[:, 5]),
            "R-precision": (result.r_precision, want[:, 6]),
        }
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
        return oracle.mean(values, self.relevant().sum(1), self.query_labels, self.rules)

    def map(self) -> float:
        """mAP@all."""
        return self.mean(oracle.per_query(self.distances, self.relevant(), (), self.rules)[:, 1])

    def is_clear(self) -> bool:
        """Whether no two distances are so near that rounding may exchange them."""
        return all(self._is_clear(row) for row in self.distances)

    def _is_clear(self, distances: np.ndarray) -> bool:
        if self.near == 0:
            return True
        order = np.lexsort((self.rows, distances))
        with np.errstate(invalid="ignore"):  # between items that are left out
            near = np.diff(distances[order]) <= self.near
        return not bool((near & (np.diff(self.rows[order]) != 0)).any())

    def _within_bounds(self, got: np.ndarray, clear: np.ndarray) -> str | None:
        """Where rounding may exchange items: AP must be that of some order of those items."""
        if self.rules.ap != "standard" or self.rules.ties == "grouped":
            return None  # no bound: a threshold behind tied items may exceed the best order
        relevant = self.relevant()
        for i in np.flatnonzero(~clear):
            if not relevant[i].any():
                continue
            low, high = oracle.bounds_of_ap(self.distances[i], relevant[i], self.near)
            if not low - 1e-12 <= got[i, 1] <= high + 1e-12:
                return f"wrong value: ap[{i}] is {got[i, 1]}, right is from {low} to {high}"
        return None


def _can_be_shown(result: Any) -> str | None:
    text, values = str(result), result.to_dict()
    return None if text and values["queries"] == len(result.query_labels) else "result has no text"


def draw_retrieval(draw: Draw, *, tensors: bool = False) -> tuple[dict[str, Any], Ranking]:
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
    exact = q.exact and g.exact
    if metric == "cosine" and exact and g.kind == "signs":
        metric = "dot"  # the photos have one length: the same ranking, and exact
    if metric == "cosine":
        a, b, exact = _unit(a), _unit(b), False
    with np.errstate(over="ignore"):
        products = np.stack([(row * b).sum(1) for row in a])
        sizes = np.linalg.norm(a, axis=1).max() * np.linalg.norm(b, axis=1).max()
        if metric == "euclidean":
            squares = (b * b).sum(1)
            products, sizes = 2 * products - squares, squares.max() + 2 * sizes
    step = 2.0**-24 if q.tensor.dtype.itemsize < 8 else 2.0**-53
    near = 4 * (a.shape[1] + 8) * (step * sizes + 1e-37)  # and what is lost below the range
    if metric != "cosine" and np.linalg.norm(np.vstack([a, b]), axis=1).max() > 1e18:
        sizes = np.inf  # a square leaves the range of float32
    return -products, 0.0 if exact else float(near), float(sizes)


def _unit(rows: np.ndarray) -> np.ndarray:
    largest = np.abs(rows).max(1, keepdims=True)
    rows = rows / np.where(largest > 0, largest, 1)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(norms > 0, norms, 1)
