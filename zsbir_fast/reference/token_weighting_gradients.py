"""The operators of the token weighting and their gradients in plain PyTorch, without autograd.

What runs on devices without a kernel. Arguments and results are those of the operators in
``zsbir_fast/ops/token_weighting/operators.py``; ``token_weighting.py`` is the specification.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from zsbir_fast.reference.token_weighting import (
    ZERO_ROW,
    accumulation_dtype,
    attention,
    safe_cosine,
    unit_rows,
)


def token_weighting_forward(
    text: Tensor,
    text_mask: Tensor,
    weights: Tensor | None,
    sketch_keys: Tensor,
    sketch_values: Tensor,
    photo_keys: Tensor | None,
    photo_values: Tensor | None,
    labels: Tensor,
    temperature: float,
    keep: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Scores, pooled rows of both sides, and the statistics of the rows, of which only cosines."""
    dtype = accumulation_dtype(text.dtype)

    def pooled_rows(keys: Tensor, values: Tensor) -> Tensor:
        return attention(text, text_mask, keys, labels, temperature) @ values.to(dtype)

    sketch = pooled_rows(sketch_keys, sketch_values)
    stats = sketch.new_zeros((5, *sketch.shape[:2]))
    nothing = sketch.new_empty(0)
    if photo_keys is None or photo_values is None or weights is None:
        return nothing, sketch if keep else nothing.clone(), nothing.clone(), stats
    photo = pooled_rows(photo_keys, photo_values)
    stats[4] = safe_cosine(sketch, photo)
    scores = (weights[labels] * stats[4]).sum(1)
    if not keep:
        return scores, nothing, nothing.clone(), stats
    return scores, sketch, photo, stats


def token_weighting_backward(
    grad_scores: Tensor | None,
    grad_sketch: Tensor | None,
    grad_photo: Tensor | None,
    text: Tensor,
    text_mask: Tensor,
    weights: Tensor | None,
    sketch_keys: Tensor,
    sketch_values: Tensor,
    photo_keys: Tensor | None,
    photo_values: Tensor | None,
    labels: Tensor,
    temperature: float,
    sketch_pooled: Tensor,
    photo_pooled: Tensor,
    stats: Tensor,
) -> tuple[Tensor, ...]:
    """Gradients of text, weights, and keys and values of both sides; empty where there is none."""
    dtype = accumulation_dtype(text.dtype)
    mask = text_mask[labels][:, :, None]
    queries = text[labels].to(dtype) / (math.sqrt(text.shape[2]) * temperature)
    text_rows = torch.zeros_like(queries)
    nothing = text.new_empty(0, dtype=dtype)
    patches = [nothing.clone() for _ in range(4)]
    through_cosine = None
    if grad_scores is not None and weights is not None:
        through_cosine = grad_scores[:, None, None] * weights[labels][:, :, None]
    for side, (keys, values, own, other, grad) in enumerate(
        (
            (sketch_keys, sketch_values, sketch_pooled, photo_pooled, grad_sketch),
            (photo_keys, photo_values, photo_pooled, sketch_pooled, grad_photo),
        )
    ):
        if keys is None or values is None:
            continue
        rows = torch.zeros_like(own) if grad is None else grad
        if through_cosine is not None:
            rows = rows + through_cosine * _cosine_slope(own, other)
        rows, wide_keys, wide_values = rows * mask, keys.to(dtype), values.to(dtype)
        shares = attention(text, text_mask, keys, labels, temperature)
        slope = rows @ wide_values.mT - (rows * torch.where(mask, own, 0)).sum(2, keepdim=True)
        slope = shares * slope
        patches[2 * side] = (slope.mT @ queries).to(keys.dtype)
        patches[2 * side + 1] = (shares.mT @ rows).to(values.dtype)
        text_rows = text_rows + slope @ wide_keys
    text_rows = text_rows / (math.sqrt(text.shape[2]) * temperature)
    grad_text = torch.zeros(text.shape, dtype=dtype, device=text.device)
    grad_text = grad_text.index_add(0, labels, text_rows).to(text.dtype)
    grad_weights = nothing
    if weights is not None:
        grad_weights = torch.zeros_like(weights)
        if grad_scores is not None:
            grad_weights = grad_weights.index_add(0, labels, grad_scores[:, None] * stats[4])
    return grad_text, grad_weights, *patches


