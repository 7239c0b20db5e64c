"""The operators of the pairwise token score: patches of a sketch against patches of a photo.

``csrc/token_weighting/token_weighting.h`` describes the tensors that the forward pass leaves for
the backward pass.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from zsbir_fast import _C
from zsbir_fast.ops._library import (
    LIB,
    address,
    refuse_second_derivatives,
    register,
)
from zsbir_fast.ops.token_weighting.inputs import check_pairwise, check_pairwise_saved
from zsbir_fast.ops.token_weighting.operators import call, dtype_name
from zsbir_fast.reference import token_weighting_gradients as gradients
from zsbir_fast.reference.token_weighting import accumulation_dtype

LIB.define(
    "pairwise_token_score(Tensor sketch_tokens, Tensor photo_tokens, bool all_pairs) "
    "-> (Tensor scores, Tensor sketch_norms, Tensor photo_norms, Tensor cosine, Tensor best)"
)
LIB.define(
    "pairwise_token_score_backward(Tensor grad_scores, Tensor sketch_tokens, Tensor photo_tokens, "
    "bool all_pairs, Tensor sketch_norms, Tensor photo_norms, Tensor cosine, Tensor best) "
    "-> (Tensor sketch_tokens, Tensor photo_tokens)"
)


def _pairwise_struct(
    sketch_tokens: Tensor,
    photo_tokens: Tensor,
    all_pairs: bool,
    norms: tuple[Tensor, Tensor],
    cosine: Tensor,
    best: Tensor,
) -> Any:
    return _C.TokenPairwise(
        dtype=dtype_name(sketch_tokens.dtype),
        tokens=(address(sketch_tokens), address(photo_tokens)),
        items=(sketch_tokens.shape[0], photo_tokens.shape[0]),
        patches=(sketch_tokens.shape[1], photo_tokens.shape[1]),
        width=sketch_tokens.shape[2],
        all_pairs=all_pairs,
        inverse_norm=(address(norms[0]), address(norms[1])),
        cosine=address(cosine),
        best=address(best),
    )


def _pairwise_outputs(
    sketch_tokens: Tensor, photo_tokens: Tensor, all_pairs: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    check_pairwise(sketch_tokens, photo_tokens, all_pairs=all_pairs)
    dtype = accumulation_dtype(sketch_tokens.dtype)
    sketches, patches = sketch_tokens.shape[:2]
    pairs = (sketches, photo_tokens.shape[0]) if all_pairs else (sketches,)
    return (
        sketch_tokens.new_empty(pairs, dtype=dtype),
        sketch_tokens.new_empty((sketches, patches), dtype=dtype),
        photo_tokens.new_empty(photo_tokens.shape[:2], dtype=dtype),
        sketch_tokens.new_empty((*pairs, patches), dtype=dtype),
        sketch_tokens.new_empty((*pairs, patches), dtype=torch.int32),
    )


def _pairwise_native(
    sketch_tokens: Tensor, photo_tokens: Tensor, all_pairs: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    outputs = _pairwise_outputs(sketch_tokens, photo_tokens, all_pairs)
    sketch, photo = sketch_tokens.contiguous(), photo_tokens.contiguous()
    scores, sketch_norms, photo_norms, cosine, best = outputs
    struct = _pairwise_struct(sketch, photo, all_pairs, (sketch_norms, photo_norms), cosine, best)
    call("pairwise_token_forward", sketch.device, struct, address(scores))
    return outputs


def _check_pairwise_backward(
    grad_scores: Tensor,
    sketch_tokens: Tensor,
    photo_tokens: Tensor,
    all_pairs: bool,
    *saved: Tensor,
) -> None:
    names = ("grad_scores", "sketch_norms", "photo_norms", "cosine", "best")
    named = dict(zip(names, (grad_scores, *saved), strict=True))
    check_pairwise_saved(sketch_tokens, photo_tokens, all_pairs, named)


def _pairwise_backward_native(
    grad_scores: Tensor,
    sketch_tokens: Tensor,
    photo_tokens: Tensor,
    all_pairs: bool,
    *saved: Tensor,
) -> tuple[Tensor, Tensor]:
    _check_pairwise_backward(grad_scores, sketch_tokens, photo_tokens, all_pairs, *saved)
    sketch, photo, grad_scores = (
        x.contiguous() for x in (sketch_tokens, photo_tokens, grad_scores)
    )
    *norms, cosine, best = (x.contiguous() for x in saved)
    out = (torch.empty_like(sketch), torch.empty_like(photo))
    struct = _pairwise_struct(sketch, photo, all_pairs, (norms[0], norms[1]), cosine, best)
    addresses = (address(out[0]), address(out[1]))
    call("pairwise_token_backward", sketch.device, struct, address(grad_scores), addresses)
    return out


# --- shapes and gradients -------------------------------------------------------------------------


def _pairwise_backward_fake(
    grad_scores: Tensor, sketch_tokens: Tensor, photo_tokens: Tensor, all_pairs: bool, *saved: Any
) -> tuple[Tensor, Tensor]:
    _check_pairwise_backward(grad_scores, sketch_tokens, photo_tokens, all_pairs, *saved)
    layout = torch.contiguous_format
    return (
        torch.empty_like(sketch_tokens, memory_format=layout),
        torch.empty_like(photo_tokens, memory_format=layout),
    )


register("pairwise_token_score", _pairwise_native, _pairwise_outputs, gradients.pairwise_forward)
register(
    "pairwise_token_score_backward",
    _pairwise_backward_native,
    _pairwise_backward_fake,
    gradients.pairwise_backward,
)


def _save_for_pairwise(ctx: Any, inputs: Any, output: Any) -> None:
    sketch_tokens, photo_tokens, all_pairs = inputs
    ctx.mark_non_differentiable(*output[1:])
    ctx.all_pairs = all_pairs
    ctx.save_for_backward(sketch_tokens, photo_tokens, *output[1:])


def _pairwise_gradient(ctx: Any, grad_scores: Tensor, *_: Any) -> tuple[Tensor, Tensor, None]:
    sketch_tokens, photo_tokens, *saved = ctx.saved_tensors
    sketch, photo = torch.ops.zsbir.pairwise_token_score_backward(
        grad_scores, sketch_tokens, photo_tokens, ctx.all_pairs, *saved
    )
    return sketch, photo, None


torch.library.register_autograd(
    "zsbir::pairwise_token_score", _pairwise_gradient, setup_context=_save_for_pairwise, lib=LIB
)
torch.library.register_autograd(
    "zsbir::pairwise_token_score_backward",
    refuse_second_derivatives("pairwise_token_score"),
    lib=LIB,
)
