from __future__ import annotations

import itertools
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zsbir_fast.data.samplers import ClassBalancedBatchSampler, MixedBatchSampler

SKETCHES = torch.arange(6).repeat_interleave(5)
PHOTOS = torch.arange(6).repeat_interleave(7)


def balanced(**options):
    settings = {
        "classes_per_batch": 3,
        "sketches_per_class": 2,
        "photos_per_class": 2,
        "batches": 4,
    }
    return ClassBalancedBatchSampler(SKETCHES, PHOTOS, **{**settings, **options})


def mixed(**options):
    settings = {"sketches": 20, "photos": 50, "batch_size": 9, "sketch_share": 1 / 3, "batches": 4}
    return MixedBatchSampler(**{**settings, **options})


@pytest.mark.filterwarnings("ignore:ClassBalancedBatchSampler")
@given(
    labels=st.lists(st.integers(0, 5), min_size=20, max_size=60),
    cut=st.integers(8, 12),
    per_class=st.integers(1, 4),
    epoch=st.integers(0, 3),
)
@settings(max_examples=40, deadline=None, derandomize=True)
def test_batches_are_balanced_pairs_of_one_class(labels, cut, per_class, epoch):
    sketches, photos = labels[:cut], labels[cut:]
    both = set(sketches) & set(photos)
    if len(both) < 2:
        return
    sampler = ClassBalancedBatchSampler(
        sketches,
        photos,
        classes_per_batch=2,
        sketches_per_class=per_class,
        photos_per_class=per_class,
        batches=3,
    )
    sampler.set_epoch(epoch)
    batches = list(sampler)
    assert len(batches) == len(sampler) == 3
    for batch in batches:
        assert len(batch) == 2 * per_class
        classes = [sketches[s] for s, _ in batch]
        assert classes == [photos[p] for _, p in batch]
        assert Counter(Counter(classes).values()) == {per_class: 2}
        for c in set(classes):
            for column, source in enumerate((sketches, photos)):
                drawn = {pair[column] for pair in batch if source[pair[column]] == c}
                assert len(drawn) == min(per_class, source.count(c))


def test_an_epoch_uses_classes_and_images_evenly():
    batches = list(balanced(batches=10))  # 30 class slots over 6 classes; 60 sketches over 30
    classes = Counter(int(SKETCHES[s]) for batch in batches for s, _ in batch)
    assert set(classes.values()) == {10}
    assert Counter(s for batch in batches for s, _ in batch) == dict.fromkeys(range(30), 2)


def test_epochs_and_seeds_differ_and_repeat():
    sampler = balanced()
    first = list(sampler)
    assert list(sampler) == first
    sampler.set_epoch(1)
    assert list(sampler) != first
    sampler.set_epoch(0)
    assert list(sampler) == first
    assert list(balanced(seed=1)) != first


@pytest.mark.parametrize("make", [balanced, mixed])
def test_ranks_take_turns_on_one_stream(make):
    whole = list(make(batches=6))
    shares = [list(make(batches=2, rank=r, world_size=3)) for r in range(3)]
    assert [len(share) for share in shares] == [2, 2, 2]
    assert list(itertools.chain(*zip(*shares, strict=True))) == whole


@pytest.mark.parametrize("make", [balanced, mixed])
@pytest.mark.parametrize("start", [0, 1, 3, 4])
def test_an_epoch_is_taken_up_anywhere(make, start):
    sampler = make(rank=1, world_size=2)
    sampler.set_epoch(2)
    whole = list(sampler)
    resumed = make(rank=1, world_size=2)
    resumed.set_epoch(2, start_batch=start)
    assert list(resumed) == whole[start:]
    assert len(resumed) == 4
    resumed.set_epoch(2)
    assert list(resumed) == whole


def test_the_smaller_side_appears_in_several_pairs():
    batch = next(iter(balanced(sketches_per_class=1, photos_per_class=3, classes_per_batch=1)))
    assert len(batch) == 3
    assert len({s for s, _ in batch}) == 1
    assert len({p for _, p in batch}) == 3


