"""Exact ranking metrics without sorting the gallery."""

from zsbir_fast.ops.batched_map.functions import (
    batched_map,
    rank_counts,
    ranking_metrics,
)
from zsbir_fast.ops.batched_map.inputs import GalleryClasses
from zsbir_fast.ops.batched_map.relevant import relevant_items

__all__ = ["GalleryClasses", "batched_map", "rank_counts", "ranking_metrics", "relevant_items"]
