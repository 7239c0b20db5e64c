"""Cross-batch memory: what it holds, what the loss sees of it, and how it is stored."""

from __future__ import annotations

import re

import pytest
import torch
from torch.nn import functional as F

import zsbir_fast as zf
from zsbir_fast.losses.cross_batch_memory import FeatureBank


def batches(count, rows=6, width=4):
    g = torch.Generator().manual_seed(0)
    for _ in range(count):
        sketches, photos = torch.randn(2, rows, width, generator=g)
        yield sketches, photos, torch.randint(0, 3, (rows,), generator=g)


def test_bank_overwrites_the_oldest_rows():
    bank, rows = FeatureBank(size=5, width=2), torch.arange(14.0).view(7, 2)
    bank.add(rows[:3], torch.arange(3))
    assert len(bank) == 3
    torch.testing.assert_close(bank.features, rows[:3])
    bank.add(rows[3:7], torch.arange(3, 7))
    assert len(bank) == 5
    torch.testing.assert_close(bank.features, rows[[5, 6, 2, 3, 4]])
    assert bank.labels.tolist() == [5, 6, 2, 3, 4]


def test_of_more_rows_than_fit_the_last_ones_stay():
    bank, rows = FeatureBank(size=3, width=2), torch.randn(8, 2, requires_grad=True)
    bank.add(rows[:1], torch.zeros(1, dtype=torch.int64))
    bank.add(rows, torch.arange(8))
    assert sorted(bank.labels.tolist()) == [5, 6, 7]
    torch.testing.assert_close(bank.features[bank.labels.argsort()], rows[5:])
    assert not bank.features.requires_grad


@pytest.mark.parametrize("positives", [False, True])
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("preset", ["domain_balanced", "cross_symmetric", "full"])
def test_loss_equals_explicit_concatenation(positives, symmetric, preset):
    loss = zf.WeightedQuadrupletLoss(preset=preset, symmetric=symmetric, margins=0.6)
    memory = zf.CrossBatchMemory(loss, size=9, width=4, past_positives=positives)
    past = [torch.zeros(0, 4), torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)]

    def one_direction(anchors, others, labels, weights, anchor_past, other_past):
        pool, pool_labels = torch.cat([others, other_past]), torch.cat([labels, past[2]])
        anchor_pool = torch.cat([anchors, anchor_past])
        mined = zf.mine_quadruplets(
            anchors.detach(),
            pool.detach(),
            labels,
            pool_labels,
            sketch_negative=loss.sketch_negative,
            sketch_references=anchor_pool.detach(),
            sketch_reference_labels=pool_labels,
            positive_photos=None if positives else len(others),
        )
        return zf.quadruplet_loss(
            anchors,
            pool,
            mined,
            weights=weights,
            preset=preset,
            margins=0.6,
            sketch_references=anchor_pool,
        )

    for number, (sketches, photos, labels) in enumerate(batches(4)):
        inputs = [x.clone().requires_grad_() for x in (sketches, photos)]
        copies = [x.clone().requires_grad_() for x in (sketches, photos)]
        weights = torch.linspace(0.5, 1.5, 6)
        got = memory(*inputs, labels, weights)
        s, p = (F.normalize(x, dim=1) for x in copies)
        expected = one_direction(s, p, labels, weights, past[0], past[1])
        if symmetric:
            other = one_direction(p, s, labels, weights, past[1], past[0])
            expected = (expected + other) / 2
        torch.testing.assert_close(got, expected)
        got.backward()
        expected.backward()
        for x, y in zip(inputs, copies, strict=True):
            torch.testing.assert_close(x.grad, y.grad)
        # the newest 9 of each modality; their order does not matter
        unit = [F.normalize(x, dim=1) for x in (sketches, photos)]
        past = [torch.cat([a, b])[-9:] for a, b in zip(past, (*unit, labels), strict=True)]
        assert len(memory.photos) == min(9, 6 * (number + 1))


def test_the_memory_adds_harder_negatives():
    *first, last = batches(4)
    loss = zf.WeightedQuadrupletLoss(margins=2.0)
    memory = zf.CrossBatchMemory(loss, size=100, width=4)
    for each in first:
        memory(*each)
    assert memory(*last) > loss(*last)


def test_warm_up_only_remembers():
    loss = zf.WeightedQuadrupletLoss(margins=2.0)
    memory = zf.CrossBatchMemory(loss, size=100, width=4, warm_up=2)
    values = [(memory(*each) == loss(*each)).item() for each in batches(4)]
    assert values == [True, True, False, False]
    assert len(memory.sketches) == 24


