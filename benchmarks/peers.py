"""Rivals that need nothing but NumPy and PyTorch: bare products and the ways users write mAP.

``peers_packages`` adds the packages people install. Every function prepares a provider: it takes
the data and a device and returns the timed call. Products run in chunks of ``CHUNK`` queries.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.retrieval_cases import KS, Definition, FloatArray, IntArray, RetrievalData
from benchmarks.suite import Prepared, Provider

CHUNK = 512
Product = Callable[[Tensor, Tensor, Tensor], object]  # (queries, gallery, out)


@contextmanager
def matmul_precision(name: str) -> Iterator[None]:
    """PyTorch's global float32 precision switch, put back afterwards."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(name)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def product_torch(queries: Tensor, gallery: Tensor, out: Tensor) -> object:
    """torch.mm as it comes: MKL or OpenBLAS on a CPU, cuBLAS in float32 on a CUDA device."""
    return torch.mm(queries, gallery.T, out=out)


def product_onednn(queries: Tensor, gallery: Tensor, out: Tensor) -> object:
    """torch.mm routed to oneDNN, which keeps float32 where the CPU has no AMX (it is checked)."""
    with matmul_precision("medium"):
        return torch.mm(queries, gallery.T, out=out)


def product_numpy(queries: Tensor, gallery: Tensor, out: Tensor) -> object:
    """NumPy's product: OpenBLAS in its wheels."""
    return np.matmul(queries.numpy(), gallery.numpy().T, out=out.numpy())


def product_of_ours(queries: Tensor, gallery: Tensor, out: Tensor) -> object:
    """Ours: one chain of multiply-adds for each score."""
    from zsbir_fast.ops.row_products import row_products

    return row_products(queries, gallery, out=out)


@lru_cache
def library_product(device: str) -> Product:
    """The fastest of torch's products that is exact to float32 on this machine, found by timing."""
    if device != "cpu":
        return product_torch
    generator = torch.Generator().manual_seed(0)
    queries, gallery = (torch.randn(n, 512, generator=generator) for n in (192, 4096))
    exact, out = queries[:8].double() @ gallery.double().mT, torch.empty(192, 4096)
    seconds = {}
    for product in (product_torch, product_onednn):
        product(queries, gallery, out)  # warms up
        if float((out[:8] - exact).abs().max()) < 1e-3:
            begin = time.perf_counter()
            for _ in range(3):
                product(queries, gallery, out)
            seconds[product] = time.perf_counter() - begin
    return min(seconds, key=seconds.__getitem__)


