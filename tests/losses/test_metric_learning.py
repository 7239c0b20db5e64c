"""The drop-in parts against pytorch-metric-learning itself."""

from __future__ import annotations

import re

import pytest
import torch

import zsbir_fast as zf

pml_losses = pytest.importorskip("pytorch_metric_learning.losses")
pml_miners = pytest.importorskip("pytorch_metric_learning.miners")


def batch(seed=0, rows=24, classes=5):
    g = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(rows, 7, generator=g, dtype=torch.float64)
    return embeddings, torch.randint(0, classes, (rows,), generator=g)


def assert_same(ours, theirs, *inputs):
    """The same value and the same gradients of every input that is floating point."""
    results = []
    for call in (ours, theirs):
        leaves = [
            x.clone().requires_grad_() if torch.is_tensor(x) and x.is_floating_point() else x
            for x in inputs
        ]
        value = call(*leaves)
        value.backward()
        grads = [x.grad for x in leaves if torch.is_tensor(x) and x.requires_grad]
        results.append((value.detach(), grads))
    torch.testing.assert_close(results[0], results[1])
    assert results[0][0] > 0


class Memory(pml_losses.CrossBatchMemory):
    """Takes our loss: the original goes by a list of its own class names."""

    @staticmethod
    def supported_losses():
        return ["BatchAllTripletLoss", "TripletMarginLoss"]


def test_losses_and_miners_show_their_options():
    assert repr(zf.BatchAllTripletLoss(margin=0.3, distance="cosine")) == (
        "BatchAllTripletLoss(margin=0.3, distance='cosine', normalize=True, "
        "reduction='mean_nonzero', gather='auto', impl='fused')"
    )
    assert repr(zf.HardTripletMiner(negative="semihard")) == (
        "HardTripletMiner(negative='semihard', distance='euclidean', normalize=True, margin=0.2, "
        "impl='fused')"
    )


@pytest.mark.parametrize("margin", [0.05, 0.7])
def test_batch_all_is_the_triplet_margin_loss(margin):
    ours = zf.BatchAllTripletLoss(margin=margin)
    theirs = pml_losses.TripletMarginLoss(margin=margin)
    assert_same(ours, theirs, *batch())


def test_defaults_are_the_same():
    assert_same(zf.BatchAllTripletLoss(), pml_losses.TripletMarginLoss(), *batch())


def test_references_are_where_the_others_are_found():
    ours, theirs = zf.BatchAllTripletLoss(), pml_losses.TripletMarginLoss()
    assert_same(ours, theirs, *batch(), None, *batch(1, rows=31))
    embeddings, labels = batch()
    same_labels = (embeddings, labels, None, embeddings + 0.1, labels)
    assert_same(ours, theirs, *same_labels)


def test_mined_triplets_are_used():
    ours, theirs = zf.BatchAllTripletLoss(margin=0.3), pml_losses.TripletMarginLoss(margin=0.3)
    embeddings, labels = batch()
    mined = pml_miners.TripletMarginMiner(margin=0.3, type_of_triplets="hard")(embeddings, labels)
    assert len(mined[0]) > 0
    assert_same(ours, theirs, embeddings, labels, mined)
    references = batch(1, rows=31)
    mined = pml_miners.BatchHardMiner()(embeddings, labels, *references)
    assert_same(ours, theirs, embeddings, labels, mined, *references)


@pytest.mark.parametrize("rows", [0, 1, 2])
def test_without_triplets_the_loss_is_zero(rows):
    for tuples in (None, (torch.zeros(0, dtype=torch.int64),) * 3):
        embeddings = torch.randn(rows, 3, requires_grad=True)
        loss = zf.BatchAllTripletLoss()(embeddings, torch.arange(rows), tuples)
        loss.backward()
        assert loss == 0
        assert (embeddings.grad == 0).all()


