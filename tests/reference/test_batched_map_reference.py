"""The specification: hand tables, and its three steps against the whole."""

from __future__ import annotations

import pytest
import torch

from zsbir_fast.reference import batched_map as reference
from zsbir_fast.reference.definitions import Definition

# Distances of five items; the query's class is 1.
KEYS = torch.tensor([[0.1, 0.2, 0.2, 0.2, 0.9]])
CLASSES = torch.tensor([1, 0, 1, 0, 1], dtype=torch.int32)
# Hits at place 1, in the tie of places 2 to 4 (one of three), and at place 5: AP over R = 3 is
# (1 + p + 3/5) / 3 with p = 2/3 by index, 2/2 at best, 2/4 at worst and as one threshold, and the
# mean of 2/2, 2/3 and 2/4 over the orders of the tie.
HAND = [
    ("index", 2 / 3, 2 / 3),
    ("optimistic", 1.0, 2 / 3),
    ("pessimistic", 1 / 2, 1 / 3),
    ("grouped", 1 / 2, 5 / 9),
    ("expected", (1 + 2 / 3 + 1 / 2) / 3, 5 / 9),
]


def whole(scores, query_class, definition, ks, index=None, *, larger_is_closer=False):
    return reference.batched_map(
        scores,
        query_class,
        CLASSES,
        index,
        larger_is_closer=larger_is_closer,
        ks=ks,
        definition=definition,
    )


@pytest.mark.parametrize(("ties", "at_the_tie", "precision_at_3"), HAND)
def test_hand_table(ties, at_the_tie, precision_at_3):
    row = whole(KEYS, torch.tensor([1]), Definition(ties=ties), [3])[0]
    assert row[0] == 3
    ap = [(1 + p + 3 / 5) / 3 for p in (at_the_tie, 1 / 2, 1.0)]
    assert row[1:4].tolist() == pytest.approx(ap)
    assert row[4] == 1.0
    assert row[6].item() == pytest.approx(precision_at_3)


def test_voc_lifts_precision_to_the_best_behind_it():
    classes = torch.tensor([0, 1, 1], dtype=torch.int32)
    row = reference.batched_map(
        torch.tensor([[3.0, 2.0, 1.0]]),
        torch.tensor([1]),
        classes,
        None,
        larger_is_closer=True,
        ks=[2],
        definition=Definition(ap="voc", ties="index"),
    )[0]
    # precisions 1/2 and 2/3; within the first two only 1/2
    assert row[1].item() == pytest.approx((2 / 3 + 2 / 3) / 2)
    assert row[5].item() == pytest.approx((1 / 2) / 2)


def test_gallery_index_decides_ties():
    index = torch.tensor([0, 3, 2, 1, 4], dtype=torch.int32)
    row = whole(KEYS, torch.tensor([1]), Definition(ties="index"), [], index)[0]
    assert row[1].item() == pytest.approx((1 + 2 / 3 + 3 / 5) / 3)
    index = torch.tensor([0, 2, 1, 3, 4], dtype=torch.int32)
    row = whole(KEYS, torch.tensor([1]), Definition(ties="index"), [], index)[0]
    assert row[1].item() == pytest.approx((1 + 2 / 2 + 3 / 5) / 3)


def test_nothing_relevant_is_nan_and_no_query_is_no_row():
    rows = whole(KEYS, torch.tensor([-1]), Definition(), [1])
    assert rows[0, 0] == 0
    assert bool(rows[0, 1:].isnan().all())
    assert whole(KEYS[:0], torch.tensor([]), Definition(), [1]).shape == (0, 11)


@pytest.mark.parametrize("ties", ["index", "optimistic", "pessimistic", "grouped", "expected"])
def test_three_steps_over_shards_equal_the_whole(generator, ties):
    queries, gallery, classes = 6, 40, 4
    scores = torch.randint(0, 9, (queries, gallery), generator=generator).float()
    of_column = torch.randint(0, classes, (gallery,), generator=generator, dtype=torch.int32)
    of_query = torch.randint(-1, classes, (queries,), generator=generator, dtype=torch.int32)
    index = torch.randperm(gallery, generator=generator).to(torch.int32)
    options = {"larger_is_closer": True}
    parts = reference.relevant_items(scores, of_query, of_column, index, **options)
    counts = sum(
        reference.rank_counts(
            scores[:, part], of_query, of_column[part], index[part], *parts, **options
        )
        for part in (slice(0, 7), slice(7, 8), slice(8, gallery))
    )
    definition = Definition(ties=ties)
    ks = [1, 5, 50]
    torch.testing.assert_close(
        reference.ranking_metrics(parts[0], parts[1], counts, ks=ks, definition=definition),
        reference.batched_map(
            scores, of_query, of_column, index, ks=ks, definition=definition, **options
        ),
        rtol=0,
        atol=1e-14,
        equal_nan=True,
    )


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"ap": "11-point"}, "Definition: ap must be one of standard, voc, got '11-point'"),
        ({"normaliser": "R"}, "Definition: normaliser must be one of min_relevant_k, "),
        ({"precision": 5}, "Definition: precision must be one of k, min_relevant_k, got 5"),
        ({"ties": "random"}, "Definition: ties must be one of index, optimistic, pessimistic, "),
        ({"ap": "voc"}, "Definition: ties='expected' has no closed form with ap='voc'"),
        ({"normaliser": "prefix_positive"}, "no closed form with normaliser='prefix_positive'"),
    ],
)
def test_unknown_choices(choices, message):
    with pytest.raises(ValueError, match=message):
        Definition(**choices)


def test_codes_and_back():
    definition = Definition("voc", "at_k", "min_relevant_k", "grouped")
    assert Definition.from_codes(definition.codes()) == definition