def tensors(data: RetrievalData, device: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Queries, gallery, query labels and gallery labels as tensors on a device."""
    arrays = (data.queries, data.gallery, data.query_labels, data.gallery_labels)
    one, two, three, four = (torch.from_numpy(array).to(device) for array in arrays)
    return one, two, three, four


def score_chunks(
    queries: Tensor, gallery: Tensor, n: int, product: Product, chunk: int = CHUNK
) -> Iterator[tuple[int, Tensor]]:
    """The first query of each chunk and its scores [chunk, G]; one buffer for all."""
    buffer = queries.new_empty(min(chunk, n), len(gallery))
    for start in range(0, n, chunk):
        rows = min(chunk, n - start)
        product(queries[start : start + rows], gallery, buffer[:rows])
        yield start, buffer[:rows]


def all_scores(queries: Tensor, gallery: Tensor, n: int) -> Tensor:
    """Scores [n, G] in one matrix, as code computes them that does not save memory."""
    return torch.mm(queries[:n], gallery.T)


# --- floors: the product alone, a copy alone -----------------------------------------------------


def bare_product(product: Product) -> Callable[[RetrievalData, str], Prepared]:
    def prepare(data: RetrievalData, device: str) -> Prepared:
        queries, gallery, *_ = tensors(data, device)

        def run(n: int) -> Tensor:
            last = deque(score_chunks(queries, gallery, n, product), maxlen=1)
            return last[0][1]

        return Prepared(run)

    return prepare


def _copy(data: RetrievalData, device: str) -> Prepared:
    """Scores [n, G] read once and written once, in blocks of up to 256 MiB."""
    source = torch.ones(min(data.case.Q, 2**26 // data.case.G), data.case.G, device=device)
    target = torch.empty_like(source)

    def run(n: int) -> Tensor:
        for start in range(0, n, len(source)):
            rows = min(len(source), n - start)
            target[:rows].copy_(source[:rows])
        return target

    return Prepared(run)


# --- rivals that users write themselves ----------------------------------------------------------


class Sums:
    """Running sums of per-query metrics, and their means."""

    def __init__(self) -> None:
        self.totals: dict[str, float] = {}
        self.count = 0

    def add(self, values: dict[str, float]) -> None:
        """Add the metrics of one query."""
        self.count += 1
        for name, value in values.items():
            self.totals[name] = self.totals.get(name, 0.0) + float(value)

    def means(self) -> dict[str, float]:
        """Mean over the queries."""
        return {name: total / self.count for name, total in self.totals.items()}


def metrics_of_ranks(ranks: IntArray, relevant: int) -> dict[str, float]:
    """Metrics of one query from the ascending ranks of its relevant items, in NumPy."""
    precision = np.arange(1, len(ranks) + 1) / ranks
    values = {"map": float(precision.sum() / relevant)}
    for k in KS:
        head = int(np.searchsorted(ranks, k, side="right"))
        values[f"map@{k}"] = float(precision[:head].sum()) / min(relevant, k)
        values[f"p@{k}"] = head / k
    return values


def metrics_at_k(hits: FloatArray, relevant: IntArray) -> dict[str, float]:
    """The metrics at k from the hits of the first 200 places, bool [n, 200]."""
    found = hits.cumsum(1)
    precision = hits * found / np.arange(1, hits.shape[1] + 1)
    values = {}
    for k in KS:
        norm = np.minimum(relevant, k)
        values[f"map@{k}"] = float((precision[:, :k].sum(1) / norm).mean())
        values[f"p@{k}"] = float((found[:, k - 1] / k).mean())
    return values


def ranks_by_sorted_values(scores: FloatArray, columns: IntArray) -> IntArray:
    """Six lines that beat every package: sort the values, look the relevant ones up."""
    values = np.sort(scores)
    relevant = np.sort(scores[columns])[::-1]
    ranks: IntArray = len(values) - np.searchsorted(values, relevant, side="left")
    return ranks


def _sorted_values(product_name: str, threads: int) -> Callable[[RetrievalData, str], Prepared]:
    def prepare(data: RetrievalData, device: str) -> Prepared:
        queries, gallery, *_ = tensors(data, device)
        product = product_numpy if product_name == "numpy" else product_of_ours

        def run(n: int) -> dict[str, float]:
            columns = [np.flatnonzero(data.gallery_labels == c) for c in range(data.case.C)]

            def one(label: int, scores: FloatArray) -> dict[str, float]:
                mine = columns[label]
                return metrics_of_ranks(ranks_by_sorted_values(scores, mine), len(mine))

            sums = Sums()
            with ThreadPoolExecutor(threads) as pool:
                for start, scores in score_chunks(queries, gallery, n, product):
                    labels = data.query_labels[start : start + len(scores)]
                    apply = map if threads == 1 else pool.map
                    for values in apply(one, labels, scores.numpy()):
                        sums.add(values)
            return sums.means()

        return Prepared(run)

    return prepare


def _numpy_argsort(data: RetrievalData, device: str) -> Prepared:
    queries, gallery, *_ = tensors(data, device)

    def run(n: int) -> dict[str, float]:
        sums = Sums()
        for start, scores in score_chunks(queries, gallery, n, product_numpy):
            for row, label in zip(-scores.numpy(), data.query_labels[start:], strict=False):
                hits = data.gallery_labels[np.argsort(row)] == label
                ranks = np.flatnonzero(hits) + 1
                sums.add(metrics_of_ranks(ranks, len(ranks)))
        return sums.means()

    return Prepared(run)


def _torch_argsort(data: RetrievalData, device: str) -> Prepared:
    queries, gallery, query_labels, gallery_labels = tensors(data, device)
    chunk = 64 if device == "cpu" else CHUNK

    def run(n: int) -> dict[str, float]:
        places = torch.arange(1, len(gallery) + 1, device=device)
        totals: dict[str, Any] = {}
        for start, scores in score_chunks(queries, gallery, n, product_torch, chunk):
            order = scores.argsort(dim=1, descending=True)
            labels = query_labels[start : start + len(scores), None]
            hits = gallery_labels[order] == labels
            found = hits.cumsum(1)
            precision = torch.where(hits, found / places, 0.0)
            relevant = found[:, -1]
            values = {"map": precision.sum(1) / relevant}
            for k in KS:
                values[f"map@{k}"] = precision[:, :k].sum(1) / relevant.clamp(max=k)
                values[f"p@{k}"] = found[:, k - 1] / k
            for name, value in values.items():
                totals[name] = totals.get(name, 0.0) + value.double().sum()
        return {name: float(total) / n for name, total in totals.items()}

    return Prepared(run)


def _voc_average_precision(hits: FloatArray, total: int) -> float:
    """Area under the precision envelope, walked in Python as the field's evaluation scripts do."""
    found = np.cumsum(hits)
    recall = [0.0, *(found / total).tolist(), 1.0]
    precision = [0.0, *(found / np.arange(1, len(hits) + 1)).tolist(), 0.0]
    for i in range(len(precision) - 1, 0, -1):
        precision[i - 1] = max(precision[i - 1], precision[i])
    area = 0.0
    for i in range(1, len(recall)):
        if recall[i] != recall[i - 1]:
            area += (recall[i] - recall[i - 1]) * precision[i]
    return area


def _research_code(data: RetrievalData, device: str) -> Prepared:
    queries, gallery, *_ = tensors(data, device)

    def run(n: int) -> dict[str, float]:
        order = np.argsort(-all_scores(queries, gallery, n).numpy(), axis=1)
        matrix = data.gallery_labels[order] == data.query_labels[:n, None]
        sums = Sums()
        for hits in matrix:
            relevant = int(hits.sum())
            values = {"map": _voc_average_precision(hits, relevant)}
            for k in KS:
                values[f"map@{k}"] = _voc_average_precision(hits[:k], min(relevant, k))
                values[f"p@{k}"] = hits[:k].mean()
            sums.add(values)
        return sums.means()

    return Prepared(run)


def _torch_topk(data: RetrievalData, device: str) -> Prepared:
    queries, gallery, query_labels, gallery_labels = tensors(data, device)

    def run(n: int) -> dict[str, float]:
        hits = torch.empty(n, max(KS), dtype=torch.bool, device=device)
        for start, scores in score_chunks(queries, gallery, n, product_torch):
            top = scores.topk(max(KS), dim=1).indices
            labels = query_labels[start : start + len(scores), None]
            hits[start : start + len(scores)] = gallery_labels[top] == labels
        return metrics_at_k(hits.cpu().numpy(), relevant_counts(data, n))

    return Prepared(run)


def relevant_counts(data: RetrievalData, n: int) -> IntArray:
    """R of each of the first ``n`` queries."""
    of_class = np.bincount(data.gallery_labels, minlength=data.case.C)
    counts: IntArray = of_class[data.query_labels[:n]]
    return counts


BOTH = ("cpu", "cuda")
ALL_CORES = os.cpu_count() or 1


def _floor(name: str, title: str, prepare: Any, **options: Any) -> Provider:
    return Provider(name, title, "floor", prepare, **options)


PROVIDERS = [
    _floor("copy", "floor: a copy of the scores (memory)", _copy, bound="bytes", devices=BOTH),
    _floor(
        "product_torch",
        "floor: torch.mm alone, as it comes",
        bare_product(product_torch),
        bound="flop",
        devices=BOTH,
    ),
    _floor(
        "product_onednn",
        "floor: torch.mm alone, through oneDNN",
        bare_product(product_onednn),
        bound="flop",
    ),
    _floor(
        "product_numpy", "floor: NumPy product alone", bare_product(product_numpy), bound="flop"
    ),
    Provider(
        "numpy_sort",
        "NumPy sort of values + searchsorted",
        "rival",
        _sorted_values("numpy", 1),
        Definition(),
        note="NumPy's own product, one thread for the sort",
    ),
    Provider(
        "numpy_sort_same_product",
        "NumPy sort of values, same product as ours",
        "rival",
        _sorted_values("ours", 1),
        Definition(),
        note="one thread for the sort",
    ),
    Provider(
        "numpy_sort_threads",
        "NumPy sort of values, same product, all cores",
        "rival",
        _sorted_values("ours", ALL_CORES),
        Definition(),
        note="the same in a pool of threads: np.sort releases the interpreter lock",
    ),
    Provider(
        "torch_argsort",
        "PyTorch matmul + argsort, chunked",
        "rival",
        _torch_argsort,
        Definition(),
        devices=BOTH,
    ),
    Provider(
        "numpy_argsort",
        "NumPy argsort per query",
        "rival",
        _numpy_argsort,
        Definition(),
        quick=False,
    ),
    Provider(
        "research_code",
        "research code: full matrix, VOC loop in Python",
        "rival",
        _research_code,
        Definition(ap="voc"),
        note="written here in the manner of published evaluation scripts",
    ),
    Provider(
        "torch_topk",
        "@200 only: torch matmul + topk",
        "partial",
        _torch_topk,
        Definition(),
        devices=BOTH,
        note="no mAP@all",
    ),
]
