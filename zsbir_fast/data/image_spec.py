"""What images must be like before a network sees them."""

from __future__ import annotations

from typing import NamedTuple


class ImageSpec(NamedTuple):
    """Size and normalisation of a network's input; the first arguments of the transforms.

    Attributes:
        size: height and width of the square images, in pixels.
        mean: channel means (red, green, blue) to subtract, for pixels in 0..1.
        std: channel standard deviations to divide by.
    """

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
