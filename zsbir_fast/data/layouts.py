"""Find a dataset on disk: list files as SAKE and ZSE-SBIR ship them, or folders of classes."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from zsbir_fast.data.filelists import read_class_list, read_file_list
from zsbir_fast.data.names import listing, plain_name

# Lists of sketches and photos; {} is train, zero (unseen classes) or test (validation sketches).
LIST_NAMES = (
    ("sketch_tx_000000000000_ready_filelist_{}.txt", "all_photo_filelist_{}.txt"),  # Sketchy
    ("png_ready_filelist_{}.txt", "ImageResized_ready_filelist_{}.txt"),  # TU-Berlin
    ("sketch_{}.txt", "all_photo_{}.txt"),  # QuickDraw
    ("sketch_filelist_{}.txt", "photo_filelist_{}.txt"),  # any other
)
# Folders that hold one folder per class. The first one with known classes is taken.
SKETCH_FOLDERS = (
    "sketch",
    "sketches",
    "sketch/tx_000000000000",
    "sketch/tx_000000000000_ready",
    "256x256/sketch/tx_000000000000",
    "256x256/sketch/tx_000000000000_ready",
    "Sketchy/sketch/tx_000000000000",
    "png",
    "png_ready",
    "QuickDraw_sketches",
    "QuickDraw_sketches_final",
)
PHOTO_FOLDERS = (
    "extended_photo",
    "EXTEND_image_sketchy",
    "EXTEND_image_sketchy_ready",
    "photo",
    "photos",
    "images",
    "photo/tx_000000000000",
    "photo/tx_000000000000_ready",
    "256x256/photo/tx_000000000000",
    "256x256/photo/tx_000000000000_ready",
    "ImageResized",
    "ImageResized_ready",
    "QuickDraw_images",
    "QuickDraw_images_final",
    "EXTEND_image_quickdraw",
)
IMAGE_SUFFIXES = frozenset([".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff"])
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


class FoundFolders(NamedTuple):
    """Class folders of both modalities, by plain class name.

    Attributes:
        sketches: folders of every class.
        photos: folders of every class.
    """

    sketches: dict[str, list[Path]]
    photos: dict[str, list[Path]]


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


def read_images(file: Path, base: Path, classes: Sequence[str]) -> Labelled:
    """Read one list of images and check that it fits the folder.

    Args:
        file: the list file.
        base: folder that its paths start from.
        classes: class names by id.

    Returns:
        Files and labels.

    Raises:
        FileNotFoundError: the list or its first image is missing.
        ValueError: the list is malformed.
    """
    listed = read_file_list(file, classes=len(classes))
    paths = [base / name for name in listed.paths]  # an absolute path stays as it is
    if not paths[0].is_file():
        raise FileNotFoundError(
            f"load_benchmark: paths in {file} must start from {base}, but {paths[0]} is missing"
        )
    return Labelled(paths, list(listed.labels))


def find_folders(
    root: Path,
    classes: Sequence[str] | None,
    *,
    sketch_folders: Sequence[str] | None = None,
    photo_folders: Sequence[str] | None = None,
) -> FoundFolders | None:
    """Find the folders of classes.

    Args:
        root: folder of the dataset.
        classes: names to look for; None takes every folder that both modalities have.
        sketch_folders: folders below ``root`` with sketches, all of which are used; None looks
            at the usual ones and takes the first that fits.
        photo_folders: the same for photos.

    Returns:
        The folders, or None if one modality was not found.

    Raises:
        ValueError: two folders of a modality are spelt alike.
    """
    wanted = None if classes is None else {plain_name(name) for name in classes}
    sides = []
    for given, usual in ((sketch_folders, SKETCH_FOLDERS), (photo_folders, PHOTO_FOLDERS)):
        if given is not None:
            side = _merge([_class_folders(root / name) for name in given])
        else:
            candidates = (_class_folders(root / name) for name in usual)
            side = next((c for c in candidates if _fits(c, wanted)), {})
        if not _fits(side, wanted):
            return None
        sides.append(side)
    return FoundFolders(*sides)


def scan_folders(folders: dict[str, list[Path]], classes: Sequence[str], what: str) -> Labelled:
    """List the images of some classes.

    Args:
        folders: folders by plain class name.
        classes: class names; labels index them.
        what: ``"sketch"`` or ``"photo"``, for messages.

    Returns:
        Files, sorted by class and name, and labels.

    Raises:
        FileNotFoundError: classes without a folder.
        ValueError: classes without an image.
    """
    missing = [name for name in classes if plain_name(name) not in folders]
    if missing:
        raise FileNotFoundError(
            f"load_benchmark: every class must have a {what} folder, got none for "
            f"{listing(missing)} ({len(missing)} of {len(classes)} classes)"
        )
    found = Labelled([], [])
    empty = []
    for label, name in enumerate(classes):
        places = folders[plain_name(name)]
        files = [file for place in places for file in sorted(_images(place))]
        if not files:
            empty.append(name)
        found.paths.extend(files)
        found.labels.extend([label] * len(files))
    if empty:
        raise ValueError(
            f"load_benchmark: every class must have at least one {what}, got none for "
            f"{listing(empty)}"
        )
    return found


def warn_of_others(found: FoundFolders, classes: Iterable[str]) -> None:
    """Tell about class folders that no class of the split uses.

    Args:
        found: the folders.
        classes: seen and unseen classes.
    """
    known = {plain_name(name) for name in classes}
    others = sorted((found.sketches.keys() & found.photos.keys()) - known)
    if others:
        warnings.warn(
            f"load_benchmark: {len(others)} class folders belong to no class of the split and are "
            f"left out: {listing(others)}",
            stacklevel=3,
        )


def describe_search(root: Path) -> str:
    """Say what was looked for below ``root`` and what lies there.

    Args:
        root: folder of the dataset.

    Returns:
        Lines for a message.
    """
    lists = ", ".join(name.format("zero") for name, _ in LIST_NAMES)
    entries = sorted(entry.name + "/" * entry.is_dir() for entry in root.iterdir())
    return (
        f"  looked for file lists: {lists} in {root}, {root}/zeroshot*/ and {root}/*/zeroshot*/\n"
        f"  looked for class folders of sketches in: {', '.join(SKETCH_FOLDERS)}\n"
        f"  looked for class folders of photos in: {', '.join(PHOTO_FOLDERS)}\n"
        f"  found in {root}: {listing(entries, limit=_LISTED_ENTRIES) or 'nothing'}"
    )


def _class_names(path: Path) -> tuple[str, ...] | None:
    return read_class_list(path) if path.is_file() else None


def _class_folders(folder: Path) -> dict[str, list[Path]]:
    if not folder.is_dir():
        return {}
    found: dict[str, list[Path]] = {}
    for place in sorted(p for p in folder.iterdir() if p.is_dir() and p.name[0] != "."):
        if plain_name(place.name) in found:
            raise ValueError(
                f"load_benchmark: class folders in {folder} must differ by more than case and "
                f"separators, got {found[plain_name(place.name)][0].name!r} and {place.name!r}"
            )
        found[plain_name(place.name)] = [place]
    return found


def _merge(sides: Sequence[dict[str, list[Path]]]) -> dict[str, list[Path]]:
    merged: dict[str, list[Path]] = {}
    for side in sides:
        for name, places in side.items():
            merged.setdefault(name, []).extend(places)
    return merged


def _fits(folders: dict[str, list[Path]], wanted: set[str] | None) -> bool:
    if wanted is not None:
        return bool(folders.keys() & wanted)
    return any(next(_images(place), None) for places in folders.values() for place in places)


def _images(folder: Path) -> Iterator[Path]:
    return (
        file
        for file in folder.iterdir()
        if file.suffix.lower() in IMAGE_SUFFIXES and file.name[0] != "."
    )
