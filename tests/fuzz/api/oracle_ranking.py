"""Ranking metrics by sorting, in float64, written from docs/metrics.md."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

FIXED = 7  # relevant, AP, worst AP, best AP, reciprocal rank, AP@R, R-precision
AT_K = 4  # AP@k, Prec@k, Recall@k, hit@k


class Rules(NamedTuple):
    """A definition, by the names of docs/metrics.md."""

    ap: str
    normaliser: str
    precision: str
    average: str
    ties: str
    empty: str


#: The table "Presets".
PRESETS = {
    "standard": Rules("standard", "all_relevant", "k", "query", "expected", "skip"),
    "sake": Rules("voc", "min_relevant_k", "min_gallery_k", "class", "index", "skip"),
    "zse": Rules("voc", "min_relevant_k", "min_relevant_k", "query", "index", "skip"),
    "sem_pcyc": Rules("standard", "prefix_positive", "k", "query", "grouped", "zero"),
    "torchmetrics": Rules("standard", "prefix_positive", "k", "query", "index", "zero"),
    "eccv18": Rules("standard", "at_k", "k", "query", "index", "zero"),
}


def per_query(
    distances: np.ndarray, relevant: np.ndarray, ks: tuple[int, ...], rules: Rules
) -> np.ndarray:
    """Rows of metrics [Q, 7 + 4 len(ks)]; NaN but for the first column where nothing fits.

    Args:
        distances: [Q, G]; infinite for items that a query is not compared with.
        relevant: bool [Q, G].
        ks: cut-offs.
        rules: the definition.
    """
    return np.stack([_row(d, r, ks, rules) for d, r in zip(distances, relevant, strict=True)])


def mean(values: np.ndarray, relevant: np.ndarray, labels: list[int], rules: Rules) -> float:
    """Mean over queries or over classes; queries without a relevant item out, or as zeros."""
    empty = relevant == 0
    kept = [
        (label, 0.0 if none else float(value))
        for label, value, none in zip(labels, values, empty, strict=True)
        if not none or rules.empty == "zero"
    ]
    if rules.average == "query":
        return math.fsum(value for _, value in kept) / len(kept)
    classes: dict[int, list[float]] = {}
    for label, value in kept:
        classes.setdefault(label, []).append(value)
    return math.fsum(math.fsum(v) / len(v) for v in classes.values()) / len(classes)


def bounds_of_ap(distances: np.ndarray, relevant: np.ndarray, near: float) -> tuple[float, float]:
    """Worst and best AP where distances that differ by less than ``near`` count as tied."""
    order = np.argsort(distances, kind="stable")
    with np.errstate(invalid="ignore"):  # between items that are left out
        steps = np.diff(distances[order]) > near
    merged = np.empty(len(distances))
    merged[order] = np.concatenate([[0], np.cumsum(steps)])
    worst, best = (
        _precision_sum(merged, relevant, len(merged), "standard", ties) / relevant.sum()
        for ties in ("pessimistic", "optimistic")
    )
    return worst, best


def _row(distances: np.ndarray, relevant: np.ndarray, ks: tuple[int, ...], d: Rules) -> np.ndarray:
    found = int(relevant.sum())
    row = np.full(FIXED + AT_K * len(ks), np.nan)
    row[0] = found
    if found == 0:
        return row
    everything = len(distances)
    for column, ties in ((1, d.ties), (2, "pessimistic"), (3, "optimistic")):
        row[column] = _precision_sum(distances, relevant, everything, d.ap, ties) / found
    row[4] = _reciprocal_rank(distances, relevant, d.ties)
    row[5] = _precision_sum(distances, relevant, found, "standard", d.ties) / found
    row[6] = _hits(distances, relevant, found, d.ties) / found
    for i, k in enumerate(ks):
        hits = _hits(distances, relevant, k, d.ties)
        z = {
            "all_relevant": found,
            "min_relevant_k": min(found, k),
            "prefix_positive": hits,
            "at_k": k,
        }[d.normaliser]
        share = {
            "k": k,
            "min_relevant_k": min(k, found),
            "min_gallery_k": min(k, everything),
        }[d.precision]
        total = _precision_sum(distances, relevant, min(k, everything), d.ap, d.ties)
        row[FIXED + AT_K * i :][:AT_K] = (
            total / z if z > 0 else 0.0,
            _hits(distances, relevant, share, d.ties) / share,
            hits / found,
            _hit(distances, relevant, k, d.ties),
        )
    return row


def _ranked(distances: np.ndarray, relevant: np.ndarray, ties: str) -> np.ndarray:
    """Relevance in rank order."""
    index = np.arange(len(distances))
    second = {"index": index, "optimistic": ~relevant, "pessimistic": relevant}[ties]
    return relevant[np.lexsort((index, second, distances))]


def _groups(distances: np.ndarray, relevant: np.ndarray) -> list[tuple[int, int, int, int]]:
    """Of every distance in turn: items before, items, relevant items before, relevant items."""
    groups, before, hits_before = [], 0, 0
    for distance in np.unique(distances):
        here = distances == distance
        size, hits = int(here.sum()), int((here & relevant).sum())
        groups.append((before, size, hits_before, hits))
        before, hits_before = before + size, hits_before + hits
    return groups


def _precision_sum(
    distances: np.ndarray, relevant: np.ndarray, k: int, ap: str, ties: str
) -> float:
    """Sum of rel(n) P(n) over n <= k, or of rel(n) times the envelope of P."""
    if ties == "expected":
        terms = []
        for before, size, hits_before, hits in _groups(distances, relevant):
            for j in range(size):
                place = before + j + 1
                if place > k:
                    break
                # This place is relevant with probability hits / size; then the others of the group
                # are spread evenly over its other places.
                ahead = j * (hits - 1) / (size - 1) if size > 1 else 0.0
                terms.append(hits / size * (hits_before + 1 + ahead) / place)
        return math.fsum(terms)
    if ties == "grouped":
        steps = []
        for before, size, hits_before, hits in _groups(distances, relevant):
            if before >= k:
                break
            end = min(before + size, k)
            here = hits * (end - before) / size
            steps.append((here, (hits_before + here) / end))
    else:
        found, steps = 0, []
        for n, hit in enumerate(_ranked(distances, relevant, ties)[:k], 1):
            found += int(hit)
            steps.append((float(hit), found / n))
    best, terms = 0.0, []
    for here, precision in reversed(steps):
        best = max(best, precision)
        terms.append(here * (best if ap == "voc" else precision))
    return math.fsum(terms)


def _hits(distances: np.ndarray, relevant: np.ndarray, k: int, ties: str) -> float:
    """H(k): a count, or its mean over the orders of tied items."""
    if ties not in ("expected", "grouped"):
        return float(_ranked(distances, relevant, ties)[:k].sum())
    return math.fsum(
        hits * min(size, k - before) / size
        for before, size, _, hits in _groups(distances, relevant)
        if before < k
    )


def _first_group(distances: np.ndarray, relevant: np.ndarray) -> tuple[int, int, int]:
    before, size, _, hits = next(g for g in _groups(distances, relevant) if g[3])
    return before, size, hits


def _chances(size: int, hits: int) -> list[float]:
    """Chance of every place of a group to be that of its first relevant item."""
    ways = math.comb(size, hits)
    return [math.comb(size - j - 1, hits - 1) / ways for j in range(size - hits + 1)]


def _reciprocal_rank(distances: np.ndarray, relevant: np.ndarray, ties: str) -> float:
    before, size, hits = _first_group(distances, relevant)
    if ties == "expected":
        return math.fsum(c / (before + j + 1) for j, c in enumerate(_chances(size, hits)))
    if ties == "grouped":
        return 1 / (before + size)
    return 1 / (1 + int(np.argmax(_ranked(distances, relevant, ties))))


def _hit(distances: np.ndarray, relevant: np.ndarray, k: int, ties: str) -> float:
    """Chance of a hit within k."""
    if ties == "expected":
        before, size, hits = _first_group(distances, relevant)
        return math.fsum(_chances(size, hits)[: max(0, k - before)])
    return min(1.0, _hits(distances, relevant, k, ties))
