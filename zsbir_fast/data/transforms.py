"""Image transforms: uint8 pixels in, a normalised float tensor of fixed size out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.transforms import v2  # type: ignore[import-untyped]

from zsbir_fast._arguments import as_integer
from zsbir_fast.data.image_spec import Modality, check_modality
from zsbir_fast.data.images import Transform

_WHITE = 255.0


class CropToInk:
    """Cut a sketch to its strokes and fit it into a white square, keeping its aspect.

    Args:
        size: side of the square in pixels.
        padding: pixels of the source that are kept around the strokes.
        darkness: pixels up to this mean of the channels (0..255) are ink. The default is that of
            ZSE-SBIR's code.

    Source: preprocessing of Lin et al., "Zero-Shot Everything Sketch-Based Image Retrieval",
    CVPR 2023 (as in its public code). A sketch without ink is fitted whole: our reading.
    """

    def __init__(self, size: int, *, padding: int = 10, darkness: float = 100.0) -> None:
        self.size = size
        self.padding = padding
        self.darkness = darkness

    def __call__(self, image: Tensor) -> Tensor:
        """Fit uint8 [3, H, W] into uint8 [3, size, size]."""
        ink = image.float().mean(0) <= self.darkness
        if ink.any():
            top, bottom = self._span(ink.any(1))
            left, right = self._span(ink.any(0))
            image = image[:, top:bottom, left:right]
        height, width = image.shape[1:]
        scale = self.size / max(height, width)
        fitted = [max(1, round(height * scale)), max(1, round(width * scale))]
        image = v2.functional.resize(image.contiguous(), fitted, antialias=True)
        above, before = (self.size - fitted[0]) // 2, (self.size - fitted[1]) // 2
        borders = [before, above, self.size - fitted[1] - before, self.size - fitted[0] - above]
        square: Tensor = v2.functional.pad(image, borders, fill=_WHITE)
        return square

    def _span(self, lines: Tensor) -> tuple[int, int]:
        with_ink = torch.nonzero(lines).flatten()
        first, last = int(with_ink[0]), int(with_ink[-1])
        return max(0, first - self.padding), min(len(lines), last + 1 + self.padding)


def train_transform(
    size: int,
    mean: Sequence[float],
    std: Sequence[float],
    modality: Modality,
    *,
    probability: float = 0.7,
    flip: float = 0.5,
    scale: tuple[float, float] = (0.7, 1.3),
    degrees: float = 30.0,
    translate: float = 10 / 224,
    erase: float = 0.0,
    crop_to_ink: bool = False,
) -> Transform:
    """Make the training transform: resize, augment, normalise.

    With ``probability`` an image is mirrored at random, scaled, turned and shifted; the area that
    comes into view is white on a sketch and of the colour ``mean`` on a photo (our reading). The
    random numbers are those of PyTorch's global CPU generator.

    Args:
        size: side of the output in pixels; the aspect is not kept, as usual in the field.
        mean: per channel, subtracted; for pixels in [0, 1].
        std: per channel, divided by.
        modality: ``"sketch"`` or ``"photo"``.
        probability: share of images that are augmented.
        flip: probability of mirroring an augmented image.
        scale: range of the zoom factor.
        degrees: rotation up to this angle to either side.
        translate: shift up to this share of the size in x and y.
        erase: probability of erasing a random rectangle.
        crop_to_ink: sketches only: cut to the strokes and keep the aspect, see
            :class:`CropToInk`.

    Returns:
        A callable from uint8 [3, H, W] to float32 [3, size, size].

    Raises:
        ValueError: a size, mean, std, modality, range or probability that cannot be.

    Source: augmentation of Liu et al., "Semantic-Aware Knowledge Preservation for Zero-Shot
    Sketch-Based Image Retrieval", ICCV 2019 (as in its public code).
    """
    function = "train_transform"
    _check(function, size, mean, std, modality, crop_to_ink)
    for name, chance in (("probability", probability), ("flip", flip), ("erase", erase)):
        if not 0 <= chance <= 1:
            raise ValueError(f"{function}: {name} must be in 0..1, got {chance}")
    if not 0 < scale[0] <= scale[1]:
        raise ValueError(f"{function}: scale must be an increasing positive range, got {scale}")
    if degrees < 0 or not 0 <= translate <= 1:
        raise ValueError(
            f"{function}: degrees must not be negative and translate must be in 0..1, got "
            f"{degrees} and {translate}"
        )
    affine = v2.RandomAffine(
        degrees,
        translate=(translate, translate),
        scale=scale,
        interpolation=v2.InterpolationMode.BILINEAR,
        fill=[_WHITE] * 3 if modality == "sketch" else [255.0 * m for m in mean],
    )
    return _compose(
        [
            _fit(size, crop_to_ink),
            v2.RandomApply([v2.RandomHorizontalFlip(flip), affine], p=probability),
            *_normalise(mean, std),
            *([v2.RandomErasing(erase)] if erase else []),
        ]
    )


def eval_transform(
    size: int,
    mean: Sequence[float],
    std: Sequence[float],
    modality: Modality,
    *,
    crop_to_ink: bool = False,
) -> Transform:
    """Make the evaluation transform: resize and normalise.

    Args:
        size: side of the output in pixels; the aspect is not kept, as usual in the field.
        mean: per channel, subtracted; for pixels in [0, 1].
        std: per channel, divided by.
        modality: ``"sketch"`` or ``"photo"``.
        crop_to_ink: sketches only: as in training.

    Returns:
        A callable from uint8 [3, H, W] to float32 [3, size, size].

    Raises:
        ValueError: a size, mean, std or modality that cannot be.
    """
    _check("eval_transform", size, mean, std, modality, crop_to_ink)
    return _compose([_fit(size, crop_to_ink), *_normalise(mean, std)])


def _compose(steps: Sequence[Transform]) -> Transform:
    composed: Transform = v2.Compose(steps)
    return composed


def _fit(size: int, crop_to_ink: bool) -> Transform:
    resize: Transform = v2.Resize((size, size), antialias=True)
    return CropToInk(size) if crop_to_ink else resize


def _normalise(mean: Sequence[float], std: Sequence[float]) -> list[Transform]:
    return [v2.ToDtype(torch.float32, scale=True), v2.Normalize(list(mean), list(std))]


def _check(
    function: str,
    size: int,
    mean: Sequence[float],
    std: Sequence[float],
    modality: Modality,
    crop_to_ink: bool,
) -> None:
    check_modality(function, modality)
    as_integer(function, "size", size, least=1)
    if len(mean) != 3 or len(std) != 3 or not all(s > 0 for s in std):
        raise ValueError(
            f"{function}: mean and std must be 3 numbers each, std positive, got {mean} and {std}"
        )
    if crop_to_ink and modality != "sketch":
        raise ValueError(f"{function}: crop_to_ink must be False for photos, got True")
