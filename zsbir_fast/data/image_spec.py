"""What kinds of images there are, and what they must be like before a network sees them."""

from __future__ import annotations

from typing import Literal, NamedTuple

from zsbir_fast._arguments import check_choice

Modality = Literal["sketch", "photo"]


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


def check_modality(function: str, modality: str) -> Modality:
    """Refuse anything but the two modalities.

    Args:
        function: name for the message.
        modality: the given value.

    Returns:
        ``modality``.

    Raises:
        ValueError: it is neither ``"sketch"`` nor ``"photo"``.
    """
    check_choice(function, "modality", modality, Modality)
    return "sketch" if modality == "sketch" else "photo"
