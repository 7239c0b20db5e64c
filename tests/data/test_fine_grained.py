from __future__ import annotations

import pytest

from zsbir_fast.data.fine_grained import fine_grained_pairs, instance_of


@pytest.mark.parametrize(
    "path",
    [
        "256x256/sketch/tx_000000000000/airplane/n02691156_10151-1.png",
        "photo/airplane/n02691156_10151.jpg",
        "n02691156_10151-12.png",
    ],
)
def test_sketch_and_photo_name_the_same_instance(path):
    assert instance_of(path) == "n02691156_10151"


@pytest.mark.parametrize("path", ["1234.png", "ext_12.jpg", "n02691156_10151-a.png", "n1.png"])
def test_other_names_are_refused(path):
    with pytest.raises(ValueError, match=r"instance_of: path must be named like .*, got " + path):
        instance_of(path)


def test_pairs_follow_names_within_a_class(image_set):
    classes = ["cat", "dog"]
    sketches = image_set(
        [0, 0, 1, 0, 1],
        paths=["n1_1-1.png", "n1_2-1.png", "n2_1-3.png", "n1_1-2.png", "n2_9-1.png"],
        classes=classes,
    )
    photos = image_set(
        [1, 0, 0, 1, 1, 0],
        "photo",
        paths=["n1_1.jpg", "n1_2.jpg", "n1_1.jpg", "n2_1.jpg", "other.jpg", "again/n1_1.jpg"],
        classes=classes,
    )
    pairs = fine_grained_pairs(sketches, photos)
    assert pairs.sketches.tolist() == [0, 1, 2, 3]  # the photo of sketch 4 is not there
    assert pairs.photos.tolist() == [2, 1, 3, 2]


def test_datasets_without_pairing_say_so(image_set):
    sketches = image_set([0, 0], paths=["12.png", "13.png"])
    photos = image_set([0], "photo", paths=["a.jpg"])
    with pytest.raises(ValueError, match=r"only the Sketchy database .* got no pair among 2 sket"):
        fine_grained_pairs(sketches, photos)
    with pytest.raises(ValueError, match="must have the same classes"):
        fine_grained_pairs(sketches, image_set([0], "photo", classes=["x"]))