def _cosine_slope(own: Tensor, other: Tensor) -> Tensor:
    """Gradient of the cosine of two rows by the first: 0 where either is zero."""
    largest = own.abs().amax(-1, keepdim=True)
    zero = (largest < ZERO_ROW) | (other.abs().amax(-1, keepdim=True) < ZERO_ROW)
    largest = largest.masked_fill(zero, 1)
    inverse = 1 / largest / (own / largest).square().sum(-1, keepdim=True).clamp_min(1).sqrt()
    unit, partner = unit_rows(own), unit_rows(other)
    slope = inverse * (partner - (unit * partner).sum(-1, keepdim=True) * unit)
    return slope.masked_fill(zero, 0)


def pairwise_forward(
    sketch_tokens: Tensor, photo_tokens: Tensor, all_pairs: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Scores, inverse norms of all tokens, largest cosines and their photo tokens."""
    dtype = accumulation_dtype(sketch_tokens.dtype)
    sketch, photo = unit_rows(sketch_tokens.to(dtype)), unit_rows(photo_tokens.to(dtype))
    cosines = (sketch[:, None] @ photo[None].mT) if all_pairs else sketch @ photo.mT
    best = cosines.argmax(-1)
    cosine = cosines.gather(-1, best[..., None])[..., 0]
    norms = [inverse_norms(t.to(dtype)) for t in (sketch_tokens, photo_tokens)]
    return cosine.mean(-1), norms[0], norms[1], cosine, best.to(torch.int32)


def pairwise_backward(
    grad_scores: Tensor,
    sketch_tokens: Tensor,
    photo_tokens: Tensor,
    all_pairs: bool,
    sketch_norms: Tensor,
    photo_norms: Tensor,
    cosine: Tensor,
    best: Tensor,
) -> tuple[Tensor, Tensor]:
    """Gradients of the tokens, through the best photo token of every sketch token."""
    dtype = accumulation_dtype(sketch_tokens.dtype)
    sketch = sketch_tokens.to(dtype) * sketch_norms[:, :, None]
    photo = photo_tokens.to(dtype) * photo_norms[:, :, None]
    share = (grad_scores / sketch_tokens.shape[1])[..., None, None]
    items = torch.arange(len(photo_tokens), device=best.device)
    items = items[None, :, None] if all_pairs else items[:, None]
    index = best.long()
    own = sketch[:, None] if all_pairs else sketch
    partner = photo[items, index]
    own_norms = (sketch_norms[:, None] if all_pairs else sketch_norms)[..., None]
    grad_sketch = share * own_norms * (partner - cosine[..., None] * own)
    to_photo = share * photo_norms[items, index][..., None] * (own - cosine[..., None] * partner)
    if all_pairs:
        grad_sketch = grad_sketch.sum(1)
    grad_photo = torch.zeros_like(photo)
    grad_photo.index_put_((items.expand_as(index), index), to_photo, accumulate=True)
    return grad_sketch.to(sketch_tokens.dtype), grad_photo.to(photo_tokens.dtype)


def inverse_norms(rows: Tensor) -> Tensor:
    """1 / |row|, 0 of a zero row."""
    largest = rows.abs().amax(-1, keepdim=True)
    zero = largest < ZERO_ROW
    largest = largest.masked_fill(zero, 1)
    norms = 1 / largest / (rows / largest).square().sum(-1, keepdim=True).clamp_min(1).sqrt()
    return norms.masked_fill(zero, 0)[..., 0]
