"""Every metric once more, in plain Python, from its definition alone: what tests compare with."""

from __future__ import annotations

import itertools
import runpy
from fractions import Fraction
from math import comb
from pathlib import Path

import pytest
import torch


def _voc_area(relevances, total):
    """Area under the precision envelope, as the VOC code writes it (recall steps of 1/total)."""
    recall, precision, hits = [0.0], [0.0], 0
    for place, relevant in enumerate(relevances, start=1):
        hits += relevant
        recall.append(hits / total)
        precision.append(hits / place)
    for i in range(len(precision) - 2, -1, -1):
        precision[i] = max(precision[i], precision[i + 1])
    steps = range(1, len(recall))
    return total * sum((recall[i] - recall[i - 1]) * precision[i] for i in steps)


def _ordered(relevances, k, ap):
    """Numerator of AP@k, hits and whether there is one, of a ranking given as 0s and 1s."""
    top = relevances[:k]
    if ap == "voc":
        total = _voc_area(top, max(1, sum(relevances)))
    else:
        total = sum(sum(top[: n + 1]) / (n + 1) for n, hit in enumerate(top) if hit)
    return total, sum(top), float(any(top))


def _tie_groups(keys, relevant):
    """(items, relevant items) of each distinct key, closest first."""
    return [
        (keys.count(key), sum(r for other, r in zip(keys, relevant, strict=True) if other == key))
        for key in sorted(set(keys))
    ]


def _arrangements(groups):
    """Every order of the tied items that differs, as 0s and 1s."""
    per_group = [
        [[int(i in chosen) for i in range(n)] for chosen in itertools.combinations(range(n), r)]
        for n, r in groups
    ]
    for parts in itertools.product(*per_group):
        yield list(itertools.chain(*parts))


def _grouped(groups, k, ap):
    """One threshold per distinct key; the one that k cuts holds its share of relevant items."""
    place, hits, points = 0, 0.0, []
    for n, r in groups:
        if place >= k:
            break
        inside = min(n, k - place)
        gained = r * inside / n
        place, hits = place + inside, hits + gained
        points.append((gained, hits / place))
    if ap == "voc":
        points = [(gained, max(p for _, p in points[i:])) for i, (gained, _) in enumerate(points)]
    return sum(gained * p for gained, p in points), hits, min(1.0, hits)


def _prefix(keys, relevant, k, ap, ties):
    groups = _tie_groups(keys, relevant)
    if ties == "grouped":
        return _grouped(groups, k, ap)
    if ties == "expected":
        number = 1
        for n, r in groups:
            number *= comb(n, r)
        assert number < 20_000, "too many arrangements for an exhaustive mean"
        values = [_ordered(order, k, ap) for order in _arrangements(groups)]
        return tuple(
            sum(map(Fraction, column)) / len(values) for column in zip(*values, strict=True)
        )
    second = {
        "index": lambda i: i,
        "optimistic": lambda i: not relevant[i],
        "pessimistic": lambda i: relevant[i],
    }[ties]
    order = sorted(range(len(keys)), key=lambda i: (keys[i], second(i)))
    return _ordered([int(relevant[i]) for i in order], k, ap)


def _first_hit(keys, relevant, ties):
    """Reciprocal rank of the first relevant item."""
    if ties == "grouped":
        place = 0
        for n, r in _tie_groups(keys, relevant):
            place += n
            if r:
                return 1 / place
    if ties == "expected":
        values = [1 / (order.index(1) + 1) for order in _arrangements(_tie_groups(keys, relevant))]
        return sum(values) / len(values)
    hits = [_prefix(keys, relevant, k, "standard", ties)[1] for k in range(1, len(keys) + 1)]
    return 1 / (hits.index(1) + 1)


def plain_metrics(keys, relevant, ks, protocol):
    """One row of `columns`, from keys (smaller is closer) and relevances of a query."""
    keys, relevant = list(keys), [bool(r) for r in relevant]
    g, total = len(keys), sum(relevant)
    if total == 0:
        return [0.0] + [float("nan")] * (6 + 4 * len(ks))
    d = protocol
    row = [float(total)]
    row += [
        float(_prefix(keys, relevant, g, d.ap, ties)[0]) / total
        for ties in (d.ties, "pessimistic", "optimistic")
    ]
    row.append(float(_first_hit(keys, relevant, d.ties)))
    row += [float(x) / total for x in _prefix(keys, relevant, total, "standard", d.ties)[:2]]
    for k in ks:
        area, hits, any_hit = (float(x) for x in _prefix(keys, relevant, k, d.ap, d.ties))
        z = {
            "min_relevant_k": min(total, k),
            "prefix_positive": hits,
            "all_relevant": total,
            "at_k": k,
        }[d.normaliser]
        denominator = {"k": k, "min_relevant_k": min(k, total), "min_gallery_k": min(k, g)}[
            d.precision
        ]
        found = float(_prefix(keys, relevant, denominator, d.ap, d.ties)[1])
        row += [area / z if z else 0.0, found / denominator, hits / total, any_hit]
    return row


@pytest.fixture(scope="session", name="plain_metrics")
def _plain_metrics():
    return plain_metrics


@pytest.fixture(scope="session")
def tied_gallery():
    """Cases in which much ties, by number; the workers of several processes import them."""
    path = Path(__file__).with_name("tied_galleries.py")
    return runpy.run_path(str(path))["gallery"]


@pytest.fixture
def retrieval(generator):
    """A function that draws embeddings of overlapping classes: queries, gallery, their labels."""

    def draw(queries=60, gallery=400, width=16, classes=7, spread=2.0):
        centres = torch.randn(classes, width, generator=generator)
        labels = [torch.randint(classes, (n,), generator=generator) for n in (queries, gallery)]
        embeddings = [
            centres[y] + spread * torch.randn(len(y), width, generator=generator) for y in labels
        ]
        return (*embeddings, *labels)

    return draw


@pytest.fixture(scope="session")
def rerankers():
    """One ranker of every rule that re-ranks, as the worker processes have them."""
    return runpy.run_path(str(Path(__file__).with_name("rerankers.py")))["RERANKERS"]
