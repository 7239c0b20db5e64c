"""The relevant items of every query, gathered and sorted by PyTorch operations on any device."""

from __future__ import annotations

import torch
from torch import Tensor

from zsbir_fast.ops.batched_map.inputs import GalleryClasses, check_scores


def relevant_items(
    scores: Tensor, query_class: Tensor, gallery: GalleryClasses, *, larger_is_closer: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The relevant items of every query, ascending by (key, gallery index).

    Returns:
        Offsets int64 [Q + 1], key [nnz] of the dtype of ``scores`` (a negated score if larger is
        closer), index int32 [nnz].
    """
    check_scores("relevant_items", scores, query_class, gallery)
    counts = (gallery.offsets[1:] - gallery.offsets[:-1])[query_class.clamp(min=0).long()]
    counts = torch.where(query_class >= 0, counts, 0)
    # Rows padded to the longest, so that one batched sort does: NaN, for padding and for what takes
    # no part, comes last in a row, and equal keys keep the order of `columns`, which is that of the
    # gallery index.
    slot = torch.arange(int(counts.max()) if len(counts) else 0, device=scores.device)
    own = slot < counts[:, None]
    first = gallery.offsets[query_class.clamp(min=0).long()]
    column = gallery.columns[torch.where(own, first[:, None] + slot, 0)].long()
    key = scores.gather(1, column)
    key = torch.where(own, -key if larger_is_closer else key, torch.nan)
    key, order = torch.sort(key, dim=1, stable=True)
    real = ~torch.isnan(key)
    offsets = torch.zeros(len(counts) + 1, dtype=torch.int64, device=scores.device)
    offsets[1:] = real.sum(1).cumsum(0)
    column = column.gather(1, order)[real]
    index = column.to(torch.int32) if gallery.index is None else gallery.index[column]
    return offsets, key[real], index
