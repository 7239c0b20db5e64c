"""Products of all rows of two matrices: ours against the libraries' products.

``python -m benchmarks.bench_row_products --quick``   a minute, QuickDraw size
``python -m benchmarks.bench_row_products --full --out benchmarks/results/row_products_cpu
--docs benchmarks/results/row_products_cpu.md``   every row, to the records and a page

One item is a query against the whole gallery, in chunks of 512 queries. Times are microseconds per
query. The libraries' products are rivals here: theirs may sum in any order, ours in one.
"""

from __future__ import annotations

import sys
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import peers
from benchmarks.harness import main
from benchmarks.records import Result, with_limits
from benchmarks.retrieval_cases import CASES, WARM_UP, Case, RetrievalData, generate
from benchmarks.suite import Prepared, Provider, Suite
from benchmarks.targets import at_most, fastest, marked, rows_by_name

LIBRARIES = ("product_torch", "product_numpy")  # in float32 everywhere; oneDNN may not be
ROW_CASES = {
    case.name: case
    for case in (
        *CASES.values(),
        Case("batch", Q=256, G=256, C=8, strength=0.3, checked=10),
        Case("one_query", Q=1, G=54_151, C=30, strength=0.3, checked=1),
    )
}


def _packed(data: RetrievalData, device: str) -> Prepared:
    from zsbir_fast.ops.row_products import pack_rows, row_products

    queries, gallery, *_ = peers.tensors(data, device)
    packed = pack_rows(gallery)

    def run(n: int) -> Any:
        def product(rows: Any, _: Any, out: Any) -> object:
            return row_products(rows, packed, out=out)

        return deque(peers.score_chunks(queries, gallery, n, product), maxlen=1)[0][1]

    return Prepared(run)


PROVIDERS = [
    Provider(
        "ours",
        "ours: right side packed once",
        "ours",
        _packed,
        devices=peers.BOTH,
        bound="flop",
    ),
    Provider(
        "ours_rows",
        "ours: packed anew for every chunk",
        "ours",
        peers.bare_product(peers.product_of_ours),
        devices=peers.BOTH,
        bound="flop",
    ),
    *(provider for provider in peers.PROVIDERS if provider.name.startswith("product_")),
]


def _make_data(case: Any, folder: Path) -> None:
    generate(case).save(folder)


def _warm_up(provider: Provider, data: RetrievalData, device: str) -> None:
    provider.prepare(generate(WARM_UP), device).run(WARM_UP.checked)


def _error(provider: Provider, data: RetrievalData, result: Any) -> float:
    del provider
    return float(np.abs(result.cpu().numpy() - data.exact_scores).max())


def _finish(result: Result) -> None:
    rows = rows_by_name(result)

    def share(row: Any) -> float | None:
        products = [r.p50_us for r in result.rows if r.case == row.case]
        return 100 * min(products) / row.p50_us

    result.rows = with_limits(result.rows, share)
    for case in dict.fromkeys(row.case for row in result.rows):
        ours, library = rows.get((case, "ours")), fastest(rows, case, LIBRARIES)
        if ours and library:
            ratio = ours.p50_us / library.p50_us
            line = at_most("ours / the libraries' float32 product", case, ratio, 1.05, "x")
            result.verdicts += marked(result, case, [line])


SUITE = Suite(
    op="row_products",
    module="benchmarks.bench_row_products",
    cases=ROW_CASES,
    quick_cases=("quickdraw",),
    providers={p.name: p for p in PROVIDERS},
    ours="ours",
    make_data=_make_data,
    load_data=RetrievalData.load,
    warm_up=_warm_up,
    items=lambda data: data.case.Q,
    check_items=lambda data: data.case.checked,
    error=_error,
    work=lambda provider, data, n: 2.0 * n * data.case.G * data.case.D,
    finish=_finish,
)

if __name__ == "__main__":
    sys.exit(main(SUITE))
