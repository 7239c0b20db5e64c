"""Our static CUDA runtime beside torch's: one device, one memory, one stream for both."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest
import torch
from torch import Tensor

from zsbir_fast import _C
from zsbir_fast.ops._library import current_stream
from zsbir_fast.ops.batched_map import GalleryClasses, rank_counts, relevant_items
from zsbir_fast.ops.batched_map.inputs import RelevantInput, ScoresInput
from zsbir_fast.ops.quadruplet_mining.pair_distances import pair_distances

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def rows(device: str = "cuda") -> Tensor:
    return torch.arange(12.0, device=device).view(4, 3)


def distances() -> Tensor:
    return pair_distances(rows("cpu"), None, "squared_euclidean")


def test_the_stream_is_that_of_torch() -> None:
    place = torch.device("cuda", torch.cuda.current_device())
    assert current_stream(place) == torch.cuda.current_stream().cuda_stream
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        assert current_stream(place) == side.cuda_stream != 0


@pytest.mark.parametrize("own_stream", [False, True])
def test_kernels_of_both_take_turns_without_waiting(own_stream: bool) -> None:
    """Each step reads what the one before wrote, ours and torch's in turn."""
    stream = torch.cuda.Stream() if own_stream else torch.cuda.current_stream()
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        x = torch.ones(256, 64, device="cuda")
        for _ in range(300):
            d = pair_distances(x, None, "squared_euclidean")  # zeros, as all rows are equal
            x = x + d.sum() + 1
        found = x.cpu()
    assert torch.equal(found, torch.full((256, 64), 301.0))


def test_memory_that_torch_frees_and_gives_out_again() -> None:
    for size in (1, 1000, 3, 700):
        x = torch.full((size, 8), float(size), device="cuda")
        x[0] += 1
        d = pair_distances(x, None, "squared_euclidean")
        del x
        again = torch.full((size, 8), -1.0, device="cuda")  # the same memory, after our kernel
        assert float(d.sum()) == 2 * 8 * (size - 1)
        del again, d


def test_a_thread_of_its_own() -> None:
    x, found = rows(), []
    torch.cuda.synchronize()
    thread = threading.Thread(
        target=lambda: found.append(pair_distances(x, None, "squared_euclidean").cpu())
    )
    thread.start()
    thread.join()
    assert torch.equal(found[0], distances())


def test_an_error_of_ours_is_told_and_leaves_torch_alone() -> None:
    gallery = GalleryClasses.of(torch.tensor([0, 1, 0], device="cuda"), 2)
    query_class = torch.zeros(4, dtype=torch.int32, device="cuda")
    scores = rows()
    relevant = relevant_items(scores, query_class, gallery, larger_is_closer=True)
    counts = rank_counts(scores, query_class, gallery, *relevant, larger_is_closer=True)
    given = ScoresInput("test", scores, query_class, gallery.of_column, None, True)
    items = RelevantInput("test", *relevant)
    nowhere = torch.cuda.device_count() + 7
    with pytest.raises(RuntimeError, match=f"cudaSetDevice\\({nowhere}\\): invalid device"):
        _C.rank_counts_cuda(given.struct, items.struct, counts.data_ptr(), nowhere, 0)
    assert torch.cuda.current_device() == 0
    torch.cuda.synchronize()
    again = rank_counts(scores, query_class, gallery, *relevant, larger_is_closer=True)
    assert torch.equal(again, counts)


SCRIPT = """
from zsbir_fast import _C
{first}
import torch
from zsbir_fast.ops.quadruplet_mining.pair_distances import pair_distances
x = torch.arange(12.0, device="cuda").view(4, 3)
found = pair_distances(x, None, "squared_euclidean").cpu()
assert torch.equal(found, pair_distances(x.cpu(), None, "squared_euclidean")), found
y = torch.ones(4096, 512, device="cuda")  # another segment of torch's memory
assert not pair_distances(y, None, "euclidean").any()
"""


@pytest.mark.parametrize(
    ("allocator", "first"),
    [
        ("", "assert _C.cuda_device_count() > 0"),  # our runtime wakes the driver
        ("expandable_segments:True", ""),
        ("backend:cudaMallocAsync", ""),
    ],
    ids=["ours first", "expandable segments", "cudaMallocAsync"],
)
def test_a_fresh_process(allocator: str, first: str) -> None:
    settings = {"PYTORCH_CUDA_ALLOC_CONF": allocator} if allocator else {}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(first=first)],
        env=os.environ | settings,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
