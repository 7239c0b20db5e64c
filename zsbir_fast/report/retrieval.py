"""Choose the queries that a report shows: the best, the typical and the worst ones."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from zsbir_fast.data.images import ImageSet
from zsbir_fast.ranking.ranker import Ranker
from zsbir_fast.report.content import RetrievalRow, Retrieved
from zsbir_fast.report.pictures import read_thumbnail


def retrieval_rows(
    ap: Tensor,
    queries: Tensor,
    gallery: Tensor,
    sketches: ImageSet,
    photos: ImageSet,
    *,
    ranker: Ranker,
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
        per_group: queries per group.
        top: photos per query.

    Returns:
        Rows in the groups "Best queries", "Typical queries (nearest to the median)" and
        "Worst queries".

    Raises:
        ValueError: lengths do not fit together.
    """
    if not len(ap) == len(queries) == len(sketches) or len(gallery) != len(photos):
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
    rows: list[RetrievalRow] = []
    taken: set[int] = set()
    for group, order in groups.items():
        chosen = _varied([q for q in order if q not in taken], sketches.labels, per_group)
        taken.update(chosen)
        nearest = ranker.search(queries[chosen], gallery, top).rows.tolist()
        for query, found in zip(chosen, nearest, strict=True):
            rows.append(
                RetrievalRow(
                    group=group,
                    query=read_thumbnail(sketches.paths[query]),
                    label=sketches.classes[int(sketches.labels[query])],
                    ap=float(ap[query]),
                    results=[
                        Retrieved(
                            image=read_thumbnail(photos.paths[g]),
                            label=photos.classes[int(photos.labels[g])],
                            hit=int(photos.labels[g]) == int(sketches.labels[query]),
                        )
                        for g in found
                    ],
                )
            )
    return rows


def _varied(order: Sequence[int], labels: Tensor, count: int) -> list[int]:
    """Take the first ``count`` of ``order``, new classes before seen ones."""
    first_of_class: dict[int, int] = {}
    for query in order:
        first_of_class.setdefault(int(labels[query]), query)
    fresh = list(first_of_class.values())
    rest = [q for q in order if q not in set(fresh)]
    return (fresh + rest)[:count]
