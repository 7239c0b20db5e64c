"""Published zero-shot splits: which classes are seen, which are unseen, and how many images."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from zsbir_fast._arguments import check_choice
from zsbir_fast._words import shown
from zsbir_fast.data import bundled
from zsbir_fast.data.names import check_classes

# name -> (seen list, unseen list, zero-shot sketch list, zero-shot photo list, train lists)
_ZSE = "buptLinfy/ZSE-SBIR:datasets/"
_SKETCHY = "sketch_tx_000000000000_ready_filelist_{}.txt"
_SPLITS: dict[str, tuple[str, str, dict[str, str]]] = {
    "sketchy-25": (
        "sketchy_split1_seen100.txt",
        "sketchy_split1_unseen25.txt",
        {
            "queries": f"{_ZSE}Sketchy/zeroshot1/{_SKETCHY.format('zero')}",
            "gallery": f"{_ZSE}Sketchy/zeroshot1/all_photo_filelist_zero.txt",
            "train_sketches": f"{_ZSE}Sketchy/zeroshot1/{_SKETCHY.format('train')}",
            "train_photos": f"{_ZSE}Sketchy/zeroshot1/all_photo_filelist_train.txt",
        },
    ),
    "sketchy-21": (
        "sketchy_split2_seen104.txt",
        "sketchy_split2_unseen21.txt",
        {
            "queries": f"{_ZSE}Sketchy/zeroshot0/{_SKETCHY.format('zero')}",
            "gallery": f"{_ZSE}Sketchy/zeroshot0/all_photo_filelist_zero.txt",
            "train_sketches": f"{_ZSE}Sketchy/zeroshot0/{_SKETCHY.format('train')}",
            "train_photos": f"{_ZSE}Sketchy/zeroshot0/all_photo_filelist_train.txt",
        },
    ),
    "tuberlin-30": (
        "tuberlin_seen220.txt",
        "tuberlin_unseen30.txt",
        {
            "queries": f"{_ZSE}TUBerlin/zeroshot/png_ready_filelist_zero.txt",
            "gallery": f"{_ZSE}TUBerlin/zeroshot/ImageResized_ready_filelist_zero.txt",
            "train_sketches": f"{_ZSE}TUBerlin/zeroshot/png_ready_filelist_train.txt",
        },
    ),
    "quickdraw-30": (
        "quickdraw_seen80.txt",
        "quickdraw_unseen30.txt",
        {
            "queries": f"{_ZSE}QuickDraw/zeroshot/sketch_zero.txt",
            "gallery": f"{_ZSE}QuickDraw/zeroshot/all_photo_zero.txt",
        },
    ),
}
SPLIT_NAMES = (*_SPLITS, "qd_caltech")


@dataclass(frozen=True)
class SplitCounts:
    """Images in the published file lists of a split.

    Attributes:
        queries: sketches of unseen classes.
        gallery: photos of unseen classes.
        relevant_min: photos of the smallest unseen class.
        relevant_max: photos of the largest unseen class.
        train_sketches: sketches of seen classes; None where no public list was counted.
        train_photos: photos of seen classes; None where no public list was counted.
    """

    queries: int
    gallery: int
    relevant_min: int
    relevant_max: int
    train_sketches: int | None = None
    train_photos: int | None = None


@dataclass(frozen=True, repr=False)
class Split:
    """Class names of a zero-shot split, in the order of the label ids of its file lists.

    Attributes:
        name: name of the split.
        seen: classes to train on.
        unseen: classes to retrieve.
        counts: images in the published lists.
    """

    name: str
    seen: tuple[str, ...]
    unseen: tuple[str, ...]
    counts: SplitCounts

    def __repr__(self) -> str:
        return (
            f"Split {self.name!r}: {len(self.seen)} seen and {len(self.unseen)} unseen classes, "
            f"{self.counts.queries:,} queries, {self.counts.gallery:,} gallery photos"
        )


def load_split(name: str) -> Split:
    """Return a published split by name.

    Args:
        name: ``"sketchy-25"`` (SAKE's random 100/25), ``"sketchy-21"`` (104/21, disjoint from
            ImageNet), ``"tuberlin-30"`` (220/30), ``"quickdraw-30"`` (80/30) or ``"qd_caltech"``
            (37/10, the bundled benchmark).

    Returns:
        The split.

    Raises:
        TypeError: ``name`` is no text.
        ValueError: an unknown name; the message lists the known ones.

    Source: the file lists of SAKE (Liu et al., ICCV 2019) and ZSE-SBIR (Lin et al., CVPR 2023);
    sketchy-21 goes back to Yelamarthi et al., ECCV 2018, quickdraw-30 to Dey et al., CVPR 2019.
    """
    if not isinstance(name, str):
        raise TypeError(f"load_split: name must be text, got {shown(name)}")
    check_choice("load_split", "name", name, SPLIT_NAMES)
    return _load_split(name)


@cache
def _load_split(name: str) -> Split:
    if name == "qd_caltech":
        split = _bundled_split()
    else:
        folder = bundled.path("splits")
        seen_file, unseen_file, lists = _SPLITS[name]
        split = Split(name, _lines(folder / seen_file), _lines(folder / unseen_file), _count(lists))
    check_classes("load_split", split.seen, split.unseen)
    return split


def _lines(path: Path) -> tuple[str, ...]:
    return tuple(path.read_text(encoding="utf-8").splitlines())


def _count(lists: dict[str, str]) -> SplitCounts:
    path = bundled.path("splits") / "filelist_counts.json"
    counted = json.loads(path.read_text(encoding="utf-8"))
    per_class = counted[lists["gallery"]]["per_class"].values()
    lines = {what: counted[key]["lines"] for what, key in lists.items()}
    return SplitCounts(relevant_min=min(per_class), relevant_max=max(per_class), **lines)


def _bundled_split() -> Split:
    rows = [
        line.split(",")
        for line in _lines(bundled.path("qd_caltech") / "classes.csv")[1:]  # after the heading
    ]
    classes: dict[str, list[str]] = {"seen": [], "unseen": []}
    sketches, photos = {"seen": 0, "unseen": 0}, {"seen": 0, "unseen": 0}
    relevant = []
    for name, _, _, _, part, n_sketch, n_photo in rows:
        classes[part].append(name)
        sketches[part] += int(n_sketch)
        photos[part] += int(n_photo)
        if part == "unseen":
            relevant.append(int(n_photo))
    counts = SplitCounts(
        sketches["unseen"],
        photos["unseen"],
        min(relevant),
        max(relevant),
        sketches["seen"],
        photos["seen"],
    )
    return Split("qd_caltech", tuple(classes["seen"]), tuple(classes["unseen"]), counts)
