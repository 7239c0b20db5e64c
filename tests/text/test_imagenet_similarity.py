"""The table of similarities to ImageNet's classes."""

from __future__ import annotations

import json

import pytest
import torch

from zsbir_fast.data.splits import SPLIT_NAMES, load_split
from zsbir_fast.text.imagenet_similarity import imagenet_similarity

# Places among ImageNet's labels, looked up by hand.
TIGER, LION, ZEBRA, SORREL, ANT, BEE, TRICERATOPS = 292, 291, 340, 339, 310, 309, 51


def test_values_are_those_of_wordnet():
    table = imagenet_similarity(["tiger", "Zebra", "ant", "sponge bob"])
    assert table.shape == (4, 1000)
    assert table.dtype == torch.float32
    # A lion is two steps from a tiger by way of "big cat": 1 / 3.
    assert table[0, TIGER] == 1
    assert table[0, LION] == pytest.approx(1 / 3, abs=1e-4)
    # From zebra up to equine, down to horse, and down to sorrel: 1 / 4.
    assert table[1, ZEBRA] == 1
    assert table[1, SORREL] == pytest.approx(1 / 4)
    # Both are kinds of hymenopterans: 1 / 3.
    assert table[2, ANT] == 1
    assert table[2, BEE] == pytest.approx(1 / 3, abs=1e-4)
    assert table[:, TRICERATOPS].sum() == 0
    assert table[3].sum() == 0


def test_a_kind_of_the_class_counts_as_the_class():
    dog = imagenet_similarity(["dog"])[0]
    assert (dog == 1).sum() >= 118  # ImageNet's breeds are its labels 151 to 268
    assert bool((dog[151:269] == 1).all())


@pytest.mark.parametrize("name", SPLIT_NAMES)
def test_every_published_class_is_covered(name):
    split = load_split(name)
    table = imagenet_similarity([*split.seen, *split.unseen])
    assert bool(((table == 0) | (table > 0.2)).all())
    assert bool((table <= 1).all())
    assert (table.sum(1) > 0).float().mean() > 0.6


def test_a_table_of_ones_own(tmp_path):
    path = tmp_path / "table.json"
    stored = {"imagenet": ["n1", "n2", "n3"], "classes": {"Blue Cup": {"similar": {"n2": 0.5}}}}
    path.write_text(json.dumps(stored))
    assert imagenet_similarity(["blue_cup"], str(path)).tolist() == [[0, 0.5, 0]]
    with pytest.raises(ValueError, match=r"source must cover every class, got none for 'cat'"):
        imagenet_similarity(["blue cup", "cat"], str(path))


@pytest.mark.parametrize(
    "stored",
    [
        "no json",
        "[]",
        '{"imagenet": [], "classes": {}}',
        '{"imagenet": ["n1", "n1"], "classes": {}}',
        '{"imagenet": ["n1"], "classes": {"cat": {"similar": {"n2": 1}}}}',
        '{"imagenet": ["n1"], "classes": {"cat": {"similar": {"n1": 2}}}}',
        '{"imagenet": ["n1"], "classes": {"cat": {"similar": {"n1": NaN}}}}',
        '{"imagenet": ["n1"], "classes": {"cat": {"similar": {"n1": "much"}}}}',
        '{"imagenet": ["n1"], "classes": {"cat": {}}}',
    ],
)
def test_a_wrong_table_is_refused(tmp_path, stored):
    path = tmp_path / "table.json"
    path.write_text(stored)
    with pytest.raises(ValueError, match=r"source must be 'wordnet' or a JSON table"):
        imagenet_similarity(["cat"], str(path))


def test_a_missing_table_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.json"):
        imagenet_similarity(["cat"], str(tmp_path / "nothing.json"))
