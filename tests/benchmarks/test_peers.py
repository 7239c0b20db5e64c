from __future__ import annotations

import warnings

import pytest
import torch

from benchmarks import peers
from benchmarks.bench_batched_map import SUITE
from benchmarks.machine import machine_facts
from benchmarks.retrieval_cases import Case, Definition, generate

# Classes of about 300 photos: R is above and below k = 200, so that the normalisers differ.
SMALL = Case("small", Q=12, G=900, C=3, strength=0.25, D=64, checked=12)


@pytest.fixture(scope="module")
def data():
    return generate(SMALL)


@pytest.mark.parametrize("name", list(SUITE.providers))
def test_every_provider_agrees_with_float64(name, data):
    provider = SUITE.providers[name]
    if missing := provider.missing():
        pytest.skip(f"{name} needs {missing}: pip install '.[bench]'")
    if name == "product_onednn" and "amx_tile" in machine_facts("cpu", [])["simd"]:
        pytest.skip("oneDNN computes this product in bfloat16 on a processor with AMX")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of third-party packages
        result = provider.prepare(data, "cpu").run(SMALL.checked)
    assert SUITE.error(provider, data, result) < 2e-6


def test_a_wrong_definition_is_noticed(data):
    from dataclasses import replace

    provider = SUITE.providers["torch_topk"]
    result = provider.prepare(data, "cpu").run(SMALL.checked)
    wrong = replace(provider, definition=Definition(at_k="prefix_positive"))
    assert SUITE.error(wrong, data, result) > 1e-3


def test_chunks_cover_all_queries(data, monkeypatch):
    provider = SUITE.providers["numpy_sort_threads"]
    whole = provider.prepare(data, "cpu").run(11)
    monkeypatch.setattr(peers.score_chunks, "__defaults__", (4,))
    assert provider.prepare(data, "cpu").run(11) == pytest.approx(whole, abs=1e-9)


@pytest.mark.parametrize("before", ["highest", "high"])
def test_onednn_product_puts_the_switch_back(data, before):
    queries, gallery, *_ = peers.tensors(data, "cpu")
    out = torch.empty(len(queries), len(gallery))
    kept = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision(before)
        peers.product_onednn(queries, gallery, out)
        assert torch.get_float32_matmul_precision() == before
    finally:
        torch.set_float32_matmul_precision(kept)
