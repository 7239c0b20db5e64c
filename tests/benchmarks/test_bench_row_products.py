"""The bench of row_products: every provider computes the product, and a wrong one is noticed."""

from __future__ import annotations

import pytest
import torch

from benchmarks import peers
from benchmarks.bench_row_products import SUITE
from benchmarks.machine import machine_facts
from benchmarks.retrieval_cases import Case, generate

SMALL = Case("small", Q=12, G=900, C=3, strength=0.25, D=64, checked=12)


@pytest.fixture(scope="module")
def data():
    return generate(SMALL)


@pytest.mark.parametrize("name", list(SUITE.providers))
def test_every_provider_agrees_with_float64(name, data):
    provider = SUITE.providers[name]
    if name == "product_onednn" and "amx_tile" in machine_facts("cpu", [])["simd"]:
        pytest.skip("oneDNN computes this product in bfloat16 on a processor with AMX")
    result = provider.prepare(data, "cpu").run(SMALL.checked)
    assert SUITE.error(provider, data, result) < 1e-6
    assert SUITE.error(provider, data, result + 1e-3) > 1e-4


def test_library_product_is_exact(data):
    queries, gallery, *_ = peers.tensors(data, "cpu")
    out = torch.empty(len(queries), len(gallery))
    peers.library_product("cpu")(queries, gallery, out)
    exact = queries.double() @ gallery.double().mT
    assert (out - exact).abs().max() < 1e-5
