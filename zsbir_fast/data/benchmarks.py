"""Benchmarks: sketches and photos of seen classes to train on, of unseen classes to retrieve."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from zsbir_fast._arguments import check_choice
from zsbir_fast._words import did_you_mean, shortened, shown
from zsbir_fast.data import bundled, class_folders, layouts
from zsbir_fast.data.class_folders import FoundFolders
from zsbir_fast.data.file_tree import FileTree
from zsbir_fast.data.filelists import read_class_list
from zsbir_fast.data.image_spec import Modality
from zsbir_fast.data.images import ImageSet
from zsbir_fast.data.layouts import FoundLists, Labelled
from zsbir_fast.data.names import (
    by_plain_name,
    check_classes,
    check_distinct,
    listing,
    plain_name,
    same_names,
)
from zsbir_fast.data.splits import SPLIT_NAMES, Split, load_split

Layout = Literal["auto", "lists", "folders"]
_BUNDLED = "qd_caltech"


@dataclass(frozen=True, repr=False)
class Benchmark:
    """Images of a zero-shot split.

    Attributes:
        name: name of the split.
        seen: seen classes; labels of the training sets index them.
        unseen: unseen classes; labels of the test sets index them.
        train_sketches: sketches of seen classes.
        train_photos: photos of seen classes.
        test_sketches: sketches of unseen classes, the queries.
        test_photos: photos of unseen classes, the gallery.
        validation_sketches: sketches of seen classes that the source keeps out of training
            (SAKE's ``..._filelist_test.txt``), labelled like the training sets; None if it does
            not.

    Raises:
        ValueError: a class is both seen and unseen, or a set has other classes.
    """

    name: str
    seen: tuple[str, ...]
    unseen: tuple[str, ...]
    train_sketches: ImageSet
    train_photos: ImageSet
    test_sketches: ImageSet
    test_photos: ImageSet
    validation_sketches: ImageSet | None = None

    def __post_init__(self) -> None:
        check_classes("Benchmark", self.seen, self.unseen)
        for name, classes in (
            *(("train_sketches", self.seen), ("train_photos", self.seen)),
            *(("test_sketches", self.unseen), ("test_photos", self.unseen)),
            ("validation_sketches", self.seen),
        ):
            its: ImageSet | None = getattr(self, name)
            if its is not None and not same_names(its.classes, classes):
                raise ValueError(
                    f"Benchmark: {name} must have the classes {listing(classes, limit=3)} of the "
                    f"benchmark, got {listing(its.classes, limit=3)}"
                )

    def __repr__(self) -> str:
        """Tell the sizes of the two parts."""
        train, test = (
            f"{len(classes):,} {kind} classes with {sketches.size_in_words()} and "
            f"{photos.size_in_words()}"
            for kind, classes, sketches, photos in (
                ("seen", self.seen, self.train_sketches, self.train_photos),
                ("unseen", self.unseen, self.test_sketches, self.test_photos),
            )
        )
        kept = self.validation_sketches
        validation = "" if kept is None else f" (and {kept.size_in_words()} for validation)"
        return f"Benchmark {self.name!r}: train on {train}{validation},\n  retrieve among {test}"

    def hold_out(self, *, classes: int, seed: int = 0) -> tuple[Benchmark, Benchmark]:
        """Set some seen classes aside, to choose a model without a look at the unseen ones.

        Args:
            classes: how many seen classes to hold out.
            seed: fixes which ones.

        Returns:
            The benchmark without them, and a benchmark whose "unseen" classes they are. Both
            have the remaining classes as ``seen``; the test sets of the first are those of this
            benchmark.

        Raises:
            ValueError: ``classes`` is not in 1..number of seen classes - 1.
        """
        if not 0 < classes < len(self.seen):
            raise ValueError(
                f"Benchmark.hold_out: classes must be in 1..{len(self.seen) - 1}, got {classes}"
            )
        order = np.random.default_rng(seed).permutation(len(self.seen))
        held = tuple(self.seen[i] for i in sorted(order[:classes]))
        kept = tuple(self.seen[i] for i in sorted(order[classes:]))
        sketches, photos = (s.of_classes(kept) for s in (self.train_sketches, self.train_photos))
        validation = self.validation_sketches
        return (
            Benchmark(
                self.name,
                kept,
                self.unseen,
                sketches,
                photos,
                self.test_sketches,
                self.test_photos,
                None if validation is None else validation.of_classes(kept),
            ),
            Benchmark(
                f"{self.name} (held-out seen classes)",
                kept,
                held,
                sketches,
                photos,
                self.train_sketches.of_classes(held),
                self.train_photos.of_classes(held),
            ),
        )


def load_benchmark(
    name: str = _BUNDLED,
    root: str | Path | None = None,
    *,
    layout: Layout = "auto",
    seen: Sequence[str] | None = None,
    unseen: Sequence[str] | None = None,
    sketch_folders: Sequence[str] | None = None,
    photo_folders: Sequence[str] | None = None,
    cache: bool | None = None,
) -> Benchmark:
    """Load a benchmark from the disk.

    Args:
        name: a published split (see :func:`zsbir_fast.load_split`) or any name for your own data.
        root: folder of the dataset, may begin with ``~``; None for the bundled ``"qd_caltech"``.
        layout: ``"lists"``: list files as SAKE and ZSE-SBIR ship them. ``"folders"``: one folder
            per class, e.g. ``sketch/<class>/*.png`` and ``photo/<class>/*.jpg``. ``"auto"``:
            lists if there are any, else folders.
        seen: your own seen classes, folders only; None: all classes that are not ``unseen``.
        unseen: your own unseen classes, folders only; needed where ``name`` is no published
            split. Published splits fix their classes.
        sketch_folders: folders below ``root`` that hold the class folders of sketches; None looks
            at the usual places.
        photo_folders: the same for photos; all of them are used. None also joins Sketchy's photos
            with those of its extension, if both are there.
        cache: keep decoded images as uint8 in memory; None does so for the bundled benchmark
            only (150 MiB).

    Returns:
        The benchmark. Class names are spelt as in the published split, even if the folders spell
        them otherwise.

    Raises:
        ValueError: an option or a list file is wrong, classes overlap or are spelt alike, a class
            has no image, or an image is both in training and in the test.
        FileNotFoundError: the folder, lists, a class or images of a list are missing; the message
            names the files that were looked for and those that were found.

    Warns:
        UserWarning: something is left out: a class that has only sketches or only photos, a
            folder of no class or of further photos, a file that is no image. It is named.
    """
    folder = _check_arguments(name, root, layout, seen, unseen)
    if layout == "lists" and (sketch_folders is not None or photo_folders is not None):
        raise ValueError(
            "load_benchmark: sketch_folders and photo_folders must be None for layout 'lists', "
            f"whose lists say where the images are, got {sketch_folders} and {photo_folders}"
        )
    split = load_split(name) if name in SPLIT_NAMES else None
    keep = cache if cache is not None else root is None
    if layout != "folders" and unseen is None and sketch_folders is None and photo_folders is None:
        found = layouts.find_lists(folder)
        if found:
            return _from_lists(name, _choose(name, found, split, folder), split, cache=keep)
    if layout == "lists":
        raise FileNotFoundError(_nothing_found(name, folder, "as file lists"))
    names = None if split is None else (*split.seen, *split.unseen)
    if unseen is not None:
        names = None if seen is None else (*seen, *unseen)
    folders = class_folders.find_folders(
        folder, names, sketch_folders=sketch_folders, photo_folders=photo_folders
    )
    if folders is None:
        how = "as class folders" if layout == "folders" else "as file lists or class folders"
        raise FileNotFoundError(_nothing_found(name, folder, how))
    seen, unseen = _classes(name, split, folders, seen, unseen)
    sides = {"sketch": folders.sketches, "photo": folders.photos}
    return _assemble(
        name,
        tuple(seen),
        tuple(unseen),
        {
            (modality, part): class_folders.scan_folders(sides[modality], classes, modality)
            for modality in ("sketch", "photo")
            for part, classes in (("train", seen), ("zero", unseen))
        },
        cache=keep,
    )


def benchmark_from_lists(
    name: str,
    root: str | Path,
    *,
    train_sketches: str | Path,
    train_photos: str | Path,
    test_sketches: str | Path,
    test_photos: str | Path,
    seen: str | Path | Sequence[str],
    unseen: str | Path | Sequence[str],
    validation_sketches: str | Path | None = None,
    cache: bool = False,
) -> Benchmark:
    """Load a benchmark from list files given one by one.

    Args:
        name: any name.
        root: folder that the paths in the lists start from, may begin with ``~``.
        train_sketches: list of sketches of seen classes.
        train_photos: list of photos of seen classes.
        test_sketches: list of sketches of unseen classes.
        test_photos: list of photos of unseen classes.
        seen: names of the seen classes by id, or their ``cname_cid.txt``.
        unseen: names of the unseen classes by id, or their ``cname_cid_zero.txt``.
        validation_sketches: list of sketches of seen classes kept out of training.
        cache: keep decoded images as uint8 in memory.

    Returns:
        The benchmark.

    Raises:
        FileNotFoundError: lists, or images in one, are missing.
        ValueError: a list is malformed, classes overlap, a class has no image, or an image is both
            in training and in the test.
    """
    files = {
        ("sketch", "train"): train_sketches,
        ("photo", "train"): train_photos,
        ("sketch", "zero"): test_sketches,
        ("photo", "zero"): test_photos,
    }
    if validation_sketches is not None:
        files["sketch", "test"] = validation_sketches
    lists = FoundLists(
        Path(os.path.expanduser(root)),
        {key: Path(os.path.expanduser(file)) for key, file in files.items()},
        _class_names(seen),
        _class_names(unseen),
    )
    return _from_lists(name, lists, None, cache=cache)


def _check_arguments(
    name: str,
    root: str | Path | None,
    layout: str,
    seen: Sequence[str] | None,
    unseen: Sequence[str] | None,
) -> Path:
    check_choice("load_benchmark", "layout", layout, ("auto", "lists", "folders"))
    for what, names in (("seen classes", seen), ("unseen classes", unseen)):
        if names is not None:
            check_distinct("load_benchmark", what, names)
    if seen is not None and unseen is None:
        raise ValueError("load_benchmark: unseen must be given where seen is, got None")
    if unseen is not None and (name in SPLIT_NAMES or layout == "lists"):
        raise ValueError(
            "load_benchmark: unseen must be None for published splits and for lists, which fix "
            f"the classes, got {listing(unseen)} for {shown(name)} with layout {layout!r}"
        )
    if root is None:
        if name == _BUNDLED:
            return bundled.path(_BUNDLED)
        raise ValueError(
            f"load_benchmark: root must "
            f"be the folder of {shown(name)}{did_you_mean(name, SPLIT_NAMES)},"
            f" got None; only {_BUNDLED!r} is bundled"
        )
    if not isinstance(root, (str, Path)):
        raise TypeError(f"load_benchmark: root must be text or a Path, got {type(root).__name__}")
    folder = os.path.expanduser(root)
    if not os.path.isdir(folder):  # no error for names that no folder can have
        raise FileNotFoundError(
            f"load_benchmark: root must be an existing folder, got {shortened(root)}"
        )
    return Path(folder)


def _classes(
    name: str,
    split: Split | None,
    folders: FoundFolders,
    seen: Sequence[str] | None,
    unseen: Sequence[str] | None,
) -> tuple[Sequence[str], Sequence[str]]:
    """Decide which class folders are seen and unseen; name those that are neither."""
    if split is not None:
        seen, unseen = split.seen, split.unseen
    if unseen is None:
        raise ValueError(
            f"load_benchmark: unseen must "
            f"name the unseen classes, as {shown(name)} is no published "
            f"split ({', '.join(SPLIT_NAMES)}), got None{did_you_mean(name, SPLIT_NAMES)}"
        )
    if seen is None:
        seen = class_folders.classes_of_both(folders, unseen)
    else:
        class_folders.warn_of_others(folders, (*seen, *unseen))
    check_classes("load_benchmark", seen, unseen)
    return seen, unseen


def _choose(name: str, found: list[FoundLists], split: Split | None, root: Path) -> FoundLists:
    """Pick the lists of the wanted split: datasets keep the lists of several side by side."""
    if split is None:
        if len(found) > 1:
            raise ValueError(
                f"load_benchmark: root must hold the lists of one split, got "
                f"{listing(next(iter(lists.files.values())).parent for lists in found)} for "
                f"{shown(name)}{did_you_mean(name, SPLIT_NAMES)}"
            )
        return found[0]
    wanted = {plain_name(name) for name in split.unseen}
    for lists in found:
        if lists.unseen is not None and {plain_name(name) for name in lists.unseen} == wanted:
            return lists
    if len(found) == 1 and found[0].unseen is None:
        return found[0]
    got = "; ".join(
        f"{next(iter(lists.files.values())).parent}: {listing(lists.unseen or ['unnamed'])}"
        for lists in found
    )
    raise ValueError(
        f"load_benchmark: lists below {root} must have the {len(split.unseen)} unseen classes of "
        f"{split.name!r} in cname_cid_zero.txt, got {got}"
    )


def _from_lists(name: str, lists: FoundLists, split: Split | None, *, cache: bool) -> Benchmark:
    seen = _spelt(lists.seen, None if split is None else split.seen)
    unseen = _spelt(lists.unseen, None if split is None else split.unseen)
    if seen is None or unseen is None:
        raise FileNotFoundError(
            f"load_benchmark: cname_cid.txt and cname_cid_zero.txt must lie beside the lists of "
            f"{shown(name)}, got none in {next(iter(lists.files.values())).parent}"
        )
    check_classes("load_benchmark", seen, unseen)
    layouts.check_lists(lists.files)
    classes = {"train": seen, "test": seen, "zero": unseen}
    tree = FileTree(lists.base)
    images = {
        (modality, part): layouts.read_images(
            file, tree, classes[part], modality, complete=part != "test"
        )
        for (modality, part), file in lists.files.items()
        if (modality, part) != ("photo", "test")
    }
    return _assemble(name, seen, unseen, images, cache=cache)


def _spelt(
    names: tuple[str, ...] | None, published: tuple[str, ...] | None
) -> tuple[str, ...] | None:
    """Spell the names of a list as the published split does; without names take the split's."""
    if names is None or published is None:
        return names or published
    spelling = by_plain_name("load_benchmark", "classes", ((name, name) for name in published))
    strange = [name for name in names if plain_name(name) not in spelling]
    if strange or len(names) != len(published):
        raise ValueError(
            f"load_benchmark: class list must have the {len(published)} classes of the published "
            f"split, got {len(names)}, unknown among them: {listing(strange) or 'none'}"
        )
    return tuple(spelling[plain_name(name)] for name in names)


def _class_names(given: str | Path | Sequence[str]) -> tuple[str, ...]:
    return read_class_list(given) if isinstance(given, str | Path) else tuple(given)


def _assemble(
    name: str,
    seen: tuple[str, ...],
    unseen: tuple[str, ...],
    images: dict[tuple[str, str], Labelled],
    *,
    cache: bool,
) -> Benchmark:
    layouts.check_apart(images)

    def image_set(modality: Modality, part: str) -> ImageSet:
        found = images[modality, part]
        classes = unseen if part == "zero" else seen
        return ImageSet(found.paths, found.labels, classes, modality, cache=cache)

    return Benchmark(
        name,
        seen,
        unseen,
        image_set("sketch", "train"),
        image_set("photo", "train"),
        image_set("sketch", "zero"),
        image_set("photo", "zero"),
        image_set("sketch", "test") if ("sketch", "test") in images else None,
    )


def _nothing_found(name: str, root: Path, how: str) -> str:
    photos = class_folders.PHOTO_FOLDERS
    return (
        f"load_benchmark: root must hold {shown(name)}{did_you_mean(name, SPLIT_NAMES)} {how}, got "
        f"{root}, where nothing fits:\n"
        f"{layouts.describe_search(root, class_folders.SKETCH_FOLDERS, photos)}"
    )
