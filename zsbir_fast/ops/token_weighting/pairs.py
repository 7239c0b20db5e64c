"""Scores of pairs by the fused operator: pair by pair, or every sketch with every photo."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from zsbir_fast.ops.token_weighting import operators as native
from zsbir_fast.reference import token_weighting as reference
from zsbir_fast.reference.token_weighting import TokenWeighting

# All pairs: elements of the pooled photo rows that are in memory at a time (64 MiB as float32).
_CHUNK_ELEMENTS = 2**24


def score_pairs(
    text: Tensor,
    text_mask: Tensor,
    weights: Tensor,
    sketch: tuple[Tensor, Tensor],
    photo: tuple[Tensor, Tensor],
    labels: Tensor,
    temperature: float,
    keep: bool,
) -> Tensor | TokenWeighting:
    """Score pair by pair; with ``keep`` the pooled rows are results, too."""
    wanted = native.KEEP_ALL if keep else native.KEEP_SCORES
    if not keep and _needs_gradient(text, weights, *sketch, *photo):
        wanted = native.KEEP_VALID
    scores, sketch_pooled, photo_pooled, _ = torch.ops.zsbir.token_weighting(
        text, text_mask, weights, *sketch, *photo, labels, temperature, wanted
    )
    return TokenWeighting(scores, sketch_pooled, photo_pooled, None, None)


def _needs_gradient(*tensors: Tensor) -> bool:
    return torch.is_grad_enabled() and any(t.requires_grad for t in tensors)


def score_all_pairs(
    text: Tensor,
    text_mask: Tensor,
    weights: Tensor,
    sketch: tuple[Tensor, Tensor],
    photo: tuple[Tensor, Tensor],
    labels: Tensor,
    temperature: float,
    keep: bool,
) -> Tensor | TokenWeighting:
    """Sketches in chunks, those of one class together: their texts are one long text to a photo."""
    del keep
    rows = _pool(text, text_mask, *sketch, labels, temperature)
    rows = (reference.unit_rows(rows) * weights[labels][:, :, None]).flatten(1)
    order = labels.argsort(stable=True)

    def scores(rows: Tensor, labels: Tensor, text: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        classes, which = labels, None
        if not torch.compiler.is_compiling() and labels.device.type == "cpu":
            classes, which = labels.unique_consecutive(return_inverse=True)
        words, one_text = text[classes].flatten(0, 1)[None], labels.new_zeros(len(keys))
        mask = text_mask[classes].flatten()[None]
        found = reference.unit_rows(_pool(words, mask, keys, values, one_text, temperature))
        found = found.view(len(keys), len(classes), rows.shape[1]).transpose(0, 1)
        if which is not None:
            found = found[which]
        return (found @ rows[:, :, None])[:, :, 0]

    if len(order) == 0:  # part of the graph nevertheless
        nothing = sum(x[:0].sum() for x in (text, *photo))
        return rows.new_zeros(0, len(photo[0])) + rows.sum() + nothing
    size = max(1, _CHUNK_ELEMENTS // max(1, len(photo[0]) * rows.shape[1]))
    parts = [
        # What is pooled is pooled again in the backward pass, if there is one.
        checkpoint(scores, *given, use_reentrant=False, preserve_rng_state=False)
        if _needs_gradient(*given[:1], *given[2:])
        else scores(*given)
        for chunk in order.split(size)
        for given in [(rows[chunk], labels[chunk], text, *photo)]
    ]
    return torch.cat(parts)[order.argsort()]


def _pool(
    text: Tensor,
    text_mask: Tensor,
    keys: Tensor,
    values: Tensor,
    labels: Tensor,
    temperature: float,
) -> Tensor:
    """Pooled rows of one side, [B, L, V]; zero where the token is padding."""
    pooled: Tensor
    _, pooled, *_ = torch.ops.zsbir.token_weighting(
        text, text_mask, None, keys, values, None, None, labels, temperature, native.KEEP_ALL
    )
    return pooled
