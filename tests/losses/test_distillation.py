"""Distillation and alignment with noise, against formulas written out in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import zsbir_fast as zf


def softmax(rows):
    powers = np.exp(rows - rows.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def numbers(*shape, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype) * 3


def expected_cross_entropy(logits, targets, prior, rows):
    total, count = 0.0, 0
    for b in range(len(logits)):
        if rows[b]:
            count += 1
            wanted = softmax(targets[b : b + 1] + prior[b : b + 1])[0]
            total -= (wanted * np.log(softmax(logits[b : b + 1])[0])).sum()
    return total / max(1, count)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 6), st.integers(1, 9), st.integers(0, 10**6))
def test_soft_cross_entropy_is_the_formula(batch, classes, seed):
    logits, targets, prior = (numbers(batch, classes, seed=seed + i) for i in range(3))
    rows = numbers(batch, seed=seed + 3) > 0
    found = zf.soft_cross_entropy(logits, targets, prior=prior, rows=rows)
    expected = expected_cross_entropy(*(x.numpy() for x in (logits, targets, prior, rows)))
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    everything = expected_cross_entropy(
        logits.numpy(), targets.numpy(), 0 * prior.numpy(), np.ones(batch, bool)
    )
    np.testing.assert_allclose(zf.soft_cross_entropy(logits, targets), everything, rtol=1e-12)


def test_gradients_reach_both_networks():
    logits, targets = (numbers(3, 4, seed=i).requires_grad_() for i in (0, 1))
    rows = torch.tensor([True, False, True])
    torch.autograd.gradcheck(lambda a, b: zf.soft_cross_entropy(a, b, rows=rows), (logits, targets))
    zf.soft_cross_entropy(logits, targets.detach(), rows=rows).backward()
    wanted = (softmax(logits.detach().numpy()) - softmax(targets.detach().numpy())) / 2
    wanted[1] = 0
    np.testing.assert_allclose(logits.grad, wanted, atol=1e-14)
    assert targets.grad is None


def test_noise_alignment_and_its_gradient_are_the_formulas():
    features, noise = numbers(5, 7, seed=1).requires_grad_(), numbers(5, 7, seed=2)
    loss = zf.noise_alignment_loss(features, noise)
    own, target = softmax(features.detach().numpy()), softmax(noise.numpy())
    np.testing.assert_allclose(loss.item(), (target * np.log(target / own)).sum() / 5, rtol=1e-12)
    loss.backward()
    np.testing.assert_allclose(features.grad, (own - target) / 5, atol=1e-14)


def test_alignment_is_zero_where_features_are_the_noise():
    noise = numbers(4, 6)
    assert zf.noise_alignment_loss(noise + 3, noise) == pytest.approx(0, abs=1e-12)


def test_nothing_gives_zero_and_no_nan():
    empty = torch.zeros(0, 5, requires_grad=True)
    for loss in (
        zf.soft_cross_entropy(empty, empty),
        zf.noise_alignment_loss(empty, empty.detach()),
        zf.soft_cross_entropy(
            numbers(2, 3).requires_grad_(), numbers(2, 3), rows=torch.zeros(2, dtype=torch.bool)
        ),
    ):
        assert loss == 0
        loss.backward()


def test_half_precision_is_computed_in_float32():
    logits, targets = numbers(4, 100, seed=1), numbers(4, 100, seed=2)
    for loss in (zf.soft_cross_entropy, zf.noise_alignment_loss):
        found = loss(logits.half(), targets.half())
        assert found.dtype == torch.float32
        assert found.item() == pytest.approx(loss(logits, targets).item(), rel=2e-3)


def test_what_does_not_fit_is_refused():
    x = torch.zeros(3, 4)
    with pytest.raises(ValueError, match=r"targets must be 4 wide like logits, got 5"):
        zf.soft_cross_entropy(x, torch.zeros(3, 5))
    with pytest.raises(ValueError, match=r"targets must be \[3, 4\] like logits, got \[2, 4\]"):
        zf.soft_cross_entropy(x, torch.zeros(2, 4))
    with pytest.raises(ValueError, match=r"prior must be \[3, 4\] like logits, got \[4\]"):
        zf.soft_cross_entropy(x, x, prior=torch.zeros(4))
    with pytest.raises(TypeError, match=r"rows must be bool, got torch.int64"):
        zf.soft_cross_entropy(x, x, rows=torch.zeros(3, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"rows must be \[3\] like logits, got \[4\]"):
        zf.soft_cross_entropy(x, x, rows=torch.zeros(4, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"noise must be \[3, 4\] like features, got \[2, 4\]"):
        zf.noise_alignment_loss(x, torch.zeros(2, 4))
    with pytest.raises(TypeError, match=r"features must be"):
        zf.noise_alignment_loss(x.long(), x)
