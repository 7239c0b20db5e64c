from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from zsbir_fast.methods.allocation import AllocationLimit


@pytest.mark.parametrize(
    "make",
    [
        lambda n: nn.Linear(n, n),
        lambda n: nn.Conv2d(n, n, 3),
        lambda n: nn.Embedding(n, n),
        lambda n: nn.Parameter(torch.empty(n, n)),
        lambda n: torch.zeros((n, n)),
        lambda n: torch.ones(size=(n, n)),
        lambda n: torch.full((n, n), 1.0),
        lambda n: torch.randn(n, n),
        lambda n: torch.rand([n, n]),
        lambda n: torch.eye(n),
        lambda n: torch.eye(n=8, m=n**2),
        lambda n: torch.zeros(np.int64(n), np.int64(n)),
        lambda n: torch.zeros(torch.tensor(n), torch.tensor(n)),
        lambda n: torch.randint(8, (n, n)),
        lambda n: torch.randint(0, 8, size=(n, n)),
        lambda n: torch.normal(0.0, 1.0, (n, n)),
        lambda n: torch.empty_strided((n, n), (n, 1)),
        lambda n: torch.zeros(8).new_zeros(n, n),
        lambda n: torch.zeros(8).new_empty((n, n)),
        lambda n: torch.zeros(8).new_full((n, n), 1.0),
        lambda n: torch.zeros(8).repeat(n, n),
    ],
)
def test_what_would_take_terabytes_is_refused_before_it_is_allocated(make):
    with AllocationLimit(10**9):
        make(8)
        with pytest.raises(ValueError, match=r"ask for more than [\d,]+ MB of memory, and its wei"):
            make(10**6)


def test_allocations_add_up_and_dtypes_count():
    with AllocationLimit(8000) as limit:
        torch.zeros(1000)
        torch.zeros(1000, dtype=torch.float16)
        assert limit.taken == 6000
        with pytest.raises(ValueError, match="ask for more than 0 MB"):
            torch.zeros(501)
    torch.zeros(10_000)


def test_wrong_sizes_are_left_to_torch():
    with AllocationLimit(8), pytest.raises(RuntimeError, match="negative"):
        torch.zeros(-1)
    with AllocationLimit(8), pytest.raises(TypeError):
        torch.zeros("x")


def test_loading_a_model_needs_torch_and_safetensors_only(tmp_path):
    """Neither the training loop, nor model zoos, nor pictures, nor torch's compiler are loaded."""
    code = f"""
import sys, torch
before = set(sys.modules)
import zsbir_fast as zf
identity = zf.ModelIdentity.of("dmwan", {{"encoder": {{"weights": None}}}}, ["cat", "dog"])
from zsbir_fast.methods.build import build_model
zf.export_model(build_model(identity), identity, {str(tmp_path)!r})
zf.load_model({str(tmp_path)!r})
loaded = {{name.partition(".")[0] for name in set(sys.modules) - before}}
foreign = loaded - set(sys.stdlib_module_names) - {{"zsbir_fast", "safetensors", "numpy", "torch"}}
print(sorted(name for name in foreign if not name.startswith("_")))
print([name for name in sys.modules if name in ("torch._dynamo", "torch._inductor")])
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.splitlines() == ["[]", "[]"]
