"""What losses and miners take for labels and features, and how they refuse everything else."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

import zsbir_fast as zf
from zsbir_fast.losses.alignment import alignment_loss, supervised_contrastive_loss
from zsbir_fast.losses.classification import CosineClassifier
from zsbir_fast.losses.cross_batch_memory import FeatureBank
from zsbir_fast.methods.regularisers import DomainMeans

G = torch.Generator().manual_seed(0)
SKETCHES, PHOTOS = torch.randn(12, 5, generator=G), torch.randn(12, 5, generator=G)
LABELS = torch.arange(12) // 3
TOKENS, MASK = torch.randn(12, 2, 5, generator=G), torch.ones(12, 2, dtype=torch.bool)
CLASSIFIER = CosineClassifier(width=5, classes=4)

# Each with the argument's name for features and labels.
CALLS = {
    "WeightedQuadrupletLoss": (
        lambda x, y: zf.WeightedQuadrupletLoss()(x, PHOTOS, y),
        "sketches",
        "labels",
    ),
    "CrossBatchMemory": (
        lambda x, y: zf.CrossBatchMemory(zf.WeightedQuadrupletLoss(), size=20, width=5)(
            x, PHOTOS, y
        ),
        "sketches",
        "labels",
    ),
    "CrossBatchMemory.references": (
        lambda x, y: zf.CrossBatchMemory(zf.WeightedQuadrupletLoss(), size=20, width=5).references(
            x, y
        )[1],
        "features",
        "labels",
    ),
    "FeatureBank": (lambda x, y: FeatureBank(size=20, width=5).add(x, y), "features", "labels"),
    "BatchAllTripletLoss": (lambda x, y: zf.BatchAllTripletLoss()(x, y), "embeddings", "labels"),
    "HardTripletMiner": (lambda x, y: zf.HardTripletMiner()(x, y)[1], "embeddings", "labels"),
    "alignment_loss": (lambda x, y: alignment_loss(x, PHOTOS, y), "sketches", "labels"),
    "supervised_contrastive_loss": (supervised_contrastive_loss, "features", "labels"),
    "CosineClassifier": (CLASSIFIER, "features", "labels"),
    "mine_quadruplets": (
        lambda x, y: zf.mine_quadruplets(x, PHOTOS, y, y).positive,
        "sketches",
        "sketch_labels",
    ),
    "batch_all_triplet_loss": (zf.batch_all_triplet_loss, "anchors", "labels"),
    "batch_all_quadruplet_loss": (
        lambda x, y: zf.batch_all_quadruplet_loss(x, PHOTOS, y, y),
        "sketches",
        "sketch_labels",
    ),
}
LABELLED = CALLS | {
    "token_weighting": (
        lambda _, y: zf.token_weighting(TOKENS, MASK, *(TOKENS,) * 4, y),
        "text",
        "labels",
    ),
}
NOT_LABELS = [
    (None, "integers in a tensor, an array or a list, got None"),
    (3, "integers in a tensor, an array or a list, got int"),
    ("abcdefghijkl", "integers in a tensor, an array or a list, got str"),
    ([None] * 12, "integers in a tensor, an array or a list, got list"),
    (np.array(["a"] * 12), "integers in a tensor, an array or a list, got an array of <U1"),
    (LABELS.float(), "integers, got torch.float32"),
    (LABELS.bool(), "integers, got torch.bool"),
    (LABELS.numpy() * 1.0, "integers, got torch.float64"),
    (LABELS[:, None], "[12], got [12, 1]"),
    (list(range(11)), "[12], got [11]"),
    (LABELS.to_sparse(), "a dense tensor, got torch.sparse_coo"),
    (LABELS.to("meta"), "on cpu like"),
    (np.full(12, 2**64 - 1, dtype=np.uint64), "below 2^63, got larger integers"),
]


@pytest.mark.parametrize("name", LABELLED)
def test_labels_of_any_kind_give_the_same(name):
    call, *_ = LABELLED[name]
    wanted = call(SKETCHES, LABELS)
    array = LABELS.numpy()
    kinds = [LABELS.tolist(), tuple(LABELS.tolist()), array, array[::-1].copy()[::-1]]
    kinds += [array.astype(t) for t in ("int8", "uint16", "uint64", ">i4")]
    kinds += [LABELS.to(t) for t in (torch.uint8, torch.int32, torch.uint32)]
    for labels in kinds:
        got = call(SKETCHES, labels)
        assert (got is None and wanted is None) or torch.equal(got, wanted)


@pytest.mark.parametrize("name", LABELLED)
@pytest.mark.parametrize(("labels", "message"), NOT_LABELS)
def test_what_is_no_label_is_refused(name, labels, message):
    call, _, argument = LABELLED[name]
    with pytest.raises((TypeError, ValueError), match=re.escape(f"{argument} must be {message}")):
        call(SKETCHES, labels)


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize(
    ("features", "message"),
    [
        (None, "a tensor, got None"),
        ([[1.0] * 5] * 12, "a tensor, got list"),
        (SKETCHES.numpy(), "a tensor, got an array of float32"),
        (SKETCHES.to_sparse(), "a dense tensor, got torch.sparse_coo"),
        (SKETCHES.to("meta"), "hold values, got a tensor on device meta"),
        (SKETCHES.long(), "floating point, got torch.int64"),
        (SKETCHES.to(torch.complex64), "floating point, got torch.complex64"),
        (SKETCHES[0], "], got [5]"),  # of [B, D], or [B, 5]
    ],
)
def test_what_is_no_feature_is_refused(name, features, message):
    call, argument, _ = CALLS[name]
    by = "WeightedQuadrupletLoss" if name == "CrossBatchMemory" else name  # which it belongs to
    with pytest.raises((TypeError, ValueError), match=re.escape(f"{by}: {argument} must ")) as e:
        call(features, LABELS)
    assert message.split(", got")[0] in str(e.value)


@pytest.mark.parametrize("argument", ["text", "text_mask", "sketch_values", "text_global"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: None, "must be"),
        (lambda x: x.tolist(), "must be a tensor, got list"),
        (lambda x: x.numpy(), "must be a tensor, got an array of"),
        (lambda x: x.to_sparse(), "must be a dense tensor, got torch.sparse_coo"),
        (lambda x: x.to("meta"), "must "),
        (lambda x: x.int(), "must be "),
    ],
)
def test_what_is_no_text_is_refused(argument, change, message):
    given = {"text": TOKENS, "text_mask": MASK, "sketch_keys": TOKENS, "sketch_values": TOKENS}
    given |= {"photo_keys": TOKENS, "photo_values": TOKENS, "text_global": TOKENS[:, 0]}
    given[argument] = change(given[argument])
    with pytest.raises(
        (TypeError, ValueError), match=re.escape(f"token_weighting: {argument} {message}")
    ):
        zf.token_weighting(**given, labels=LABELS, beta="text_attention")


def test_pairs_of_labels_may_be_lists():
    loss = zf.WeightedQuadrupletLoss()
    few = PHOTOS[:9]
    wanted = loss(SKETCHES, few, (LABELS, LABELS[:9]))
    for pair in (
        (LABELS.tolist(), LABELS[:9].numpy()),
        [LABELS.int(), LABELS[:9].tolist()],
    ):
        assert torch.equal(loss(SKETCHES, few, pair), wanted)
    two = loss(SKETCHES[:2], PHOTOS[:2], [0, 1])  # two labels, and no pair
    assert torch.equal(two, loss(SKETCHES[:2], PHOTOS[:2], torch.tensor([0, 1])))


def test_anchors_are_their_own_references_only_without_others():
    """Labels that are one object, or equal, make no difference."""
    sketches, photos, y = SKETCHES[:8], PHOTOS[:8], torch.arange(8)
    loss = zf.BatchAllTripletLoss(margin=0.5)
    wanted = loss(sketches, y, ref_emb=photos, ref_labels=y.clone())
    assert wanted > 0
    assert torch.equal(loss(sketches, y, ref_emb=photos, ref_labels=y), wanted)
    miner = zf.HardTripletMiner()
    anchors, positives, _ = miner(sketches, y, photos, y)
    assert anchors.tolist() == positives.tolist() == list(range(8))
    # The embeddings given as references are references like any other.
    assert torch.equal(
        loss(sketches, y, ref_emb=sketches, ref_labels=y),
        loss(sketches, y, ref_emb=sketches.clone(), ref_labels=y.clone()),
    )
    same = torch.zeros(8, dtype=torch.int64)
    assert miner(sketches, same + (y > 3), sketches, same + (y > 3))[0].tolist() == list(range(8))


def test_one_tensor_for_two_indices_is_checked_for_both():
    """A positive of -1 was let through where it was the same tensor as the unused sketches."""
    missing = torch.full((12,), -1)
    wrong = zf.Quadruplets(missing, torch.arange(12), missing, torch.ones(12, dtype=torch.bool))
    with pytest.raises(ValueError, match="quadruplets must name rows that exist where they are"):
        zf.quadruplet_loss(SKETCHES, PHOTOS, wrong, preset="triplet")


@pytest.mark.parametrize(
    ("indices", "error", "message"),
    [
        ("abc", TypeError, "indices_tuple must be a tuple, got str"),
        (([0], [1], [2]), TypeError, "hold integer tensors [T], got list for its anchors"),
        (([0.0], [1], [2]), TypeError, "hold integer tensors [T], got torch.float32 [1] for its"),
        (([12], [1], [2]), ValueError, "indices_tuple must name anchors in [0, 12), got 12"),
        (([0], [-1], [2]), ValueError, "indices_tuple must name positives in [0, 12), got -1"),
        (([0], [1, 2], [2]), ValueError, "indices_tuple must hold tensors of one length, got [1, "),
    ],
)
def test_wrong_triplets_are_refused(indices, error, message):
    if error is ValueError or "float" in message:
        indices = tuple(torch.tensor(x) for x in indices)
    with pytest.raises(error, match=re.escape(message)):
        zf.BatchAllTripletLoss()(SKETCHES, LABELS, indices)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: zf.WeightedQuadrupletLoss(margins="x"),
            TypeError,
            "WeightedQuadrupletLoss: margins must be a number or five, got 'x'",
        ),
        (
            lambda: zf.WeightedQuadrupletLoss(margins=[0.1, None, 0.1, 0.1, 0.1]),
            TypeError,
            "margins must be a number or five, got [0.1, None, 0.1, 0.1, 0.1]",
        ),
        (
            lambda: zf.WeightedQuadrupletLoss(cross_modal_share="x"),
            TypeError,
            "cross_modal_share must be a number, got 'x'",
        ),
        (
            lambda: zf.WeightedQuadrupletLoss(negative=None),
            ValueError,
            "negative must be one of hard",
        ),
        (lambda: zf.BatchAllTripletLoss(margin="x"), TypeError, "margin must be a number, got 'x'"),
        (lambda: zf.HardTripletMiner(margin=None), TypeError, "margin must be a number, got None"),
        (lambda: zf.HardTripletMiner(negative=[]), ValueError, "negative must be one of hardest"),
        (
            lambda: CosineClassifier(width=5, classes=0),
            ValueError,
            "classes must be at least 1, got 0",
        ),
        (
            lambda: zf.CrossBatchMemory(None, size=5, width=5),
            TypeError,
            "loss must be a WeightedQuadrupletLoss, got None",
        ),
        (
            lambda: zf.CrossBatchMemory(zf.WeightedQuadrupletLoss(), size=5.5, width=5),
            TypeError,
            "size must be an integer, got 5.5",
        ),
        (lambda: DomainMeans(5, momentum=1), ValueError, "momentum must be below 1, got 1"),
        (lambda: DomainMeans(5, momentum="x"), TypeError, "momentum must be a number, got 'x'"),
        (
            lambda: CLASSIFIER(SKETCHES, LABELS + 1),
            ValueError,
            "CosineClassifier: labels must be in [0, 4), got 4",
        ),
        (
            lambda: CLASSIFIER(SKETCHES, LABELS - 100),  # what torch leaves out
            ValueError,
            "CosineClassifier: labels must be in [0, 4), got -100",
        ),
        (
            lambda: CLASSIFIER(SKETCHES[:, :4], LABELS),
            ValueError,
            "CosineClassifier: features must be [B, 5], got [12, 4]",
        ),
        (
            lambda: zf.quadruplet_loss(SKETCHES, PHOTOS, None),
            TypeError,
            "quadruplet_loss: quadruplets must be Quadruplets, got None",
        ),
        (
            lambda: zf.WeightedQuadrupletLoss()(SKETCHES, PHOTOS, LABELS, [1.0] * 12),
            TypeError,
            "WeightedQuadrupletLoss: weights must be a tensor, got list",
        ),
        (
            lambda: zf.WeightedQuadrupletLoss()(SKETCHES, PHOTOS, LABELS, LABELS),
            TypeError,
            "WeightedQuadrupletLoss: weights must be floating point, got torch.int64",
        ),
        (
            lambda: zf.alignment_weights([0.5], torch.rand(1)),
            TypeError,
            "alignment_weights: local must be a tensor, got list",
        ),
        (
            lambda: zf.alignment_weights(torch.rand(3), torch.tensor([0.5, float("inf"), 0])),
            ValueError,
            "alignment_weights: global_ must be finite, got inf in row 1",
        ),
        (
            lambda: zf.token_weighting(
                TOKENS, MASK, *(TOKENS,) * 4, LABELS, beta="text_attention", text_global=LABELS
            ),
            ValueError,
            "token_weighting: text_global must be [12, 5] for beta='text_attention', got [12]",
        ),
    ],
)
def test_wrong_options_are_refused(call, error, message):
    with pytest.raises(error, match=re.escape(message)):
        call()


def test_the_margin_of_h5_is_the_documented_one_with_any_coefficients():
    mined = zf.mine_quadruplets(SKETCHES, PHOTOS, LABELS, LABELS, distinct_negatives=True)
    only_h5 = (0, 0, 0, 0, 1)
    default = (0.3, 0.3, 0.3, 0.3, 0.15)
    for preset in ("domain_balanced", "full", "chen2017", "ramln"):
        options = {"preset": preset, "coefficients": only_h5}
        loss = zf.quadruplet_loss(SKETCHES, PHOTOS, mined, **options)
        given = zf.quadruplet_loss(SKETCHES, PHOTOS, mined, margins=default, **options)
        assert torch.equal(loss, given)
        other = zf.quadruplet_loss(SKETCHES, PHOTOS, mined, margins=0.3, **options)
        assert other != loss
        every = {
            "preset": preset,
            "coefficients": only_h5,
            "reduction": "sum",
        }
        both = [
            zf.batch_all_quadruplet_loss(SKETCHES, PHOTOS, LABELS, LABELS, margins=m, **every)
            for m in (None, default)
        ]
        assert torch.equal(*both)
