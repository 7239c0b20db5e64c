"""Mining of quadruplets across modalities, and losses over mined or over all of them."""

from zsbir_fast.ops.quadruplet_mining.batch_all import (
    batch_all_quadruplet_loss,
    batch_all_triplet_loss,
)
from zsbir_fast.ops.quadruplet_mining.functions import (
    Quadruplets,
    mine_quadruplets,
    quadruplet_loss,
)

__all__ = [
    "Quadruplets",
    "batch_all_quadruplet_loss",
    "batch_all_triplet_loss",
    "mine_quadruplets",
    "quadruplet_loss",
]
