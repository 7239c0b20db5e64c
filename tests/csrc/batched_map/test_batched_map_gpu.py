"""batched_map on a GPU through the operators: equal to the CPU, on any stream, in a graph."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor

from zsbir_fast.ops import batched_map as ops
from zsbir_fast.reference.definitions import TIES, Definition

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
KS = (1, 10, 100)


def ranking(
    queries: int, gallery: int, *, classes: int, distinct: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor, ops.GalleryClasses]:
    """Scores with ties (``distinct`` values), on the CPU."""
    generator = torch.Generator().manual_seed(gallery)
    scores = torch.randint(distinct, (queries, gallery), generator=generator).to(dtype) / distinct
    query_class = torch.randint(-1, classes, (queries,), generator=generator).to(torch.int32)
    gallery_class = torch.randint(classes, (gallery,), generator=generator)
    return scores, query_class, ops.GalleryClasses.of(gallery_class, classes)


def on_gpu(gallery: ops.GalleryClasses, device: str = "cuda") -> ops.GalleryClasses:
    index = None if gallery.index is None else gallery.index.to(device)
    return ops.GalleryClasses(
        gallery.of_column.to(device), gallery.offsets.to(device), gallery.columns.to(device), index
    )


def metrics(
    scores: Tensor,
    query_class: Tensor,
    gallery: ops.GalleryClasses,
    *,
    larger_is_closer: bool = True,
    definition: Definition | None = None,
) -> Tensor:
    return ops.batched_map(
        scores,
        query_class,
        gallery,
        larger_is_closer=larger_is_closer,
        ks=KS,
        definition=definition or Definition(),
    ).cpu()


def assert_same(found: Tensor, expected: Tensor) -> None:
    """Equal to the last bit, NaN included."""
    assert torch.equal(found.cpu().nan_to_num(-1.0), expected.cpu().nan_to_num(-1.0))


def counts_and_metrics(
    scores: Tensor, query_class: Tensor, gallery: ops.GalleryClasses, relevant: tuple[Tensor, ...]
) -> tuple[Tensor, Tensor]:
    """The two steps that are kernels of ours."""
    counts = ops.rank_counts(scores, query_class, gallery, *relevant, larger_is_closer=True)
    rows = ops.ranking_metrics(*relevant[:2], counts, ks=KS, definition=Definition())
    return counts, rows


@contextmanager
def busy_stream() -> Iterator[torch.cuda.Stream]:
    """A stream whose first work takes long; what does not wait for it comes too early."""
    side = torch.cuda.Stream()
    torch.cuda.synchronize()
    with torch.cuda.stream(side):
        torch.cuda._sleep(50_000_000)  # cycles
        yield side
    side.synchronize()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("distinct", [3, 2**20])
@pytest.mark.parametrize(
    ("queries", "gallery", "classes"), [(1, 1, 1), (7, 1001, 5), (3, 20_011, 2), (900, 333, 3)]
)
def test_cuda_equals_cpu(
    queries: int, gallery: int, classes: int, distinct: int, dtype: torch.dtype
) -> None:
    scores, query_class, columns = ranking(
        queries, gallery, classes=classes, distinct=distinct, dtype=dtype
    )
    cuda = metrics(scores.cuda(), query_class.cuda(), on_gpu(columns))
    cpu = metrics(scores, query_class, columns)
    assert_same(cuda, cpu)


@pytest.mark.parametrize("larger_is_closer", [True, False])
@pytest.mark.parametrize("ties", TIES)
def test_every_definition_of_a_tie(ties: str, larger_is_closer: bool) -> None:
    scores, query_class, columns = ranking(40, 700, classes=6, distinct=4, dtype=torch.float32)
    index = torch.randperm(700, generator=torch.Generator().manual_seed(0)).to(torch.int32)
    columns = ops.GalleryClasses.of(columns.of_column.long(), 6, index)
    for ap in ("standard",) if ties == "expected" else ("standard", "voc"):
        given = {
            "larger_is_closer": larger_is_closer,
            "definition": Definition(ap=ap, normaliser="min_relevant_k", ties=ties),
        }
        cuda = metrics(scores.cuda(), query_class.cuda(), on_gpu(columns), **given)
        assert_same(cuda, metrics(scores, query_class, columns, **given))


def test_special_scores() -> None:
    scores, query_class, columns = ranking(8, 900, classes=3, distinct=2**20, dtype=torch.float32)
    special = torch.tensor([0.0, -0.0, torch.inf, -torch.inf, 1e-45, -1e-45, 3e38, 1.0])
    scores[:, ::3] = special[torch.arange(300) % 8]
    cuda = metrics(scores.cuda(), query_class.cuda(), on_gpu(columns))
    assert_same(cuda, metrics(scores, query_class, columns))


def test_two_runs_are_equal() -> None:
    scores, query_class, columns = ranking(60, 30_011, classes=4, distinct=90, dtype=torch.float32)
    given = scores.cuda(), query_class.cuda(), on_gpu(columns)
    relevant = ops.relevant_items(*given, larger_is_closer=True)
    first = counts_and_metrics(*given, relevant)
    for _ in range(5):
        for a, b in zip(counts_and_metrics(*given, relevant), first, strict=True):
            assert_same(a, b)


def test_rows_that_begin_anywhere() -> None:
    scores, query_class, columns = ranking(5, 1000, classes=4, distinct=50, dtype=torch.float32)
    padded = torch.zeros(5, 1003, device="cuda")
    padded[:, 1:1001] = scores.cuda()
    expected = metrics(scores, query_class, columns)
    assert_same(metrics(padded[:, 1:1001], query_class.cuda(), on_gpu(columns)), expected)
    columns_first = scores.cuda().t().contiguous().t()
    assert_same(metrics(columns_first, query_class.cuda(), on_gpu(columns)), expected)


def test_shards_add_up() -> None:
    scores, query_class, columns = ranking(9, 4001, classes=3, distinct=50, dtype=torch.float32)
    expected = metrics(scores, query_class, columns)
    given, classes, whole = scores.cuda(), query_class.cuda(), on_gpu(columns)
    relevant = ops.relevant_items(given, classes, whole, larger_is_closer=True)
    counts = torch.zeros(3, len(relevant[1]), dtype=torch.int32, device="cuda")
    for part in torch.arange(4001).split(1500):
        shard = ops.GalleryClasses.of(columns.of_column[part].long(), 3, part.to(torch.int32))
        ops.rank_counts(
            given[:, part[0] : part[-1] + 1],
            classes,
            on_gpu(shard),
            *relevant,
            larger_is_closer=True,
            out=counts,
        )
    rows = ops.ranking_metrics(*relevant[:2], counts, ks=KS, definition=Definition())
    assert_same(rows, expected)


def test_work_is_queued_on_the_current_stream() -> None:
    scores, query_class, columns = ranking(4, 5000, classes=3, distinct=2**20, dtype=torch.float32)
    given, classes, gallery = scores.cuda(), query_class.cuda(), on_gpu(columns)
    expected = metrics(given, classes, gallery)
    static = torch.zeros_like(given)
    with busy_stream():
        static.copy_(given)
        found = metrics(static, classes, gallery)
    assert_same(found, expected)


def test_a_cuda_graph_of_counts_and_metrics() -> None:
    scores, query_class, columns = ranking(4, 5000, classes=3, distinct=2**20, dtype=torch.float32)
    given, classes, gallery = scores.cuda(), query_class.cuda(), on_gpu(columns)
    static = torch.zeros_like(given)
    relevant = ops.relevant_items(given, classes, gallery, larger_is_closer=True)
    expected = counts_and_metrics(given, classes, gallery, relevant)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):  # fails if anything is queued on another stream, or waits
        found = counts_and_metrics(static, classes, gallery, relevant)
    for _ in range(2):
        static.copy_(given)
        graph.replay()
        for a, b in zip(found, expected, strict=True):
            assert_same(a, b)
        static.zero_()


@pytest.mark.filterwarnings("default")  # what the compiler says of itself
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiled_without_graph_breaks(backend: str) -> None:
    scores, query_class, columns = ranking(6, 800, classes=3, distinct=40, dtype=torch.float32)
    given, classes, gallery = scores.cuda(), query_class.cuda(), on_gpu(columns)
    relevant = ops.relevant_items(given, classes, gallery, larger_is_closer=True)

    def evaluate(scores: Tensor) -> tuple[Tensor, ...]:
        whole = ops.batched_map(
            scores, classes, gallery, larger_is_closer=True, ks=KS, definition=Definition()
        )
        return whole, *counts_and_metrics(scores, classes, gallery, relevant)

    compiled = torch.compile(evaluate, fullgraph=True, backend=backend)
    for a, b in zip(compiled(given), evaluate(given), strict=True):
        assert_same(a, b)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_another_device_than_the_current_one() -> None:
    scores, query_class, columns = ranking(5, 900, classes=3, distinct=40, dtype=torch.float32)
    assert torch.cuda.current_device() == 0
    found = metrics(scores.to("cuda:1"), query_class.to("cuda:1"), on_gpu(columns, "cuda:1"))
    assert_same(found, metrics(scores, query_class, columns))
    assert torch.cuda.current_device() == 0
    assert torch.zeros(1, device="cuda").device == torch.device("cuda:0")


@pytest.mark.slow
def test_more_than_2_to_the_31_scores() -> None:
    gallery_size = 30_000
    queries = 2**31 // gallery_size + 2
    if torch.cuda.mem_get_info()[0] < 12 * 2**30:
        pytest.skip("needs 12 GiB of GPU memory")
    scores = torch.zeros(queries, gallery_size, device="cuda")
    last, query_class, columns = ranking(
        1, gallery_size, classes=20, distinct=2**20, dtype=torch.float32
    )
    query_class[0] = 7
    scores[-1] = last[0].cuda()
    classes = torch.full((queries,), -1, dtype=torch.int32, device="cuda")
    classes[-1] = 7
    cuda = metrics(scores, classes, on_gpu(columns))[-1]
    assert_same(cuda, metrics(last, query_class, columns)[0])
