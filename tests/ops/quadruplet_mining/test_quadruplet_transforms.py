"""Mining and losses under torch.compile, and the transforms that the kernels refuse."""

from __future__ import annotations

import pytest
import torch
from torch.autograd import forward_ad

from zsbir_fast.losses.weighted_quadruplet import WeightedQuadrupletLoss
from zsbir_fast.ops.quadruplet_mining import (
    batch_all_quadruplet_loss,
    batch_all_triplet_loss,
    mine_quadruplets,
    quadruplet_loss,
)

# torch's own, where forward-mode differentiation is first used.
pytestmark = pytest.mark.filterwarnings(
    "ignore:`torch.jit.script:DeprecationWarning", "ignore:`torch.jit.script:FutureWarning"
)
PRESETS = ["triplet", "domain_balanced", "cross_symmetric", "full", "chen2017", "ramln"]


def batch(dtype=torch.float32):
    g = torch.Generator().manual_seed(0)
    rows = [torch.randn(n, 6, generator=g, dtype=dtype) for n in (8, 10)]
    return *rows, torch.arange(8) % 4, torch.arange(10) % 4


def mined_loss(s, p, ls, lp, *, preset, **options):
    distinct = preset == "chen2017"
    mined = mine_quadruplets(s, p, ls, lp, distinct_negatives=distinct, **options)
    return quadruplet_loss(s, p, mined, preset=preset, margins=1.0)


def module_loss(s, p, ls, lp, *, preset):
    return WeightedQuadrupletLoss(preset=preset, symmetric=True)(s, p, (ls, lp))


def all_quadruplets(s, p, ls, lp, *, preset):
    return batch_all_quadruplet_loss(s, p, ls, lp, preset=preset)


def all_triplets(s, p, ls, lp, *, preset):
    references = (p, lp) if preset == "cross" else ()
    return batch_all_triplet_loss(s, ls, *references)


def loss_and_gradients(call, preset):
    s, p, ls, lp = batch()
    leaves = s.requires_grad_(), p.requires_grad_()
    loss = call(s, p, ls, lp, preset=preset)
    return loss, *torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)


COMPILED = [
    *((mined_loss, preset) for preset in PRESETS),
    *((all_quadruplets, preset) for preset in PRESETS[:-1]),
    (all_triplets, "alone"),
    (all_triplets, "cross"),
    (module_loss, "domain_balanced"),
    (module_loss, "ramln"),
]


@pytest.fixture(autouse=True)
def _fresh_compiler():
    torch.compiler.reset()


@pytest.mark.parametrize(("call", "preset"), COMPILED, ids=lambda x: getattr(x, "__name__", x))
def test_compiles_without_a_graph_break(call, preset):
    expected = loss_and_gradients(call, preset)
    assert expected[0] > 0
    compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
    for got, wanted in zip(loss_and_gradients(compiled, preset), expected, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-6, atol=1e-7)


def test_every_mining_mode_compiles():
    given = *batch()[:2], *batch()[2:]
    options = {"positive": "paired", "negative": "semihard", "paired": torch.arange(8)}
    options |= {"sketch_negative": "positive", "positive_photos": 9}
    for more in (options, {"positive": "semihard", "negative": "semihard", "distance": "cosine"}):
        compiled = torch.compile(mine_quadruplets, fullgraph=True, backend="aot_eager")
        assert all(map(torch.equal, compiled(*given, **more), mine_quadruplets(*given, **more)))


def test_compiles_with_inductor():
    expected = loss_and_gradients(mined_loss, "full")
    compiled = torch.compile(mined_loss, fullgraph=True, backend="inductor")
    for got, wanted in zip(loss_and_gradients(compiled, "full"), expected, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-6)