def test_only_small_classes_repeat_images():
    sampler = ClassBalancedBatchSampler(
        [0, 0, 1, 1, 1, 1],
        [0, 0, 0, 0, 1, 1, 1, 1],
        classes_per_batch=2,
        sketches_per_class=4,
        photos_per_class=4,
        batches=5,
    )
    for batch in sampler:
        small = [s for s, _ in batch if s < 2]
        assert len(small) == 4
        assert set(small) == {0, 1}
        assert sorted(s for s, _ in batch if s >= 2) == [2, 3, 4, 5]
        assert sorted(p for _, p in batch) == list(range(8))


def test_classes_without_a_modality_are_left_out():
    with pytest.warns(UserWarning, match="only one of them for the labels 0, 3, which are left"):
        sampler = ClassBalancedBatchSampler(
            [0, 1, 2],
            [1, 2, 3],
            classes_per_batch=2,
            sketches_per_class=1,
            photos_per_class=1,
            batches=2,
        )
    assert sampler.classes == [1, 2]
    assert all(sorted(batch) == [(1, 0), (2, 1)] for batch in sampler)


def test_mixed_batches_keep_the_ratio_and_cover_everything():
    batches = list(mixed(batches=20))
    for batch in batches:
        assert [i < 20 for i in batch] == [True] * 3 + [False] * 6
        assert len(set(batch)) == 9
    counts = Counter(i for batch in batches for i in batch)
    assert {counts[i] for i in range(20)} == {3}
    assert {counts[i] for i in range(20, 70)} <= {2, 3}
    assert mixed(sketch_share=0.001).sketches_per_batch == 1
    assert mixed(sketch_share=0.999).photos_per_batch == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes_per_batch": 7}, "both sketches and photos, 6, got 7"),
        ({"classes_per_batch": 0}, "classes_per_batch must be at least 1, got 0"),
        ({"sketches_per_class": 0}, "sketches_per_class must be at least 1, got 0"),
        ({"photos_per_class": -1}, "photos_per_class must be at least 1, got -1"),
        ({"batches": 0}, "batches must be at least 1, got 0"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"rank": 2, "world_size": 2}, r"rank must be in 0\.\.world_size-1, got 2 of 2"),
    ],
)
def test_impossible_batches_are_refused(options, message):
    with pytest.raises(ValueError, match=f"ClassBalancedBatchSampler: .*{message}"):
        balanced(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sketches": 0}, "sketches must be at least 1, got 0"),
        ({"batch_size": 1}, "batch_size must be at least 2, got 1"),
        ({"sketch_share": 1.0}, r"sketch_share must be between 0 and 1, got 1\.0"),
    ],
)
def test_impossible_mixtures_are_refused(options, message):
    with pytest.raises(ValueError, match=f"MixedBatchSampler: {message}"):
        mixed(**options)


def test_samplers_show_their_options():
    assert repr(balanced(seed=3)) == (
        "ClassBalancedBatchSampler(classes_per_batch=3, sketches_per_class=2, photos_per_class=2, "
        "batches=4, seed=3, rank=0, world_size=1)"
    )
    assert repr(mixed(sketch_share=0.5)) == (
        "MixedBatchSampler(sketches=20, photos=50, batch_size=9, sketch_share=0.5, batches=4, "
        "seed=0, rank=0, world_size=1)"
    )


def test_impossible_epochs_and_labels_are_refused():
    sampler = balanced()
    with pytest.raises(ValueError, match=r"epoch must not be negative .* got -1 and 0"):
        sampler.set_epoch(-1)
    with pytest.raises(ValueError, match=r"start_batch must be in 0\.\.4, got 0 and 5"):
        sampler.set_epoch(0, start_batch=5)
    with pytest.raises(ValueError, match=r"labels must be integers \[n\], got float32"):
        ClassBalancedBatchSampler(
            torch.zeros(3),
            PHOTOS,
            classes_per_batch=1,
            sketches_per_class=1,
            photos_per_class=1,
            batches=1,
        )
