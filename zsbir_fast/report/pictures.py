"""Images for a report: read from disk, made small, and written into the page as data."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def read_thumbnail(path: str | Path, *, side: int = 112) -> NDArray[np.uint8]:
    """Read an image file and fit it into a square.

    Args:
        path: image file that Pillow can read.
        side: longest side of the result in pixels.

    Returns:
        uint8 [H, W, 3] with max(H, W) <= side; the aspect is kept.

    Raises:
        FileNotFoundError: ``path`` does not exist.
    """
    with Image.open(path) as image:
        small = image.convert("RGB")
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    return np.asarray(small, dtype=np.uint8)


def data_uri(image: NDArray[np.uint8]) -> str:
    """Encode an image as a ``data:`` address, so that a page needs no second file.

    Grey images (sketches) become PNG, which keeps strokes sharp; coloured ones JPEG.

    Args:
        image: uint8 [H, W] or [H, W, 3].

    Returns:
        ``"data:image/...;base64,..."``.

    Raises:
        TypeError: ``image`` is not uint8.
        ValueError: ``image`` has another shape.
    """
    if image.dtype != np.uint8:
        raise TypeError(f"data_uri: image must be uint8, got {image.dtype}")
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] != 3):
        raise ValueError(f"data_uri: image must be [H, W] or [H, W, 3], got {list(image.shape)}")
    grey = image.ndim == 2 or bool((image == image[..., :1]).all())
    flat = image if image.ndim == 2 else image[..., 0]
    buffer = io.BytesIO()
    if grey:
        Image.fromarray(flat).save(buffer, format="PNG", optimize=True)
        kind = "png"
    else:
        Image.fromarray(image).save(buffer, format="JPEG", quality=80)
        kind = "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
