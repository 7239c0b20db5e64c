"""Exact mAP of whole test sets: ours against bare products and against users' usual choices.

``python -m benchmarks.bench_batched_map --quick``   a minute, the main rivals at QuickDraw size
``python -m benchmarks.bench_batched_map --full --out benchmarks/results/batched_map_cpu
--docs benchmarks/results/batched_map_cpu.md``   every row, to the records and a page

One evaluation is mAP@all, mAP@100, mAP@200, P@100 and P@200 of n queries, from embeddings and
labels. Times are microseconds per query.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import peers, peers_packages
from benchmarks.harness import main
from benchmarks.records import Result, Row, with_limits
from benchmarks.retrieval_cases import (
    CASES,
    KS,
    WARM_UP,
    Definition,
    RetrievalData,
    generate,
    reference_metrics,
    relevant_ranks,
)
from benchmarks.suite import Prepared, Provider, Suite
from benchmarks.targets import at_least, at_most, marked

STANDARD = Definition(at_k="all_relevant")  # of protocol="standard", the default
SCORES_BYTES_LIMIT = 2**31  # of the ready scores of the counting row


# --- ours ----------------------------------------------------------------------------------------


def _values(result: Any) -> dict[str, float]:
    values = {"map": result.map}
    for k in KS:
        values |= {f"map@{k}": result.map_at[k], f"p@{k}": result.precision_at[k]}
    return values


def _prepared_gallery(data: RetrievalData, device: str) -> Prepared:
    import zsbir_fast as zf

    queries, gallery, query_labels, gallery_labels = peers.tensors(data, device)
    evaluator = zf.RetrievalEvaluator(ks=KS)
    evaluator.add_gallery(gallery, gallery_labels)
    evaluator.evaluate(queries[:1], query_labels[:1])  # prepares the gallery

    def run(n: int) -> dict[str, float]:
        return _values(evaluator.evaluate(queries[:n], query_labels[:n]))

    return Prepared(run, floor=_bare_product(data, device))


def _from_embeddings(data: RetrievalData, device: str) -> Prepared:
    import zsbir_fast as zf

    queries, gallery, query_labels, gallery_labels = peers.tensors(data, device)

    def run(n: int) -> dict[str, float]:
        return _values(
            zf.evaluate_retrieval(queries[:n], gallery, query_labels[:n], gallery_labels, ks=KS)
        )

    return Prepared(run, floor=_bare_product(data, device))


def _bare_product(data: RetrievalData, device: str) -> Callable[[int], object]:
    """The bare product, by the fastest of torch's libraries on this machine."""
    return peers.bare_product(peers.library_product(device))(data, device).run


