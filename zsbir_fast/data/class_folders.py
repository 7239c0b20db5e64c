"""Find a dataset on disk that has one folder per class."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from zsbir_fast._words import shown
from zsbir_fast.data.decode import is_image
from zsbir_fast.data.layouts import Labelled
from zsbir_fast.data.names import by_plain_name, listing, plain_name, with_nearest

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
# Photos that Sketchy's extension adds to those of one of PHOTO_FOLDERS.
EXTENSION_FOLDERS = ("extended_photo", "EXTEND_image_sketchy", "EXTEND_image_sketchy_ready")
PHOTO_FOLDERS = (
    *EXTENSION_FOLDERS,
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
# Names that are believed; of any other file the first bytes are looked at.
_IMAGE_SUFFIXES = frozenset(
    [".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".gif", ".webp", ".tif", ".tiff"]
)
# Files that lie beside images and are none; they are left out without a warning.
_COMPANIONS = frozenset(
    [".txt", ".md", ".csv", ".tsv", ".json", ".xml", ".yaml", ".yml", ".html", ".ini", ".db"]
)
_OF_THE_SYSTEM = frozenset(["__MACOSX", "@eaDir", "Icon\r"])

ClassFolders = dict[str, list[Path]]


class FoundFolders(NamedTuple):
    """Class folders of both modalities, by plain class name.

    Attributes:
        sketches: folders of every class.
        photos: folders of every class.
    """

    sketches: ClassFolders
    photos: ClassFolders


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
        classes: names to look for; None takes every folder.
        sketch_folders: folders below ``root`` with sketches, all of which are used; None looks
            at the usual ones and takes the first that fits.
        photo_folders: the same for photos; None also joins Sketchy's photos with its extension.

    Returns:
        The folders, or None if one modality was not found.

    Raises:
        FileNotFoundError: a folder that was given does not exist.
        ValueError: two folders of a modality are spelt alike, or a folder that was given holds no
            class.
        TypeError: folders are given as one text.

    Warns:
        UserWarning: another known folder fits, too, and is left out.
    """
    wanted = None if classes is None else {plain_name(name) for name in classes}
    sides = []
    for what, given, usual in (
        ("sketch_folders", sketch_folders, SKETCH_FOLDERS),
        ("photo_folders", photo_folders, PHOTO_FOLDERS),
    ):
        if given is not None:
            sides.append(_merge([_given(root, what, name, wanted) for name in _names(what, given)]))
            continue
        # By the real path: a folder that is linked under a second name is one folder.
        places = {(root / name).resolve(): name for name in reversed(usual)}
        names = [name for name in usual if places[(root / name).resolve()] == name]
        candidates = [(name, _class_folders(root / name)) for name in names]
        fitting = [(name, folders) for name, folders in candidates if _fits(folders, wanted)]
        if not fitting:
            return None
        sides.append(_choose(root, what, fitting))
    return FoundFolders(*sides)


def classes_of_both(found: FoundFolders, besides: Iterable[str]) -> list[str]:
    """Name the classes that have sketches and photos.

    Args:
        found: the folders.
        besides: classes to leave out.

    Returns:
        Folder names, in the order of the sketches.

    Warns:
        UserWarning: a class has a folder on one side only; it is left out.
    """
    others = {plain_name(name) for name in besides}
    halves = []
    for what, mine, its in (("sketches", *found), ("photos", *found[::-1])):
        only = [folders[0].name for plain, folders in mine.items() if plain not in {*its, *others}]
        if only:
            halves.append(f"only {what} of {listing(only)} ({len(only)})")
    if halves:
        warnings.warn(
            f"load_benchmark: every class must have sketches and photos, got {'; '.join(halves)}; "
            "these classes are left out",
            stacklevel=3,
        )
    return [
        places[0].name
        for plain, places in found.sketches.items()
        if plain in found.photos and plain not in others
    ]


