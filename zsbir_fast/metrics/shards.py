"""Exact evaluation of a gallery that comes in shards: on disk, or spread over processes.

The ranks of the relevant items are all that a metric needs, and they add up over shards. So pass 1
computes the scores of each query with the relevant items of its class alone and gathers them from
all shards, and pass 2 counts every shard's other items against them, block by block. The
gallery is read twice for each block of queries, and nothing of the size Q x G is ever stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from zsbir_fast.metrics.exclude import ColumnIds
from zsbir_fast.metrics.gallery import LabelIndex
from zsbir_fast.metrics.processes import Processes
from zsbir_fast.metrics.scores import GallerySide, Metric, larger_is_closer, query_side
from zsbir_fast.ops.batched_map import GalleryClasses, rank_counts, ranking_metrics
from zsbir_fast.reference.definitions import COLUMNS_AT_K, FIXED_COLUMNS, Definition

_BYTES_PER_RELEVANT = 40  # key, sorted key, sort order, index, three counts
_RELEVANT_BYTES = 64 * 2**20  # of a block of queries
_READY_BYTES = 16 * 2**20  # gallery rows made ready for the product at a time
_MOST_QUERIES = 1024  # of a block


@dataclass(frozen=True)
class Shard:
    """Some rows of the gallery.

    Attributes:
        rows: [n, D] as given, or made ready for products in class order.
        classes: of the rows, by the class numbers of the whole gallery; on the CPU.
        index: int32 [n], the place of each row in the whole gallery; on the CPU.
        ids: int64 [n], on the CPU; None: no row is excluded.
    """

    rows: Tensor | GallerySide
    classes: GalleryClasses
    index: Tensor
    ids: Tensor | None

    def __len__(self) -> int:
        return len(self.index)


class Queries(NamedTuple):
    """A block of queries.

    Attributes:
        rows: [Q, D], the left side of products.
        ids: int64 [Q], on the CPU, or None.
    """

    rows: Tensor
    ids: Tensor | None

    def split(self, sizes: list[int]) -> list[Queries]:
        """Blocks of these sizes, one after the other."""
        ids = [None] * len(sizes) if self.ids is None else torch.split(self.ids, sizes)
        return [Queries(*block) for block in zip(torch.split(self.rows, sizes), ids, strict=True)]


@dataclass(frozen=True)
class ShardedGallery:
    """This process's shards of a gallery that all processes of a group hold together.

    Attributes:
        shards: in gallery order.
        labels: of the whole gallery.
        before: int64 [classes], items of each class in processes of lower rank.
        metric: what orders the gallery.
        dtype: of the product.
        workspace: bytes for one block of scores.
        processes: the group.
    """

    shards: Sequence[Shard]
    labels: LabelIndex
    before: Tensor
    metric: Metric
    dtype: torch.dtype
    workspace: int
    processes: Processes

    def query_blocks(self, classes: Tensor) -> list[Tensor]:
        """Positions of the queries in blocks that are worked on at a time, sorted by class.

        Queries without a relevant item are in none.
        """
        order = torch.argsort(classes, stable=True)
        order = order[int((classes < 0).sum()) :]
        ends = self.labels.counts[classes[order].long()].cumsum(0)
        blocks, start = [], 0
        while start < len(order):
            budget = _RELEVANT_BYTES // _BYTES_PER_RELEVANT + (int(ends[start - 1]) if start else 0)
            fitting = int(torch.searchsorted(ends, budget, right=True)) - start
            stop = start + min(max(1, fitting), _MOST_QUERIES)
            blocks.append(order[start:stop])
            start = stop
        return blocks

    def evaluate(
        self,
        queries: Tensor,
        classes: Tensor,
        ids: Tensor | None,
        *,
        ks: tuple[int, ...],
        definition: Definition,
    ) -> Tensor:
        """Metrics of one block of queries, sorted by class, each with a relevant item.

        Args:
            queries: [Q, D].
            classes: int32 [Q], on the CPU.
            ids: int64 [Q], on the CPU: rows with its id take no part in a query's ranking.
            ks: cut-offs.
            definition: definition of the metrics.

        Returns:
            Rows as from ``batched_map``, on the CPU; the same in all processes.
        """
        q = Queries(query_side(queries, self.metric, self.dtype), ids)
        offsets, key, index = self._relevant_items(q, classes)
        counts = torch.zeros(3, len(key), dtype=torch.int32, device=q.rows.device)
        self._count(q, classes.to(q.rows.device), offsets, key, index, counts)
        self.processes.add_(counts)
        return ranking_metrics(offsets, key, counts, ks=ks, definition=definition).cpu()

    def _relevant_items(self, q: Queries, classes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Offsets, keys and gallery indices of the relevant items of all shards, sorted."""
        relevant = self.labels.counts[classes.long()]
        offsets = torch.nn.functional.pad(relevant.cumsum(0), (1, 0))
        present, queries_of = torch.unique_consecutive(classes.long(), return_counts=True)
        sizes = self.labels.counts[present]
        key = torch.zeros(int(offsets[-1]), dtype=self.dtype, device=q.rows.device)
        place = torch.zeros(int(sizes.sum()), dtype=torch.int32, device=q.rows.device)
        keys_of = [
            block.view(n, size)
            for block, n, size in zip(
                torch.split(key, (queries_of * sizes).tolist()),
                queries_of.tolist(),
                sizes.tolist(),
                strict=True,
            )
        ]
        places_of = torch.split(place, sizes.tolist())
        for c, own, keys, places in zip(
            present.tolist(), q.split(queries_of.tolist()), keys_of, places_of, strict=True
        ):
            self._fill(c, own, keys, places)
        # Every process filled its own columns; the others are zeros, and x + 0 is exact.
        self.processes.add_(key)
        self.processes.add_(place)
        if larger_is_closer(self.metric):
            key.neg_()
        index = torch.empty(len(key), dtype=torch.int32, device=q.rows.device)
        start = 0
        for keys, places in zip(keys_of, places_of, strict=True):
            # Columns stand by gallery index, so that a stable sort leaves ties in that order.
            ordered, order = torch.sort(keys, dim=1, stable=True)
            keys.copy_(ordered)
            index[start : start + keys.numel()] = places[order].flatten()
            start += keys.numel()
        if q.ids is not None:  # NaN, which the sort puts last
            real = ~torch.isnan(key)
            ends = torch.nn.functional.pad(real.cpu().cumsum(0), (1, 0))
            return ends[offsets].to(q.rows.device), key[real], index[real]
        return offsets.to(q.rows.device), key, index

    def _fill(self, c: int, q: Queries, keys: Tensor, places: Tensor) -> None:
        """Scores and gallery indices of class c in this process, into its columns of [n, R]."""
        at = int(self.before[c])
        for shard in self.shards:
            begin, end = (int(x) for x in shard.classes.offsets[c : c + 2])
            if begin == end:
                continue
            for columns in torch.split(shard.classes.columns[begin:end], self._ready_rows(shard)):
                to = slice(at, at + len(columns))
                rows = _slice_if_dense(columns)
                self._scores(shard, rows, q, keys[:, to])
                places[to] = shard.index[rows].to(q.rows.device)
                at += len(columns)

    def _count(
        self,
        q: Queries,
        classes: Tensor,
        offsets: Tensor,
        key: Tensor,
        index: Tensor,
        counts: Tensor,
    ) -> None:
        """Add the counts of all other items of this process's shards."""
        count, device = len(q.rows), q.rows.device
        fitting = max(1, self.workspace // (count * self.dtype.itemsize))
        most = max((len(shard) for shard in self.shards), default=0)
        workspace = torch.empty(count * min(fitting, most), dtype=self.dtype, device=device)
        for shard in self.shards:
            step = min(fitting, self._ready_rows(shard))
            for start in range(0, len(shard), step):
                rows = slice(start, min(start + step, len(shard)))
                n = rows.stop - start
                scores = workspace[: count * n].view(count, n)
                self._scores(shard, rows, q, scores)
                rank_counts(
                    scores,
                    classes,
                    GalleryClasses(
                        shard.classes.of_column[rows].to(device),
                        shard.classes.offsets,
                        shard.classes.columns,
                        shard.index[rows].to(device),
                    ),
                    offsets,
                    key,
                    index,
                    larger_is_closer=larger_is_closer(self.metric),
                    out=counts,
                )

    def _ready_rows(self, shard: Shard) -> int:
        """How many rows of a shard are made ready for the product at a time."""
        if isinstance(shard.rows, GallerySide):
            return max(1, len(shard))
        return max(1, _READY_BYTES // (shard.rows.shape[1] * self.dtype.itemsize))

    def _scores(self, shard: Shard, rows: slice | Tensor, q: Queries, out: Tensor) -> None:
        """Scores of the queries with some rows of a shard, into [Q, n]."""
        if isinstance(shard.rows, GallerySide):
            assert isinstance(rows, slice)  # it stands in class order
            shard.rows.scores(q.rows, out, rows.start)
        else:
            chosen = shard.rows[rows if isinstance(rows, slice) else rows.to(shard.rows.device)]
            side = GallerySide.of(chosen.to(q.rows.device), self.metric, self.dtype)
            side.scores(q.rows, out)
        if q.ids is not None and shard.ids is not None:
            ColumnIds.of(shard.ids[rows]).exclude_(out, q.ids)


def _slice_if_dense(columns: Tensor) -> slice | Tensor:
    """Positions that stand side by side as a slice, which copies nothing."""
    first, last = int(columns[0]), int(columns[-1])
    ascending = bool((columns[1:] > columns[:-1]).all())
    if ascending and last - first + 1 == len(columns):
        return slice(first, last + 1)
    return columns.long()


def empty_rows(queries: int, ks: tuple[int, ...]) -> Tensor:
    """float64 [Q, 7 + 4 * len(ks)] of queries without a relevant item."""
    width = len(FIXED_COLUMNS) + len(COLUMNS_AT_K) * len(ks)
    rows = torch.full((queries, width), torch.nan, dtype=torch.float64, device="cpu")
    rows[:, 0] = 0
    return rows
