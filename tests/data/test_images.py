from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from zsbir_fast.data import images as images_module
from zsbir_fast.data.decode import decode_image
from zsbir_fast.data.images import ImageSet


@pytest.fixture
def three(tmp_path, draw, image_set):
    paths = [draw(tmp_path / f"{i}.png", seed=i) for i in range(3)]
    return image_set([1, 0, 1], "photo", paths=paths)


def test_items_are_scaled_images_and_labels(three):
    image, label = three[2]
    assert (image.dtype, image.shape, label) == (torch.float32, (3, 12, 10), 1)
    torch.testing.assert_close(image * 255, decode_image(three.paths[2]).float())
    assert len(three) == 3
    assert three.labels.dtype == torch.int64
    assert (three.classes, three.modality) == (("class0", "class1"), "photo")


def test_a_set_shows_its_size_and_classes(three):
    assert str(three) == "ImageSet(3 photos of 2 classes: 'class0', 'class1')"
    assert repr([three.subset([0])]) == "[ImageSet(1 photo of 2 classes: 'class0', 'class1')]"


def test_another_transform_leaves_the_set_alone(three):
    other = three.with_transform(lambda image: image.float().mean((1, 2)))
    assert other[0][0].shape == (3,)
    assert three[0][0].shape == (3, 12, 10)
    assert other.paths is three.paths


def test_subsets_keep_labels_and_order(three):
    for indices in ([2, 1], torch.tensor([2, 1])):
        some = three.subset(indices)
        assert some.paths == (three.paths[2], three.paths[1])
        assert some.labels.tolist() == [1, 0]
        assert some.classes == three.classes
    assert len(three.subset([])) == 0


def test_some_classes_get_new_labels(image_set):
    whole = image_set([2, 0, 1, 2], classes=["a", "b", "c"])
    some = whole.of_classes(["c", "a"])
    assert some.classes == ("c", "a")
    assert some.labels.tolist() == [0, 1, 0]
    assert [p.name for p in some.paths] == ["0.png", "1.png", "3.png"]
    with pytest.raises(ValueError, match="names must be among the 3 classes, got 'd'"):
        whole.of_classes(["a", "d"])


def test_the_cache_decodes_once_and_is_shared(three, monkeypatch):
    calls = []
    monkeypatch.setattr(
        images_module, "decode_image", lambda path: calls.append(path) or decode_image(path)
    )
    cached = ImageSet(three.paths, three.labels, three.classes, "photo", cache=True)
    first = cached[0][0]
    again = cached.with_transform(None).subset([1, 0])[1][0]
    torch.testing.assert_close(first, again)
    assert calls == [three.paths[0]]
    assert cached.read(0).dtype == torch.uint8
    _ = three[0], three[0]
    assert len(calls) == 3


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_name_a_damaged_file(three, workers):
    three.paths[1].write_text("broken")
    loader = DataLoader(three, batch_size=3, num_workers=workers)
    with pytest.raises(ValueError, match=r"1\.png must be a readable image"):
        next(iter(loader))


def test_check_images_passes_good_sets_through(three, capsys, monkeypatch):
    monkeypatch.setattr("zsbir_fast._progress.SECONDS_BETWEEN_LINES", 0.0)
    assert three.check_images() is three
    assert capsys.readouterr().err == ""
    assert three.check_images(progress=True) is three
    assert "checking images (photo): 2 of 3 images" in capsys.readouterr().err


def test_check_images_names_ten_and_counts_the_rest(tmp_path, draw, image_set):
    good = draw(tmp_path / "good.png")
    bad = [tmp_path / f"{i:02}.png" for i in range(12)]
    for path in bad[1:]:
        path.write_text("broken")
    broken = image_set([0] * 13, paths=[*bad, good])
    with pytest.raises(ValueError, match="got 12 of 13 that are not") as error:
        broken.check_images()
    lines = str(error.value).splitlines()
    assert lines[1] == f"  {bad[0]}: missing"
    assert lines[2].startswith(f"  {bad[1]}: a file that is damaged or none of PNG, JPEG")
    assert len(lines) == 12
    assert lines[-1] == "  and 2 more"
    with pytest.warns(UserWarning, match="(?s)12 of 13 that are not.*They are left out"):
        assert broken.check_images(on_error="skip").paths == (good,)


def test_check_images_does_not_skip_everything(tmp_path, image_set):
    gone = image_set([0], paths=[tmp_path / "gone.png"])
    with pytest.raises(ValueError, match="got 1 of 1 that are not"):
        gone.check_images(on_error="skip")
    with pytest.raises(ValueError, match="on_error must be one of raise, skip, got 'ignore'"):
        gone.check_images(on_error="ignore")


@pytest.mark.parametrize(
    ("labels", "classes", "modality", "message"),
    [
        ([0, 2], ["a", "b"], "photo", r"labels must be in 0\.\.1 for 2 classes, got 2 for 1"),
        ([0, -1], ["a", "b"], "photo", r"labels must be in 0\.\.1 for 2 classes, got -1 for 1"),
        ([0], ["a"], "photo", r"equal length, got 2 paths and labels of shape \[1\]"),
        ([[0, 0]], ["a"], "photo", r"equal length, got 2 paths and labels of shape \[1, 2\]"),
        (
            [0, 0],
            ["a", "b", "a"],
            "photo",
            "classes must differ .* got 'a' and 'a'",
        ),
        ([0, 0], ["a"], "image", "ImageSet: modality must be one of sketch, photo, got 'image'"),
    ],
)
def test_inconsistent_sets_are_refused(labels, classes, modality, message):
    with pytest.raises(ValueError, match=message):
        ImageSet(["0", "1"], labels, classes, modality)


def test_classes_that_lose_their_last_image_are_named(tmp_path, draw, image_set):
    files = [draw(tmp_path / "good.png"), tmp_path / "gone.png"]
    images = image_set([0, 1], paths=files, classes=["cat", "dog"])
    with pytest.warns(UserWarning, match=r"left out\. No sketch is left of 'dog'\."):
        assert len(images.check_images(on_error="skip")) == 1


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0.0, 1.7], r"labels must be integers \[n\], got torch.float32"),
        (np.array([0, 2**64 - 1], np.uint64), r"labels must be at most 2\*\*63 - 1"),
        (np.array([0, 2**63 - 1], np.uint64), "labels must be in 0..1 for 2 classes, got 9223"),
    ],
)
def test_labels_are_not_rounded_or_wrapped(labels, message):
    with pytest.raises(ValueError, match=message):
        ImageSet(["a", "b"], labels, ["x", "y"], "photo")
    assert ImageSet([], [], ["x"], "photo").labels.dtype == torch.int64
    assert ImageSet(["a"], np.array([1], np.uint8), ["x", "y"], "photo").labels.tolist() == [1]
