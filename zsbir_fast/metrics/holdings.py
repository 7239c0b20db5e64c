"""The facts that processes tell each other before they evaluate a gallery together."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import torch
from torch import Tensor

from zsbir_fast.metrics.gallery import LabelIndex

GALLERY_LIMIT = 2**31 - 1  # gallery positions are int32


@dataclass(frozen=True)
class Holdings:
    """The facts that one process tells the others before an evaluation."""

    labels: Tensor  # distinct labels of its shards
    counts: Tensor
    width: int | None
    dtypes: tuple[torch.dtype, ...]
    largest_norm: float
    items: int
    items_with_id: int
    call: dict[str, str]  # options that must be the same everywhere


def check_size(caller: str, total: int) -> None:
    """Raise ValueError if a gallery has too many items."""
    if total > GALLERY_LIMIT:
        raise ValueError(f"{caller}: the gallery must have at most 2^31 - 1 items, got {total}")


def union_of(caller: str, held: list[Holdings], width: int, ids: bool) -> LabelIndex:
    """The labels of the whole gallery, if the processes agree on everything they must.

    Raises:
        ValueError: the same in all processes.
    """
    for rank, other in enumerate(held):
        different = [name for name in other.call if other.call[name] != held[0].call[name]]
        if different:
            raise ValueError(
                f"{caller}: all processes must pass the same {' and '.join(different)}, got others "
                f"in process {rank} than in process 0"
            )
        if other.width not in (None, width):
            raise ValueError(
                f"{caller}: queries and gallery must have the same width D, "
                f"got {width} and {other.width} in process {rank}"
            )
    if ids and any(h.items_with_id < h.items for h in held):
        raise ValueError(f"{caller}: ids must be given to add_gallery, too, got none there")
    labels = torch.cat([h.labels for h in held])
    if len(labels) == 0:
        raise ValueError(f"{caller}: the gallery must not be empty, call add_gallery first")
    check_size(caller, sum(int(h.counts.sum()) for h in held))
    unique, at = torch.unique(labels, return_inverse=True)
    counts = torch.zeros_like(unique).index_add_(0, at, torch.cat([h.counts for h in held]))
    return LabelIndex(unique, counts)


def counts_before(everything: LabelIndex, lower: list[Holdings]) -> Tensor:
    """int64 [classes]: items of each class in the processes of lower rank."""
    before = torch.zeros_like(everything.counts)
    for h in lower:
        before.index_add_(0, everything.classes_of(h.labels).long(), h.counts)
    return before


def fingerprint(tensor: Tensor) -> str:
    """Tell tensors apart that processes should share."""
    data = tensor.cpu().contiguous().flatten().view(torch.uint8).numpy()
    return f"{list(tensor.shape)} {tensor.dtype} {zlib.crc32(data.data)}"
