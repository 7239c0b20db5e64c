"""The cases of ``zsbir bench``: each kernel room against its PyTorch reference, on the CPU."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from zsbir_fast.metrics.evaluate import evaluate_ranking
from zsbir_fast.ops import quadruplet_mining as mining
from zsbir_fast.ops import token_weighting as tokens
from zsbir_fast.ops._checks import Impl
from zsbir_fast.ops.quadruplet_mining import batch_all
from zsbir_fast.reference import batched_map as map_reference
from zsbir_fast.reference import token_weighting as token_reference
from zsbir_fast.reference.definitions import FIXED_COLUMNS, Definition
from zsbir_fast.report.content import Table
from zsbir_fast.runs.results import table_text

_REFERENCE_QUERIES = 5  # it works row by row: time a few, they are alike
_WIDTH = 256  # features D of mining and token weighting
_CLASS_SIZE = 4  # sketches and photos of a class
_DIRECT_TRIPLETS, _DIRECT_QUADRUPLETS = 64, 32  # most rows of the references that loop over them

Step = Callable[[], tuple[Tensor, ...]]  # the results that must agree


def batched_map(queries: int, gallery: int, classes: int, repeats: int) -> str:
    """Time mAP@all: kernel, reference, and the usual ``torch.argsort``.

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
        f"batched_map: mAP@all of {queries} x {gallery} scores, {classes} classes, "
        f"{_conditions(repeats)}: {float(expected.mean()):.6f}"
    )
    return f"{head}\n\n{table_text(table)}"


def _kernel(scores: Tensor, query_labels: Tensor, gallery_labels: Tensor) -> Tensor:
    return evaluate_ranking(scores, query_labels, gallery_labels, larger_is_closer=True, ks=(1,)).ap


def _reference(scores: Tensor, query_labels: Tensor, gallery_labels: Tensor) -> Tensor:
    columns = map_reference.batched_map(
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


def quadruplet_mining(batch: int, repeats: int) -> str:
    """Time mining and the batch-all losses, forward and backward.

    Args:
        batch: sketches and photos B. The references of the batch-all losses write every term out,
            so these two are measured at no more than 64 and 32 rows.
        repeats: timed repeats.

    Returns:
        Several lines.

    Raises:
        RuntimeError: a kernel and its reference disagree.
    """
    jobs: dict[str, tuple[Step, Step]] = {}
    for title, rows, loss in (
        ("hardest quadruplets and their loss", batch, _hardest),
        ("batch-all triplets", min(batch, _DIRECT_TRIPLETS), _all_triplets),
        ("batch-all quadruplets", min(batch, _DIRECT_QUADRUPLETS), _all_quadruplets),
    ):
        generator = torch.Generator().manual_seed(0)
        labels = torch.arange(rows) // _CLASS_SIZE
        features = tuple(
            F.normalize(torch.randn(rows, _WIDTH, generator=generator), dim=1).requires_grad_()
            for _ in range(2)
        )
        jobs[f"{title}, B={rows}"] = (
            _both_ways(loss, features, labels, "fused"),
            _both_ways(loss, features, labels, "reference"),
        )
    head = f"quadruplet_mining: forward and backward, D={_WIDTH}, {_conditions(repeats)}"
    return f"{head}\n\n{_comparison('quadruplet_mining', jobs, repeats)}"


def _both_ways(
    loss: Callable[..., Tensor], features: tuple[Tensor, ...], labels: Tensor, impl: Impl
) -> Step:
    def step() -> tuple[Tensor, ...]:
        value = loss(*features, labels, impl)
        return value.detach(), *torch.autograd.grad(value, features)

    return step


def _hardest(sketches: Tensor, photos: Tensor, labels: Tensor, impl: Impl) -> Tensor:
    mined = mining.mine_quadruplets(sketches.detach(), photos.detach(), labels, labels, impl=impl)
    return mining.quadruplet_loss(sketches, photos, mined, impl=impl)


def _all_triplets(sketches: Tensor, photos: Tensor, labels: Tensor, impl: Impl) -> Tensor:
    return batch_all.batch_all_triplet_loss(sketches, labels, photos, labels, impl=impl)


def _all_quadruplets(sketches: Tensor, photos: Tensor, labels: Tensor, impl: Impl) -> Tensor:
    return batch_all.batch_all_quadruplet_loss(sketches, photos, labels, labels, impl=impl)


def token_weighting(pairs: int, repeats: int) -> str:
    """Time token weighting, forward and backward, with texts of mixed and of full length.

    Args:
        pairs: B.
        repeats: timed repeats.

    Returns:
        Several lines.

    Raises:
        RuntimeError: a kernel and its reference disagree.
    """
    patches, words = 196, 77
    jobs: dict[str, tuple[Step, Step]] = {}
    for title, fewest, most in (("5 to 20", 5, 20), ("all 77", words, words)):
        generator = torch.Generator().manual_seed(0)
        text = torch.randn(pairs, words, _WIDTH, generator=generator)
        lengths = torch.randint(fewest, most + 1, (pairs,), generator=generator)
        mask = torch.arange(words) < lengths[:, None]
        inputs = [text] + [
            torch.randn(pairs, patches, _WIDTH, generator=generator) for _ in range(4)
        ]
        features = tuple(x.requires_grad_() for x in inputs)
        jobs[f"{title} of {words} words valid"] = (
            _scores_both_ways(_token_kernel, features, mask),
            _scores_both_ways(_token_reference, features, mask),
        )
    head = (
        f"token_weighting: forward and backward of {pairs} pairs, {patches} patches, D={_WIDTH}, "
        f"{_conditions(repeats)}"
    )
    return f"{head}\n\n{_comparison('token_weighting', jobs, repeats)}"


def _scores_both_ways(
    function: Callable[..., Tensor], features: tuple[Tensor, ...], mask: Tensor
) -> Step:
    labels = torch.arange(len(mask))

    def step() -> tuple[Tensor, ...]:
        scores = function(features[0], mask, *features[1:], labels)
        return scores.detach(), *torch.autograd.grad(scores.sum(), features)

    return step


def _token_kernel(*arguments: Tensor) -> Tensor:
    scores = tokens.token_weighting(*arguments)
    assert isinstance(scores, Tensor)
    return scores


def _token_reference(*arguments: Tensor) -> Tensor:
    return token_reference.token_weighting(*arguments).scores


def _comparison(room: str, jobs: dict[str, tuple[Step, Step]], repeats: int) -> str:
    """A table of kernel and reference, after their results have been compared."""
    rows: list[list[str]] = []
    for title, (kernel, reference) in jobs.items():
        for got, expected in zip(kernel(), reference(), strict=True):
            if not torch.allclose(got, expected, rtol=1e-4, atol=1e-5):
                raise RuntimeError(f"bench: {room} ({title}) must agree with its reference")
        ours, theirs = (1e3 * _median(job, repeats) for job in (kernel, reference))
        rows.append([title, f"{ours:.2f}", f"{theirs:.2f}", f"{theirs / ours:.1f}"])
    columns = ["", "kernel ms", "reference ms", "times the kernel"]
    return table_text(Table(title="", columns=columns, rows=rows))


def _conditions(repeats: int) -> str:
    return f"{torch.get_num_threads()} threads, median of {repeats}; all agree"


def _median(job: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        job()
        times.append(time.perf_counter() - start)
    return statistics.median(times)
