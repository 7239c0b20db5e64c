from __future__ import annotations

import struct
from zlib import compress, crc32

import numpy as np
import pytest
import torch
from PIL import Image

from zsbir_fast.data import decode
from zsbir_fast.data.decode import decode_image, is_image

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


@pytest.mark.parametrize(
    ("name", "raw", "expected"),
    [
        ("dark.pgm", b"P5 2 1 65535\n" + struct.pack(">HH", 200, 100), [1, 0]),
        ("ten_bits.pgm", b"P5 2 1 1023\n" + struct.pack(">HH", 1023, 512), [255, 128]),
        ("deep.ppm", b"P6 2 1 65535\n" + struct.pack(">6H", *[65535] * 3, *[0] * 3), [255, 0]),
        ("text.ppm", b"P3 2 1 255\n10 10 10 20 20 20\n", [10, 20]),
    ],
)
def test_portable_maps_are_scaled_by_their_own_maximum(tmp_path, name, raw, expected):
    (tmp_path / name).write_bytes(raw)
    assert decode_image(tmp_path / name)[0, 0].tolist() == expected


def test_dark_sixteen_bits_stay_dark(tmp_path):
    Image.fromarray(np.array([[200, 100]], dtype=np.uint16)).save(tmp_path / "dark.png")
    assert decode_image(tmp_path / "dark.png")[0, 0].tolist() == [1, 0]


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png", ".tif"])
def test_the_first_picture_of_an_animation_counts(tmp_path, suffix):
    first, second = (Image.new("RGB", (4, 4), colour) for colour in ((250, 0, 0), (0, 0, 250)))
    first.save(tmp_path / f"a{suffix}", save_all=True, append_images=[second])
    red, _, blue = decode_image(tmp_path / f"a{suffix}")[:, 0, 0].tolist()
    assert red > 240
    assert blue < 10


def test_a_palette_with_alpha_is_laid_on_white(tmp_path):
    image = Image.new("P", (2, 2), 0)
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 1), 1)
    pixels = saved(tmp_path, image, transparency=bytes([0, 255]))
    assert pixels[:, 0, 0].tolist() == [255] * 3
    assert pixels[:, 1, 1].tolist() == [40, 50, 60]


def _png(width, height):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", compress(bytes(9)))


@pytest.mark.parametrize(
    ("raw", "what"),
    [
        (b"", "an empty file"),
        (b"a text\n", "a file that is damaged or none of PNG, JPEG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "damaged or none of PNG, JPEG"),
        (_png(60_000, 60_000), r"Image size \(3600000000 pixels\) exceeds limit"),
        (_png(30, 30), "truncated"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, raw, what):
    (tmp_path / "1.jpg").write_bytes(raw)
    with pytest.raises(ValueError, match=rf"1\.jpg must be a readable image, got: .*{what}"):
        decode_image(tmp_path / "1.jpg")


def test_pixels_that_are_not_finite_are_refused(tmp_path):
    Image.fromarray(np.array([[0, np.nan]], dtype=np.float32)).save(tmp_path / "nan.tif")
    with pytest.raises(ValueError, match=r"nan\.tif .* got: pixels that are not finite"):
        decode_image(tmp_path / "nan.tif")


def test_images_are_known_by_their_first_bytes(tmp_path, draw):
    for suffix in (".png", ".jpg", ".gif", ".bmp", ".webp", ".tif", ".ppm"):
        draw(tmp_path / f"x{suffix}").rename(tmp_path / "x")
        assert is_image(tmp_path / "x")
    for raw in (b"", b"a text", b"P6 is no image", bytes(64), b"%!PS-Adobe-3.0 EPSF-3.0\n"):
        (tmp_path / "y.png").write_bytes(raw)
        assert not is_image(tmp_path / "y.png")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"decode_image: no such image file: .*gone\.png"):
        decode_image(tmp_path / "gone.png")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".gif", ".bmp", ".webp", ".tif", ".ppm"])
def test_damage_is_a_picture_or_an_error_that_names_the_file(tmp_path, draw, suffix):
    whole = draw(tmp_path / f"whole{suffix}", size=(40, 30)).read_bytes()
    rng = np.random.default_rng(0)
    path = tmp_path / f"damaged{suffix}"
    for _ in range(60):
        raw = bytearray(whole)
        for place in rng.integers(0, len(raw), rng.integers(1, 8)):
            raw[place] = rng.integers(0, 256)
        path.write_bytes(raw[: rng.integers(1, len(raw) + 1)])
        fault = ""
        try:
            pixels = decode_image(path)
        except ValueError as error:
            fault = str(error)
        else:
            assert (pixels.dtype, pixels.shape[0]) == (torch.uint8, 3)
        assert not fault or f"{path} must be a readable image, got: " in fault


