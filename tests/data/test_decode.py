from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from zsbir_fast.data.decode import decode_image

RED, HALF_RED = (255, 0, 0), (255, 0, 0, 128)


def saved(tmp_path, image, name="image.png", **options):
    image.save(tmp_path / name, **options)
    return decode_image(tmp_path / name)


@pytest.mark.parametrize("mode", ["RGB", "CMYK", "P", "RGBA"])
def test_colours_survive_every_mode(tmp_path, mode):
    image = Image.new("RGB", (5, 3), RED).convert(mode)
    pixels = saved(tmp_path, image, "image.tif" if mode == "CMYK" else "image.png")
    assert (pixels.dtype, pixels.shape) == (torch.uint8, (3, 3, 5))
    assert pixels.is_contiguous()
    assert pixels[:, 1, 2].tolist() == list(RED)


def test_pixels_are_where_they_were(tmp_path):
    array = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    pixels = saved(tmp_path, Image.fromarray(array))
    np.testing.assert_array_equal(pixels.permute(1, 2, 0).numpy(), array)


@pytest.mark.parametrize("mode", ["L", "1"])
def test_grey_is_repeated_without_taking_memory(tmp_path, mode):
    image = Image.new("L", (5, 3), 255)
    image.putpixel((1, 2), 0)
    pixels = saved(tmp_path, image.convert(mode))
    assert pixels.shape == (3, 3, 5)
    assert pixels[:, 2, 1].tolist() == [0, 0, 0]
    assert int(pixels.long().sum()) == 3 * 14 * 255
    assert pixels.untyped_storage().nbytes() == 15


def test_transparency_is_laid_on_white(tmp_path):
    assert saved(tmp_path, Image.new("RGBA", (2, 2), HALF_RED))[:, 0, 0].tolist() == [255, 127, 127]
    assert saved(tmp_path, Image.new("RGBA", (2, 2), (0, 0, 0, 0)))[:, 0, 0].tolist() == [255] * 3
    assert saved(tmp_path, Image.new("LA", (2, 2), (0, 0)))[:, 0, 0].tolist() == [255] * 3
    palette = Image.new("P", (2, 2), 0)
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putpixel((1, 1), 1)
    pixels = saved(tmp_path, palette, transparency=0)
    assert pixels[:, 0, 0].tolist() == [255] * 3
    assert pixels[:, 1, 1].tolist() == [40, 50, 60]
    assert saved(tmp_path, Image.new("L", (2, 2), 9), transparency=9)[:, 0, 0].tolist() == [255] * 3


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bits_are_scaled(tmp_path, suffix):
    values = np.array([[0, 257, 65535, 32896, 64764]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / f"deep{suffix}")
    assert decode_image(tmp_path / f"deep{suffix}")[0].tolist() == [[0, 1, 255, 128, 252]]


@pytest.mark.parametrize(
    ("values", "expected"), [([[0.0, 0.5, 1.0]], [0, 128, 255]), ([[0.0, 7.0, 300.0]], [0, 7, 255])]
)
def test_float_images(tmp_path, values, expected):
    image = Image.fromarray(np.array(values, dtype=np.float32))
    assert saved(tmp_path, image, "float.tif")[0, 0].tolist() == expected


def test_exif_orientation_is_applied(tmp_path):
    image = Image.new("RGB", (6, 4), (255, 255, 255))
    image.paste((0, 0, 0), (0, 0, 3, 4))  # the left half is black
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90 degrees clockwise
    pixels = saved(tmp_path, image, "turned.jpg", exif=exif)
    assert pixels.shape == (3, 6, 4)
    assert int(pixels[0, 0].max()) < 64  # now the upper half
    assert int(pixels[0, -1].min()) > 192


def test_damaged_files_are_named(tmp_path, draw):
    (tmp_path / "text.png").write_text("not an image")
    whole = draw(tmp_path / "whole.jpg", size=(64, 64)).read_bytes()
    (tmp_path / "short.jpg").write_bytes(whole[: len(whole) // 2])
    chunk = draw(tmp_path / "whole.png", size=(64, 64)).read_bytes()
    (tmp_path / "flipped.png").write_bytes(chunk[:60] + bytes(20) + chunk[80:])
    (tmp_path / "empty.png").touch()
    for name in ("text.png", "short.jpg", "flipped.png", "empty.png"):
        with pytest.raises(ValueError, match=rf"decode_image: .*{name} must be a readable image"):
            decode_image(tmp_path / name)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"decode_image: no such image file: .*gone\.png"):
        decode_image(tmp_path / "gone.png")
