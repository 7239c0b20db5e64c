"""The parts that a report is made of: plain records, filled by the caller."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Cell = str | float | int | None


@dataclass(frozen=True)
class Table:
    """A table of the report.

    Attributes:
        title: heading above the table.
        columns: header cells; the first column names the row.
        rows: one sequence per row, as long as ``columns``. Floats are shown with three decimals,
            ``None`` as a dash.
        note: a sentence under the table.
        highlight: index of the row to emphasise, or None.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""
    highlight: int | None = None


@dataclass(frozen=True)
class Retrieved:
    """One photo in the answer to a query.

    Attributes:
        image: uint8 [H, W] or [H, W, 3].
        label: class name of the photo.
        hit: whether that is the class of the query.
    """

    image: NDArray[np.uint8]
    label: str
    hit: bool


@dataclass(frozen=True)
class Strip:
    """The photos that another ranking of the same query puts first.

    Attributes:
        name: what ranked them, e.g. ``"re-ranked (augmentation by 10)"``.
        ap: average precision of the query under that ranking, a fraction.
        results: the nearest photos.
    """

    name: str
    ap: float
    results: Sequence[Retrieved]


@dataclass(frozen=True)
class RetrievalRow:
    """One query and the photos nearest to it, nearest first.

    Attributes:
        group: heading under which the row stands, e.g. ``"Best queries"``.
        query: the sketch, uint8 [H, W] or [H, W, 3].
        label: class name of the query.
        ap: average precision of the query, a fraction.
        results: the nearest photos.
        reranked: what re-ranking made of it, shown below the plain strip; None without it.
    """

    group: str
    query: NDArray[np.uint8]
    label: str
    ap: float
    results: Sequence[Retrieved]
    reranked: Strip | None = None


@dataclass(frozen=True)
class ClusterRow:
    """What one cluster of photos holds.

    Attributes:
        size: number of its photos, at least 1.
        classes: class name -> share of its photos, the largest shares first.
        photos: those nearest to its centre, nearest first; a hit is of its largest class.
    """

    size: int
    classes: Mapping[str, float]
    photos: Sequence[Retrieved]


@dataclass(frozen=True)
class ClusterPicture:
    """The clusters of a gallery.

    Attributes:
        title: heading; none if it is empty.
        rows: the clusters, largest first.
        clusters: how many there are, also those without a row.
        empty: how many of them hold no photo.
        purity: share of all photos that are of the largest class of their cluster.
    """

    title: str
    rows: Sequence[ClusterRow]
    clusters: int
    empty: int
    purity: float


@dataclass(frozen=True)
class PerClass:
    """One bar per class.

    Attributes:
        title: heading.
        values: class name -> value in 0..1.
        baseline: class name -> value to compare with, drawn as a mark on the bar.
        value_name: name of the bars.
        baseline_name: name of the marks.
    """

    title: str
    values: Mapping[str, float]
    baseline: Mapping[str, float] = field(default_factory=dict)
    value_name: str = "mAP@all"
    baseline_name: str = ""


@dataclass(frozen=True)
class Curve:
    """A line chart.

    Attributes:
        title: heading.
        x_label: meaning of the horizontal axis.
        series: name -> points (x, y), x ascending.
    """

    title: str
    x_label: str
    series: Mapping[str, Sequence[tuple[float, float]]]


@dataclass(frozen=True)
class WordMap:
    """Where one word looks, in the sketch and in the photo.

    Attributes:
        word: the word.
        sketch: heat map over the sketch, uint8 [H, W, 3].
        photo: heat map over the photo, uint8 [H, W, 3].
    """

    word: str
    sketch: NDArray[np.uint8]
    photo: NDArray[np.uint8]


@dataclass(frozen=True)
class WeightedPair:
    """A sketch, its partner photo, and how much the pair counts in training.

    Attributes:
        group: heading under which the pair stands, e.g. ``"Largest weights"``.
        label: class name of both.
        sketch: uint8 [H, W] or [H, W, 3].
        photo: uint8 [H, W] or [H, W, 3].
        weight: alignment weight, 1 on average.
        local: local score, -1 to 1.
        global_: global score, -1 to 1.
        words: which patches answer which word; empty for pairs that only show their weight.
        low: attention at the palest colour of ``words``, in multiples of an equal share.
        high: attention at the strongest colour.
        grids: patches along a side, of the sketch and of the photo.
    """

    group: str
    label: str
    sketch: NDArray[np.uint8]
    photo: NDArray[np.uint8]
    weight: float
    local: float
    global_: float
    words: Sequence[WordMap] = ()
    low: float = 0.0
    high: float = 0.0
    grids: tuple[int, int] = (0, 0)
