from __future__ import annotations

import pickle

import pytest
import torch

from zsbir_fast.data.transforms import CropToInk, eval_transform, train_transform

MEAN, STD = (0.5, 0.4, 0.3), (0.5, 0.25, 0.2)


@pytest.fixture
def photo():
    return torch.randint(0, 256, (3, 40, 30), dtype=torch.uint8, generator=torch.manual_seed(0))


@pytest.fixture
def stroke():
    """A white sketch with a dark bar, 20 rows by 4 columns."""
    sketch = torch.full((3, 64, 64), 255, dtype=torch.uint8)
    sketch[:, 30:50, 5:9] = 0
    return sketch


def test_evaluation_resizes_and_normalises(photo):
    whole = eval_transform(40, MEAN, STD, "photo")
    out = whole(photo)
    assert (out.dtype, out.shape) == (torch.float32, (3, 40, 40))
    square = photo[:, :30]
    expected = (square.float() / 255 - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[
        :, None, None
    ]
    torch.testing.assert_close(eval_transform(30, MEAN, STD, "photo")(square), expected)
    torch.testing.assert_close(whole(photo), out)


def test_training_without_chance_is_evaluation(photo):
    train = train_transform(32, MEAN, STD, "photo", probability=0.0)
    torch.testing.assert_close(train(photo), eval_transform(32, MEAN, STD, "photo")(photo))


def test_training_augments_the_stated_share_and_follows_the_seed(photo):
    train = train_transform(32, MEAN, STD, "photo")
    plain = eval_transform(32, MEAN, STD, "photo")(photo)
    torch.manual_seed(0)
    outs = [train(photo) for _ in range(200)]
    torch.manual_seed(0)
    assert torch.equal(train(photo), outs[0])
    changed = sum(not torch.equal(out, plain) for out in outs) / 200
    assert 0.6 < changed < 0.8
    assert all(out.shape == (3, 32, 32) and out.isfinite().all() for out in outs)


def test_mirroring_alone(photo):
    still = {"scale": (1.0, 1.0), "degrees": 0.0, "translate": 0.0, "probability": 1.0}
    mirrored = train_transform(30, MEAN, STD, "photo", flip=1.0, **still)(photo)
    plain = eval_transform(30, MEAN, STD, "photo")(photo)
    torch.testing.assert_close(mirrored, plain.flip(2))


@pytest.mark.parametrize(("modality", "corner"), [("sketch", 1.0), ("photo", None)])
def test_what_comes_into_view_is_white_or_the_mean(modality, corner):
    black = torch.zeros(3, 32, 32, dtype=torch.uint8)
    shrink = train_transform(
        32, MEAN, STD, modality, probability=1.0, scale=(0.5, 0.5), degrees=0, translate=0
    )
    pixels = shrink(black) * torch.tensor(STD)[:, None, None] + torch.tensor(MEAN)[:, None, None]
    expected = torch.tensor([corner] * 3 if corner else MEAN)
    torch.testing.assert_close(pixels[:, 0, 0], expected, atol=2 / 255, rtol=0)
    torch.testing.assert_close(pixels[:, 16, 16], torch.zeros(3), atol=1e-6, rtol=0)


def test_erasing_is_off_unless_asked_for(photo):
    plain = eval_transform(32, MEAN, STD, "photo")(photo)
    erased = train_transform(32, MEAN, STD, "photo", probability=0.0, erase=1.0)(photo)
    assert 0 < int((erased != plain).sum()) < plain.numel()


def test_crop_to_ink_fits_the_strokes_and_keeps_the_aspect(stroke):
    out = CropToInk(40, padding=0)(stroke)
    assert (out.dtype, out.shape) == (torch.uint8, (3, 40, 40))
    ink = torch.nonzero(out[0] < 128)
    assert ink.min(0).values.tolist() == [0, 16]
    assert ink.max(0).values.tolist() == [39, 23]  # 40 rows by 8 columns, in the middle
    assert int(out[:, :, :12].min()) == 255


def test_crop_to_ink_keeps_a_border_inside_the_image(stroke):
    out = CropToInk(64, padding=10)(stroke)  # rows 20..59, columns 0..18: scale 64 / 40
    ink = torch.nonzero(out[0] < 128)
    assert (int(ink[:, 0].min()), int(ink[:, 0].max())) == (16, 47)


def test_crop_to_ink_of_nothing_and_of_faint_lines():
    white = torch.full((3, 30, 20), 255, dtype=torch.uint8)
    assert int(CropToInk(16)(white).min()) == 255
    faint = white.clone()
    faint[:, 3:6, 3:6] = 150
    whole = CropToInk(30, padding=0)
    assert whole(faint).shape == (3, 30, 30)
    assert int((whole(faint)[0] < 200).sum()) == 9  # not dark enough to be cut to
    sharp = CropToInk(30, padding=0, darkness=200)
    assert int((sharp(faint)[0] < 200).sum()) == 900


def test_crop_to_ink_as_an_option_of_the_transforms(stroke):
    cropped = eval_transform(32, MEAN, STD, "sketch", crop_to_ink=True)(stroke)
    plain = eval_transform(32, MEAN, STD, "sketch")(stroke)
    assert cropped.shape == plain.shape
    assert int((cropped < 0).sum()) > 3 * int((plain < 0).sum())


def test_transforms_travel_to_workers(photo):
    for transform in (
        train_transform(16, MEAN, STD, "sketch", crop_to_ink=True),
        eval_transform(16, MEAN, STD, "photo"),
    ):
        assert pickle.loads(pickle.dumps(transform))(photo).shape == (3, 16, 16)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((0, MEAN, STD, "photo"), {}, "size must be at least 1, got 0"),
        ((8, MEAN[:2], STD, "photo"), {}, "mean and std must be 3 numbers each"),
        ((8, MEAN, (1, 1, 0), "photo"), {}, "std positive"),
        ((8, MEAN, STD, "drawing"), {}, "modality must be one of sketch, photo, got 'drawing'"),
        ((8, MEAN, STD, "photo"), {"crop_to_ink": True}, "crop_to_ink must be False for photos"),
    ],
)
def test_impossible_arguments_are_refused(arguments, options, message):
    for make in (train_transform, eval_transform):
        with pytest.raises(ValueError, match=f"{make.__name__}: .*{message}"):
            make(*arguments, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"probability": 1.5}, r"probability must be in 0\.\.1, got 1\.5"),
        ({"flip": -0.1}, r"flip must be in 0\.\.1, got -0\.1"),
        ({"erase": 2}, r"erase must be in 0\.\.1, got 2"),
        ({"scale": (1.3, 0.7)}, "scale must be an increasing positive range"),
        ({"degrees": -1}, "degrees must not be negative"),
        ({"translate": 1.1}, r"translate must be in 0\.\.1, got 30\.0 and 1\.1"),
    ],
)
def test_impossible_augmentation_is_refused(options, message):
    with pytest.raises(ValueError, match=f"train_transform: .*{message}"):
        train_transform(8, MEAN, STD, "photo", **options)
