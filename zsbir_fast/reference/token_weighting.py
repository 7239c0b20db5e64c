"""Cross-modal token weighting in plain PyTorch: the specification.

The equation numbers are those of ``docs/methods.md``, where it is said which of them the DM-WAN
paper (arXiv 2511.00925) states and which are our reading: its abstract and introduction name a
local and a global aggregation block and an alignment weight list; their exact form is our reading.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

Beta = Literal["uniform", "text_attention"]
WeightForm = Literal["softmax", "mean", "sigmoid", "raw"]

# A row whose largest absolute entry is below this counts as the zero vector: cosine 0, gradient 0.
ZERO_ROW = 1e-30


class TokenWeighting(NamedTuple):
    """Scores of the pairs, and what they were computed from.

    Attributes:
        scores: [B] local score of each pair, in [-1, 1].
        sketch_pooled: [B, L, D] one row per text token, zero where the token is padding.
        photo_pooled: [B, L, D] the same for the photo.
        sketch_attention: [B, L, N] attention of each text token over the sketch's patches, zero
            where the token is padding; None unless asked for.
        photo_attention: [B, L, N] the same for the photo.
    """

    scores: Tensor
    sketch_pooled: Tensor
    photo_pooled: Tensor
    sketch_attention: Tensor | None
    photo_attention: Tensor | None


def token_weighting(
    text: Tensor,
    text_mask: Tensor,
    sketch_keys: Tensor,
    sketch_values: Tensor,
    photo_keys: Tensor,
    photo_values: Tensor,
    labels: Tensor,
    *,
    text_global: Tensor | None = None,
    temperature: float = 1.0,
    beta: Beta = "uniform",
) -> TokenWeighting:
    """Equations (1) to (3); shapes and meaning as in :func:`zsbir_fast.ops.token_weighting`."""
    dtype = _accumulation_dtype(text)
    queries = text[labels].to(dtype)
    mask = text_mask[labels]
    sketch_pooled, sketch_attention = _aggregate(
        queries, mask, sketch_keys.to(dtype), sketch_values.to(dtype), temperature
    )
    photo_pooled, photo_attention = _aggregate(
        queries, mask, photo_keys.to(dtype), photo_values.to(dtype), temperature
    )
    weights = mask.to(dtype)
    if beta == "text_attention":
        assert text_global is not None
        query = text_global[labels].to(dtype)
        logits = (queries @ query[:, :, None])[:, :, 0] / math.sqrt(text.shape[-1])
        weights = masked_softmax(logits, mask)
    else:
        weights = weights / weights.sum(1, keepdim=True).clamp_min(1)
    scores = (weights * safe_cosine(sketch_pooled, photo_pooled)).sum(1)
    return TokenWeighting(scores, sketch_pooled, photo_pooled, sketch_attention, photo_attention)


def _aggregate(
    queries: Tensor, mask: Tensor, keys: Tensor, values: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """Equations (1) and (2): attention of words over patches, and the pooled rows."""
    logits = queries @ keys.mT / (math.sqrt(queries.shape[-1]) * temperature)
    attention = logits.softmax(2) * mask[:, :, None]
    return attention @ values, attention


def pairwise_token_score(sketch_tokens: Tensor, photo_tokens: Tensor) -> Tensor:
    """Mean over sketch tokens of the largest cosine with any photo token, [B].

    Among equal cosines the photo token of the lowest index receives the gradient.
    """
    dtype = _accumulation_dtype(sketch_tokens)
    sketch, photo = unit_rows(sketch_tokens.to(dtype)), unit_rows(photo_tokens.to(dtype))
    cosines = sketch @ photo.mT
    best = cosines.detach().argmax(2, keepdim=True)
    return cosines.gather(2, best).mean((1, 2))


def alignment_weights(
    local: Tensor,
    global_: Tensor,
    *,
    mix: float = 0.5,
    temperature: float = 0.5,
    form: WeightForm = "softmax",
) -> Tensor:
    """Equations (6) and (7); meaning as in :func:`zsbir_fast.ops.alignment_weights`."""
    quality = mix * local + (1 - mix) * global_
    if form == "raw":
        return quality
    if form == "softmax":
        return len(quality) * (quality / temperature).softmax(0)
    quality = (1 + quality) / 2 if form == "mean" else torch.sigmoid(quality / temperature)
    mean = quality.mean()
    return torch.where(mean > 0, quality / torch.where(mean > 0, mean, 1.0), 1.0)


def masked_softmax(logits: Tensor, mask: Tensor) -> Tensor:
    """Softmax over the last dimension where ``mask``; 0 elsewhere and in rows with no entry."""
    none = ~mask.any(-1, keepdim=True)
    filled = logits.masked_fill(~mask & ~none, -torch.inf)
    return filled.softmax(-1) * mask


def unit_rows(x: Tensor) -> Tensor:
    """L2-normalise the last dimension; zero rows stay zero and pass no gradient."""
    # Dividing by the largest entry first keeps the squares from overflowing or vanishing.
    largest = x.detach().abs().amax(-1, keepdim=True)
    zero = largest < ZERO_ROW
    x = (x / largest.masked_fill(zero, 1)).masked_fill(zero, 0)
    squared = x.square().sum(-1, keepdim=True).masked_fill(zero, 1)
    return x * squared.rsqrt()


def safe_cosine(a: Tensor, b: Tensor) -> Tensor:
    """Cosine of rows; 0 with gradient 0 where either row is zero."""
    zero = (a.detach().abs().amax(-1) < ZERO_ROW) | (b.detach().abs().amax(-1) < ZERO_ROW)
    return (unit_rows(a) * unit_rows(b)).sum(-1).masked_fill(zero, 0)


def _accumulation_dtype(x: Tensor) -> torch.dtype:
    return torch.float32 if x.dtype in (torch.float16, torch.bfloat16) else x.dtype
