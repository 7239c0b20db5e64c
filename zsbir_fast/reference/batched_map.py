"""Ranking metrics by their definition: sort every row, look at where the relevant items stand.

This is the specification that the kernels are tested against, and it runs on devices that have no
kernel. The kernels never sort the gallery, as this does.

Sizes: Q queries, G gallery items, R relevant items of a query. A *key* ranks ascending: a distance,
or a negated similarity. ``query_class`` is -1 where no gallery item is relevant.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from zsbir_fast.reference.definitions import COLUMNS_AT_K, FIXED_COLUMNS, Definition


def batched_map(
    scores: Tensor,
    query_class: Tensor,
    gallery_class: Tensor,
    gallery_index: Tensor | None,
    *,
    larger_is_closer: bool,
    ks: Sequence[int],
    definition: Definition,
) -> Tensor:
    """Per-query metrics of a matrix of scores.

    Args:
        scores: floating, [Q, G]; a column whose score is NaN takes no part in that ranking.
        query_class: int32, [Q].
        gallery_class: int32, [G].
        gallery_index: int32 or int64, [G]: each column's place in the user's gallery, for
            ``ties="index"``; None: the column number.
        larger_is_closer: whether scores are similarities.
        ks: cut-offs, each at least 1.
        definition: definition of the metrics.

    Returns:
        float64, [Q, 7 + 4 * len(ks)]: the columns of ``definitions.FIXED_COLUMNS``, then
        ``COLUMNS_AT_K`` for each k. NaN but for the first column where nothing is relevant.
    """
    keys = -scores if larger_is_closer else scores
    index = gallery_index
    if index is None:
        index = torch.arange(scores.shape[1], device=scores.device)
    rows = []
    for key, c in zip(keys, query_class, strict=True):
        part = ~torch.isnan(key)
        rows.append(_metrics_of(key[part], (gallery_class == c)[part], index[part], ks, definition))
    width = len(FIXED_COLUMNS) + len(COLUMNS_AT_K) * len(ks)
    if not rows:
        return torch.empty(0, width, dtype=torch.float64, device=scores.device)
    return torch.stack(rows)


def _metrics_of(
    key: Tensor, relevant: Tensor, index: Tensor, ks: Sequence[int], d: Definition
) -> Tensor:
    """One row of metrics; key [G], relevant bool [G], index [G]."""
    n_relevant = int(relevant.sum())
    width = len(FIXED_COLUMNS) + len(COLUMNS_AT_K) * len(ks)
    row = torch.full((width,), torch.nan, dtype=torch.float64, device=key.device)
    row[0] = n_relevant
    if n_relevant == 0:
        return row
    row[1] = _precision_sum(key, relevant, index, None, d) / n_relevant
    row[2] = _precision_sum(key, relevant, index, None, _with_ties(d, "pessimistic")) / n_relevant
    row[3] = _precision_sum(key, relevant, index, None, _with_ties(d, "optimistic")) / n_relevant
    row[4] = _reciprocal_rank(key, relevant, index, d)
    plain = replace(d, ap="standard")  # MAP@R has no envelope (Musgrave et al., ECCV 2020)
    row[5] = _precision_sum(key, relevant, index, n_relevant, plain) / n_relevant
    row[6] = _hits(key, relevant, index, n_relevant, d) / n_relevant
    for i, k in enumerate(ks):
        hits = _hits(key, relevant, index, k, d)
        z = {
            "min_relevant_k": float(min(n_relevant, k)),
            "prefix_positive": hits,
            "all_relevant": float(n_relevant),
            "at_k": float(k),
        }[d.normaliser]
        total = _precision_sum(key, relevant, index, k, d)
        denominator = k if d.precision == "k" else min(k, n_relevant)
        at = len(FIXED_COLUMNS) + len(COLUMNS_AT_K) * i
        row[at] = total / z if z > 0 else 0.0
        row[at + 1] = _hits(key, relevant, index, denominator, d) / denominator
        row[at + 2] = hits / n_relevant
        row[at + 3] = _chance_of_a_hit(key, relevant, index, k, d)
    return row


def _with_ties(d: Definition, ties: str) -> Definition:
    return Definition(d.ap, d.normaliser, d.precision, ties)  # type: ignore[arg-type]


def _ranking(key: Tensor, relevant: Tensor, index: Tensor, ties: str) -> Tensor:
    """``relevant`` in rank order, ties broken as asked (by index where the mode leaves it open)."""
    order = torch.argsort(index, stable=True)
    if ties == "optimistic":
        order = order[torch.argsort(~relevant[order], stable=True)]
    elif ties == "pessimistic":
        order = order[torch.argsort(relevant[order], stable=True)]
    order = order[torch.argsort(key[order], stable=True)]
    return relevant[order]


def _tie_groups(key: Tensor, relevant: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of each distinct key, ascending: items before, items in it, relevant before, relevant in."""
    _, group = torch.unique(key, return_inverse=True)
    size = torch.bincount(group)
    hits = torch.bincount(group[relevant], minlength=len(size))
    return size.cumsum(0) - size, size, hits.cumsum(0) - hits, hits