@pytest.mark.parametrize("with_miner", [False, True])
def test_their_cross_batch_memory_wraps_our_loss(with_miner):
    miners = [pml_miners.BatchHardMiner(), zf.HardTripletMiner()] if with_miner else [None, None]
    wrapped = [
        Memory(loss, embedding_size=7, memory_size=40, miner=miner)
        for loss, miner in zip(
            (pml_losses.TripletMarginLoss(margin=0.2), zf.BatchAllTripletLoss(margin=0.2)),
            miners,
            strict=True,
        )
    ]
    for seed in range(5):  # wraps around after the second batch
        if with_miner:  # the miner may choose the image itself, which the memory then takes out
            values = [memory(*batch(seed)) for memory in wrapped]
            torch.testing.assert_close(*values)
        else:
            assert_same(*wrapped[::-1], *batch(seed))


@pytest.mark.parametrize("seed", range(4))
def test_miner_chooses_as_batch_hard(seed):
    embeddings, labels = batch(seed, classes=9)
    ours, theirs = zf.HardTripletMiner(), pml_miners.BatchHardMiner()
    references = batch(seed + 10, rows=31)
    for more in ((), references):
        got, expected = ours(embeddings, labels, *more), theirs(embeddings, labels, *more)
        for index, theirs_index in zip(got, expected, strict=True):
            assert index.tolist() == theirs_index.tolist()


def test_miner_and_their_loss():
    theirs = pml_losses.TripletMarginLoss(margin=0.4)
    mine, hard = zf.HardTripletMiner(), pml_miners.BatchHardMiner()
    assert_same(
        lambda e, labels: theirs(e, labels, mine(e, labels)),
        lambda e, labels: theirs(e, labels, hard(e, labels)),
        *batch(),
    )


def test_a_miner_finds_nothing_among_no_rows():
    mined = zf.HardTripletMiner()(torch.empty(0, 7), torch.empty(0, dtype=torch.int64))
    assert [(x.dtype, x.tolist()) for x in mined] == [(torch.int64, [])] * 3


def test_semihard_negatives_are_farther_than_the_positive():
    embeddings, labels = batch()
    anchors, positives, negatives = zf.HardTripletMiner(negative="semihard", margin=5.0)(
        embeddings, labels
    )
    unit = torch.nn.functional.normalize(embeddings, dim=1)
    distances = torch.cdist(unit, unit)
    assert len(anchors) > 0
    semihard = distances[anchors, negatives] > distances[anchors, positives]
    farthest = distances.masked_fill(labels[:, None] == labels, 0).amax(1)[anchors]
    assert (semihard | (distances[anchors, negatives] == farthest)).all()
    assert semihard.any()


def test_a_lone_image_is_no_positive_and_a_duplicate_is():
    embeddings = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    anchors, positives, negatives = zf.HardTripletMiner()(embeddings, torch.tensor([0, 1, 1]))
    assert anchors.tolist() == [1, 2]
    assert positives.tolist() == [2, 1]
    assert negatives.tolist() == [0, 0]


def test_wrong_use_is_named():
    embeddings, labels = batch()
    loss, miner = zf.BatchAllTripletLoss(), zf.HardTripletMiner()
    some = tuple(torch.tensor([0]) for _ in range(4))
    for call, message in (
        (lambda: zf.BatchAllTripletLoss(margin=-1.0), "margin must be finite and not negative"),
        (lambda: zf.BatchAllTripletLoss(reduction="none"), "reduction must be one of mean_nonzero"),
        (lambda: zf.HardTripletMiner(negative="all"), "negative must be one of hardest, semihard"),
        (lambda: zf.HardTripletMiner(margin=-1.0), "margin must be finite and not negative"),
        (lambda: loss(embeddings, labels, ref_emb=embeddings), "ref_labels must be given with"),
        (lambda: miner(embeddings, labels, embeddings), "ref_labels must be given with ref_emb"),
        (lambda: loss(embeddings, labels, some), "indices_tuple of pairs must be all pairs, or"),
        (lambda: loss(embeddings, labels, some[:2]), "must hold three or four tensors, got 2"),
        (lambda: loss(embeddings, labels[1:]), "labels must be [24], got [23]"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            call()
