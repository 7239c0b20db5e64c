"""row_products: close to the product, and the same bits wherever a row stands."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zsbir_fast import _C
from zsbir_fast.ops.row_products import (
    pack_rows,
    packed_like,
    panel_rows,
    row_products,
    row_squares,
)
from zsbir_fast.reference import row_products as reference

DTYPES = [torch.float32, torch.float64]
few = settings(max_examples=60, deadline=None, derandomize=True)


def scores(left, right, **options):
    """Products with all rows of ``right``, given as they are."""
    return row_products(left, right, out=left.new_empty(len(left), len(right)), **options)


@st.composite
def matrices(draw):
    queries, gallery = draw(st.integers(0, 40)), draw(st.integers(0, 130))
    width = draw(st.sampled_from([0, 1, 3, 16, 17, 70]))
    dtype = draw(st.sampled_from(DTYPES))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    rows = [torch.randn(n, width, generator=generator, dtype=dtype) for n in (queries, gallery)]
    scale = torch.randn(gallery, generator=generator, dtype=dtype)
    offset = torch.randn(gallery, generator=generator, dtype=dtype)
    return *rows, draw(st.sampled_from([None, scale])), draw(st.sampled_from([None, offset]))


@few
@given(case=matrices(), packed=st.booleans(), strided=st.booleans())
def test_kernel_agrees_with_reference(case, packed, strided):
    left, right, scale, offset = case
    expected = reference.row_products(left, right, scale, offset)
    if strided:
        left = torch.cat([left, left], 1)[:, : left.shape[1]]
        right = right.t().contiguous().t()
    out = left.new_full((len(left), len(right) + 3), -7.0)
    given = pack_rows(right) if packed else right
    row_products(left, given, scale=scale, offset=offset, out=out[:, 1:-2])
    eps = torch.finfo(left.dtype).eps
    bound = (left.abs() @ right.abs().mT) * (left.shape[1] + 2) * eps
    bound = bound if scale is None else bound * scale.abs()
    size = expected.abs() + (0 if offset is None else offset.abs())
    assert ((out[:, 1:-2] - expected).abs() <= bound + 4 * eps * size).all()
    assert (out[:, [0, -2, -1]] == -7).all()


@few
@given(case=matrices())
def test_whole_numbers_are_exact(case):
    left, right, *_ = ((8 * x).round() if x is not None else None for x in case)
    assert torch.equal(scores(left, right).double(), left.double() @ right.double().mT)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_score_is_the_same_in_any_company(generator, dtype):
    """Alone, among others, at any place, in any part of the packed rows, however many threads."""
    left = torch.randn(30, 100, generator=generator, dtype=dtype)
    right = torch.randn(200, 100, generator=generator, dtype=dtype)
    scale, offset = (torch.randn(200, generator=generator, dtype=dtype) for _ in range(2))
    options = {"scale": scale, "offset": offset}
    whole = scores(left, right, **options)
    order = torch.randperm(200, generator=generator)
    shuffled = scores(left, right[order], scale=scale[order], offset=offset[order])
    assert torch.equal(shuffled, whole[:, order])
    packed = pack_rows(right)
    for first, count in ((0, 200), (0, 1), (7, 5), (47, 2), (48, 48), (100, 100), (199, 1), (3, 0)):
        part = slice(first, first + count)
        out = left.new_empty(30, count)
        row_products(left, packed, first=first, scale=scale[part], offset=offset[part], out=out)
        assert torch.equal(out, whole[:, part])
    for row in (0, 3, 29):
        one = scores(left[row : row + 1], right[order[:1]], scale=scale[order[:1]], offset=None)
        full = scores(left, right, scale=scale)
        assert torch.equal(one[0, 0], full[row, order[0]])
    threads = torch.get_num_threads()
    try:
        for number in (1, 2, 3, 7):
            torch.set_num_threads(number)
            assert torch.equal(scores(left, right, **options), whole)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("dtype", DTYPES)
@few
@given(count=st.integers(0, 70), width=st.integers(0, 70), seed=st.integers(0, 2**31))
def test_squares_are_exactly_those_of_the_reference(dtype, count, width, seed):
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(count, width, generator=generator, dtype=dtype)
    assert torch.equal(row_squares(rows), reference.row_squares(rows))
    torch.testing.assert_close(row_squares(rows), rows.double().square().sum(1))


LEVELS = """
import sys, torch
from zsbir_fast.ops.row_products import *
generator = torch.Generator().manual_seed(0)
for dtype in (torch.float32, torch.float64):
    left = torch.randn(21, 67, generator=generator, dtype=dtype)
    right = torch.randn(101, 67, generator=generator, dtype=dtype)
    out = row_products(left, right, scale=right[:, 0].contiguous(), out=left.new_empty(21, 101))
    sys.stdout.buffer.write(out.numpy().tobytes() + row_squares(right).numpy().tobytes())
