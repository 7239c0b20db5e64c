"""Find a dataset on disk that comes with list files, as SAKE and ZSE-SBIR ship them."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from zsbir_fast._words import shown
from zsbir_fast.data.file_tree import FileTree
from zsbir_fast.data.filelists import FileList, read_class_list, read_file_list
from zsbir_fast.data.names import listing

# Lists of sketches and photos; {} is train, zero (unseen classes) or test (validation sketches).
LIST_NAMES = (
    ("sketch_tx_000000000000_ready_filelist_{}.txt", "all_photo_filelist_{}.txt"),  # Sketchy
    ("png_ready_filelist_{}.txt", "ImageResized_ready_filelist_{}.txt"),  # TU-Berlin
    ("sketch_{}.txt", "all_photo_{}.txt"),  # QuickDraw
    ("sketch_filelist_{}.txt", "photo_filelist_{}.txt"),  # any other
)
_CLASS_LISTS = {"train": "cname_cid.txt", "zero": "cname_cid_zero.txt"}
_LISTED_ENTRIES = 20


class Labelled(NamedTuple):
    """Image files and their class ids.

    Attributes:
        paths: image files.
        labels: class id of every file.
    """

    paths: list[Path]
    labels: list[int]


class FoundLists(NamedTuple):
    """List files of one split.

    Attributes:
        base: folder that the paths in the lists start from.
        files: list file by (modality, part): sketch or photo; train, zero or test.
        seen: seen classes by id; None if there is no ``cname_cid.txt``.
        unseen: unseen classes by id; None if there is no ``cname_cid_zero.txt``.
    """

    base: Path
    files: dict[tuple[str, str], Path]
    seen: tuple[str, ...] | None
    unseen: tuple[str, ...] | None


def find_lists(root: Path) -> list[FoundLists]:
    """Find folders with list files: ``root``, ``root/zeroshot*`` and ``root/*/zeroshot*``.

    Args:
        root: folder of the dataset, or one above it.

    Returns:
        One entry per folder that has both lists of unseen classes, sorted by name.

    Raises:
        ValueError: a class list is malformed.
    """
    found = []
    for folder in [root, *sorted(root.glob("zeroshot*")), *sorted(root.glob("*/zeroshot*"))]:
        for sketch_name, photo_name in LIST_NAMES:
            files = {
                (modality, part): folder / name.format(part)
                for modality, name in (("sketch", sketch_name), ("photo", photo_name))
                for part in ("train", "zero", "test")
            }
            present = {key: file for key, file in files.items() if file.is_file()}
            if ("sketch", "zero") in present and ("photo", "zero") in present:
                base = root if folder == root else folder.parent
                needed = {key: file for key, file in files.items() if key[1] != "test"}
                names = (_class_names(folder / _CLASS_LISTS[part]) for part in ("train", "zero"))
                found.append(FoundLists(base, {**needed, **present}, *names))
                break
    return found


def read_images(
    file: Path, tree: FileTree, classes: Sequence[str], what: str, *, complete: bool
) -> Labelled:
    """Read one list of images and check that it fits the folder.

    Args:
        file: the list file.
        tree: the folder that its paths start from.
        classes: class names by id.
        what: ``"sketch"`` or ``"photo"``, for messages.
        complete: refuse classes without an image.

    Returns:
        Files and labels.

    Raises:
        FileNotFoundError: the list or images in it are missing.
        ValueError: the list is malformed, a class has no image, or a file has two labels.

    Warns:
        UserWarning: a file is listed more than once.
    """
    listed = read_file_list(file, classes=len(classes))
    found = [tree.find(written) for written in listed.paths]
    paths = [path for path in found if path is not None]
    if len(paths) < len(found):
        missing = [name for name, path in zip(listed.paths, found, strict=True) if path is None]
        raise FileNotFoundError(
            f"load_benchmark: paths in {file} must start from {tree.base}, but {len(missing)} of "
            f"{len(found)} files are missing: {listing(missing, limit=5)}"
        )
    _check_repeats(file, listed)
    with_images = set(listed.labels)
    empty = [name for label, name in enumerate(classes) if label not in with_images]
    if empty and complete:
        raise ValueError(
            f"load_benchmark: every class must have at least one {what}, got none in {file} for "
            f"{listing(empty)} ({len(empty)} of {len(classes)} classes)"
        )
    return Labelled(paths, list(listed.labels))


def _check_repeats(file: Path, listed: FileList) -> None:
    """Refuse files of two classes, and tell about files that are listed more than once."""
    label_of: dict[str, int] = {}
    for name, label in zip(listed.paths, listed.labels, strict=True):
        if label_of.setdefault(name, label) != label:
            raise ValueError(
                f"load_benchmark: every file in {file} must have one label, got {label_of[name]} "
                f"and {label} for {shown(name)}"
            )
    if len(label_of) < len(listed.paths):
        counts = Counter(listed.paths)
        twice = [name for name, count in counts.items() if count > 1]
        warnings.warn(
            f"load_benchmark: files in {file} must differ, got {len(twice)} more than once, which "
            f"count as often: {listing(twice, limit=5)}",
            stacklevel=5,
        )


def check_lists(files: dict[tuple[str, str], Path]) -> None:
    """Refuse to begin while lists are missing.

    Args:
        files: list file by modality and part.

    Raises:
        FileNotFoundError: lists are missing; the message counts and names them.
    """
    missing = [file for file in files.values() if not os.path.isfile(file)]
    if missing:
        raise FileNotFoundError(
            f"load_benchmark: every list of the split must be there, got no such list file: "
            f"{listing(missing)} ({len(missing)} of {len(files)})"
        )


def check_apart(images: Mapping[tuple[str, str], Labelled]) -> None:
    """Refuse an image that is in training and in the test, or a sketch and a photo.

    Args:
        images: sketches and photos of the parts train and zero.

    Raises:
        ValueError: there are such images; the message counts them and names some.
    """
    files = {key: dict.fromkeys(found.paths) for key, found in images.items()}
    for what, of_one, of_another in (
        ("in training or in the test", ("sketch", "train"), ("sketch", "zero")),
        ("in training or in the test", ("photo", "train"), ("photo", "zero")),
        ("a sketch or a photo", ("sketch", "train"), ("photo", "train")),
        ("a sketch or a photo", ("sketch", "zero"), ("photo", "zero")),
    ):
        both = [path for path in files[of_one] if path in files[of_another]]
        if both:
            raise ValueError(
                f"load_benchmark: every image must be {what}, got {len(both)} that are both: "
                f"{listing(both, limit=5)}"
            )


def describe_search(root: Path, sketches: Sequence[str], photos: Sequence[str]) -> str:
    """Name the files that were looked for below ``root``, and those that lie there.

    Args:
        root: folder of the dataset.
        sketches: folders that class folders of sketches were looked for in.
        photos: the same for photos.

    Returns:
        Lines for a message.
    """
    lists = ", ".join(name.format("zero") for name, _ in LIST_NAMES)
    entries = sorted(entry.name + "/" * entry.is_dir() for entry in root.iterdir())
    return (
        f"  looked for file lists: {lists} in {root}, {root}/zeroshot*/ and {root}/*/zeroshot*/\n"
        f"  looked for class folders of sketches in: {', '.join(sketches)}\n"
        f"  looked for class folders of photos in: {', '.join(photos)}\n"
        f"  found in {root}: {listing(entries, limit=_LISTED_ENTRIES) or 'nothing'}"
    )


def _class_names(path: Path) -> tuple[str, ...] | None:
    return read_class_list(path) if path.is_file() else None
