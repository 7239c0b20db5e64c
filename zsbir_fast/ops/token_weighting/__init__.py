"""Cross-modal token weighting: how well patches of a sketch and a photo fit the same words."""

from zsbir_fast.ops.token_weighting.functions import (
    TokenWeighting,
    alignment_weights,
    pairwise_token_score,
    token_weighting,
)

__all__ = ["TokenWeighting", "alignment_weights", "pairwise_token_score", "token_weighting"]