"""


@pytest.mark.skipif(_C.simd_level() == "baseline", reason="needs AVX2")
def test_simd_levels_agree_in_all_bits():
    def run(level):
        environment = {**os.environ, "ZSBIR_SIMD": level}
        command = [sys.executable, "-c", LEVELS]
        return subprocess.run(command, env=environment, capture_output=True, check=True).stdout

    wide, narrow, plain = (run(level) for level in ("avx512", "avx2", "baseline"))
    assert wide == narrow
    assert len(plain) == len(wide)  # rounds products, too: close, but not equal


def test_infinities_and_nan_stay_in_their_rows(generator):
    left = torch.randn(3, 20, generator=generator)
    right = torch.randn(50, 20, generator=generator)
    right[7, 3], right[20, 5] = torch.inf, torch.nan
    out = scores(left, right)
    assert torch.nonzero(~out.isfinite().all(0))[:, 0].tolist() == [7, 20]


def test_opcheck(generator):
    left, right = torch.randn(5, 9, generator=generator), torch.randn(60, 9, generator=generator)
    ops = torch.ops.zsbir
    tests = ("test_schema", "test_faketensor")
    torch.library.opcheck(ops.row_squares, (right,), test_utils=tests)
    out = packed_like(60, 9, torch.float32, right.device)
    torch.library.opcheck(ops.pack_rows, (out, right), test_utils=tests)
    given = (left.new_empty(5, 50), left, right, 4, right[:50, 0], right[:50, 1])
    torch.library.opcheck(ops.row_products, given, test_utils=tests)


def test_panels_are_what_they_are_said_to_be(generator):
    rows = torch.randn(100, 6, generator=generator)
    size = panel_rows(torch.float32)
    packed = pack_rows(rows)
    assert packed.shape == (-(-100 // size), 6, size)
    assert packed.data_ptr() % 64 == 0
    flat = packed.transpose(1, 2).reshape(-1, 6)
    assert torch.equal(flat[:100], rows)
    assert (flat[100:] == 0).all()
    moved = torch.cat([packed.flatten(), packed.new_zeros(1)])[1:]
    moved = moved.copy_(packed.flatten()).view(packed.shape)  # not aligned any more
    left = torch.randn(4, 6, generator=generator)
    out = row_products(left, moved, out=left.new_empty(4, 100))
    assert torch.equal(out, scores(left, rows))


LEFT, RIGHT = torch.ones(2, 4), torch.ones(3, 4)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"left": LEFT.half()}, TypeError, "left must be float32 or float64, got torch.float16"),
        ({"left": LEFT[0]}, ValueError, r"left must be \[n, D\], got shape \[4\]"),
        ({"right": RIGHT.double()}, TypeError, "right must be torch.float32 like left"),
        ({"right": RIGHT[:, :3]}, ValueError, "left and right must have the same width D"),
        ({"right": RIGHT[0]}, ValueError, r"right must be \[n, D\] or packed, got shape \[4\]"),
        ({"right": torch.ones(1, 4, 5)}, ValueError, r"right must be \[1, 4, 48\]"),
        ({"right": RIGHT.to("meta")}, ValueError, "right must be on cpu like left, got meta"),
        ({"first": 1}, ValueError, r"first must be in \[0, 0\] for 3 of 3 rows, got 1"),
        ({"first": -1}, ValueError, r"first must be in \[0, 0\]"),
        ({"scale": torch.ones(2)}, ValueError, r"scale must be \[3\], got \[2\]"),
        ({"offset": torch.ones(3).double()}, TypeError, "offset must be torch.float32"),
        ({"out": torch.ones(3, 3)}, ValueError, r"out must be \[2, G\], got shape \[3, 3\]"),
        ({"out": torch.ones(2, 3).double()}, TypeError, "out must be torch.float32 like left"),
        ({"out": torch.ones(3, 2).t()}, ValueError, "out must have columns side by side"),
        ({"out": torch.ones(1, 3).expand(2, 3)}, ValueError, "out must have columns side by side"),
    ],
)
def test_refuses(change, error, message):
    arguments = {"left": LEFT, "right": RIGHT, "out": torch.empty(2, 3), **change}
    with pytest.raises(error, match=f"row_products: {message}"):
        row_products(**arguments)


@pytest.mark.parametrize(
    ("rows", "out", "error", "message"),
    [
        (torch.ones(4), None, ValueError, r"rows must be \[n, D\]"),
        (torch.ones(4, 2).int(), None, TypeError, "rows must be float32 or float64"),
        (torch.ones(4, 2), torch.ones(2, 2, 48), ValueError, r"out must be \[1, 2, 48\]"),
        (torch.ones(4, 2), torch.ones(1, 2, 96)[..., ::2], ValueError, "out must be contiguous"),
        (torch.ones(4, 2), torch.ones(97)[1:].view(1, 2, 48), ValueError, "out must be aligned"),
    ],
)
def test_packing_refuses(rows, out, error, message):
    with pytest.raises(error, match=f"pack_rows: {message}"):
        pack_rows(rows, out)


def test_no_switch_of_the_process_is_touched(generator):
    """Nor is one consulted: not before, meanwhile or after, in this thread or in another."""
    left, right = (torch.randn(n, 64, generator=generator) for n in (40, 500))
    expected = scores(left, right)
    before = torch.get_float32_matmul_precision()
    seen = set()
    done = threading.Event()

    def watch():
        while not done.is_set():
            seen.add(torch.get_float32_matmul_precision())

    watcher = threading.Thread(target=watch)
    try:
        torch.set_float32_matmul_precision("medium")
        watcher.start()
        for _ in range(50):
            assert torch.equal(scores(left, right), expected)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        done.set()
        watcher.join()
        torch.set_float32_matmul_precision(before)
    assert seen <= {"medium"}
