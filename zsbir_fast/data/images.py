"""A set of labelled images of one modality, decoded on demand."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from torch.utils.data import Dataset

from zsbir_fast._arguments import check_choice
from zsbir_fast._progress import with_progress
from zsbir_fast.data.decode import decode_image
from zsbir_fast.data.image_spec import Modality, check_modality
from zsbir_fast.data.names import (
    by_plain_name,
    check_distinct,
    listing,
    plain_name,
    spoken_name,
    with_nearest,
)

Transform = Callable[[Tensor], Tensor]
_LISTED = 10


class ImageSet(Dataset[tuple[Tensor, int]]):
    """Sketches or photos with their classes.

    Args:
        paths: image files.
        labels: class of every image, integers [n] that index ``classes``.
        classes: class names.
        modality: ``"sketch"`` or ``"photo"``.
        transform: turns uint8 [3, H, W] into float32 [3, H', W']; None scales to [0, 1].
        cache: keep every decoded image as uint8 in memory. Sets made from this one share the
            cache; worker processes each fill their own.

    Attributes:
        paths: tuple of ``Path``.
        labels: int64 [n].
        classes: tuple of names.
        modality: as given.
        transform: as given.

    Raises:
        ValueError: lengths differ, labels are no integers or outside the classes, a class is
            listed twice, or another modality.
    """

    def __init__(
        self,
        paths: Iterable[str | Path],
        labels: Sequence[int] | Tensor,
        classes: Sequence[str],
        modality: Modality,
        *,
        transform: Transform | None = None,
        cache: bool = False,
    ) -> None:
        self.paths = tuple(Path(path) for path in paths)
        self.labels = _as_labels(labels)
        check_distinct("ImageSet", "classes", classes)
        self.classes = tuple(classes)
        self.modality = check_modality("ImageSet", modality)
        self.transform = transform
        self._cache: dict[Path, Tensor] | None = {} if cache else None
        self._check()

    def __repr__(self) -> str:
        """Tell how many images of which classes there are."""
        names = listing(map(spoken_name, self.classes), limit=3)
        return f"ImageSet({self.size_in_words()} of {len(self.classes):,} classes: {names})"

    def size_in_words(self) -> str:
        """Return the number of images and their kind, e.g. ``"1,500 sketches"``."""
        several = "sketches" if self.modality == "sketch" else "photos"
        return f"{len(self):,} {self.modality if len(self) == 1 else several}"

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Return image ``index``, transformed, float32 [3, H, W], and its label.

        Raises:
            FileNotFoundError: the file is gone; the message names it.
            ValueError: the file is damaged; the message names it.
        """
        image = self.read(index)
        if self.transform is not None:
            return self.transform(image), int(self.labels[index])
        return image.to(torch.float32) / 255, int(self.labels[index])

    def read(self, index: int) -> Tensor:
        """Return image ``index`` as decoded, uint8 [3, H, W]; do not write into it.

        Args:
            index: number of the image.

        Returns:
            RGB pixels.

        Raises:
            FileNotFoundError: the file is gone; the message names it.
            ValueError: the file is damaged; the message names it.
        """
        path = self.paths[index]
        if self._cache is None:
            return decode_image(path)
        image = self._cache.get(path)
        if image is None:
            image = self._cache[path] = decode_image(path)
        return image

    def with_transform(self, transform: Transform | None) -> ImageSet:
        """Return the same images with another transform.

        Args:
            transform: replaces the present one.

        Returns:
            A set that shares paths, labels and cache with this one.
        """
        other = copy.copy(self)
        other.transform = transform
        return other

    def with_labels(self, labels: Sequence[int] | Tensor) -> ImageSet:
        """Return the same images with other labels.

        Args:
            labels: class of every image, integers [n] that index ``classes``.

        Returns:
            A set that shares paths and cache with this one.

        Raises:
            ValueError: as for the constructor.
        """
        other = copy.copy(self)
        other.labels = _as_labels(labels)
        other._check()
        return other

    def subset(self, indices: Sequence[int] | Tensor) -> ImageSet:
        """Return some of the images, with the same classes and labels.

        Args:
            indices: numbers of the images, in the order wanted.

        Returns:
            A set that shares the cache with this one.
        """
        chosen = torch.as_tensor(indices, dtype=torch.int64)
        other = copy.copy(self)
        other.paths = tuple(self.paths[i] for i in chosen.tolist())
        other.labels = self.labels[chosen]
        return other

    def of_classes(self, names: Sequence[str]) -> ImageSet:
        """Return the images of some classes, labelled by their place in ``names``.

        Args:
            names: class names, each in ``classes`` in any spelling.

        Returns:
            A set with ``classes == tuple(names)``, in the order of this set.

        Raises:
            ValueError: a name is not among the classes, or is there twice.
        """
        function = "ImageSet.of_classes"
        check_distinct(function, "names", names)
        labelled = ((name, label) for label, name in enumerate(self.classes))
        place = by_plain_name(function, "classes", labelled)
        unknown = [name for name in names if plain_name(name) not in place]
        if unknown:
            raise ValueError(
                f"{function}: names must be among the {len(self.classes)} classes, got "
                f"{with_nearest(unknown, self.classes)}"
            )
        new_label = torch.full((len(self.classes),), -1)
        for label, name in enumerate(names):
            new_label[place[plain_name(name)]] = label
        labels = new_label[self.labels]
        other = self.subset(torch.nonzero(labels >= 0).flatten())
        other.labels = labels[labels >= 0]
        other.classes = tuple(names)
        return other

    def check_images(
        self, *, on_error: Literal["raise", "skip"] = "raise", progress: bool = False
    ) -> ImageSet:
        """Decode every image once and find those that are missing or damaged.

        Args:
            on_error: ``"raise"`` refuses the set if any image is bad; ``"skip"`` leaves bad images
                out, with a warning that names them.
            progress: show a progress bar.

        Returns:
            The set itself if all images are good, else the good ones.

        Raises:
            ValueError: bad images with ``on_error="raise"`` (up to 10 are named, the rest are
                counted), all images are bad, or another ``on_error``.
        """
        check_choice("ImageSet.check_images", "on_error", on_error, ("raise", "skip"))
        with ThreadPoolExecutor(4) as pool:  # Pillow decodes outside the interpreter lock
            found = pool.map(self._fault, range(len(self)))
            what = f"checking images ({self.modality})"
            faults = list(
                with_progress(found, len(self), what, unit="images") if progress else found
            )
        bad = [i for i, fault in enumerate(faults) if fault is not None]
        if not bad:
            return self
        named = "".join(f"\n  {self.paths[i]}: {faults[i]}" for i in bad[:_LISTED])
        rest = f"\n  and {len(bad) - _LISTED} more" if len(bad) > _LISTED else ""
        message = (
            f"ImageSet.check_images: every {self.modality} must be a readable image, got "
            f"{len(bad)} of {len(self)} that are not:{named}{rest}"
        )
        if on_error == "raise" or len(bad) == len(self):
            raise ValueError(message)
        good = self.subset([i for i, fault in enumerate(faults) if fault is None])
        kept = set(good.labels.tolist())
        gone = [self.classes[i] for i in sorted(set(self.labels.tolist()) - kept)]
        emptied = f" No {self.modality} is left of {listing(gone)}." if gone else ""
        warnings.warn(f"{message}\nThey are left out.{emptied}", stacklevel=2)
        return good

    def _fault(self, index: int) -> str | None:
        try:
            decode_image(self.paths[index])
        except FileNotFoundError:
            return "missing"
        except ValueError as error:
            return str(error).partition("got: ")[2]
        return None

    def _check(self) -> None:
        if self.labels.ndim != 1 or len(self.paths) != len(self.labels):
            raise ValueError(
                f"ImageSet: paths and labels must be of equal length, got {len(self.paths)} paths "
                f"and labels of shape {list(self.labels.shape)}"
            )
        wrong = (self.labels < 0) | (self.labels >= len(self.classes))
        if wrong.any():
            first = int(torch.nonzero(wrong)[0])
            raise ValueError(
                f"ImageSet: labels must be in 0..{len(self.classes) - 1} for {len(self.classes)} "
                f"classes, got {int(self.labels[first])} for {self.paths[first]}"
            )


def _as_labels(labels: Sequence[int] | Tensor) -> Tensor:
    given = torch.as_tensor(labels)
    if given.numel() and (given.is_floating_point() or given.is_complex()):
        raise ValueError(f"ImageSet: labels must be integers [n], got {given.dtype}")
    if given.dtype == torch.uint64 and given.numel() and int(given.view(torch.int64).min()) < 0:
        raise ValueError("ImageSet: labels must be at most 2**63 - 1, got more")
    return given.to(torch.int64)
