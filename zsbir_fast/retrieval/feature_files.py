"""Embeddings of any origin, from two files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zsbir_fast._words import shortened
from zsbir_fast.data.names import by_plain_name, plain_name
from zsbir_fast.data.npz_files import read_npz

_KEYS = ("embeddings", "labels")
_FUNCTION = "read_feature_pair"


@dataclass(frozen=True)
class FeaturePair:
    """Queries and a gallery that fit together.

    Attributes:
        queries: float [Q, D].
        gallery: float [G, D].
        query_labels: int64 [Q].
        gallery_labels: int64 [G].
        names: label -> its name.
    """

    queries: Tensor
    gallery: Tensor
    query_labels: Tensor
    gallery_labels: Tensor
    names: dict[int, str]


def read_feature_pair(queries: str | Path, gallery: str | Path) -> FeaturePair:
    """Read two ``.npz`` files with the arrays ``embeddings`` [n, D] and ``labels`` [n].

    Args:
        queries: file of the queries.
        gallery: file of the gallery. Labels are whole numbers or text, in both files alike; text
            is compared like class names, without case, blanks, underscores and hyphens.
            Embeddings are floating, or quantised to int8 or int16, which becomes float32.

    Returns:
        Both, with labels as numbers; text labels are numbered in alphabetical order, and so are
        numbers beyond int64.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is no ``.npz``, lacks a key, its arrays have other shapes or types, are
            empty, or the widths D differ.
    """
    query_rows, query_labels = _read(queries)
    gallery_rows, gallery_labels = _read(gallery)
    if query_rows.shape[1] != gallery_rows.shape[1]:
        raise ValueError(
            f"{_FUNCTION}: queries and gallery must have the same width D, got "
            f"D={query_rows.shape[1]} in {queries} and D={gallery_rows.shape[1]} in {gallery}"
        )
    if (query_labels.dtype.kind == "U") != (gallery_labels.dtype.kind == "U"):
        raise ValueError(
            f"{_FUNCTION}: labels must be text in both files or numbers in both, got "
            f"{query_labels.dtype} in {queries} and {gallery_labels.dtype} in {gallery}"
        )
    # As Python numbers: NumPy would join int64 and uint64 as float64, and labels would merge.
    listed = (query_labels.tolist(), gallery_labels.tolist())
    numbers, names = (
        _number(*listed)
        if query_labels.dtype.kind != "U"
        else _number_text(*listed, (queries, gallery))
    )
    return FeaturePair(
        queries=torch.from_numpy(query_rows),
        gallery=torch.from_numpy(gallery_rows),
        query_labels=torch.tensor([numbers[label] for label in listed[0]]),
        gallery_labels=torch.tensor([numbers[label] for label in listed[1]]),
        names=names,
    )


def _number(
    queries: Sequence[int], gallery: Sequence[int]
) -> tuple[dict[int, int], dict[int, str]]:
    """Keep labels that fit into int64, else number them in their order."""
    values = sorted({*queries, *gallery})
    fits = values[-1] <= np.iinfo(np.int64).max
    numbers = {value: value if fits else place for place, value in enumerate(values)}
    return numbers, {number: str(value) for value, number in numbers.items()}


def _number_text(
    queries: Sequence[str], gallery: Sequence[str], paths: tuple[str | Path, str | Path]
) -> tuple[dict[str, int], dict[int, str]]:
    """Number text labels in alphabetical order, those that name one class alike."""
    spelt: dict[str, str] = {}
    for labels, path in zip((gallery, queries), reversed(paths), strict=True):
        names = ((name, name) for name in sorted(set(labels)))
        spelt |= by_plain_name(_FUNCTION, f"labels in {path}", names)
    order = sorted(spelt, key=lambda plain: spelt[plain])
    place = {plain: number for number, plain in enumerate(order)}
    numbers = {label: place[plain_name(label)] for label in {*queries, *gallery}}
    return numbers, {number: spelt[plain] for plain, number in place.items()}


def _read(path: str | Path) -> tuple[NDArray[Any], NDArray[Any]]:
    path = Path(os.path.expanduser(path))
    if not os.path.isfile(path):
        raise FileNotFoundError(f"{_FUNCTION}: file must exist, got {shortened(path)}")
    arrays = read_npz(
        path,
        _KEYS,
        expected=f"{_FUNCTION}: file must be an .npz with the arrays 'embeddings' [n, D] and "
        "'labels' [n]",
    )
    embeddings, labels = (arrays[key] for key in _KEYS)
    return _as_floating(embeddings, path), _checked_labels(labels, len(embeddings), path)


def _as_floating(embeddings: NDArray[Any], path: Path) -> NDArray[Any]:
    got = f"got {shortened(embeddings.dtype)} {list(embeddings.shape)} in {path}"
    kind, size = embeddings.dtype.kind, embeddings.dtype.itemsize
    if kind == "u":
        raise ValueError(
            f"{_FUNCTION}: embeddings must be floating, int8 or int16, {got}; unpack packed bits "
            "with numpy.unpackbits, else cast to float32"
        )
    if embeddings.ndim != 2 or (kind != "f" and not (kind in "ib" and size <= 2)):
        raise ValueError(f"{_FUNCTION}: embeddings must be floating [n, D], {got}")
    if 0 in embeddings.shape:
        raise ValueError(f"{_FUNCTION}: embeddings must have a row and a column, {got}")
    # float32 holds all of int16; torch knows neither longdouble nor foreign byte orders.
    return np.ascontiguousarray(embeddings, dtype=f"f{min(size, 8) if kind == 'f' else 4}")


def _checked_labels(labels: NDArray[Any], count: int, path: Path) -> NDArray[Any]:
    if labels.shape != (count,) or labels.dtype.kind not in "iuU":
        raise ValueError(
            f"{_FUNCTION}: labels must be whole numbers or text [{count}], "
            f"got {shortened(labels.dtype)} "
            f"{list(labels.shape)} in {path}"
        )
    return labels
