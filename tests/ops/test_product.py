"""The dense product: exact by whatever route, and torch's switches as they were."""

from __future__ import annotations

import pytest
import torch

from zsbir_fast.ops import product
from zsbir_fast.ops.product import cpu_route, matmul_into


@pytest.fixture
def switch():
    """The switch of CPU products, put back after the test."""
    own = getattr(torch.backends.mkldnn, "matmul", None)
    if own is None:
        pytest.skip("before torch 2.9 there is one switch for all devices")
    before = own.fp32_precision
    yield own
    own.fp32_precision = before


def factors(generator, queries=64, gallery=300, width=512):
    left = torch.randn(queries, width, generator=generator)
    return left, torch.randn(width, gallery, generator=generator)


def test_float32_errs_like_the_default_product(generator):
    left, right = factors(generator)
    exact = left.double() @ right.double()
    out = matmul_into(torch.empty(64, 300), left, right, precision="float32")
    plain = (left @ right - exact).abs().max()
    assert (out - exact).abs().max() <= 8 * plain


def test_route_was_chosen_among_exact_ones():
    route = cpu_route()
    assert route.name in ("default", "onednn")
    assert route.errors[route.name] <= 8 * route.errors["default"]
    assert route.errors[route.name] < 1e-3
    fastest = min(route.seconds.values())
    inexact = route.errors["onednn"] > 8 * route.errors["default"]
    assert route.seconds[route.name] == fastest or inexact
    assert cpu_route() is route


@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
@pytest.mark.parametrize("before", ["none", "ieee", "bf16"])
def test_switch_is_put_back(generator, switch, precision, before):
    switch.fp32_precision = before
    left, right = factors(generator, 4, 5, 6)
    out = matmul_into(torch.empty(4, 5), left, right, precision=precision)
    assert switch.fp32_precision == before
    torch.testing.assert_close(out, left @ right, rtol=0.05, atol=0.05)
    with pytest.raises(RuntimeError):
        matmul_into(torch.empty(4, 5), left, right[:5], precision=precision)
    assert switch.fp32_precision == before


def test_old_switch_of_torch_is_put_back(generator, monkeypatch):
    """Before torch 2.9 there is one switch for all devices."""
    monkeypatch.setattr(product, "_switch_of", lambda device: None)
    left, right = factors(generator, 4, 5, 6)
    before = torch.get_float32_matmul_precision()
    out = matmul_into(torch.empty(4, 5), left, right, precision="bfloat16")
    assert torch.get_float32_matmul_precision() == before
    torch.testing.assert_close(out, left @ right, rtol=0.05, atol=0.05)


def test_float64_knows_no_precision(generator):
    left, right = (x.double() for x in factors(generator, 4, 5, 6))
    out = matmul_into(torch.empty(4, 5, dtype=torch.float64), left, right, precision="bfloat16")
    torch.testing.assert_close(out, left @ right, rtol=1e-12, atol=1e-12)


def test_into_columns_of_a_larger_matrix(generator):
    left, right = factors(generator, 4, 5, 6)
    whole = torch.full((4, 9), 7.0)
    matmul_into(whole[:, 2:7], left, right, precision="float32")
    torch.testing.assert_close(whole[:, 2:7], left @ right)
    assert bool((whole[:, [0, 1, 7, 8]] == 7).all())