MINED = mine_quadruplets(*batch())
LOSSES = {
    "mine_quadruplets": lambda s, p, ls, lp, impl: mine_quadruplets(s, p, ls, lp, impl=impl),
    "quadruplet_loss": lambda s, p, ls, lp, impl: quadruplet_loss(
        s, p, MINED, margins=9.0, impl=impl
    ),
    "batch_all_triplet_loss": lambda s, p, ls, lp, impl: batch_all_triplet_loss(
        s, ls, p, lp, impl=impl
    ),
    "batch_all_quadruplet_loss": lambda s, p, ls, lp, impl: batch_all_quadruplet_loss(
        s, p, ls, lp, impl=impl
    ),
}


@pytest.mark.parametrize("name", LOSSES)
def test_function_transforms_are_refused(name):
    s, p, *labels = batch()

    def loss(s, impl="fused"):
        return LOSSES[name](s, p, *labels, impl)

    message = rf"{name}: torch\.func transforms \(grad, vmap, jvp, \.\.\.\) are not supported by"
    for transform in (
        lambda: torch.func.grad(loss)(s),
        lambda: torch.func.vmap(loss)(s[None]),
        lambda: torch.func.jvp(loss, (s,), (s,)),
    ):
        with pytest.raises(NotImplementedError, match=message):
            transform()


@pytest.mark.parametrize("name", LOSSES)
def test_forward_mode_is_refused(name):
    s, p, *labels = batch()
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(s, torch.ones_like(s))
        message = f"{name}: forward-mode differentiation are not supported by the kernels"
        with pytest.raises(NotImplementedError, match=message):
            LOSSES[name](dual, p, *labels, "fused")


@pytest.mark.parametrize("name", [x for x in LOSSES if x != "mine_quadruplets"])
def test_second_derivatives_are_refused(name):
    s, p, *labels = batch()
    s.requires_grad_()
    (grad,) = torch.autograd.grad(LOSSES[name](s, p, *labels, "fused"), s, create_graph=True)
    op = "quadruplet_loss" if name == "quadruplet_loss" else "pair_distances"
    with pytest.raises(
        NotImplementedError, match=f"{op}: second derivatives are not supported by the kernels"
    ):
        grad.sum().backward()


def cdist_has_second_derivatives():
    """Not in torch 2.6."""
    x = torch.rand(2, 3, requires_grad=True)
    (grad,) = torch.autograd.grad(torch.cdist(x, x.detach() + 1).sum(), x, create_graph=True)
    try:
        torch.autograd.grad(grad.sum(), x)
    except NotImplementedError:
        return False
    return True


@pytest.mark.parametrize("name", [x for x in LOSSES if x != "mine_quadruplets"])
def test_the_reference_can_be_transformed(name):
    """As the refusals promise."""
    if name != "quadruplet_loss" and not cdist_has_second_derivatives():
        pytest.skip("this torch has no second derivatives of cdist")
    s, p, *labels = batch(torch.float64)
    s.requires_grad_()

    def loss(s, impl="reference"):
        return LOSSES[name](s, p.to(s.dtype), *labels, impl)

    (expected,) = torch.autograd.grad(loss(s, "fused"), s)
    torch.testing.assert_close(torch.func.grad(loss)(s.detach()), expected)
    # The Hessian times a vector of ones: two backward passes, and, but for cdist, which torch
    # cannot, forward over backward; against finite differences.
    (grad,) = torch.autograd.grad(loss(s), s, create_graph=True)
    (second,) = torch.autograd.grad(grad.sum(), s)
    ones = torch.ones_like(s)
    ahead, behind = (torch.func.grad(loss)(s.detach() + x * ones) for x in (1e-6, -1e-6))
    numeric = (ahead - behind) / 2e-6
    assert numeric.abs().max() > 1e-3
    torch.testing.assert_close(second, numeric, rtol=1e-4, atol=1e-6)
    if name == "quadruplet_loss":
        _, product = torch.func.jvp(torch.func.grad(loss), (s.detach(),), (ones,))
        torch.testing.assert_close(product, numeric, rtol=1e-4, atol=1e-6)
