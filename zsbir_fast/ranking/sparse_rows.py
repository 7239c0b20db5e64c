"""A matrix with few numbers in a row, as the lists of its rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_AT_ONCE = 2 << 20  # numbers that are gathered at a time


@dataclass(frozen=True)
class SparseRows:
    """A sparse matrix [n, m], row by row.

    Attributes:
        starts: int64 [n + 1], where the numbers of each row begin, and the end.
        columns: int32, rising within a row.
        values: float32.
        width: m.
    """

    starts: Tensor
    columns: Tensor
    values: Tensor
    width: int

    @staticmethod
    def of(row: Tensor, column: Tensor, values: Tensor, shape: tuple[int, int]) -> SparseRows:
        """Take numbers with their places, which are in the order of rows and columns."""
        starts = torch.zeros(shape[0] + 1, dtype=torch.int64, device=row.device)
        starts[1:] = torch.bincount(row, minlength=shape[0]).cumsum(0)
        return SparseRows(starts, column.to(torch.int32), values, shape[1])

    @staticmethod
    def of_dense(dense: Tensor) -> SparseRows:
        """Take the numbers of a matrix that are not 0."""
        row, column = torch.nonzero(dense, as_tuple=True)
        return SparseRows.of(row, column, dense[row, column], (len(dense), dense.shape[1]))

    @staticmethod
    def joined(parts: Sequence[SparseRows]) -> SparseRows:
        """Join matrices of one width, one below the other."""
        starts, first = [parts[0].starts[:1]], 0
        for part in parts:
            starts.append(part.starts[1:] + first)
            first += len(part.values)
        columns, values = (torch.cat([getattr(p, x) for p in parts]) for x in ("columns", "values"))
        return SparseRows(torch.cat(starts), columns, values, parts[0].width)

    def by_column(self) -> SparseRows:
        """Transpose: for each column the rows that have it, rising."""
        lengths = self.starts[1:] - self.starts[:-1]
        order = torch.sort(self.columns, stable=True).indices
        row = torch.repeat_interleave(
            torch.arange(len(lengths), dtype=torch.int32, device=lengths.device), lengths
        )
        starts = torch.zeros(self.width + 1, dtype=torch.int64, device=lengths.device)
        starts[1:] = torch.bincount(self.columns, minlength=self.width).cumsum(0)
        return SparseRows(starts, row[order], self.values[order], len(lengths))

    def add_to(self, dense: Tensor, rows: Tensor) -> None:
        """Add to each row of a matrix the sum of some rows of this one.

        Args:
            dense: float [n, m]; changed.
            rows: int64 [n, k], rows of this matrix.
        """
        k = rows.shape[1]
        average = max(1, len(self.values) // max(1, len(self.starts) - 1))
        for start, block in _blocks(rows, max(1, _AT_ONCE // (k * average))):
            begin = self.starts[block.flatten()]
            own, at = runs(begin, self.starts[block.flatten() + 1] - begin)
            place = (start + own // k) * self.width + self.columns[at]
            dense.view(-1).index_add_(0, place, self.values[at])


def runs(starts: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Write out runs of whole numbers.

    Args:
        starts: int64 [n], first number of each run.
        lengths: int64 [n].

    Returns:
        The run that each number is of, and the numbers; both int64 [sum of lengths].
    """
    own = torch.repeat_interleave(torch.arange(len(lengths), device=starts.device), lengths)
    before = lengths.cumsum(0) - lengths
    return own, torch.arange(len(own), device=starts.device) + (starts - before)[own]


def _blocks(rows: Tensor, size: int) -> list[tuple[int, Tensor]]:
    return [(start, rows[start : start + size]) for start in range(0, len(rows), size)]
