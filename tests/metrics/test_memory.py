"""Peak memory in processes of their own: what an evaluation takes beside its input."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux"),
]

MEASURE = """
import json, sys
import numpy as np
import torch
import zsbir_fast as zf


def status(name):
    for line in open("/proc/self/status"):
        if line.startswith(name):
            return int(line.split()[1]) / 1024


def measure(name, queries, gallery, *labels):
    # A small evaluation first: libraries load, the product's probe runs.
    zf.evaluate_retrieval(queries[:50], gallery[:200], labels[0][:50], labels[1][:200], ks=1)
    before = status("VmRSS")
    open("/proc/self/clear_refs", "w").write("5")
    if name == "streamed":
        evaluator = zf.RetrievalEvaluator()
        evaluator.add_gallery(gallery, labels[1])
        result = evaluator.evaluate(queries, labels[0])
    else:
        result = zf.evaluate_retrieval(queries, gallery, *labels)
    print(json.dumps({"MiB": status("VmHWM") - before, "map": result.map}))


torch.set_num_threads(2)
name, q, g, width, folder = sys.argv[1], *map(int, sys.argv[2:5]), sys.argv[5]
generator = torch.Generator().manual_seed(0)
labels = [torch.randint(30, (n,), generator=generator) for n in (q, g)]
queries = torch.randn(q, width, generator=generator)
gallery = torch.randn(g, width, generator=generator)
if name == "streamed":
    np.save(f"{folder}/gallery.npy", gallery.numpy())
    gallery = np.load(f"{folder}/gallery.npy", mmap_mode="r")
measure(name, queries, gallery, *labels)
"""


def peak(folder, name, queries, gallery, width):
    """Peak memory above the input, MiB, and mAP."""
    command = [sys.executable, "-c", MEASURE, name, *map(str, (queries, gallery, width)), folder]
    out = subprocess.run(command, capture_output=True, text=True, check=False)
    assert out.returncode == 0, out.stderr
    values = json.loads(out.stdout)
    return values["MiB"], values["map"]


def test_whole_quickdraw_gallery_takes_a_workspace(tmp_path):
    """All scores would be 4.3 GB."""
    mib, value = peak(tmp_path, "in memory", 20_000, 54_151, 32)
    prepared = 54_151 * 32 * 4 / 2**20
    assert mib < 80 + prepared
    assert value == pytest.approx(1 / 30, abs=2e-3)  # chance


def test_streaming_takes_a_workspace_whatever_the_gallery(tmp_path):
    """Queries that need several passes; the pages of the memory map count, so they are allowed."""
    mib, value = peak(tmp_path, "streamed", 2_500, 54_151, 64)
    mapped = 54_151 * 64 * 4 / 2**20
    assert mib < 140 + mapped
    assert value == pytest.approx(1 / 30, abs=2e-3)
