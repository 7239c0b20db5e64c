"""One of several processes: evaluates its part of a gallery and writes what it got as JSON.

Run as `python processes_worker.py RANK SIZE FOLDER`; who starts it has put the data there.
"""

from __future__ import annotations

import datetime
import json
import sys
import warnings
from pathlib import Path

import numpy as np
import tied_galleries
import torch
import torch.distributed as dist
from rerankers import RERANKERS

import zsbir_fast as zf

KS = (1, 10, 50)
TIED = 200  # galleries


def columns(result):
    return result.columns.nan_to_num(-1).tolist()


def evaluate(data, rank, cuts, **options):
    """This process holds rows cuts[rank] to cuts[rank + 1], in two shards if that is possible."""
    evaluator = zf.RetrievalEvaluator(ks=KS, **options)
    a, b = cuts[rank], cuts[rank + 1]
    for start, stop in ((a, (a + b) // 2), ((a + b) // 2, b)):
        if start < stop:
            part, labels = data["gallery"][start:stop], data["gallery_labels"][start:stop]
            evaluator.add_gallery(part, labels)
    return evaluator.evaluate(data["queries"], data["query_labels"])


def message_of(call):
    try:
        call()
    except (TypeError, ValueError, RuntimeError) as error:
        return f"{type(error).__name__}: {error}"
    return "no error"


def different(data, rank, group):
    """What happens if process 1 is given something else than process 0."""
    cuts = (0, 500, 1000)
    other = dict(data)
    if rank == 1:
        other["queries"] = data["queries"] + 1
    yield "queries", lambda: evaluate(other, rank, cuts, process_group=group)
    ties = "index" if rank == 0 else "grouped"
    yield "ties", lambda: evaluate(data, rank, cuts, process_group=group, ties=ties)
    how = zf.ExpandedRanker(augment=5 + rank)
    yield "rerank", lambda: evaluate(data, rank, cuts, process_group=group, rerank=how)
    large = zf.ExpandedRanker(augment=2000)
    yield "too large", lambda: evaluate(data, rank, cuts, process_group=group, rerank=large)
    broken = dict(data)
    if rank == 1:
        broken["query_labels"] = data["query_labels"][:-1]
    yield "labels", lambda: evaluate(broken, rank, cuts, process_group=group)
    narrow = dict(data)
    if rank == 1:
        narrow["gallery"] = data["gallery"][:, :4]
    yield "width", lambda: evaluate(narrow, rank, cuts, process_group=group)
    yield (
        "nothing",
        lambda: zf.RetrievalEvaluator(process_group=group).evaluate(
            data["queries"], data["query_labels"]
        ),
    )


def collected(data, rank, group):
    """The torchmetrics class: sketches in both processes, all photos in process 1."""
    metric = zf.RetrievalMetric(metric="dot", ks=KS, process_group=group)
    half = slice(rank * 45, (rank + 1) * 45)
    queries, gallery = torch.from_numpy(data["queries"]), torch.from_numpy(data["gallery"])
    labels, gallery_labels = data["query_labels"], data["gallery_labels"]
    metric.update(queries[half], torch.from_numpy(labels[half]))
    if rank == 1:
        for part in (slice(0, 300), slice(300, 1000)):
            metric.update(
                gallery=gallery[part],
                gallery_labels=torch.from_numpy(gallery_labels[part]),
            )
    return {name: float(value) for name, value in metric.compute().items()}


def tied(rank, size, group):
    """The columns of many galleries in which much ties, each cut anew."""
    for number in range(TIED):
        _, metric, queries, gallery, labels, gallery_labels = tied_galleries.gallery(number)
        rng = np.random.default_rng(number)
        cuts = [0, *sorted(rng.integers(0, len(gallery) + 1, size - 1).tolist()), len(gallery)]
        data = {
            "queries": queries,
            "query_labels": labels,
            "gallery": gallery,
            "gallery_labels": gallery_labels,
        }
        options = {"metric": metric, "ties": "index", "stream": bool(number % 2)}
        yield columns(evaluate(data, rank, cuts, process_group=group, **options))


def main(rank, size, folder):
    warnings.filterwarnings("ignore", message=".*exceeds the gallery")
    torch.set_num_threads(1)
    store = dist.FileStore(str(folder / "store"), size)
    dist.init_process_group(
        "gloo", store=store, rank=rank, world_size=size, timeout=datetime.timedelta(seconds=60)
    )
    data = {
        name: np.load(folder / f"{name}.npy", mmap_mode="r" if name == "gallery" else None)
        for name in ("queries", "gallery", "query_labels", "gallery_labels")
    }
    in_memory = {**data, "gallery": np.array(data["gallery"])}
    uneven = (0, 0, 1, 300, 1000)  # process 0 holds nothing, process 1 one item
    out = {"four": {}, "two": {}, "different": {}, "reranked": {}}
    for metric in ("dot", "euclidean"):
        for name, held in (("mapped", data), ("in memory", in_memory)):
            for protocol in ("standard", "sake", "torchmetrics"):
                result = evaluate(held, rank, uneven, metric=metric, protocol=protocol)
                out["four"][f"{metric} {name} {protocol}"] = columns(result)
    out["float"] = evaluate({**data, "queries": data["queries"] / 7}, rank, uneven).map
    local = evaluate(in_memory, 0, (0, 1000), metric="dot", process_group="local")
    out["local"] = columns(local)
    by = RERANKERS["diffusion"]
    out["reranked by four"] = columns(evaluate(data, rank, uneven, rerank=by))  # memory maps
    out["tied"] = {"4": list(tied(rank, size, None))}
    pair = dist.new_group([0, 1])
    if rank < 2:
        out["tied"]["2"] = list(tied(rank, 2, pair))
        cuts = (0, 640, 1000)
        result = evaluate(in_memory, rank, cuts, metric="dot", process_group=pair)
        out["two"]["dot in memory standard"] = columns(result)
        for name, ranker in RERANKERS.items():
            result = evaluate(in_memory, rank, cuts, rerank=ranker, process_group=pair)
            out["reranked"][name] = [result.reranked_by, columns(result)]
        for name, call in different(in_memory, rank, pair):
            out["different"][name] = message_of(call)
        out["collected"] = collected(in_memory, rank, pair)
    else:
        out["not a member"] = message_of(
            lambda: evaluate(in_memory, 0, (0, 1000), process_group=pair)
        )
    (folder / f"{rank}.json").write_text(json.dumps(out))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
