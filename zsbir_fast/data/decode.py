"""Read one image file of any usual kind as RGB pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor


def decode_image(path: str | Path) -> Tensor:
    """Decode an image file to RGB, upright.

    The EXIF orientation is applied, transparency is laid on white, palettes, CMYK, one-bit and
    16-bit images are converted (16 bits are scaled to 8).

    Args:
        path: the file.

    Returns:
        uint8 [3, H, W]. The channels of a grey image share their memory: copy before writing
        into it.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is no image or is damaged; the message names it.
    """
    try:
        with Image.open(path) as image:
            rgb_or_grey = _plain(ImageOps.exif_transpose(image))
        pixels = np.array(rgb_or_grey)
    except FileNotFoundError:
        raise FileNotFoundError(f"decode_image: no such image file: {path}") from None
    except MemoryError:
        raise
    except Exception as error:  # Pillow's plug-ins raise almost any type on damaged files
        raise ValueError(f"decode_image: {path} must be a readable image, got: {error}") from error
    if pixels.ndim == 2:
        return torch.from_numpy(pixels).expand(3, -1, -1)
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def _plain(image: Image.Image) -> Image.Image:
    """Convert to mode L or RGB."""
    if image.mode in ("L", "RGB") and "transparency" not in image.info:
        return image.copy()  # loads the pixels while the file is open
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _from_deep(image)
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("L" if image.mode == "1" else "RGB")


def _from_deep(image: Image.Image) -> Image.Image:
    """Scale grey images of 16 bits (or floats in 0..1) to 8 bits; those within 0..255 stay."""
    values = np.asarray(image).astype(np.float64)
    top = values.max(initial=0)
    if image.mode == "F" and top <= 1:
        values = values * 255
    elif image.mode != "F" and (image.mode != "I" or top > 255):
        values = values / 257  # 65535 / 255
    return Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8), mode=None)
