"""Fine-grained pairing: which photo a sketch was drawn from, by Sketchy's file names."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from zsbir_fast.data.images import ImageSet
from zsbir_fast.data.names import same_names

_NAME = re.compile(r"(n\d+_\d+)(?:-\d+)?")


class FineGrainedPairs(NamedTuple):
    """Sketches and the photos they show.

    Attributes:
        sketches: int64 [P], numbers of sketches.
        photos: int64 [P], number of each sketch's photo.
    """

    sketches: Tensor
    photos: Tensor


def instance_of(path: str | Path) -> str:
    """Return the photo that a file of the Sketchy database shows.

    Args:
        path: a photo, ``.../n02691156_10151.jpg``, or a sketch, ``.../n02691156_10151-1.png``,
            in any folder.

    Returns:
        The photo's name without suffix, e.g. ``"n02691156_10151"``.

    Raises:
        ValueError: the file is not named like that.
    """
    match = _NAME.fullmatch(Path(path).stem)
    if match is None:
        raise ValueError(
            "instance_of: path must be named like Sketchy's n02691156_10151.jpg (photo) or "
            f"n02691156_10151-1.png (sketch), got {path}"
        )
    return match[1]


def fine_grained_pairs(sketches: ImageSet, photos: ImageSet) -> FineGrainedPairs:
    """Pair every sketch with the photo it was drawn from.

    Args:
        sketches: sketches of the Sketchy database, in any layout.
        photos: photos with the same classes; those without a sketch are fine (the extension has
            none). If a photo lies in two folders, the first one counts.

    Returns:
        Pairs in the order of the sketches. Sketches whose photo is not there are left out.

    Raises:
        ValueError: classes differ, or not a single pair was found, as with TU-Berlin and
            QuickDraw, whose sketches were not drawn from photos.
    """
    if not same_names(sketches.classes, photos.classes):
        raise ValueError("fine_grained_pairs: sketches and photos must have the same classes")
    photo_of: dict[tuple[int, str], int] = {}
    for index, (label, path) in enumerate(zip(photos.labels.tolist(), photos.paths, strict=True)):
        photo_of.setdefault((label, path.stem), index)
    found: list[tuple[int, int]] = []
    for index, (label, path) in enumerate(
        zip(sketches.labels.tolist(), sketches.paths, strict=True)
    ):
        match = _NAME.fullmatch(path.stem)
        photo = photo_of.get((label, match[1])) if match else None
        if photo is not None:
            found.append((index, photo))
    if not found:
        raise ValueError(
            "fine_grained_pairs: sketches must be drawn from the photos and named after them "
            "(only the Sketchy database is: n02691156_10151-1.png shows n02691156_10151.jpg), got "
            f"no pair among {len(sketches)} sketches and {len(photos)} photos"
        )
    pairs = torch.tensor(found, dtype=torch.int64)
    return FineGrainedPairs(pairs[:, 0], pairs[:, 1])