def _directory(*entries):
    """A little-endian TIFF header and one directory of (tag, type, count, value)."""
    packed = b"".join(struct.pack("<HHLL", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<LH", 8, len(entries)) + packed + struct.pack("<L", 0)


_TURNED = (0x112, 3, 1, 6)
_BROKEN = {
    "points outside": _directory(_TURNED, (0x10F, 2, 4000, 9)),
    "cut off": _directory(_TURNED)[:17],
    "too many values": _directory((0x112, 3, 2, 6)),
    "no end": _directory(_TURNED)[:-2],
    "no tags": b"II*\0" + struct.pack("<L", 2**31),
    "another file": b"noise",
}


@pytest.mark.parametrize("kind", ["jpg", "png", "webp"])
@pytest.mark.parametrize("fault", _BROKEN)
def test_damaged_exif_is_passed_over_without_a_warning(tmp_path, kind, fault, recwarn):
    image = Image.new("RGB", (8, 16), RED)
    good = saved(tmp_path, image, f"good.{kind}", exif=b"Exif\0\0" + _directory(_TURNED))
    assert good.shape == (3, 8, 16)  # turned
    found = saved(tmp_path, image, f"bad.{kind}", exif=b"Exif\0\0" + _BROKEN[fault])
    assert found.shape == (3, 16, 8)
    assert is_image(tmp_path / f"bad.{kind}")
    assert list(recwarn) == []


def test_blocks_within_a_block_are_not_read(tmp_path, recwarn):
    exif = _directory(_TURNED, (0x8769, 4, 1, 38)) + struct.pack("<HHHLL", 1, 0x9286, 7, 999, 9)
    image = Image.new("RGB", (8, 16), RED)
    assert saved(tmp_path, image, "a.jpg", exif=b"Exif\0\0" + exif).shape == (3, 8, 16)
    assert list(recwarn) == []


def test_the_index_of_several_pictures_is_not_read(tmp_path, recwarn):
    pictures = [Image.new("RGB", (8, 8), colour) for colour in (RED, (0, 0, 255))]
    path = tmp_path / "two.jpg"
    pictures[0].save(path, "MPO", save_all=True, append_images=pictures[1:])
    assert decode_image(path)[0].min() > 250
    data = path.read_bytes()
    at = data.index(b"MPF\0") + 12
    path.write_bytes(data[:at] + b"\xff" * 4 + data[at + 4 :])
    assert decode_image(path)[0].min() > 250
    assert list(recwarn) == []


@pytest.mark.parametrize("big", [False, True])
def test_a_tiff_with_damaged_tags_is_refused_without_a_warning(tmp_path, big, recwarn):
    path = tmp_path / "a.tif"
    Image.new("RGB", (5, 3), RED).save(path, big_tiff=big)
    assert decode_image(path)[0].min() == 255
    data = path.read_bytes()
    entry = struct.pack("<HHQ", 258, 3, 3) if big else struct.pack("<HHL", 258, 3, 3)
    assert entry in data
    path.write_bytes(data.replace(entry, entry[:4] + struct.pack("<Q", 2**30)[: len(entry) - 4]))
    with pytest.raises(ValueError, match=r"a\.tif must be .* image, got: a TIFF whose tags are"):
        decode_image(path)
    assert not is_image(path)
    assert list(recwarn) == []


def test_a_folder_is_named_once(tmp_path):
    with pytest.raises(ValueError, match=r"must be a readable image, got: Is a directory$"):
        decode_image(tmp_path)


def test_signalling_nans_are_refused_without_a_warning(tmp_path, recwarn):
    path = tmp_path / "a.tif"
    Image.fromarray(np.full((2, 2), 0.123, np.float32)).save(path)
    signalling = b"\x01\x00\xa0\x7f"
    path.write_bytes(path.read_bytes().replace(np.float32(0.123).tobytes(), signalling))
    with pytest.raises(ValueError, match=r"a\.tif must be .* image, got: pixels that are not fin"):
        decode_image(path)
    assert list(recwarn) == []


def test_an_image_that_does_not_fit_into_memory_is_named(tmp_path, monkeypatch):
    path = tmp_path / "large.png"
    Image.new("RGB", (4, 4)).save(path)

    def full(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(decode, "_upright", full)
    with pytest.raises(ValueError, match=r"^decode_image: .*large\.png must fit into memory$"):
        decode_image(path)
