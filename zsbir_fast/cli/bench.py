"""``zsbir bench``: is the installed kernel the fast one? A minute, no files."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from zsbir_fast.cli.parsing import Parser
from zsbir_fast.metrics.evaluate import evaluate_ranking
from zsbir_fast.reference import batched_map as reference
from zsbir_fast.reference.definitions import FIXED_COLUMNS, Definition
from zsbir_fast.report.content import Table
from zsbir_fast.training.results import table_text

_REFERENCE_QUERIES = 5  # it works row by row: time a few, they are alike

_EXAMPLES = """\
  zsbir bench
  zsbir bench --queries 1000 --gallery 20000 --repeats 3
  OMP_NUM_THREADS=1 zsbir bench"""


def main(argv: Sequence[str]) -> None:
    """Run the command.

    Args:
        argv: arguments after ``bench``.

    Raises:
        RuntimeError: the contestants disagree on the result.
    """
    parser = Parser(
        "bench",
        description="Time mAP@all of a score matrix: this installation's kernel, its PyTorch\n"
        "reference, and the usual torch.argsort. All three must agree first.",
        examples=_EXAMPLES,
    )
    parser.add_argument("--queries", type=int, default=200, help="queries Q")
    parser.add_argument("--gallery", type=int, default=10_000, help="gallery items G")
    parser.add_argument("--classes", type=int, default=30, help="classes C")
    parser.add_argument("--repeats", type=int, default=5, help="timed repeats; the median counts")
    arguments = parser.parse(argv)
    for name in ("queries", "gallery", "classes", "repeats"):
        if arguments[name] < 1:
            parser.error(f"--{name} must be at least 1, got {arguments[name]}")
    sys.stdout.write(
        run(arguments.queries, arguments.gallery, arguments.classes, arguments.repeats) + "\n"
    )


def run(queries: int, gallery: int, classes: int, repeats: int) -> str:
    """Measure, and return the table as text.

    Args:
        queries: Q.
        gallery: G.
        classes: C.
        repeats: timed repeats.

    Returns:
        Several lines.

    Raises:
        RuntimeError: the contestants disagree on the result.
    """
    classes = min(classes, gallery)
    generator = torch.Generator().manual_seed(0)
    gallery_labels = torch.arange(gallery) % classes
    query_labels = torch.arange(queries) % classes
    scores = torch.randn(queries, gallery, generator=generator)
    scores += (query_labels[:, None] == gallery_labels[None]).float()
    few = min(_REFERENCE_QUERIES, queries)
    contestants: dict[str, tuple[int, Callable[[], Tensor]]] = {
        "zsbir_fast kernel": (queries, lambda: _kernel(scores, query_labels, gallery_labels)),
        "torch.argsort": (queries, lambda: _argsort(scores, query_labels, gallery_labels)),
        "zsbir_fast reference": (
            few,
            lambda: _reference(scores[:few], query_labels[:few], gallery_labels),
        ),
    }
    results = {name: job() for name, (_, job) in contestants.items()}
    expected = results["torch.argsort"]
    for name, ap in results.items():
        # A few scores are equal, and argsort orders those as it likes.
        if not torch.allclose(ap, expected[: len(ap)], rtol=0, atol=1e-4):
            raise RuntimeError(f"bench: {name} must agree with torch.argsort, but does not")
    micros = {name: 1e6 * _median(job, repeats) / rows for name, (rows, job) in contestants.items()}
    fastest = micros["zsbir_fast kernel"]
    table = Table(
        title="",
        columns=["", "µs per query", "times the kernel"],
        rows=[[name, f"{t:.1f}", f"{t / fastest:.1f}"] for name, t in micros.items()],
    )
    head = (
        f"mAP@all of {queries} x {gallery} scores, {classes} classes, "
        f"{torch.get_num_threads()} threads, median of {repeats}; all agree: "
        f"{float(expected.mean()):.6f}"
    )
    return f"{head}\n\n{table_text(table)}"


def _kernel(scores: Tensor, query_labels: Tensor, gallery_labels: Tensor) -> Tensor:
    return evaluate_ranking(scores, query_labels, gallery_labels, larger_is_closer=True, ks=(1,)).ap


def _reference(scores: Tensor, query_labels: Tensor, gallery_labels: Tensor) -> Tensor:
    columns = reference.batched_map(
        scores,
        query_labels.int(),
        gallery_labels.int(),
        None,
        larger_is_closer=True,
        ks=(1,),
        definition=Definition(),
    )
    return columns[:, FIXED_COLUMNS.index("ap")]


def _argsort(scores: Tensor, query_labels: Tensor, gallery_labels: Tensor) -> Tensor:
    order = scores.argsort(dim=1, descending=True)
    relevant = gallery_labels[order] == query_labels[:, None]
    hits = relevant.cumsum(1, dtype=torch.float64)
    precision = hits / torch.arange(1, scores.shape[1] + 1)
    return (precision * relevant).sum(1) / hits[:, -1]


def _median(job: Callable[[], Tensor], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        job()
        times.append(time.perf_counter() - start)
    return statistics.median(times)