def scan_folders(folders: ClassFolders, classes: Sequence[str], what: str) -> Labelled:
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

    Warns:
        UserWarning: something in a class folder is no image; it is left out.
    """
    missing = [name for name in classes if plain_name(name) not in folders]
    if missing:
        there = [places[0].name for places in folders.values()]
        raise FileNotFoundError(
            f"load_benchmark: every class must have a {what} folder, got none for "
            f"{with_nearest(missing, there)} ({len(missing)} of {len(classes)} classes)"
        )
    found = Labelled([], [])
    empty, strange = [], []
    for label, name in enumerate(classes):
        files = []
        for place in folders[plain_name(name)]:
            images, others = _look_into(place)
            files += images
            strange += others
        if not files:
            empty.append(name)
        found.paths.extend(files)
        found.labels.extend([label] * len(files))
    if strange:
        warnings.warn(
            f"load_benchmark: class folders must hold images, got {len(strange)} other entries, "
            f"which are left out: {listing(strange, limit=5)}",
            stacklevel=3,
        )
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
    others = {**found.photos, **found.sketches}
    unused = sorted(places[0].name for plain, places in others.items() if plain not in known)
    if unused:
        warnings.warn(
            f"load_benchmark: {len(unused)} class folders belong to no class of the split and are "
            f"left out: {listing(unused)}",
            stacklevel=3,
        )


def _names(what: str, given: Sequence[str]) -> Sequence[str]:
    if isinstance(given, str) or not given:
        raise TypeError(f"load_benchmark: {what} must be a list of folders, got {shown(given)}")
    return given


def _given(root: Path, what: str, name: str, wanted: set[str] | None) -> ClassFolders:
    folder = root / os.path.expanduser(name)
    if not os.path.isdir(folder):
        raise FileNotFoundError(
            f"load_benchmark: {what} must be folders below {root}, got {shown(name)}, which is none"
        )
    folders = _class_folders(folder)
    if not _fits(folders, wanted):
        there = listing([places[0].name for places in folders.values()], limit=5) or "no folder"
        raise ValueError(
            f"load_benchmark: {what} must hold folders of classes, got {name!r}, where no class "
            f"fits: {there}"
        )
    return folders


def _choose(root: Path, what: str, fitting: list[tuple[str, ClassFolders]]) -> ClassFolders:
    """Take the first folder that fits, joined with its counterpart; name those left out."""
    taken = [fitting[0]]
    left = []
    for name, folders in fitting[1:]:
        extends = (name in EXTENSION_FOLDERS) != (taken[0][0] in EXTENSION_FOLDERS)
        if not extends or what != "photo_folders" or len(taken) > 1:
            left.append(repr(name))
            continue
        mine, its = _stems(taken[0][1]), _stems(folders)
        if mine & its:
            left.append(f"{name!r} ({len(mine & its)} of its {len(its)} files are named alike)")
        else:
            taken.insert(0 if taken[0][0] in EXTENSION_FOLDERS else 1, (name, folders))
    if left:
        names = " and ".join(repr(name) for name, _ in taken)
        warnings.warn(
            f"load_benchmark: {root} holds more than one folder of classes: {names} taken, "
            f"{', '.join(left)} left out; {what} chooses others",
            stacklevel=4,
        )
    return _merge([folders for _, folders in taken])


def _stems(folders: ClassFolders) -> set[tuple[str, str]]:
    return {
        (plain, image.stem)
        for plain, places in folders.items()
        for place in places
        for image in _look_into(place)[0]
    }


def _class_folders(folder: Path) -> ClassFolders:
    if not folder.is_dir():
        return {}
    places = sorted(
        place
        for place in folder.iterdir()
        if place.is_dir() and place.name[0] != "." and place.name not in _OF_THE_SYSTEM
    )
    named = ((place.name, [place]) for place in places)
    return by_plain_name("load_benchmark", f"class folders in {folder}", named)


def _merge(sides: Sequence[ClassFolders]) -> ClassFolders:
    merged: ClassFolders = {}
    for side in sides:
        for name, places in side.items():
            merged.setdefault(name, []).extend(places)
    return merged


def _fits(folders: ClassFolders, wanted: set[str] | None) -> bool:
    if wanted is not None:
        return bool(folders.keys() & wanted)
    return any(_look_into(place)[0] for places in folders.values() for place in places)


def _look_into(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the images in a class folder, sorted, and the other entries there."""
    images, others = [], []
    with os.scandir(folder) as entries:
        for entry in entries:
            path, suffix = folder / entry.name, os.path.splitext(entry.name)[1].lower()
            if entry.name[0] == "." or entry.name in _OF_THE_SYSTEM:
                continue
            if entry.is_dir():
                others.append(path)
            elif suffix in _IMAGE_SUFFIXES or (suffix not in _COMPANIONS and is_image(path)):
                images.append(path)
            elif suffix not in _COMPANIONS:
                others.append(path)
    return sorted(images), sorted(others)
