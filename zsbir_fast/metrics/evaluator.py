"""Evaluate against a gallery that is prepared once, read from disk, or spread over processes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from zsbir_fast._progress import with_progress
from zsbir_fast._words import options_of
from zsbir_fast.metrics.checks import (
    check_finite,
    check_ks,
    check_labels,
    check_matrix,
    check_product_range,
    largest_norm,
    work_dtype,
)
from zsbir_fast.metrics.evaluate import (
    check_options,
    check_queries,
    check_same_device,
    evaluate_prepared,
    workspace_bytes,
)
from zsbir_fast.metrics.exclude import check_something_left
from zsbir_fast.metrics.gallery import GroupedLabels, LabelIndex, PreparedGallery
from zsbir_fast.metrics.holdings import (
    GALLERY_LIMIT,
    Holdings,
    check_size,
    counts_before,
    fingerprint,
    union_of,
)
from zsbir_fast.metrics.processes import Processes, ProcessGroup
from zsbir_fast.metrics.protocols import Protocol, get_protocol
from zsbir_fast.metrics.reranking import Held, Scores, check_rerank, evaluate_held
from zsbir_fast.metrics.result import RetrievalResult
from zsbir_fast.metrics.scores import Metric
from zsbir_fast.metrics.shards import Shard, ShardedGallery, empty_rows
from zsbir_fast.ops.batched_map import GalleryClasses
from zsbir_fast.reference.definitions import Ties


class _Asked(NamedTuple):
    """Queries, checked: [Q, D], int64 labels and ids [Q] on the CPU."""

    rows: Tensor
    labels: Tensor
    ids: Tensor | None


class RetrievalEvaluator:
    """Ranking metrics against one gallery, given shard by shard, for any number of query sets.

    The arguments choose one of three ways, which have one result, to the last bit:

    - shards in memory, one process: sorted by class once, at the first ``evaluate``;
    - a shard is a NumPy memory map, or ``stream=True``: the gallery stays where it is and is read
      twice, block by block, for every 1,024 queries (fewer, where many items are relevant); beside
      the workspace this takes about 100 MiB and 12 bytes per gallery item;
    - several processes (``torchrun``): each adds its own part of the gallery, all pass the same
      queries, and get the same result. The gallery is ordered by process, then as added.

    With ``rerank`` every photo may change the place of every other one: the whole gallery is
    gathered in the memory of each process (a memory map is read, and what other processes hold
    takes its size once more while it is sent), and the queries are shared out.

    Args:
        metric: ``cosine``, ``euclidean`` or ``dot``.
        protocol: name of a preset or a :class:`Protocol`.
        ks: cut-offs of mAP@k, Prec@k, Recall@k.
        ties: replaces the protocol's tie mode.
        rerank: as for :func:`zsbir_fast.evaluate_retrieval`; the same in all processes.
        workspace_mib: memory for one block of scores, MiB; default 40 on the CPU, 512 on a GPU.
        process_group: the processes that hold the gallery together: a ``torch.distributed`` group;
            None: the default group if one is initialised; ``"local"``: this process alone.
        progress: show a progress bar.
        stream: True: never copy the gallery, and move it to the queries' device block by block;
            False: copy it into memory even if it is a memory map; None: stream memory maps.

    Raises:
        ValueError: an unknown metric, protocol or tie mode, k < 1, a workspace below 1 MiB,
            ``rerank`` with the metric ``dot``.
        TypeError: a protocol or a ranker that is none, or ks that are not integers.

    Example:
        >>> import torch, zsbir_fast as zf
        >>> evaluator = zf.RetrievalEvaluator(ks=(1,))
        >>> evaluator.add_gallery(torch.eye(2), [0, 1])
        >>> evaluator.evaluate(torch.tensor([[1.0, 0.1]]), [0]).map
        1.0
    """

    def __init__(
        self,
        *,
        metric: Metric = "cosine",
        protocol: str | Protocol = "standard",
        ks: int | Iterable[int] = (100, 200),
        ties: Ties | None = None,
        rerank: Scores | None = None,
        workspace_mib: int | None = None,
        process_group: ProcessGroup | Literal["local"] | None = None,
        progress: bool = False,
        stream: bool | None = None,
    ) -> None:
        check_options("RetrievalEvaluator", metric, workspace_mib)
        check_rerank("RetrievalEvaluator", rerank, metric)
        self.metric: Metric = metric
        self.protocol = get_protocol(protocol, ties=ties, caller="RetrievalEvaluator")
        self.ks = check_ks("RetrievalEvaluator", ks, GALLERY_LIMIT, stacklevel=3)
        self.rerank = rerank
        self.workspace_mib = workspace_mib
        self.process_group = process_group
        self.progress = progress
        self.stream = stream
        self.reset()

    def reset(self) -> None:
        """Forget the gallery."""
        self._parts: list[Tensor] = []
        self._labels: list[Tensor] = []
        self._ids: list[Tensor] = []
        self._largest_norm = 0.0
        self._mapped = False
        self._forget_preparation()

    def _forget_preparation(self) -> None:
        self._grouped: GroupedLabels | None = None
        self._prepared: PreparedGallery | None = None

    def __repr__(self) -> str:
        return f"RetrievalEvaluator({options_of(self)}, gallery={len(self)})"

    def __len__(self) -> int:
        """Gallery items that this process holds."""
        return sum(len(part) for part in self._parts)

    def add_gallery(self, embeddings: Any, labels: Any, ids: Any = None) -> None:
        """Add a shard; it is checked (a memory map is read once for that) and not copied.

        Args:
            embeddings: [n, D], a tensor, an array or a NumPy memory map; must not change until the
                last ``evaluate``.
            labels: integers, [n].
            ids: integers, [n], for ``evaluate(..., ids=...)``; in all shards or in none.

        Raises:
            ValueError: mismatched shapes or devices, an empty shard, a NaN or infinity (the row
                is counted over all shards of this process), more than 2^31 - 1 items.
            TypeError: labels that are not integers, or input that is no array of numbers.
        """
        caller = "RetrievalEvaluator.add_gallery"
        part = check_matrix(caller, "embeddings", embeddings, shape="[n, D]")
        part_labels = check_labels(caller, "labels", labels, len(part), of="embeddings")
        if ids is not None:
            ids = check_labels(caller, "ids", ids, len(part), of="embeddings")
        if self._parts and (ids is None) != (not self._ids):
            raise ValueError(f"{caller}: ids must be given for all shards or for none")
        if self._parts and part.shape[1] != self._parts[0].shape[1]:
            raise ValueError(
                f"{caller}: embeddings must have the width of the first shard, D = "
                f"{self._parts[0].shape[1]}, got {part.shape[1]}"
            )
        if self._parts and part.device != self._parts[0].device:
            raise ValueError(
                f"{caller}: embeddings must be on {self._parts[0].device} like the first shard, "
                f"got {part.device}"
            )
        check_size(caller, len(self) + len(part))
        check_finite(caller, "embeddings", part, first_row=len(self))
        if self.metric != "cosine":
            self._largest_norm = max(self._largest_norm, largest_norm(part))
        self._mapped |= isinstance(embeddings, np.memmap)
        self._parts.append(part)
        self._labels.append(part_labels)
        if ids is not None:
            self._ids.append(ids)
        self._forget_preparation()

    def evaluate(self, queries: Any, labels: Any, ids: Any = None) -> RetrievalResult:
        """Metrics of the queries; the gallery stays for the next call.

        Args:
            queries: [Q, D]; on the device of the gallery, unless it is streamed. The same in all
                processes.
            labels: integers, [Q].
            ids: integers, [Q]: gallery items with a query's id are neither relevant to it nor in
                its way. None: every item takes part.

        Returns:
            The result, the same in all processes.

        Raises:
            ValueError: mismatched shapes or devices, empty or non-finite queries, no gallery, no
                shared label, embeddings so large that scores overflow, processes that differ in
                queries or options, ids of queries where the gallery has none or with ``rerank``, no
                relevant item left, a gallery that is too small for the options of ``rerank``.
            TypeError: labels that are not integers, or queries that are no numbers.
            RuntimeError: another process failed in one of these checks.
        """
        caller = "RetrievalEvaluator.evaluate"
        processes = Processes(caller, self.process_group)
        streaming = self._mapped if self.stream is None else self.stream
        asked = processes.together(
            caller, lambda: self._check(caller, queries, labels, ids, processes, streaming)
        )
        held = processes.gather(self._holdings(asked, processes.size > 1))
        everything = union_of(caller, held, asked.rows.shape[1], asked.ids is not None)
        ks = check_ks(caller, self.ks, int(everything.counts.sum()), stacklevel=3)
        self.protocol.check_relevant(caller, everything.classes_of(asked.labels))
        dtype = work_dtype(asked.rows.dtype, *(d for h in held for d in h.dtypes))
        if self.metric != "cosine":
            norm = max(h.largest_norm for h in held)
            check_product_range(caller, self.metric, dtype, largest_norm(asked.rows), norm)
        if self.rerank is not None:
            return evaluate_held(
                caller,
                self.rerank,
                Held(self._parts, self._labels),
                asked.rows,
                asked.labels,
                processes,
                protocol=self.protocol,
                ks=ks,
                workspace=workspace_bytes(asked.rows.device, self.workspace_mib),
                progress=self.progress,
            )
        if processes.size == 1 and not streaming:
            (result,) = evaluate_prepared(
                asked.rows,
                asked.labels,
                self._prepare(dtype),
                protocols=[self.protocol],
                ks=ks,
                ids=self._ids_by_column(asked.ids),
                workspace_mib=self.workspace_mib,
                progress=self.progress,
            )
        else:
            gallery = ShardedGallery(
                shards=self._shards(everything, held[: processes.rank], streaming, dtype),
                labels=everything,
                before=counts_before(everything, held[: processes.rank]),
                metric=self.metric,
                dtype=dtype,
                workspace=workspace_bytes(asked.rows.device, self.workspace_mib),
                processes=processes,
            )
            result = self._evaluate_shards(gallery, asked, ks)
        if asked.ids is not None:
            check_something_left(caller, self.protocol, result.columns[:, 0])
        return result

    def _evaluate_shards(
        self, gallery: ShardedGallery, asked: _Asked, ks: tuple[int, ...]
    ) -> RetrievalResult:
        """Evaluate in two passes over the shards of all processes, by blocks of queries."""
        classes = gallery.labels.classes_of(asked.labels)
        rows = empty_rows(len(asked.rows), ks)
        blocks = gallery.query_blocks(classes)
        for block in (
            with_progress(blocks, len(blocks), "evaluating", unit="blocks")
            if self.progress
            else blocks
        ):
            rows[block] = gallery.evaluate(
                asked.rows[block.to(asked.rows.device)],
                classes[block],
                None if asked.ids is None else asked.ids[block],
                ks=ks,
                definition=self.protocol.definition(),
            )
        total = int(gallery.labels.counts.sum())
        return RetrievalResult.of(self.protocol, ks, asked.labels, total, rows)

    def _ids_by_column(self, query_ids: Tensor | None) -> tuple[Tensor, Tensor] | None:
        """Ids of the queries, and of this process's gallery in class order."""
        if query_ids is None:
            return None
        return query_ids, torch.cat(self._ids)[self._group_labels().order]

    def _check(
        self,
        caller: str,
        queries: Any,
        labels: Any,
        ids: Any,
        processes: Processes,
        streaming: bool,
    ) -> _Asked:
        """The queries, their labels and ids, with all checks that this process can make."""
        if not self._parts and processes.size == 1:
            raise ValueError(f"{caller}: the gallery must not be empty, call add_gallery first")
        width = self._parts[0].shape[1] if self._parts else None
        q, query_labels = check_queries(caller, queries, labels, width)
        if self._parts and not streaming:
            check_same_device(caller, q, self._parts[0].device)
        processes.check_device(caller, q.device)
        check_rerank(caller, self.rerank, self.metric, excluded=ids is not None)
        if ids is not None:
            ids = check_labels(caller, "ids", ids, len(q), of="queries")
        return _Asked(q, query_labels, ids)

    def _holdings(self, asked: _Asked, several: bool) -> Holdings:
        index = self._group_labels().index
        call = {}
        if several:
            call = {
                "queries": fingerprint(asked.rows),
                "labels": fingerprint(asked.labels),
                "ids": "none" if asked.ids is None else fingerprint(asked.ids),
                "metric": self.metric,
                "protocol": self.protocol.describe(),
                "ks": str(self.ks),
                "rerank": "none" if self.rerank is None else self.rerank.name,
            }
        return Holdings(
            index.labels,
            index.counts,
            self._parts[0].shape[1] if self._parts else None,
            tuple({part.dtype for part in self._parts}),
            self._largest_norm,
            len(self),
            sum(map(len, self._ids)),
            call,
        )

    def _group_labels(self) -> GroupedLabels:
        if self._grouped is None:
            labels = torch.cat(self._labels or [torch.empty(0, dtype=torch.int64, device="cpu")])
            self._grouped = GroupedLabels.of(labels)
        return self._grouped

    def _prepare(self, dtype: torch.dtype) -> PreparedGallery:
        if self._prepared is None or self._prepared.side.rows.dtype != dtype:
            self._prepared = PreparedGallery.of_parts(
                self._parts, self._group_labels(), self.metric, dtype
            )
        return self._prepared

    def _shards(
        self, everything: LabelIndex, lower: list[Holdings], streaming: bool, dtype: torch.dtype
    ) -> list[Shard]:
        """This process's rows with the class numbers and positions of the whole gallery."""
        first = sum(int(h.counts.sum()) for h in lower)
        count = len(everything.labels)
        if not self._parts:
            return []
        if not streaming:
            grouped = self._group_labels()
            labels = torch.cat(self._labels)[grouped.order]
            classes = GalleryClasses.of(everything.classes_of(labels), count)
            index = (grouped.order + first).to(torch.int32)
            ids = torch.cat(self._ids)[grouped.order] if self._ids else None
            return [Shard(self._prepare(dtype).side, classes, index, ids)]
        shards = []
        ids_of: Sequence[Tensor | None] = self._ids or [None] * len(self._parts)
        for part, labels, own_ids in zip(self._parts, self._labels, ids_of, strict=True):
            classes = GalleryClasses.of(everything.classes_of(labels), count)
            index = torch.arange(first, first + len(part), dtype=torch.int32, device="cpu")
            shards.append(Shard(part, classes, index, own_ids))
            first += len(part)
        return shards