def test_evaluation_remembers_nothing():
    memory = zf.CrossBatchMemory(zf.WeightedQuadrupletLoss(), size=100, width=4)
    memory(*next(batches(1)))
    memory.eval()
    memory(*next(batches(1)))
    assert len(memory.photos) == 6


def test_state_dict_resumes_exactly(tmp_path):
    loss = zf.WeightedQuadrupletLoss(margins=2.0)
    memory, resumed = (zf.CrossBatchMemory(loss, size=8, width=4, warm_up=1) for _ in range(2))
    *first, third, fourth = batches(5)
    for each in first:
        memory(*each)
    torch.save(memory.state_dict(), tmp_path / "memory.pt")
    resumed.load_state_dict(torch.load(tmp_path / "memory.pt", weights_only=True))
    for each in (third, fourth):
        assert torch.equal(memory(*each), resumed(*each))
    for key, value in memory.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key


@pytest.mark.parametrize("normalize", [False, True])
def test_references_serve_other_losses(normalize):
    memory = zf.CrossBatchMemory(zf.WeightedQuadrupletLoss(normalize=normalize), size=100, width=4)
    pairs = list(batches(2))
    memory(*pairs[0])
    if normalize:
        pairs = [(F.normalize(s, dim=1), F.normalize(p, dim=1), labels) for s, p, labels in pairs]
    (s0, p0, l0), (s1, p1, l1) = pairs
    features, labels = torch.cat([p1, p0]), torch.cat([l1, l0])
    got = zf.batch_all_triplet_loss(s1, l1, *memory.references(p1, l1))
    torch.testing.assert_close(got, zf.batch_all_triplet_loss(s1, l1, features, labels))
    torch.testing.assert_close(memory.references(s1, l1, "sketch")[0], torch.cat([s1, s0]))
    empty = zf.CrossBatchMemory(memory.loss, size=100, width=4)
    torch.testing.assert_close(empty.references(p0, l0), (p0, l0))
    with pytest.raises(ValueError, match="modality must be one of sketch, photo, got 'text'"):
        memory.references(p1, l1, "text")


@pytest.mark.parametrize(
    ("options", "arguments", "message"),
    [
        ({}, {"size": 0}, "size must be in [1, 65536], got 0"),
        ({}, {"size": 65_537}, "size must be in [1, 65536], got 65537"),
        ({}, {"width": 0}, "width must be at least 1, got 0"),
        ({}, {"warm_up": -1}, "warm_up must be at least 0, got -1"),
        ({"negative": "all"}, {}, "loss must mine its negatives, got one with negative='all'"),
        (
            {"positive": "paired"},
            {"past_positives": True},
            "past_positives must be False for a loss of",
        ),
    ],
)
def test_wrong_arguments_are_named(options, arguments, message):
    loss = zf.WeightedQuadrupletLoss(**options)
    with pytest.raises(ValueError, match=re.escape(f"CrossBatchMemory: {message}")):
        zf.CrossBatchMemory(loss, **{"size": 10, "width": 4, **arguments})


def test_size_and_width_cannot_be_swapped_by_their_order():
    loss = zf.WeightedQuadrupletLoss()
    with pytest.raises(TypeError, match="takes 2 positional arguments but 4 were given"):
        zf.CrossBatchMemory(loss, 128, 1024)
    with pytest.raises(TypeError, match="takes 1 positional argument but 3 were given"):
        FeatureBank(128, 1024)


def test_the_memory_shows_its_options_and_how_full_it_is():
    memory = zf.CrossBatchMemory(zf.WeightedQuadrupletLoss(), size=10, width=4, warm_up=1)
    memory.sketches.add(torch.randn(3, 4), torch.arange(3))
    lines = [line.strip() for line in repr(memory).splitlines()]
    assert lines[1] == "size=10, width=4, past_positives=False, warm_up=1"
    assert lines[2].startswith("(loss): WeightedQuadrupletLoss(negative='hardest', preset=")
    assert lines[3] == "(sketches): FeatureBank(size=10, width=4, filled=3)"


def test_another_width_is_named():
    memory = zf.CrossBatchMemory(zf.WeightedQuadrupletLoss(), size=10, width=4)
    features = torch.zeros(2, 3)
    with pytest.raises(ValueError, match=re.escape("sketches must be [B, 4], got [2, 3]")):
        memory(features, features, torch.arange(2))
