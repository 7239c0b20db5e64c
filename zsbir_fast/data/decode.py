"""Read one image file of any usual kind as RGB pixels."""

from __future__ import annotations

import io
import os
from functools import cache
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from zsbir_fast._words import reason, shortened
from zsbir_fast.data import tags

# Formats with a signature, so that a file of any name is known by its first bytes.
_SIGNED = (
    *("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "AVIF", "JPEG2000", "QOI"),
    *("HEIF", "JXL"),  # where a plug-in of Pillow is registered
)
# Formats that a list may name besides; others are refused: EPS would start Ghostscript on a file.
_FORMATS = (*_SIGNED, "MPO", "DIB", "TGA", "PCX", "SGI")


_ORIENTATION = 0x112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode_image(path: str | Path) -> Tensor:
    """Decode an image file to RGB, upright.

    The EXIF orientation is applied (a damaged EXIF block is passed over), transparency is laid on
    white, palettes, CMYK, one-bit and 16-bit images are converted (16 bits are scaled to 8). The
    first picture of an animation counts. The bytes of a file decide its format, never its name.

    Args:
        path: the file.

    Returns:
        Uint8 [3, H, W]. The channels of a grey image share their memory: copy before writing
        into it.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is no image, is damaged, has more pixels than Pillow's limit
            (``PIL.Image.MAX_IMAGE_PIXELS``, twice), or does not fit into memory; the message names
            it.
    """
    try:
        with _opened(path) as stream, Image.open(stream, formats=_readable(_FORMATS)) as image:
            rgb_or_grey = _plain(_upright(image), image.format)
        pixels = np.array(rgb_or_grey)
    except FileNotFoundError:
        raise FileNotFoundError(f"decode_image: no such image file: {shortened(path)}") from None
    except MemoryError as error:  # within Pillow's limit, and still too much for this process
        raise ValueError(f"decode_image: {shortened(path)} must fit into memory") from error
    except Exception as error:  # Pillow's plug-ins raise almost any type on damaged files
        raise ValueError(
            f"decode_image: {shortened(path)} must be a readable image, got: {_fault(path, error)}"
        ) from error
    if pixels.ndim == 2:
        return torch.from_numpy(pixels).expand(3, -1, -1)
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def is_image(path: str | Path) -> bool:
    """Tell by its first bytes whether a file is an image that can be decoded.

    Args:
        path: the file, of any name.

    Returns:
        Whether it is. The bytes behind the header are not looked at.
    """
    try:
        with _opened(path) as stream, Image.open(stream, formats=_readable(_SIGNED)):
            return True
    except Exception:  # as above
        return False


def _opened(path: str | Path) -> BinaryIO:
    """Open a file so that Pillow finds no damaged tags in it, of which it would warn."""
    stream = open(path, "rb")  # noqa: SIM115 - the caller closes it
    start = stream.read(4)
    stream.seek(0)
    if not (tags.is_tiff(start) or tags.is_jpeg(start)):
        return stream
    with stream:
        data = stream.read()
    if tags.is_jpeg(start):
        return io.BytesIO(tags.without_broken_blocks(data))
    if not tags.are_whole(data):
        raise ValueError("a TIFF whose tags are damaged")
    return io.BytesIO(data)


def _upright(image: Image.Image) -> Image.Image:
    """Apply the EXIF orientation; a damaged block says nothing."""
    image.load()  # some formats have the block behind the pixels
    exif = image.info.get("exif")
    if exif is not None and not tags.are_whole(exif):
        del image.info["exif"]
    profile = image.info.get("Raw profile type exif")
    if profile is not None and not tags.are_whole(_bytes_of(profile)):
        del image.info["Raw profile type exif"]
    # Not ImageOps.exif_transpose, which goes on to read blocks within the block.
    turn = _TURNS.get(image.getexif().get(_ORIENTATION, 1))
    return image if turn is None else image.transpose(turn)


def _bytes_of(profile: str) -> bytes:
    """Read an EXIF block that ImageMagick wrote into a PNG as hexadecimal text."""
    try:
        return bytes.fromhex("".join(profile.split("\n")[3:]))
    except ValueError:
        return b""


@cache
def _readable(formats: tuple[str, ...]) -> tuple[str, ...]:
    """Leave out the formats that this Pillow was built without."""
    Image.init()
    return tuple(name for name in formats if name in Image.OPEN)


def _fault(path: str | Path, error: Exception) -> str:
    if not isinstance(error, UnidentifiedImageError):
        return getattr(error, "strerror", None) or reason(error)
    if os.path.getsize(path) == 0:
        return "an empty file"
    return f"a file that is damaged or none of {', '.join(_readable(_FORMATS))}"


def _plain(image: Image.Image, kind: str | None) -> Image.Image:
    """Convert to mode L or RGB."""
    if image.mode in ("L", "RGB") and "transparency" not in image.info:
        return image.copy()  # loads the pixels while the file is open
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _from_deep(image, sixteen_bits=image.mode != "I" or kind in ("PNG", "PPM"))
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("L" if image.mode == "1" else "RGB")


def _from_deep(image: Image.Image, *, sixteen_bits: bool) -> Image.Image:
    """Scale grey images of 16 bits (or floats in 0..1) to 8 bits; those within 0..255 stay."""
    stored = np.asarray(image)
    if not np.isfinite(stored).all():  # before the cast, which warns of some kinds of NaN
        raise ValueError("pixels that are not finite")
    values = stored.astype(np.float64)
    top = values.max(initial=0)
    if image.mode == "F" and top <= 1:
        values = values * 255
    elif image.mode != "F" and (sixteen_bits or top > 255):
        values = values / 257  # 65535 / 255
    return Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8), mode=None)
