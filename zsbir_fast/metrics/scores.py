"""Scores of queries against gallery rows by one kind of distance.

A score depends on the query and the gallery row alone, to the last bit, and neither on the rest of
the gallery nor on its blocks, shards and processes (``ops/row_products/``). So equal photos tie,
and a photo keeps its rank.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from zsbir_fast.ops.row_products import (
    pack_rows,
    packed_like,
    panel_rows,
    row_products,
    row_squares,
)

Metric = Literal["cosine", "euclidean", "dot"]
METRICS: tuple[Metric, ...] = get_args(Metric)
# Exponents of two: rows with squared lengths beyond them are scaled before products are taken.
_SQUARES_IN_RANGE = {torch.float32: 60, torch.float64: 500}


def larger_is_closer(metric: Metric) -> bool:
    """Whether scores are similarities."""
    return metric != "euclidean"


def query_side(queries: Tensor, metric: Metric, dtype: torch.dtype) -> Tensor:
    """Queries [Q, D] as the left side of products.

    The length of a query does not change its ranking; only very small and large ones are scaled.
    """
    queries = queries.to(dtype)
    return _in_range(queries)[0] if metric == "cosine" else queries


@dataclass(frozen=True)
class GallerySide:
    """Gallery rows as the right side of products, with the factors that make scores of products.

    - ``cosine``: q.g / |g|, which ranks as the cosine does; a row of zeros has 0 with everything;
    - ``euclidean``: |g|^2 - 2 q.g, which ranks as the distance does;
    - ``dot``: q.g.

    Where products are exact (small whole numbers, binary codes) scores are, too, up to one
    rounding: rows at equal distances tie, and so do rows of one length with equal cosines.

    Attributes:
        metric: what orders the gallery.
        rows: what ``pack_rows`` makes of them.
        scale: [n] or None.
        offset: [n] or None.
    """

    metric: Metric
    rows: Tensor
    scale: Tensor | None
    offset: Tensor | None

    @staticmethod
    def empty(
        count: int, width: int, metric: Metric, dtype: torch.dtype, device: torch.device
    ) -> GallerySide:
        """Memory for that many rows, to be filled block by block."""

        def each() -> Tensor:
            return torch.empty(count, dtype=dtype, device=device)

        return GallerySide(
            metric,
            packed_like(count, width, dtype, device),
            None if metric == "dot" else each(),
            each() if metric == "euclidean" else None,
        )

    @staticmethod
    def of(rows: Tensor, metric: Metric, dtype: torch.dtype) -> GallerySide:
        """Make rows [n, D] ready at once."""
        side = GallerySide.empty(len(rows), rows.shape[1], metric, dtype, rows.device)
        side.fill(0, rows)
        return side

    def aligned(self, rows: int) -> int:
        """The largest number of rows up to ``rows`` that :meth:`fill` may go on after."""
        size = panel_rows(self.rows.dtype) if self.rows.dim() == 3 else 1
        return max(size, rows // size * size)

    def fill(self, first: int, block: Tensor) -> None:
        """Make a block of rows ready, from row ``first`` on, which :meth:`aligned` allows."""
        block = block.to(self.rows.dtype)
        to = slice(first, first + len(block))
        if self.metric == "cosine":
            assert self.scale is not None
            block, squares = _in_range(block)
            self.scale[to] = torch.where(squares > 0, squares.sqrt().reciprocal(), 1)
        elif self.metric == "euclidean":
            assert self.scale is not None
            assert self.offset is not None
            self.scale[to] = -2
            self.offset[to] = row_squares(block)
        size = self.aligned(1)
        pack_rows(block, self.rows[first // size : -(-(first + len(block)) // size)])

    def scores(self, queries: Tensor, out: Tensor, first: int = 0) -> Tensor:
        """Scores of queries [Q, D], from :func:`query_side`, with rows from ``first`` on.

        Args:
            queries: [Q, D].
            out: [Q, n], of the dtype of the rows; overwritten.
            first: row with which the columns of ``out`` begin.
        """
        part = slice(first, first + out.shape[1])
        return row_products(
            queries,
            self.rows,
            first=first,
            scale=None if self.scale is None else self.scale[part],
            offset=None if self.offset is None else self.offset[part],
            out=out,
        )


def _in_range(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Rows, and their squared lengths in float64, for directions alone.

    Rows so small or large that products would leave the range of floats are scaled by a power of
    two, which depends on the row alone and changes no digit.
    """
    squares = row_squares(rows)
    limit = 2.0 ** _SQUARES_IN_RANGE[rows.dtype]
    odd = ~((squares > 1 / limit) & (squares < limit))
    if not bool(odd.any()):
        return rows, squares
    at = torch.nonzero(odd)[:, 0]
    largest = rows[at].abs().amax(dim=1)
    at, largest = at[largest > 0], largest[largest > 0]
    if len(at) == 0:
        return rows, squares
    exponent = torch.frexp(largest.double()).exponent
    # In two steps, as 2 to the exponent of the smallest numbers is beyond the largest.
    half = exponent // 2
    scaled = rows[at].double() * _power_of_two(-half) * _power_of_two(half - exponent)
    scaled = scaled.to(rows.dtype)
    return rows.index_copy(0, at, scaled), squares.index_copy(0, at, row_squares(scaled))


def _power_of_two(exponent: Tensor) -> Tensor:
    """float64 [n, 1], exact, for exponents of normal numbers."""
    return ((exponent.long() + 1023) << 52).view(torch.float64)[:, None]