def _counting(data: RetrievalData, device: str) -> Prepared:
    """The kernel alone, on scores against the prepared gallery (its columns stand by class)."""
    from zsbir_fast.metrics.gallery import PreparedGallery
    from zsbir_fast.metrics.protocols import get_protocol
    from zsbir_fast.metrics.result import RetrievalResult
    from zsbir_fast.ops.batched_map import batched_map

    queries, gallery, query_labels, gallery_labels = peers.tensors(data, device)
    prepared = PreparedGallery.of(gallery, gallery_labels.cpu(), "dot")
    classes = prepared.labels.classes_of(query_labels.cpu()).to(device)
    limit = min(len(queries), SCORES_BYTES_LIMIT // (4 * len(gallery)))
    scores = prepared.side.scores(queries[:limit], queries.new_empty(limit, len(gallery)))
    protocol = get_protocol("standard")

    def run(n: int) -> dict[str, float]:
        columns = batched_map(
            scores[:n],
            classes[:n],
            prepared.classes,
            larger_is_closer=True,
            ks=KS,
            definition=protocol.definition(),
        )
        labels = query_labels[:n].cpu()
        return _values(RetrievalResult.of(protocol, KS, labels, len(gallery), columns.cpu()))

    return Prepared(run, limit=limit)


def _from_scores(data: RetrievalData, device: str) -> Prepared:
    """The call of a user with a matrix of scores in any order of the gallery, with its checks."""
    import zsbir_fast as zf

    queries, gallery, query_labels, gallery_labels = peers.tensors(data, device)
    limit = min(len(queries), SCORES_BYTES_LIMIT // (4 * len(gallery)))
    scores = peers.all_scores(queries, gallery, limit)

    def run(n: int) -> dict[str, float]:
        return _values(
            zf.evaluate_ranking(
                scores[:n], query_labels[:n], gallery_labels, larger_is_closer=True, ks=KS
            )
        )

    return Prepared(run, limit=limit)


OURS = [
    Provider(
        "ours",
        "ours: embeddings to metrics, gallery prepared",
        "ours",
        _prepared_gallery,
        STANDARD,
        devices=peers.BOTH,
    ),
    Provider(
        "ours_unprepared",
        "ours: embeddings to metrics, one call",
        "ours",
        _from_embeddings,
        STANDARD,
        devices=peers.BOTH,
    ),
    Provider(
        "ours_counting",
        "ours: counting alone, scores ready",
        "ours",
        _counting,
        STANDARD,
        devices=peers.BOTH,
        bound="bytes",
    ),
    Provider(
        "ours_ranking",
        "ours: evaluate_ranking, scores ready, any order",
        "ours",
        _from_scores,
        STANDARD,
        devices=peers.BOTH,
        bound="bytes",
        quick=False,
    ),
]


# --- the suite -----------------------------------------------------------------------------------


def _make_data(case: Any, folder: Path) -> None:
    generate(case).save(folder)


def _warm_up(provider: Provider, data: RetrievalData, device: str) -> None:
    provider.prepare(generate(WARM_UP), device).run(WARM_UP.checked)


def _error(provider: Provider, data: RetrievalData, result: Any) -> float:
    """The largest deviation from float64: of a metric on its own definition, or of a score."""
    if provider.name == "copy":
        return float(abs(result[0] - 1.0).max())
    if provider.kind == "floor":
        return float(np.abs(result.cpu().numpy() - data.exact_scores).max())
    expected = reference_metrics(relevant_ranks(data), provider.definition)
    return max(abs(float(value) - expected[name]) for name, value in result.items())


def _work(provider: Provider, data: RetrievalData, n: int) -> float:
    """Bytes that must move, or FLOP, for ``n`` queries."""
    if provider.name == "copy":
        return 8.0 * n * data.case.G
    if provider.bound == "bytes":
        return 4.0 * n * data.case.G + 8.0 * (n + data.case.G)
    return 2.0 * n * data.case.G * data.case.D


# --- shares of the limits, and targets -----------------------------------------------------------

# A rival's time over ours at QuickDraw size on a CPU: at least this many times.
RIVALS = {
    "numpy_sort_same_product": ("NumPy sort of values, same product / ours", 2.5),
    "numpy_sort_threads": ("NumPy sort of values, same product, all cores / ours", 2.5),
    "torch_argsort": ("PyTorch matmul + argsort / ours", 19.0),
    "oml": ("OML / ours", 24.0),
    "torchmetrics_functional": ("torchmetrics functional / ours", 26.0),
    "torchmetrics_class": ("torchmetrics class / ours", 150.0),
}


def _verdicts(rows: dict[tuple[str, str], Row], case: str) -> list[str]:
    """The targets for which this run has both sides."""
    ours, counting = rows.get((case, "ours")), rows.get((case, "ours_counting"))
    lines = []
    if ours and ours.over_floor and case != "tiny":
        limit = 1.3 if ours.device == "cuda" else 1.25 if case == "tuberlin" else 1.15
        lines.append(at_most("ours / the bare product", case, ours.over_floor, limit, "x"))
    if ours and ours.device == "cpu":
        what = f"peak memory of ours, n={ours.n:,}"
        lines.append(at_most(what, case, ours.peak_bytes / 2**20, 64, " MiB"))
    if counting and counting.device == "cpu" and case == "quickdraw":
        lines.append(at_most("counting alone", case, counting.p50_us, 20, " us/query"))
    if ours and ours.device == "cpu" and case == "quickdraw":
        for rival, (what, limit) in RIVALS.items():
            if row := rows.get((case, rival)):
                lines.append(at_least(what, case, row.p50_us / ours.p50_us, limit))
    argsort = rows.get((case, "torch_argsort"))
    if ours and argsort and ours.device == "cuda" and case == "quickdraw_full":
        ratio = argsort.p50_us / ours.p50_us
        lines.append(at_least("chunked argsort / ours", case, ratio, 20.0))
    return lines


def _finish(result: Result) -> None:
    """Fill in the shares of the limits and compare with the targets."""
    rows = {(row.case, row.provider): row for row in result.rows}

    def share(row: Row) -> float | None:
        if row.gb_per_s:
            copied = rows.get((row.case, "copy"))
            return 100 * row.gb_per_s / copied.gb_per_s if copied and copied.gb_per_s else None
        products = [r.p50_us for r in result.rows if r.case == row.case and r.gflop_per_s]
        return 100 * min(products) / row.p50_us if products else None

    result.rows = with_limits(result.rows, share)
    for case in dict.fromkeys(row.case for row in result.rows):
        result.verdicts += marked(result, case, _verdicts(rows, case))


SUITE = Suite(
    op="batched_map",
    module="benchmarks.bench_batched_map",
    cases=dict(CASES),
    quick_cases=("quickdraw",),
    providers={p.name: p for p in (*OURS, *peers.PROVIDERS, *peers_packages.PROVIDERS)},
    ours="ours",
    make_data=_make_data,
    load_data=RetrievalData.load,
    warm_up=_warm_up,
    items=lambda data: data.case.Q,
    check_items=lambda data: data.case.checked,
    error=_error,
    work=_work,
    finish=_finish,
)

if __name__ == "__main__":
    sys.exit(main(SUITE))