def _precision_sum(
    key: Tensor, relevant: Tensor, index: Tensor, k: int | None, d: Definition
) -> float:
    """Sum over the relevant items within k of their precision: the numerator of AP@k."""
    g = len(key)
    k = g if k is None else min(k, g)
    if d.ties == "expected":
        return _expected_precision_sum(key, relevant, k)
    if d.ties == "grouped":
        hits_here, hits_so_far, places = _cut_groups(key, relevant, k)
    else:
        hits_here = _ranking(key, relevant, index, d.ties)[:k].double()
        hits_so_far = hits_here.cumsum(0)
        places = torch.arange(1, k + 1, dtype=torch.float64, device=key.device)
    precision = hits_so_far / places
    if d.ap == "voc":
        precision = precision.flip(0).cummax(0).values.flip(0)
    return float((hits_here * precision).sum())


def _cut_groups(key: Tensor, relevant: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """Tie groups as thresholds: hits in each, hits up to its end, items up to its end.

    A group that k cuts ends at k and holds its expected share of relevant items.
    """
    before, size, hits_before, hits = (x.double() for x in _tie_groups(key, relevant))
    inside = before < k
    places = (before + size).clamp(max=k)[inside]
    share = (places - before[inside]) / size[inside]
    hits_here = hits[inside] * share
    return hits_here, hits_before[inside] + hits_here, places


def _expected_precision_sum(key: Tensor, relevant: Tensor, k: int) -> float:
    """Mean over all orders of tied items, place by place (McSherry and Najork, 2008).

    The j-th of the n places of a group with r relevant items holds one of them with probability
    r/n; given that, (j-1)(r-1)/(n-1) others of the group are expected ahead of it.
    """
    before, size, hits_before, hits = _tie_groups(key, relevant)
    b, n, rb, r = (x.repeat_interleave(size).double() for x in (before, size, hits_before, hits))
    place = torch.arange(1, len(key) + 1, dtype=torch.float64, device=key.device)
    j = place - b
    ahead = torch.where(n > 1, (j - 1) * (r - 1) / (n - 1).clamp(min=1), torch.zeros_like(n))
    return float((r / n * (rb + 1 + ahead) / place)[:k].sum())


def _hits(key: Tensor, relevant: Tensor, index: Tensor, k: int, d: Definition) -> float:
    """Relevant items within the first k; an expectation under ``grouped`` and ``expected``."""
    if d.ties in ("grouped", "expected"):
        return float(_cut_groups(key, relevant, k)[0].sum())
    return float(_ranking(key, relevant, index, d.ties)[:k].sum())


def _first_hit_chances(key: Tensor, relevant: Tensor) -> tuple[int, Tensor]:
    """Items before the first tie group with a hit, and the chance of each place to be the first."""
    before, size, _, hits = _tie_groups(key, relevant)
    group = int(torch.nonzero(hits)[0])
    n, r = int(size[group]), int(hits[group])
    chances, miss = [], 1.0
    for j in range(n - r + 1):
        chances.append(miss * (r / (n - j)))
        miss *= (n - r - j) / (n - j)
    return int(before[group]), torch.tensor(chances, dtype=torch.float64)


def _reciprocal_rank(key: Tensor, relevant: Tensor, index: Tensor, d: Definition) -> float:
    if d.ties == "expected":
        before, chances = _first_hit_chances(key, relevant)
        return float((chances / (before + torch.arange(1, len(chances) + 1))).sum())
    if d.ties == "grouped":
        before_group, size, _, hits = _tie_groups(key, relevant)
        group = int(torch.nonzero(hits)[0])
        return 1.0 / float(before_group[group] + size[group])
    return 1.0 / float(torch.nonzero(_ranking(key, relevant, index, d.ties))[0] + 1)


def _chance_of_a_hit(key: Tensor, relevant: Tensor, index: Tensor, k: int, d: Definition) -> float:
    if d.ties == "expected":
        before, chances = _first_hit_chances(key, relevant)
        return float(chances[: max(0, k - before)].sum())
    return min(1.0, _hits(key, relevant, index, k, d))


def relevant_items(
    scores: Tensor,
    query_class: Tensor,
    gallery_class: Tensor,
    gallery_index: Tensor | None,
    *,
    larger_is_closer: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The relevant items of every query, ascending by (key, gallery index), one after the other.

    Args and sizes as for :func:`batched_map`.

    Returns:
        Offsets int64 [Q + 1], key [nnz] of the dtype of ``scores``, index int32 [nnz].
    """
    keys = -scores if larger_is_closer else scores
    index = gallery_index
    if index is None:
        index = torch.arange(scores.shape[1], device=scores.device)
    relevant = (query_class[:, None] == gallery_class[None, :]) & ~torch.isnan(keys)
    offsets = torch.zeros(len(query_class) + 1, dtype=torch.int64, device=scores.device)
    offsets[1:] = relevant.sum(1).cumsum(0)
    key_parts, index_parts = [scores.new_empty(0)], [index.new_empty(0)]
    for key, mask in zip(keys, relevant, strict=True):
        own_key, own_index = key[mask], index[mask]
        order = torch.argsort(own_index, stable=True)
        order = order[torch.argsort(own_key[order], stable=True)]
        key_parts.append(own_key[order])
        index_parts.append(own_index[order])
    return offsets, torch.cat(key_parts), torch.cat(index_parts).to(torch.int32)


def rank_counts(
    scores: Tensor,
    query_class: Tensor,
    gallery_class: Tensor,
    gallery_index: Tensor | None,
    offsets: Tensor,
    key: Tensor,
    index: Tensor,
    *,
    larger_is_closer: bool,
) -> Tensor:
    """Non-relevant columns against every relevant item of their query.

    The relevant items (as from :func:`relevant_items`) may be those of a larger gallery, of which
    ``scores`` are one shard: the counts of disjoint shards add up.

    Returns:
        int32 [3, nnz]: columns strictly closer; tied; tied with a smaller gallery index.
    """
    keys = -scores if larger_is_closer else scores
    columns = gallery_index
    if columns is None:
        columns = torch.arange(scores.shape[1], device=scores.device)
    counts = torch.zeros(3, len(key), dtype=torch.int32, device=scores.device)
    for q, c in enumerate(query_class):
        own = slice(int(offsets[q]), int(offsets[q + 1]))
        others = gallery_class != c
        other_key, other_index = keys[q, others], columns[others]
        tied = other_key[None, :] == key[own, None]
        counts[0, own] = (other_key[None, :] < key[own, None]).sum(1, dtype=torch.int32)
        counts[1, own] = tied.sum(1, dtype=torch.int32)
        counts[2, own] = (tied & (other_index[None, :] < index[own, None])).sum(
            1, dtype=torch.int32
        )
    return counts


def ranking_metrics(
    offsets: Tensor, key: Tensor, counts: Tensor, *, ks: Sequence[int], definition: Definition
) -> Tensor:
    """Per-query metrics from the counts of :func:`rank_counts`, returned as by :func:`batched_map`.

    Rebuilds, for each query, a gallery in which the counted items stand where they were counted,
    and evaluates that: slow and plain.
    """
    rows = []
    for q in range(len(offsets) - 1):
        own = slice(int(offsets[q]), int(offsets[q + 1]))
        rows.append(_metrics_from_counts(key[own], counts[:, own].long(), ks, definition))
    if not rows:
        width = len(FIXED_COLUMNS) + len(COLUMNS_AT_K) * len(ks)
        return torch.empty(0, width, dtype=torch.float64, device=key.device)
    return torch.stack(rows)


def _metrics_from_counts(key: Tensor, counts: Tensor, ks: Sequence[int], d: Definition) -> Tensor:
    """A gallery with the same counts: per distinct key, the columns closer, then the ties."""
    closer, tied, tied_before = counts
    position: list[int] = []  # twice the slot of the key, plus one for the ties with it
    relevant: list[bool] = []
    placed = 0
    start = 0
    while start < len(key):
        end = start + int((key[start:] == key[start]).sum())
        gap = int(closer[start]) - placed
        position += [2 * start] * gap
        relevant += [False] * gap
        for j in range(start, end):
            ahead = int(tied_before[j]) - (int(tied_before[j - 1]) if j > start else 0)
            position += [2 * start + 1] * (ahead + 1)
            relevant += [False] * ahead + [True]
        behind = int(tied[start]) - int(tied_before[end - 1])
        position += [2 * start + 1] * behind
        relevant += [False] * behind
        placed = int(closer[start]) + int(tied[start])
        start = end
    keys = torch.tensor(position, dtype=torch.float64, device=key.device)
    mask = torch.tensor(relevant, dtype=torch.bool, device=key.device)
    return _metrics_of(keys, mask, torch.arange(len(keys), device=key.device), ks, d)
