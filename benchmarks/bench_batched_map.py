"""Exact mAP of whole test sets: ours against bare products and against what users would pick.

``python -m benchmarks.bench_batched_map --quick``   a minute, the main rivals at QuickDraw size
``python -m benchmarks.bench_batched_map --full --out benchmarks/results/batched_map_cpu
--docs docs/performance.md``   every row, written to the records and the document

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
from benchmarks.harness import Prepared, Provider, Suite, main
from benchmarks.records import Result, Row, significant, with_limits
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

    def run(n: int) -> dict[str, float]:
        return _values(evaluator.evaluate(queries[:n], query_labels[:n]))

    return Prepared(run, floor=_same_product(data, device))


def _from_embeddings(data: RetrievalData, device: str) -> Prepared:
    import zsbir_fast as zf

    queries, gallery, query_labels, gallery_labels = peers.tensors(data, device)

    def run(n: int) -> dict[str, float]:
        return _values(
            zf.evaluate_retrieval(queries[:n], gallery, query_labels[:n], gallery_labels, ks=KS)
        )

    return Prepared(run, floor=_same_product(data, device))


def _same_product(data: RetrievalData, device: str) -> Callable[[int], object]:
    """The bare product, by the route that ours takes on this machine."""
    return peers.bare_product(peers.product_of_ours(device))(data, device).run


def _from_scores(data: RetrievalData, device: str) -> Prepared:
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
        "**ours: embeddings to metrics, gallery prepared**",
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
        _from_scores,
        STANDARD,
        devices=peers.BOTH,
        bound="bytes",
    ),
]


# --- the suite -----------------------------------------------------------------------------------


def _make_data(case: Any, folder: Path) -> None:
    generate(case).save(folder)


def _warm_up(provider: Provider, device: str) -> object:
    return provider.prepare(generate(WARM_UP), device).run(WARM_UP.checked)


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

# (what, numerator row, denominator row, case, at most / at least, value); ratio of times
CPU_RATIOS = [
    ("NumPy sort of values, same product, all cores / ours", "numpy_sort_threads", ">=", 2.5),
    ("NumPy sort of values, same product / ours", "numpy_sort_same_product", ">=", 2.5),
    ("PyTorch matmul + argsort / ours", "torch_argsort", ">=", 19.0),
    ("OML / ours", "oml", ">=", 24.0),
    ("torchmetrics functional / ours", "torchmetrics_functional", ">=", 26.0),
    ("torchmetrics class / ours", "torchmetrics_class", ">=", 150.0),
]


def _verdict(
    what: str, case: str, value: float, relation: str, target: float, unit: str = ""
) -> str:
    met = value <= target if relation == "<=" else value >= target
    word = "met" if met else "MISSED"
    limit = {"<=": "at most ", ">=": "at least "}[relation] + significant(target)
    return f"{word}: {what}, {case}: {significant(value)}{unit}, target {limit}{unit}"


def _finish(result: Result) -> None:
    """Fill in the shares of the limits and compare with the targets."""
    rows = {(row.case, row.provider): row for row in result.rows}
    cases = list(dict.fromkeys(row.case for row in result.rows))

    def fastest_product(case: str) -> float | None:
        found = [r.p50_us for r in result.rows if r.case == case and r.gflop_per_s]
        return min(found, default=None)

    def share(row: Row) -> float | None:
        copied = rows.get((row.case, "copy"))
        if row.gb_per_s:
            return 100 * row.gb_per_s / copied.gb_per_s if copied and copied.gb_per_s else None
        product = fastest_product(row.case)
        return 100 * product / row.p50_us if product else None

    result.rows = with_limits(result.rows, share)
    for case in cases:
        ours = rows.get((case, "ours"))
        if ours and ours.over_floor and case != "tiny":
            most = {"cuda": 1.3}.get(ours.device, 1.25 if case == "tuberlin" else 1.15)
            result.verdicts.append(
                _verdict("ours / the bare product", case, ours.over_floor, "<=", most, "x")
            )
        if ours and ours.device == "cpu":
            peak = ours.peak_bytes / 2**20
            result.verdicts.append(_verdict("peak memory of ours", case, peak, "<=", 64, " MiB"))
        counting = rows.get((case, "ours_counting"))
        if counting and counting.device == "cpu" and case == "quickdraw":
            result.verdicts.append(
                _verdict("counting alone", case, counting.p50_us, "<=", 20, " us/query")
            )
        for what, rival, relation, target in CPU_RATIOS:
            row = rows.get((case, rival))
            if ours and row and case == "quickdraw" and row.device == "cpu":
                ratio = row.p50_us / ours.p50_us
                result.verdicts.append(_verdict(what, case, ratio, relation, target, "x"))
            elif ours and row and row.device == "cuda" and rival == "torch_argsort":
                ratio = row.p50_us / ours.p50_us
                result.verdicts.append(
                    _verdict("chunked argsort / ours", case, ratio, ">=", 20, "x")
                )


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
