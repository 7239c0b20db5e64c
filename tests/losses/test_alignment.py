"""Contrastive losses against loops."""

from __future__ import annotations

import math
import re

import pytest
import torch
from torch.nn import functional as F

from zsbir_fast.losses.alignment import alignment_loss, supervised_contrastive_loss
from zsbir_fast.losses.classification import CosineClassifier

LABELS = torch.tensor([0, 1, 0, 2, 1])


def features(seed):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(5, 3, generator=g, dtype=torch.float64)


def loop_rows(logits, positives, candidates):
    losses = []
    for i in range(len(logits)):
        total = sum(math.exp(logits[i][j]) for j in candidates(i))
        chosen = positives(i)
        if chosen:
            terms = [math.log(math.exp(logits[i][j]) / total) for j in chosen]
            losses.append(-sum(terms) / len(terms))
    return sum(losses) / len(losses)


def test_alignment_follows_its_definition():
    s, p = features(0), features(1)
    logits = (F.normalize(s, dim=1) @ F.normalize(p, dim=1).T / 0.2).tolist()
    transposed = [list(row) for row in zip(*logits, strict=True)]

    def same(i):
        return [j for j in range(5) if LABELS[j] == LABELS[i]]

    expected = sum(loop_rows(m, same, lambda i: range(5)) for m in (logits, transposed)) / 2
    assert float(alignment_loss(s, p, LABELS, temperature=0.2)) == pytest.approx(expected)


def test_supervised_contrastive_follows_its_definition():
    x = features(0)
    logits = (F.normalize(x, dim=1) @ F.normalize(x, dim=1).T / 0.2).tolist()
    expected = loop_rows(
        logits,
        lambda i: [j for j in range(5) if LABELS[j] == LABELS[i] and j != i],
        lambda i: [j for j in range(5) if j != i],
    )
    loss = supervised_contrastive_loss(x, LABELS, temperature=0.2)
    assert float(loss) == pytest.approx(expected)


def test_gradients():
    s, p = features(0).requires_grad_(), features(1).requires_grad_()
    assert torch.autograd.gradcheck(lambda s, p: alignment_loss(s, p, LABELS), (s, p))
    assert torch.autograd.gradcheck(lambda s: supervised_contrastive_loss(s, LABELS), (s,))


@pytest.mark.parametrize("rows", [0, 1])
def test_without_positives_the_loss_is_zero_with_a_finite_gradient(rows):
    x = torch.randn(rows, 3, requires_grad=True)
    loss = supervised_contrastive_loss(x, LABELS[:rows])
    loss.backward()
    assert loss == 0
    assert (x.grad == 0).all()


def test_classifier_is_a_cross_entropy_of_scaled_cosines():
    torch.manual_seed(0)
    classifier = CosineClassifier(width=3, classes=4, temperature=0.5)
    assert repr(classifier) == "CosineClassifier(width=3, classes=4, temperature=0.5)"
    x = torch.randn(5, 3)
    logits = torch.stack(
        [torch.cosine_similarity(x, w.expand_as(x)) for w in classifier.weight], dim=1
    )
    torch.testing.assert_close(classifier(x, LABELS), F.cross_entropy(logits / 0.5, LABELS))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: alignment_loss(torch.zeros(2, 3), torch.zeros(2, 4), LABELS[:2]),
            "alignment_loss: photos must be 3 wide like sketches, got 4",
        ),
        (
            lambda: alignment_loss(torch.zeros(2, 3), torch.zeros(2, 3), LABELS),
            "alignment_loss: labels must be [2], got [5]",
        ),
        (
            lambda: supervised_contrastive_loss(torch.zeros(2), LABELS[:2]),
            "supervised_contrastive_loss: features must be [B, D], got [2]",
        ),
        (
            lambda: supervised_contrastive_loss(torch.zeros(5, 2), LABELS, temperature=0.0),
            "supervised_contrastive_loss: temperature must be positive, got 0.0",
        ),
        (
            lambda: CosineClassifier(width=2, classes=3, temperature=0.0),
            "CosineClassifier: temperature must be positive, got 0.0",
        ),
    ],
)
def test_wrong_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call()
