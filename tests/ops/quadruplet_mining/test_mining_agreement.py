"""Mining by the kernels against the reference: every mode, ties, banks, layouts and dtypes."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zsbir_fast import _C
from zsbir_fast.ops.quadruplet_mining import mine_quadruplets

DISTANCES = ["euclidean", "squared_euclidean", "cosine"]
POSITIVES = ["hardest", "easiest", "semihard", "paired"]
NEGATIVES = ["hardest", "semihard", "distance_weighted", "random"]
LEVELS = ["baseline", "avx2", "avx512"]
LEVELS = LEVELS[: LEVELS.index(_C.simd_level()) + 1]


def exact_rows(generator, count, width, distance, dtype=torch.float32):
    """Rows whose distances round nowhere, so that implementations agree on every tie."""
    rows = torch.randint(-1, 2, (count, width), generator=generator)
    if distance == "cosine":  # zero or along an axis
        rows = rows * (torch.arange(width) == torch.randint(width, (count, 1), generator=generator))
    return rows.to(dtype)


def batch(generator, sizes, width, distance, classes, dtype=torch.float32):
    """Sketches, photos and references with labels; ``sizes`` of the three."""
    rows = [exact_rows(generator, n, width, distance, dtype) for n in sizes]
    labels = [torch.randint(classes, (n,), generator=generator) - 1 for n in sizes]
    return rows, labels


def mine(rows, labels, *, bank, **options):
    if bank:
        options |= {"sketch_references": rows[2], "sketch_reference_labels": labels[2]}
    return mine_quadruplets(*rows[:2], *labels[:2], **options)


def assert_agreement(rows, labels, **options):
    fused, expected = (mine(rows, labels, impl=i, **options) for i in ("fused", "reference"))
    for name, got, wanted in zip(fused._fields, fused, expected, strict=True):
        assert torch.equal(got, wanted), (name, got, wanted)
    return fused


def random_options(generator, sketches, photos):
    """``paired`` with photos of any class and -1, and numbers in [0, 1)."""
    return {
        "paired": torch.randint(-1, max(photos, 1), (sketches,), generator=generator)
        if photos
        else torch.full((sketches,), -1),
        "uniforms": torch.rand(sketches, generator=generator),
        "sketch_uniforms": torch.rand(sketches, generator=generator),
    }


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("negative", NEGATIVES)
@pytest.mark.parametrize("positive", POSITIVES)
def test_every_mode_agrees(generator, positive, negative, distance):
    sizes = (11, 17, 13)
    rows, labels = batch(generator, sizes, 3, distance, 4)
    nothing = mine(rows, labels, bank=False, positive_photos=0, distance=distance)
    assert (nothing.positive == -1).all()
    some = 0
    for sketch_negative, distinct, first, bank in itertools.product(
        ("anchor", "positive", "random", "none"), (False, True), (None, 9), (False, True)
    ):
        mined = assert_agreement(
            rows,
            labels,
            bank=bank,
            positive=positive,
            negative=negative,
            sketch_negative=sketch_negative,
            distance=distance,
            margin=0.6,
            distinct_negatives=distinct,
            positive_photos=first,
            **random_options(generator, *sizes[:2]),
        )
        some += int(mined.valid.sum())
    assert some > 0


@settings(max_examples=150, deadline=None)
@given(
    st.tuples(st.integers(0, 20), st.integers(0, 20), st.integers(0, 20)),
    st.integers(1, 40),
    st.integers(1, 5),
    st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.float16]),
    st.fixed_dictionaries(
        {
            "distance": st.sampled_from(DISTANCES),
            "positive": st.sampled_from(POSITIVES),
            "negative": st.sampled_from(NEGATIVES),
            "sketch_negative": st.sampled_from(["anchor", "positive", "random", "none"]),
            "margin": st.sampled_from([0.0, 0.5, 1.0, 2.5]),
            "distinct_negatives": st.booleans(),
            "bank": st.booleans(),
        }
    ),
    st.integers(0, 10**6),
)
def test_every_shape_agrees(sizes, width, classes, dtype, options, seed):
    g = torch.Generator().manual_seed(seed)
    rows, labels = batch(g, sizes, width, options["distance"], classes, dtype)
    first = int(torch.randint(sizes[1] + 1, (1,), generator=g))
    options |= random_options(g, *sizes[:2])
    assert_agreement(rows, labels, positive_photos=first if seed % 2 else None, **options)


@pytest.mark.parametrize("distance", DISTANCES)
def test_semihard_is_strict_where_a_negative_equals_the_paired_positive(generator, distance):
    """Duplicates of the positive in another class are not farther than it, whatever rounds."""
    sketches = torch.randn(40, 37, generator=generator)
    photos = torch.randn(40, 37, generator=generator).repeat(2, 1)
    labels = torch.zeros(40, dtype=torch.int64), torch.arange(80) // 40
    for dtype in (torch.float32, torch.float64):
        mined = mine_quadruplets(
            sketches.to(dtype),
            photos.to(dtype),
            *labels,
            positive="paired",
            negative="semihard",
            sketch_negative="none",
            distance=distance,
            margin=1e3,
            paired=torch.arange(40),
        )
        assert torch.equal(mined.positive, torch.arange(40))
        twins = mined.photo_negative == torch.arange(40) + 40
        # Only where the twin is the farthest of all photos is it the fallback.
        d = torch.cdist(sketches.double(), photos[40:].double())
        if distance == "cosine":
            d = -torch.nn.functional.normalize(sketches) @ torch.nn.functional.normalize(photos).mT
        assert torch.equal(twins, d[:, :40].argmax(1) == torch.arange(40))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("distance", DISTANCES)
def test_random_features_agree_at_every_simd_level(generator, monkeypatch, distance, dtype):
    """Without ties, across blocks of rows and panels, against a bank of a few thousand."""
    sizes = (530, 70, 2_100)
    rows = [torch.randn(n, 21, generator=generator, dtype=dtype) for n in sizes]
    labels = [torch.randint(12, (n,), generator=generator) for n in sizes]
    options = {"distance": distance, "positive": "semihard", "negative": "semihard", "bank": True}
    expected = mine(rows, labels, impl="reference", **options)
    assert expected.valid.all()
    for level in LEVELS:
        monkeypatch.setenv("ZSBIR_SIMD", level)
        fused = mine(rows, labels, **options)
        assert all(map(torch.equal, fused, expected)), level


def test_layout_and_threads_change_nothing(generator, set_threads):
    rows = [torch.randn(n, 6, generator=generator) for n in (33, 40, 50)]
    labels = [torch.randint(4, (n,), generator=generator) for n in (33, 40, 50)]
    options = {"negative": "semihard", "distinct_negatives": True, "bank": True}
    set_threads(1)
    expected = mine(rows, labels, **options)
    for threads in (2, 3):
        set_threads(threads)
        assert all(map(torch.equal, mine(rows, labels, **options), expected))
    moved = [x.mT.contiguous().mT for x in rows], [torch.stack([x, x], 1)[:, 1] for x in labels]
    assert all(map(torch.equal, mine(*moved, **options), expected))


@pytest.mark.parametrize("impl", ["fused", "reference"])
@pytest.mark.parametrize("distance", DISTANCES)
def test_autocast_and_deterministic_algorithms_change_nothing(generator, distance, impl):
    rows = [torch.randn(n, 16, generator=generator) for n in (20, 30)]
    labels = [torch.randint(4, (n,), generator=generator) for n in (20, 30)]
    options = {"distance": distance, "sketch_negative": "positive", "impl": impl}
    options |= {"positive": "paired", "negative": "semihard", "paired": torch.arange(20)}
    expected = mine(rows, labels, bank=False, **options)
    with torch.autocast("cpu", torch.bfloat16):
        assert all(map(torch.equal, mine(rows, labels, bank=False, **options), expected))
    torch.use_deterministic_algorithms(True)
    try:
        assert all(map(torch.equal, mine(rows, labels, bank=False, **options), expected))
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("distance", DISTANCES)
def test_halves_at_their_largest_value(dtype, distance):
    largest = min(torch.finfo(dtype).max, 65504.0)
    signs = torch.tensor([[1, 1], [1, -1], [-1, 1], [-1, -1]])
    rows = [(signs * largest).to(dtype)] * 3
    labels = [torch.tensor([0, 0, 1, 1])] * 3
    mined = assert_agreement(rows, labels, bank=False, distance=distance)
    assert mined.positive.tolist() == [1, 0, 3, 2]
    assert mined.photo_negative.tolist() == [2, 3, 0, 1]


MEASURE = """
import json
import torch
import zsbir_fast as zf


def status(name):
    for line in open("/proc/self/status"):
        if line.startswith(name):
            return int(line.split()[1]) / 1024


g = torch.Generator().manual_seed(0)
sketches, photos, bank = (torch.randn(n, 32, generator=g) for n in (2_000, 20_000, 20_000))
labels = [torch.randint(20, (len(x),), generator=g) for x in (sketches, photos, bank)]
options = {"sketch_references": bank, "sketch_reference_labels": labels[2]}
zf.mine_quadruplets(sketches[:9], photos[:9], labels[0][:9], labels[1][:9])
before = status("VmRSS")
open("/proc/self/clear_refs", "w").write("5")
mined = zf.mine_quadruplets(sketches, photos, *labels[:2], negative="semihard", **options)
print(json.dumps([status("VmHWM") - before, int(mined.valid.sum())]))
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux")
def test_a_bank_takes_no_matrix_of_distances():
    """The distances of 2,000 anchors to 20,000 photos would be 153 MiB."""
    out = subprocess.run(
        [sys.executable, "-c", MEASURE], capture_output=True, text=True, check=False
    )
    assert out.returncode == 0, out.stderr
    mib, valid = json.loads(out.stdout)
    assert mib < 40
    assert valid == 2_000
