"""The CUDA kernels of batched_map, run on CPU threads (cuda_emulation.h), against the reference."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from zsbir_fast.reference import batched_map as reference
from zsbir_fast.reference.definitions import (
    AP_KINDS,
    NORMALISERS,
    PRECISION_DENOMINATORS,
    TIES,
    Definition,
)

DEFINITIONS = [
    Definition(ap, normaliser, precision, ties)
    for ap in AP_KINDS
    for normaliser in NORMALISERS
    for precision in PRECISION_DENOMINATORS
    for ties in TIES
    if ties != "expected" or (ap == "standard" and normaliser != "prefix_positive")
]


@pytest.fixture(scope="module")
def kernels(emulated_library: Callable[[str], ctypes.CDLL]) -> ctypes.CDLL:
    return emulated_library("batched_map")


@dataclass
class Ranking:
    """Scores [Q, G] with classes, and how the kernel is to be launched."""

    scores: Tensor
    query_class: Tensor
    gallery_class: Tensor
    gallery_index: Tensor
    larger_is_closer: bool
    shards: int
    threads: int
    columns_per_slice: int
    capacity: int


@st.composite
def rankings(draw: st.DrawFn) -> Ranking:
    queries, gallery = draw(st.integers(0, 3)), draw(st.integers(1, 70))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    distinct = draw(st.sampled_from([1, 2, 5, 30, 10_000]))
    steps = torch.randint(-distinct, distinct + 1, (queries, gallery), generator=generator)
    left_out = torch.rand(steps.shape, generator=generator) < draw(st.sampled_from([0.0, 0.3]))
    classes = draw(st.integers(1, 3))
    draw_class = torch.randint(-1, classes, (queries,), generator=generator)
    index = torch.randperm(gallery, generator=generator)
    return Ranking(
        scores=(steps.to(dtype) / distinct).masked_fill(left_out, torch.nan),
        query_class=draw_class.to(torch.int32),
        gallery_class=torch.randint(0, classes, (gallery,), generator=generator).to(torch.int32),
        gallery_index=index.to(torch.int32),
        larger_is_closer=draw(st.booleans()),
        shards=draw(st.integers(1, 3)),
        threads=draw(st.sampled_from([32, 64])),
        columns_per_slice=draw(st.sampled_from([33, 1000])),
        capacity=draw(st.sampled_from([1, 7, 2048])),
    )


def pointer(tensor: Tensor) -> ctypes.c_void_p:
    assert tensor.is_contiguous()
    return ctypes.c_void_p(tensor.data_ptr())


def emulated_counts(
    kernels: ctypes.CDLL, r: Ranking, relevant: tuple[Tensor, Tensor, Tensor]
) -> Tensor:
    """The counts of all shards, added up by the kernel itself."""
    counts = torch.zeros(3, len(relevant[1]), dtype=torch.int32)
    for shard in range(r.shards):
        scores = r.scores[:, shard :: r.shards].contiguous()
        gallery_class = r.gallery_class[shard :: r.shards].contiguous()
        gallery_index = r.gallery_index[shard :: r.shards].contiguous()
        kernels.emulated_rank_counts(
            ctypes.c_bool(scores.dtype == torch.float64),
            pointer(scores),
            *map(ctypes.c_int64, (*scores.shape, scores.shape[1])),
            ctypes.c_bool(r.larger_is_closer),
            *map(pointer, (r.query_class, gallery_class, gallery_index, *relevant, counts)),
            *map(ctypes.c_int32, (r.threads, r.columns_per_slice, r.capacity)),
        )
    return counts


def emulated_metrics(
    kernels: ctypes.CDLL,
    offsets: Tensor,
    key: Tensor,
    counts: Tensor,
    ks: list[int],
    definition: Definition,
) -> Tensor:
    out = torch.full((len(offsets) - 1, 7 + 4 * len(ks)), -1.0, dtype=torch.float64)
    codes = torch.tensor(definition.codes(), dtype=torch.int32)
    cut_offs = torch.tensor(ks, dtype=torch.int64)
    kernels.emulated_ranking_metrics(
        ctypes.c_bool(key.dtype == torch.float64),
        ctypes.c_int64(len(out)),
        *map(pointer, (offsets, key, counts, codes, cut_offs)),
        ctypes.c_int32(len(ks)),
        pointer(out),
    )
    return out


@settings(max_examples=60, deadline=None, derandomize=True)
@given(ranking=rankings(), definition=st.sampled_from(DEFINITIONS))
def test_emulated_kernels_equal_the_reference(
    kernels: ctypes.CDLL, ranking: Ranking, definition: Definition
) -> None:
    r = ranking
    relevant = reference.relevant_items(
        r.scores,
        r.query_class,
        r.gallery_class,
        r.gallery_index,
        larger_is_closer=r.larger_is_closer,
    )
    counts = emulated_counts(kernels, r, relevant)
    expected = reference.rank_counts(
        r.scores,
        r.query_class,
        r.gallery_class,
        r.gallery_index,
        *relevant,
        larger_is_closer=r.larger_is_closer,
    )
    assert torch.equal(counts, expected)

    ks = [1, 3, 200]
    offsets, key, _ = relevant
    metrics = emulated_metrics(kernels, offsets, key, counts, ks, definition)
    wanted = reference.batched_map(
        r.scores,
        r.query_class,
        r.gallery_class,
        r.gallery_index,
        larger_is_closer=r.larger_is_closer,
        ks=ks,
        definition=definition,
    )
    torch.testing.assert_close(metrics, wanted, rtol=1e-12, atol=1e-12, equal_nan=True)
