"""The k photos nearest to every photo of a gallery: ours against the product and the libraries.

``python -m benchmarks.bench_neighbour_graph --quick``   seconds, a small gallery
``python -m benchmarks.bench_neighbour_graph --full --out benchmarks/results/neighbour_graph_cpu
--docs benchmarks/results/neighbour_graph_cpu.md``   every row, to the records and a page

One item is a photo against the whole gallery, k = 10 by cosine. A run takes the first photos of the
gallery, as many as its time allows. What it prepares of the whole gallery is part of it, so that
few photos bear the cost of all; runs are long for that reason. Times are microseconds per photo.
The bare product is timed in turn with ours and called its floor: products in blocks of 512 photos,
whose scores are overwritten. ``NeighbourGraph.of`` does the same for all photos, and takes a
checksum of the gallery.
"""

from __future__ import annotations

import sys
from collections import deque
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import peers
from benchmarks.harness import main
from benchmarks.records import Result
from benchmarks.retrieval_cases import CASES, Case, FloatArray, generate
from benchmarks.suite import Prepared, Provider, Settings, Suite
from benchmarks.targets import at_most, marked, rows_by_name

K = 10
TARGETS = ("quickdraw",)  # the size that the targets are for
_MIB = 1 << 20


@dataclass(frozen=True)
class Gallery:
    """Photos [G, D], L2-normalised, and the cosines [checked, K] of the first ones' neighbours."""

    case: Case
    photos: FloatArray
    nearest: FloatArray


def _make_data(case: Any, folder: Path) -> None:
    photos = generate(case).gallery
    exact = photos[: case.checked].astype(np.float64) @ photos.T.astype(np.float64)
    np.save(folder / "photos.npy", photos)
    np.save(folder / "nearest.npy", -np.sort(-exact, axis=1)[:, :K])


def _load_data(case: Any, folder: Path) -> Gallery:
    return Gallery(case, np.load(folder / "photos.npy"), np.load(folder / "nearest.npy"))


def _warm_up(provider: Provider, data: Gallery, device: str) -> None:
    small = Gallery(data.case, data.photos[:400].copy(), data.nearest)
    provider.prepare(small, device).run(12)


def _floor(photos: Any) -> Any:
    product = peers.library_product("cpu")
    return lambda n: deque(peers.score_chunks(photos, photos, n, product), maxlen=1)


def _bare(data: Gallery, device: str) -> Prepared:
    """The product; that the nearest photos can be found in it is checked, not timed."""
    import torch

    del device
    run = _floor(torch.from_numpy(data.photos))
    return Prepared(lambda n: run(n)[0][1])


def _ours(data: Gallery, device: str) -> Prepared:
    import torch

    from zsbir_fast.ranking.graph import nearest_photos

    del device
    photos = torch.from_numpy(data.photos)
    return Prepared(lambda n: nearest_photos(photos[:n], photos, K)[0], floor=_floor(photos))


def _torch_topk(data: Gallery, device: str) -> Prepared:
    import torch

    del device
    photos, product = torch.from_numpy(data.photos), peers.library_product("cpu")

    def run(n: int) -> Any:
        blocks = peers.score_chunks(photos, photos, n, product)
        return torch.cat([torch.topk(scores, K, dim=1).values for _, scores in blocks])

    return Prepared(run)


def _numpy(data: Gallery, device: str) -> Prepared:
    del device
    photos = data.photos

    def run(n: int) -> Any:
        found = []
        for start in range(0, n, peers.CHUNK):
            scores = photos[start : min(n, start + peers.CHUNK)] @ photos.T
            rows = np.argpartition(scores, -K, axis=1)[:, -K:]
            found.append(-np.sort(-np.take_along_axis(scores, rows, axis=1), axis=1))
        return np.concatenate(found)

    return Prepared(run)


def _faiss(data: Gallery, device: str) -> Prepared:
    faiss = import_module("faiss")
    del device
    photos = data.photos

    def run(n: int) -> Any:
        index = faiss.IndexFlatIP(photos.shape[1])
        index.add(photos)
        return index.search(photos[:n], K)[0]

    return Prepared(run)


PROVIDERS = [
    Provider("product", "the product alone", "floor", _bare, bound="flop"),
    Provider("ours", "ours: NeighbourGraph", "ours", _ours, bound="flop"),
    Provider("torch_topk", "torch.mm + torch.topk", "rival", _torch_topk, bound="flop"),
    Provider("numpy", "NumPy: matmul + argpartition", "rival", _numpy, bound="flop"),
    Provider(
        "faiss", "FAISS: IndexFlatIP", "rival", _faiss, requires=("faiss",), bound="flop",
        note="add and search",
    ),
]  # fmt: skip


def _error(provider: Provider, data: Gallery, result: Any) -> float:
    found = np.asarray(result)[: len(data.nearest)]
    if provider.kind == "floor":
        found = -np.sort(-found, axis=1)[:, :K]
    return float(np.abs(found - data.nearest).max())


def _finish(result: Result) -> None:
    for case in TARGETS:
        ours = rows_by_name(result).get((case, "ours"))
        if ours is not None and ours.over_floor is not None:
            memory = ours.peak_bytes / _MIB
            lines = [
                at_most("ours / the bare product in turn with it", case, ours.over_floor, 1.5, "x"),
                at_most("memory above the inputs", case, memory, 256, " MiB"),
            ]
            result.verdicts += marked(result, case, lines)


SUITE = Suite(
    op="neighbour_graph",
    module="benchmarks.bench_neighbour_graph",
    cases={name: CASES[name] for name in ("quickdraw", "tuberlin", "tiny")},
    quick_cases=("tiny",),
    providers={p.name: p for p in PROVIDERS},
    ours="ours",
    make_data=_make_data,
    load_data=_load_data,
    warm_up=_warm_up,
    items=lambda data: len(data.photos),
    check_items=lambda data: data.case.checked,
    error=_error,
    work=lambda provider, data, n: 2.0 * n * data.photos.size,
    finish=_finish,
    full=Settings(call_s=5.0, total_s=20.0, timeout_s=240.0, run_s=1500.0, patience_s=150.0),
)

if __name__ == "__main__":
    sys.exit(main(SUITE))
