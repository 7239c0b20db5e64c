"""Embeddings on disk: what ``zsbir eval --queries --gallery`` reads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zsbir_fast.models.npz_files import read_npz

_KEYS = ("embeddings", "labels")


@dataclass(frozen=True)
class FeaturePair:
    """Queries and a gallery that fit together.

    Attributes:
        queries: float [Q, D].
        gallery: float [G, D].
        query_labels: int64 [Q].
        gallery_labels: int64 [G].
        names: label -> its name in the files.
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
        gallery: file of the gallery. Labels are whole numbers or text, in both files alike.

    Returns:
        Both, with labels as numbers; text labels are numbered in alphabetical order.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is no ``.npz``, lacks a key, its arrays have other shapes or types, or
            the widths D differ.
    """
    query_rows, query_labels = _read(queries)
    gallery_rows, gallery_labels = _read(gallery)
    if query_rows.shape[1] != gallery_rows.shape[1]:
        raise ValueError(
            "read_feature_pair: queries and gallery must have the same width D, got "
            f"D={query_rows.shape[1]} in {queries} and D={gallery_rows.shape[1]} in {gallery}"
        )
    if query_labels.dtype.kind != gallery_labels.dtype.kind:
        raise ValueError(
            "read_feature_pair: labels must be text in both files or numbers in both, got "
            f"{query_labels.dtype} in {queries} and {gallery_labels.dtype} in {gallery}"
        )
    values, codes = np.unique(np.concatenate([query_labels, gallery_labels]), return_inverse=True)
    numbers = codes if values.dtype.kind == "U" else values[codes]
    labels = torch.from_numpy(numbers.astype(np.int64))
    return FeaturePair(
        queries=torch.from_numpy(query_rows),
        gallery=torch.from_numpy(gallery_rows),
        query_labels=labels[: len(query_labels)],
        gallery_labels=labels[len(query_labels) :],
        names={int(n): str(v) for n, v in zip(numbers, values[codes], strict=True)},
    )


def _read(path: str | Path) -> tuple[NDArray[Any], NDArray[Any]]:
    if not Path(path).is_file():
        raise FileNotFoundError(f"read_feature_pair: file must exist, got {path}")
    arrays = read_npz(
        path,
        _KEYS,
        expected="read_feature_pair: file must be an .npz with the arrays 'embeddings' [n, D] and "
        "'labels' [n]",
    )
    embeddings, labels = (arrays[key] for key in _KEYS)
    if embeddings.ndim != 2 or embeddings.dtype.kind != "f":
        raise ValueError(
            "read_feature_pair: embeddings must be floating [n, D], got "
            f"{embeddings.dtype} {list(embeddings.shape)} in {path}"
        )
    if labels.shape != (len(embeddings),) or labels.dtype.kind not in "iuU":
        raise ValueError(
            f"read_feature_pair: labels must be whole numbers or text [{len(embeddings)}], got "
            f"{labels.dtype} {list(labels.shape)} in {path}"
        )
    if labels.dtype == np.uint64 and len(labels) and labels.max() > np.iinfo(np.int64).max:
        raise ValueError(
            f"read_feature_pair: labels must be below 2**63, got {labels.max()} in {path}"
        )
    return embeddings, labels.astype(np.int64) if labels.dtype.kind in "iu" else labels
