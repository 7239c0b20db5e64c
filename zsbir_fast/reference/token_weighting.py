"""Cross-modal token weighting in plain PyTorch: the specification.

The equation numbers are those of ``docs/methods.md``, which says which of them the DM-WAN paper
(arXiv 2511.00925) states and which are our reading: its abstract and introduction name a
local and a global aggregation block and an alignment weight list; their exact form is our reading.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

Beta = Literal["uniform", "text_attention"]
WeightForm = Literal["softmax", "mean", "sigmoid", "raw"]
Combine = Literal["sum", "product"]

# A row whose largest absolute entry is below this counts as the zero vector: cosine 0, gradient 0.
ZERO_ROW = 1e-30


class TokenWeighting(NamedTuple):
    """Scores of the pairs, and the tensors that they were computed from.

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
    """Equations (1) to (3); shapes and meaning as in :func:`zsbir_fast.token_weighting`."""
    weights = word_weights(text, text_mask, text_global, beta)
    sketch_attention = attention(text, text_mask, sketch_keys, labels, temperature)
    photo_attention = attention(text, text_mask, photo_keys, labels, temperature)
    sketch_pooled = sketch_attention @ sketch_values.to(sketch_attention.dtype)
    photo_pooled = photo_attention @ photo_values.to(photo_attention.dtype)
    scores = (weights[labels] * safe_cosine(sketch_pooled, photo_pooled)).sum(1)
    return TokenWeighting(scores, sketch_pooled, photo_pooled, sketch_attention, photo_attention)


def token_weighting_all_pairs(
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
) -> Tensor:
    """Every sketch with every photo, under the text of the sketch's class: scores [B_s, B_i]."""
    sketches, photos = len(labels), len(photo_keys)

    def repeated(x: Tensor) -> Tensor:
        return x.repeat_interleave(photos, 0)

    def tiled(x: Tensor) -> Tensor:
        return x.repeat(sketches, 1, 1)

    result = token_weighting(
        text,
        text_mask,
        repeated(sketch_keys),
        repeated(sketch_values),
        tiled(photo_keys),
        tiled(photo_values),
        repeated(labels),
        text_global=text_global,
        temperature=temperature,
        beta=beta,
    )
    return result.scores.view(sketches, photos)


def word_weights(text: Tensor, mask: Tensor, text_global: Tensor | None, beta: Beta) -> Tensor:
    """How much each word of a class counts, [C, L]; 0 for padding, else they sum to 1."""
    dtype = accumulation_dtype(text.dtype)
    if beta == "text_attention":
        assert text_global is not None
        logits = (text.to(dtype) @ text_global.to(dtype)[:, :, None])[:, :, 0]
        return masked_softmax(logits / math.sqrt(text.shape[-1]), mask)
    weights = mask.to(dtype)
    return weights / weights.sum(1, keepdim=True).clamp_min(1)


def attention(
    text: Tensor, text_mask: Tensor, keys: Tensor, labels: Tensor, temperature: float
) -> Tensor:
    """Equation (1): attention of the words of a pair over its patches, [B, L, N]."""
    dtype = accumulation_dtype(text.dtype)
    logits = text[labels].to(dtype) @ keys.to(dtype).mT
    weights = (logits / (math.sqrt(text.shape[-1]) * temperature)).softmax(2)
    return weights * text_mask[labels][:, :, None]


def pairwise_token_score(
    sketch_tokens: Tensor, photo_tokens: Tensor, *, all_pairs: bool = False
) -> Tensor:
    """Mean over sketch tokens of the largest cosine with any photo token, [B] or [B_s, B_i].

    Among equal cosines the photo token of the lowest index receives the gradient.
    """
    dtype = accumulation_dtype(sketch_tokens.dtype)
    sketch, photo = unit_rows(sketch_tokens.to(dtype)), unit_rows(photo_tokens.to(dtype))
    if all_pairs:
        sketch, photo = sketch[:, None], photo[None]
    cosines = sketch @ photo.mT
    best = cosines.detach().argmax(-1, keepdim=True)
    return cosines.gather(-1, best).mean((-2, -1))


def alignment_quality(
    local: Tensor, global_: Tensor, *, mix: float = 0.5, combine: Combine = "sum"
) -> Tensor:
    """Equation (6): the quality of every pair."""
    if combine == "product":
        return (1 + local) / 2 * ((1 + global_) / 2)
    return mix * local + (1 - mix) * global_


def alignment_weights(
    local: Tensor,
    global_: Tensor,
    *,
    mix: float = 0.5,
    combine: Combine = "sum",
    temperature: float = 0.5,
    form: WeightForm = "softmax",
) -> Tensor:
    """Equations (6) and (7); meaning as in :func:`zsbir_fast.alignment_weights`."""
    quality = alignment_quality(local, global_, mix=mix, combine=combine)
    if form == "raw":
        return quality
    if form == "softmax":
        return len(quality) * (quality / temperature).softmax(0)
    if form == "sigmoid":
        quality = torch.sigmoid(quality / temperature)
    elif combine == "sum":
        quality = (1 + quality) / 2  # a product is not negative as it is
    mean = quality.mean()
    none = mean <= 0  # a mean of NaN must not pass for one
    return torch.where(none, 1.0, quality / torch.where(none, 1.0, mean))


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


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """What float16 and bfloat16 are computed in: float32; other types stay."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype
