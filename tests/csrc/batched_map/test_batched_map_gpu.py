"""batched_map on a GPU through the operators: equal to the CPU, on any stream, in a graph."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from zsbir_fast.ops import batched_map as ops
from zsbir_fast.reference.definitions import Definition

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


def on_gpu(gallery: ops.GalleryClasses) -> ops.GalleryClasses:
    return ops.GalleryClasses(
        gallery.of_column.cuda(), gallery.offsets.cuda(), gallery.columns.cuda()
    )


def metrics(scores: Tensor, query_class: Tensor, gallery: ops.GalleryClasses) -> Tensor:
    return ops.batched_map(
        scores, query_class, gallery, larger_is_closer=True, ks=KS, definition=Definition()
    ).cpu()


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
    assert torch.equal(cuda.nan_to_num(-1.0), cpu.nan_to_num(-1.0))  # to the last bit


def test_rows_that_begin_anywhere() -> None:
    scores, query_class, columns = ranking(5, 1000, classes=4, distinct=50, dtype=torch.float32)
    padded = torch.zeros(5, 1003, device="cuda")
    padded[:, 1:1001] = scores.cuda()
    cuda = metrics(padded[:, 1:1001], query_class.cuda(), on_gpu(columns))
    assert torch.equal(
        cuda.nan_to_num(-1.0), metrics(scores, query_class, columns).nan_to_num(-1.0)
    )


def test_current_stream_and_graph() -> None:
    scores, query_class, columns = ranking(4, 5000, classes=3, distinct=2**20, dtype=torch.float32)
    gallery, classes = on_gpu(columns), query_class.cuda()
    static = torch.zeros(4, 5000, device="cuda")
    relevant = ops.relevant_items(scores.cuda(), classes, gallery, larger_is_closer=True)
    expected = ops.rank_counts(scores.cuda(), classes, gallery, *relevant, larger_is_closer=True)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):  # fails if anything is queued on another stream, or waits
        counts = ops.rank_counts(static, classes, gallery, *relevant, larger_is_closer=True)
    static.copy_(scores)
    graph.replay()
    assert torch.equal(counts, expected)


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
    assert torch.equal(cuda, metrics(last, query_class, columns)[0])
