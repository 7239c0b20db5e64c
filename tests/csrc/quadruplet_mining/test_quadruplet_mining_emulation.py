"""The CUDA kernels of quadruplet_mining on CPU threads, under the operators."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

import zsbir_fast as zf
from zsbir_fast.ops.quadruplet_mining import (
    hinge_rows,
    pair_distances,
    probes,
    quadruplet_hinges,
    select_pairs,
)

DISTANCES = ["euclidean", "squared_euclidean", "cosine"]
few = settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture(scope="module")
def kernels(emulated_module: Callable[[str], ModuleType]) -> ModuleType:
    return emulated_module("quadruplet_mining")


@pytest.fixture
def _emulated(kernels: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Operators on CPU tensors run the emulated CUDA kernels."""
    for module in (hinge_rows, pair_distances, probes, quadruplet_hinges, select_pairs):
        monkeypatch.setattr(module, "_C", kernels)
    # What CUDA tensors take, too:
    monkeypatch.setattr(pair_distances, "_weights_cpu", pair_distances._weights_of)


@st.composite
def batches(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Sketches, photos and their labels; steps of 1/2 make ties."""
    sketches, photos = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    width, classes = draw(st.integers(1, 20)), draw(st.integers(1, 4))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    rows = []
    for count in (sketches, photos):
        steps = torch.randint(-2, 3, (count, width), generator=generator).to(dtype) / 2
        noise = torch.randn(count, width, generator=generator, dtype=dtype)
        rows.append(steps if draw(st.booleans()) else noise)
    labels = [torch.randint(classes, (len(x),), generator=generator) for x in rows]
    return rows[0], rows[1], labels[0], labels[1]


def with_gradients(
    loss_of: Callable[..., Tensor], sketches: Tensor, photos: Tensor
) -> tuple[Tensor, ...]:
    rows = [x.clone().requires_grad_() for x in (sketches, photos)]
    loss = loss_of(*rows)
    return loss.detach(), *torch.autograd.grad(loss, rows)


def assert_alike(first: tuple[Tensor, ...], second: tuple[Tensor, ...]) -> None:
    tolerance = 1e-9 if first[0].dtype == torch.float64 else 2e-4
    for a, b in zip(first, second, strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.usefixtures("_emulated")
@few
@given(
    batch=batches(),
    positive=st.sampled_from(["hardest", "easiest", "semihard"]),
    negative=st.sampled_from(["hardest", "semihard"]),
    sketch_negative=st.sampled_from(["anchor", "positive", "none"]),
    distance=st.sampled_from(["euclidean", "squared_euclidean"]),
    distinct=st.booleans(),
)
def test_mining(
    batch: tuple[Tensor, ...],
    positive: str,
    negative: str,
    sketch_negative: str,
    distance: str,
    distinct: bool,
) -> None:
    options = {
        "positive": positive,
        "negative": negative,
        "sketch_negative": sketch_negative,
        "distance": distance,
        "margin": 0.5,
        "distinct_negatives": distinct,
    }
    found = zf.mine_quadruplets(*batch, **options)
    expected = zf.mine_quadruplets(*batch, **options, impl="reference")
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a, b)


@pytest.mark.usefixtures("_emulated")
@few
@given(
    batch=batches(),
    preset=st.sampled_from(["triplet", "domain_balanced", "full", "chen2017", "ramln"]),
    distance=st.sampled_from(DISTANCES),
    reduction=st.sampled_from(["mean", "mean_nonzero", "sum"]),
)
def test_hinges(batch: tuple[Tensor, ...], preset: str, distance: str, reduction: str) -> None:
    sketches, photos, *labels = batch
    mined = zf.mine_quadruplets(sketches, photos, *labels, impl="reference")
    weights = torch.linspace(0.5, 1.5, len(sketches), dtype=sketches.dtype)

    def loss(impl: str) -> Callable[..., Tensor]:
        return lambda s, p: zf.quadruplet_loss(
            s,
            p,
            mined,
            weights=weights,
            preset=preset,
            distance=distance,
            reduction=reduction,
            impl=impl,
        )

    assert_alike(
        with_gradients(loss("fused"), sketches, photos),
        with_gradients(loss("reference"), sketches, photos),
    )


@pytest.mark.usefixtures("_emulated")
@pytest.mark.parametrize("row", [-1, 7, 10**8, 2**62])
@pytest.mark.parametrize("role", range(3))
def test_rows_that_do_not_exist(row: int, role: int) -> None:
    """No kernel reads there: the hinge is NaN, which shows in the loss, and passes no gradient."""
    rows = [torch.rand(n, 3, generator=torch.Generator().manual_seed(n)) for n in (5, 7, 4)]
    index = torch.arange(5)
    chosen = [index, index + 2, index % 4]
    chosen[role] = chosen[role].clone()
    chosen[role][3] = row
    form = [1.0, 1.0, 1.0, 1.0, 1.0], [3.0] * 5, -1.0
    given = (*rows, *chosen, index != 1)
    hinges, slopes = torch.ops.zsbir.quadruplet_hinges(*given, *form, 0)
    assert hinges.isnan().tolist() == [False, False, False, True, False]
    slopes[3] = 1
    backward = torch.ops.zsbir.quadruplet_hinges_backward
    assert all(x.isfinite().all() for x in backward(torch.ones(5), slopes, *given, 0))


@pytest.mark.usefixtures("_emulated")
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e20])
@pytest.mark.parametrize("preset", ["full", "ramln"])
def test_hinges_of_nan_stay_nan(value: float, preset: str) -> None:
    rows = torch.rand(6, 3, generator=torch.Generator().manual_seed(0))
    rows[2:4] = value
    labels = torch.arange(6) % 2
    mined = zf.mine_quadruplets(
        rows.clamp(0, 1).nan_to_num(), rows[:2].repeat(3, 1), labels, labels
    )
    losses = []
    for impl in ("fused", "reference"):
        with pytest.MonkeyPatch.context() as patch:  # as on CUDA, values are not looked at
            patch.setattr(torch.compiler, "is_compiling", lambda: True)
            options = {"preset": preset, "margins": 5.0, "reduction": "none", "impl": impl}
            losses.append(zf.quadruplet_loss(rows, rows, mined, **options))
    assert torch.equal(losses[0].isnan(), losses[1].isnan())
    assert losses[0].isnan().all()


@pytest.mark.usefixtures("_emulated")
@few
@given(batch=batches(), distance=st.sampled_from(DISTANCES), itself=st.booleans())
def test_batch_all_triplets(batch: tuple[Tensor, ...], distance: str, itself: bool) -> None:
    sketches, photos, labels, photo_labels = batch

    def loss(impl: str) -> Callable[..., Tensor]:
        def of(s: Tensor, p: Tensor) -> Tensor:
            references = () if itself else (p, photo_labels)
            both = zf.batch_all_triplet_loss(
                s, labels, *references, margin=0.5, distance=distance, impl=impl
            )
            return both + 0 * p.sum()

        return of

    if sketches.dtype == torch.float32:  # a hinge at its kink falls to either side by rounding
        sketches, photos = sketches.double(), photos.double()
    assert_alike(
        with_gradients(loss("fused"), sketches, photos),
        with_gradients(loss("reference"), sketches, photos),
    )


@pytest.mark.usefixtures("_emulated")
@settings(few, max_examples=8)
@given(
    batch=batches(),
    coefficients=st.sampled_from(
        [(1, 1, 0, 0, 0), (1, 0, 1, 0, 0), (1, 1, 1, 1, 0), (1, 0, 0, 0, 1), (1, 0, 0, 1, 1)]
    ),
    static=st.booleans(),
)
def test_batch_all_quadruplets(
    batch: tuple[Tensor, ...], coefficients: tuple[int, ...], static: bool
) -> None:
    sketches, photos, *labels = (x[:12] for x in batch)
    sketches, photos = sketches.double(), photos.double()

    def loss(impl: str) -> Callable[..., Tensor]:
        return lambda s, p: zf.batch_all_quadruplet_loss(
            s, p, *labels, coefficients=coefficients, margins=(0.5, 0.3, 0.7, 0.4, 0.25), impl=impl
        )

    with pytest.MonkeyPatch.context() as patch:
        # On CUDA no shape may depend on the labels : all distances are sorted, +inf for the others.
        patch.setattr(probes, "_shapes_are_fixed", lambda _: static)
        found = with_gradients(loss("fused"), sketches, photos)
    assert_alike(found, with_gradients(loss("reference"), sketches, photos))
