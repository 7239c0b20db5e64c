"""Choose the queries that a report shows: the best, the typical and the worst ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from zsbir_fast.data.images import ImageSet
from zsbir_fast.ranking.ranker import Ranker
from zsbir_fast.report.content import RetrievalRow, Retrieved, Strip
from zsbir_fast.report.pictures import read_thumbnail


class SecondRanking(NamedTuple):
    """Another ranking of the same queries, to be shown beside the first.

    Attributes:
        name: the label of its strips.
        ranker: says which photos are nearest.
        ap: average precision of every query under it, float [Q].
    """

    name: str
    ranker: Ranker
    ap: Tensor


def retrieval_rows(
    ap: Tensor,
    queries: Tensor,
    gallery: Tensor,
    sketches: ImageSet,
    photos: ImageSet,
    *,
    ranker: Ranker,
    second: SecondRanking | None = None,
    per_group: int = 3,
    top: int = 10,
) -> list[RetrievalRow]:
    """Pick queries by their average precision and look up their nearest photos.

    Within a group every class appears at most once, if there are enough classes.

    Args:
        ap: average precision of every query, float [Q]; NaN queries are left out.
        queries: embeddings of ``sketches`` [Q, D].
        gallery: embeddings of ``photos`` [G, D].
        sketches: the query images.
        photos: the gallery images, with the same ``classes``.
        ranker: says which photos are nearest.
        second: what re-ranking makes of the same queries; None: nothing.
        per_group: queries per group.
        top: photos per query.

    Returns:
        Rows in the groups "Best queries", "Typical queries (nearest to the median)" and
        "Worst queries".

    Raises:
        ValueError: lengths do not fit together.
    """
    lengths = {len(ap), len(queries), len(sketches), len(ap if second is None else second.ap)}
    if len(lengths) > 1 or len(gallery) != len(photos):
        raise ValueError(
            "retrieval_rows: ap, queries, sketches and gallery, photos must agree in length, got "
            f"{len(ap)}, {len(queries)}, {len(sketches)} and {len(gallery)}, {len(photos)}"
        )
    known = torch.nonzero(~torch.isnan(ap)).flatten()
    by_ap = known[torch.argsort(ap[known], descending=True, stable=True)].tolist()
    median = float(ap[known].median()) if len(known) else 0.0
    groups = {
        "Best queries": by_ap,
        "Typical queries (nearest to the median)": sorted(
            by_ap, key=lambda q: abs(float(ap[q]) - median)
        ),
        "Worst queries": by_ap[::-1],
    }
    chosen: list[int] = []
    group_of: list[str] = []
    for group, order in groups.items():
        more = _varied([q for q in order if q not in chosen], sketches.labels, per_group)
        chosen += more
        group_of += [group] * len(more)
    # One search for all of them: making a gallery ready may mean to cluster it.
    nearest = ranker.search(queries[chosen], gallery, top).rows.tolist()
    again: list[list[int]] = [[] for _ in chosen]
    if second is not None:
        again = second.ranker.search(queries[chosen], gallery, top).rows.tolist()
    return [
        RetrievalRow(
            group=group,
            query=read_thumbnail(sketches.paths[query]),
            label=sketches.classes[int(sketches.labels[query])],
            ap=float(ap[query]),
            results=retrieved(photos, found, int(sketches.labels[query])),
            reranked=None
            if second is None
            else Strip(
                second.name,
                float(second.ap[query]),
                retrieved(photos, found_again, int(sketches.labels[query])),
            ),
        )
        for group, query, found, found_again in zip(group_of, chosen, nearest, again, strict=True)
    ]


def retrieved(photos: ImageSet, rows: Sequence[int], label: int) -> list[Retrieved]:
    """Read photos for a strip.

    Args:
        photos: the gallery.
        rows: which of them.
        label: the class that makes a photo a hit.

    Returns:
        The photos in the order of ``rows``.
    """
    return [
        Retrieved(
            image=read_thumbnail(photos.paths[row]),
            label=photos.classes[int(photos.labels[row])],
            hit=int(photos.labels[row]) == label,
        )
        for row in rows
    ]


def _varied(order: Sequence[int], labels: Tensor, count: int) -> list[int]:
    """Take the first ``count`` of ``order``, new classes before seen ones."""
    first_of_class: dict[int, int] = {}
    for query in order:
        first_of_class.setdefault(int(labels[query]), query)
    fresh = list(first_of_class.values())
    rest = [q for q in order if q not in set(fresh)]
    return (fresh + rest)[:count]
