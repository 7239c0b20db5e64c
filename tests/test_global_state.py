"""Nothing of ours changes what the process sees: not afterwards, not meanwhile in other threads."""

from __future__ import annotations

import locale
import logging
import os
import random
import signal
import subprocess
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

import zsbir_fast as zf

THREADS = 8


def precisions():
    """Every switch of float32 products that this torch has, as it is stored."""
    switches = {
        "all": torch.backends,
        "cuda": torch.backends.cuda.matmul,
        "cudnn": torch.backends.cudnn,
        "mkldnn": torch.backends.mkldnn,
        "mkldnn.matmul": getattr(torch.backends.mkldnn, "matmul", None),
    }
    return {n: getattr(s, "fp32_precision", None) for n, s in switches.items() if s is not None}


def state():
    """What libraries like to change."""
    return {
        "precisions": precisions(),
        "matmul": torch.get_float32_matmul_precision(),
        "threads": torch.get_num_threads(),
        "grad": torch.is_grad_enabled(),
        "dtype": torch.get_default_dtype(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "autocast": torch.is_autocast_enabled("cpu"),
        "torch random": torch.get_rng_state().tolist(),
        "numpy random": np.random.get_state()[1].tolist(),  # noqa: NPY002
        "random": random.getstate(),
        "numpy errors": np.geterr(),
        "warnings": list(warnings.filters),
        "environment": dict(os.environ),
        "directory": os.getcwd(),
        "path": list(sys.path),
        "signals": [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGPIPE)],
        "locale": locale.setlocale(locale.LC_ALL),
        "logging": (logging.root.level, len(logging.root.handlers)),
        "hooks": (sys.excepthook, sys.stdout, sys.stderr),
    }


def work(seed):
    """A bit of everything that a training loop calls."""
    generator = torch.Generator().manual_seed(seed)
    sketches, photos = (torch.randn(48, 32, generator=generator) for _ in range(2))
    labels = torch.arange(48) % 6
    gallery = photos.numpy().copy()
    gallery.setflags(write=False)
    zf.evaluate_retrieval(sketches, gallery, labels, labels, ks=5)
    evaluator = zf.RetrievalEvaluator(ks=5, stream=True)
    evaluator.add_gallery(gallery, labels)
    evaluator.evaluate(sketches, labels)
    zf.mine_quadruplets(sketches, photos, labels, labels)
    x, y = sketches.requires_grad_(), photos.requires_grad_()
    zf.WeightedQuadrupletLoss()(x, y, labels).backward()
    zf.BatchAllTripletLoss(margin=0.2)(x, labels, ref_emb=y, ref_labels=labels).backward()


def test_one_call_changes_nothing():
    work(0)  # what is loaded on first use is not meant here
    before = state()
    work(1)
    after = state()
    for name in before:
        assert after[name] == before[name], name


@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_threads_leave_the_switches_of_precision_as_the_user_set_them(precision):
    kept = torch.get_float32_matmul_precision()
    seen, done = [], threading.Event()

    def watch():
        while not done.is_set():
            seen.append((torch.get_float32_matmul_precision(), precisions()))

    try:
        torch.set_float32_matmul_precision(precision)
        before = precisions()
        watcher = threading.Thread(target=watch)
        watcher.start()
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(work, range(2 * THREADS)))
        done.set()
        watcher.join()
        assert precisions() == before
        assert torch.get_float32_matmul_precision() == precision
        assert all(s == (precision, before) for s in seen)
    finally:
        done.set()
        torch.set_float32_matmul_precision(kept)


GENERIC = """
import torch, zsbir_fast as zf
x, labels = torch.randn(300, 32), torch.arange(300) % 6
seen = []
for value in ("bf16", "ieee", "tf32"):
    torch.backends.fp32_precision = value
    zf.evaluate_retrieval(x, x, labels, labels, ks=5)
    zf.mine_quadruplets(x, x, labels, labels)
    seen.append(torch.backends.mkldnn.matmul.fp32_precision)
print(*seen)
"""


@pytest.mark.skipif(not hasattr(torch.backends, "fp32_precision"), reason="before torch 2.9")
def test_a_generic_switch_still_reaches_products_after_a_call():
    """One call used to pin what products had inherited. A fresh process: nothing is pinned yet."""
    done = subprocess.run([sys.executable, "-c", GENERIC], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["bf16", "ieee", "tf32"]


def test_threads_get_the_results_of_one():
    def evaluate(seed):
        generator = torch.Generator().manual_seed(seed)
        q, g = (torch.randn(n, 24, generator=generator) for n in (20, 300))
        labels = [torch.randint(4, (n,), generator=generator) for n in (20, 300)]
        return zf.evaluate_retrieval(q, g, *labels, ks=5).columns

    alone = [evaluate(seed) for seed in range(4 * THREADS)]
    with ThreadPoolExecutor(THREADS) as pool:
        together = list(pool.map(evaluate, range(4 * THREADS)))
    assert all(map(torch.equal, together, alone))
