"""Queries that stand in their own gallery: the items that take no part in a query's ranking.

A query and a gallery item with one id are the same picture, so the item is neither relevant nor in
the way: its score becomes NaN, which the kernels pass over.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from zsbir_fast._arguments import check_flag
from zsbir_fast.metrics.checks import check_labels
from zsbir_fast.metrics.protocols import Protocol


def check_ids(
    caller: str,
    query_ids: Any,
    gallery_ids: Any,
    *,
    exclude_self: Any,
    queries: int,
    gallery: int,
) -> tuple[Tensor, Tensor] | None:
    """int64 ids of queries [Q] and of gallery items [G]; None if nothing is to be excluded.

    Raises:
        ValueError: one of the two is missing, they do not fit, or ``exclude_self`` is given for
            a gallery that is not that of the queries, or beside ids.
        TypeError: ids that are not integers, or ``exclude_self`` that is no bool.
    """
    check_flag(caller, "exclude_self", exclude_self)
    if exclude_self:
        if query_ids is not None or gallery_ids is not None:
            raise ValueError(f"{caller}: exclude_self and ids must not be given both")
        if queries != gallery:
            raise ValueError(
                f"{caller}: exclude_self must have the queries as gallery, row by row, got "
                f"{queries} queries and {gallery} gallery items; else pass query_ids and "
                "gallery_ids"
            )
        ids = torch.arange(queries, device="cpu")
        return ids, ids
    if query_ids is None and gallery_ids is None:
        return None
    if query_ids is None or gallery_ids is None:
        missing = "query_ids" if query_ids is None else "gallery_ids"
        raise ValueError(f"{caller}: query_ids and gallery_ids must go together, got no {missing}")
    return (
        check_labels(caller, "query_ids", query_ids, queries, of="queries"),
        check_labels(caller, "gallery_ids", gallery_ids, gallery, of="the gallery"),
    )


def check_something_left(caller: str, protocol: Protocol, relevant: Tensor) -> None:
    """Raise if excluding left no relevant item where the protocol needs one.

    Args:
        caller: public function.
        protocol: decides about queries that have none.
        relevant: [Q], how many each query has.
    """
    none = relevant == 0
    if protocol.empty == "skip" and bool(none.all()):
        raise ValueError(f"{caller}: no query has a relevant item but itself")
    if protocol.empty == "error" and bool(none.any()):
        raise ValueError(
            f"{caller}: every query must have a relevant item beside itself, query "
            f"{int(torch.nonzero(none)[0])} has none ({int(none.sum())} such)"
        )


@dataclass(frozen=True)
class ColumnIds:
    """The columns of a block of scores by their ids.

    Attributes:
        ids: int64 [n], ascending, on the CPU.
        columns: int64 [n], where each stands.
    """

    ids: Tensor
    columns: Tensor

    @staticmethod
    def of(ids: Tensor) -> ColumnIds:
        """From the ids of the columns, int64 [n]."""
        return ColumnIds(*torch.sort(ids))

    def exclude_(self, scores: Tensor, query_ids: Tensor) -> Tensor:
        """NaN for every query and column of one id.

        Args:
            scores: [Q, n], changed.
            query_ids: int64 [Q], on the CPU.
        """
        first = torch.searchsorted(self.ids, query_ids)
        count = torch.searchsorted(self.ids, query_ids, right=True) - first
        rows = torch.repeat_interleave(torch.arange(len(count), device="cpu"), count)
        # The k-th pair of a query is k places behind the first column with its id.
        begin = count.cumsum(0) - count
        within = torch.arange(len(rows), device="cpu") - begin[rows]
        columns = self.columns[first[rows] + within]
        scores[rows.to(scores.device), columns.to(scores.device)] = torch.nan
        return scores
