from __future__ import annotations

import pytest
import torch
from torch.utils.data import DataLoader

from zsbir_fast.data.pairs import SketchPhotoPairs
from zsbir_fast.data.samplers import ClassBalancedBatchSampler


@pytest.fixture
def pairs(tmp_path, draw, image_set):
    sets = []
    for modality, labels in (("sketch", [0, 0, 1, 1]), ("photo", [1, 1, 0, 0])):
        paths = [draw(tmp_path / modality / f"{i}.png", seed=i) for i in range(4)]
        sets.append(image_set(labels, modality, paths=paths))
    return SketchPhotoPairs(*sets)


def test_batches_are_what_training_needs(pairs):
    sampler = ClassBalancedBatchSampler(
        pairs.sketches.labels,
        pairs.photos.labels,
        classes_per_batch=2,
        sketches_per_class=2,
        photos_per_class=2,
        batches=1,
    )
    keys = next(iter(sampler))
    (batch,) = DataLoader(pairs, batch_sampler=sampler)
    assert batch["sketches"].shape == batch["photos"].shape == (4, 3, 12, 10)
    assert batch["labels"].tolist() == [int(pairs.sketches.labels[s]) for s, _ in keys]
    assert batch["labels"].dtype == torch.int64
    for row, (s, p) in enumerate(keys):
        torch.testing.assert_close(batch["sketches"][row], pairs.sketches[s][0])
        torch.testing.assert_close(batch["photos"][row], pairs.photos[p][0])


def test_pairs_show_what_they_are_made_of(pairs):
    assert repr(pairs) == f"SketchPhotoPairs({pairs.sketches!r}, {pairs.photos!r})"


def test_pairs_of_two_classes_are_refused(pairs):
    with pytest.raises(ValueError, match="must be of one class, got 'class0' and 'class1'"):
        pairs[0, 0]


def test_sets_that_do_not_fit_are_refused(pairs, image_set):
    with pytest.raises(ValueError, match="of these modalities, got photo and sketch"):
        SketchPhotoPairs(pairs.photos, pairs.sketches)
    with pytest.raises(ValueError, match="the same classes, got 'class0', 'class1' and 'a', 'b'"):
        SketchPhotoPairs(pairs.sketches, image_set([0], "photo", classes=["a", "b"]))
