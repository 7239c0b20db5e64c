"""Exact ranking metrics without sorting the gallery."""

from zsbir_fast.ops.batched_map.functions import (
    batched_map,
    rank_counts,
    ranking_metrics,
    relevant_items,
)
from zsbir_fast.ops.batched_map.inputs import GalleryClasses

__all__ = ["GalleryClasses", "batched_map", "rank_counts", "ranking_metrics", "relevant_items"]
