"""The operators of the token weighting: schema, kernels, fake tensors and gradients.

``zsbir::token_weighting`` scores pairs, or, without a photo, only pools what the words gather from
the sketches. ``zsbir::pairwise_token_score`` compares patches with patches. What the forward pass
leaves for the backward pass is described in ``csrc/token_weighting/token_weighting.h``.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from zsbir_fast import _C
from zsbir_fast.ops._library import (
    LIB,
    address,
    as_kernel_input,
    current_stream,
    notice_fallback,
    refuse_second_derivatives,
)
from zsbir_fast.reference import token_weighting_gradients as gradients
from zsbir_fast.reference.token_weighting import accumulation_dtype

# How much the forward pass keeps (csrc/token_weighting/token_weighting.h).
KEEP_SCORES, KEEP_VALID, KEEP_ALL = 0, 1, 2
STATS = 5  # rows of `stats`
COSINE = 4

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)

_INPUTS = (
    "Tensor text, Tensor text_mask, Tensor? weights, Tensor sketch_keys, Tensor sketch_values, "
    "Tensor? photo_keys, Tensor? photo_values, Tensor labels, float temperature"
)
LIB.define(
    f"token_weighting({_INPUTS}, int keep) "
    "-> (Tensor scores, Tensor sketch_pooled, Tensor photo_pooled, Tensor stats)"
)
LIB.define(
    "token_weighting_backward(Tensor? grad_scores, Tensor? grad_sketch, Tensor? grad_photo, "
    f"{_INPUTS}, Tensor sketch_pooled, Tensor photo_pooled, Tensor stats) "
    "-> (Tensor text, Tensor weights, Tensor sketch_keys, Tensor sketch_values, "
    "Tensor photo_keys, Tensor photo_values)"
)
LIB.define(
    "pairwise_token_score(Tensor sketch_tokens, Tensor photo_tokens, bool all_pairs) "
    "-> (Tensor scores, Tensor sketch_norms, Tensor photo_norms, Tensor cosine, Tensor best)"
)
LIB.define(
    "pairwise_token_score_backward(Tensor grad_scores, Tensor sketch_tokens, Tensor photo_tokens, "
    "bool all_pairs, Tensor sketch_norms, Tensor photo_norms, Tensor cosine, Tensor best) "
    "-> (Tensor sketch_tokens, Tensor photo_tokens)"
)


def _call(name: str, device: torch.device, *arguments: Any) -> None:
    """The function of ``_C`` for the device, on the caller's stream."""
    if device.type == "cuda":
        getattr(_C, f"{name}_cuda")(*arguments, device.index or 0, current_stream(device))
    else:
        getattr(_C, f"{name}_cpu")(*arguments)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


class _Problem:
    """The tensors of one call as the kernels want them, kept alive beside their addresses."""

    def __init__(
        self,
        text: Tensor,
        text_mask: Tensor,
        weights: Tensor | None,
        sketch_keys: Tensor,
        sketch_values: Tensor,
        photo_keys: Tensor | None,
        photo_values: Tensor | None,
        labels: Tensor,
        temperature: float,
    ) -> None:
        op, dtype = "token_weighting", text.dtype
        self.accumulator = accumulation_dtype(dtype)
        self.device = text.device
        classes, words, width = text.shape
        self.pairs, patches, _ = sketch_keys.shape
        self.shape = (self.pairs, words, sketch_values.shape[2])
        self.text = as_kernel_input(op, "text", text, dtype, (classes, words, width))
        self.mask = as_kernel_input(op, "text_mask", text_mask, torch.bool, (classes, words))
        self.labels = as_kernel_input(op, "labels", labels, torch.int64, (self.pairs,))
        self.weights = weights
        if weights is not None:
            self.weights = as_kernel_input(
                op, "weights", weights, self.accumulator, (classes, words)
            )
        self.keys, self.values = [], []
        for name, keys, values in (
            ("sketch", sketch_keys, sketch_values),
            ("photo", photo_keys, photo_values),
        ):
            if keys is None or values is None:
                continue
            patches = keys.shape[1]
            shape = (self.pairs, patches)
            self.keys.append(as_kernel_input(op, f"{name}_keys", keys, dtype, (*shape, width)))
            self.values.append(
                as_kernel_input(op, f"{name}_values", values, dtype, (*shape, self.shape[2]))
            )
        self.struct = _C.TokenProblem(
            dtype=_name(dtype),
            pairs=self.pairs,
            classes=classes,
            words=words,
            width=width,
            value_width=self.shape[2],
            sides=len(self.keys),
            scale=1 / (math.sqrt(width) * temperature),
            text=address(self.text),
            mask=address(self.mask),
            labels=address(self.labels),
            keys=_two(self.keys),
            values=_two(self.values),
            patches=(self.keys[0].shape[1], self.keys[-1].shape[1]),
        )

    def empty(self, *shape: int) -> Tensor:
        return torch.empty(shape, dtype=self.accumulator, device=self.device)

    def class_sums(self, rows: Tensor, out: Tensor) -> Tensor:
        """Rows [B, L, W] added up by class in the order of the pairs, into [C, L, W]."""
        sums = _C.TokenClassSums(
            dtype=_name(out.dtype),
            pairs=self.pairs,
            classes=out.shape[0],
            words=out.shape[1],
            width=rows.shape[2],
            rows=address(rows),
            mask=address(self.mask),
            labels=address(self.labels),
        )
        _call("token_class_sums", self.device, sums, address(out))
        return out


def _two(tensors: list[Tensor] | list[Tensor | None]) -> tuple[int, int]:
    addresses = [address(t) for t in tensors] + [0, 0]
    return addresses[0], addresses[1]


def _token_weighting_native(*given: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    *inputs, keep = given
    p = _Problem(*inputs)
    both = len(p.keys) == 2
    scores = p.empty(p.pairs if both else 0)
    pooled = [p.empty(*(p.shape if keep and (both or i == 0) else (0,))) for i in range(2)]
    stats = p.empty(STATS, *p.shape[:2])
    out = _C.TokenForward(
        weights=address(p.weights),
        scores=address(scores),
        pooled=_two(pooled),
        stats=address(stats),
        keep=keep,
    )
    _call("token_weighting_forward", p.device, p.struct, out)
    return scores, pooled[0], pooled[1], stats


def _token_weighting_backward_native(
    grad_scores: Tensor | None,
    grad_sketch: Tensor | None,
    grad_photo: Tensor | None,
    *given: Any,
) -> tuple[Tensor, ...]:
    *inputs, sketch_pooled, photo_pooled, stats = given
    p = _Problem(*inputs)
    grads = [None if g is None else g.contiguous() for g in (grad_sketch, grad_photo)]
    if grad_scores is not None:
        grad_scores = grad_scores.contiguous()
    pooled, stats = [sketch_pooled.contiguous(), photo_pooled.contiguous()], stats.contiguous()
    text_rows = p.empty(*p.shape[:2], p.text.shape[2])
    keys, values = [torch.empty_like(k) for k in p.keys], [torch.empty_like(v) for v in p.values]
    arguments = _C.TokenBackward(
        weights=address(p.weights),
        pooled=_two(pooled),
        stats=address(stats),
        grad_scores=address(grad_scores),
        grad_pooled=_two(grads),
        text_rows=address(text_rows),
        keys=_two(keys),
        values=_two(values),
    )
    _call("token_weighting_backward", p.device, p.struct, arguments)
    grad_text = p.class_sums(text_rows, torch.empty_like(p.text))
    nothing = p.empty(0)
    if p.weights is None:
        return grad_text, nothing, keys[0], values[0], nothing, nothing
    if grad_scores is None:
        grad_weights = torch.zeros_like(p.weights)
    else:
        shares = (grad_scores[:, None] * stats[COSINE])[:, :, None].contiguous()
        grad_weights = p.class_sums(shares, p.empty(*p.text.shape[:2]))
    return grad_text, grad_weights, keys[0], values[0], keys[1], values[1]


def _pairwise_struct(
    sketch_tokens: Tensor,
    photo_tokens: Tensor,
    all_pairs: bool,
    norms: tuple[Tensor, Tensor],
    cosine: Tensor,
    best: Tensor,
) -> Any:
    return _C.TokenPairwise(
        dtype=_name(sketch_tokens.dtype),
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
    sketch, photo = sketch_tokens.contiguous(), photo_tokens.contiguous()
    outputs = _pairwise_outputs(sketch, photo, all_pairs)
    scores, sketch_norms, photo_norms, cosine, best = outputs
    struct = _pairwise_struct(sketch, photo, all_pairs, (sketch_norms, photo_norms), cosine, best)
    _call("pairwise_token_forward", sketch.device, struct, address(scores))
    return outputs


def _pairwise_backward_native(
    grad_scores: Tensor,
    sketch_tokens: Tensor,
    photo_tokens: Tensor,
    all_pairs: bool,
    sketch_norms: Tensor,
    photo_norms: Tensor,
    cosine: Tensor,
    best: Tensor,
) -> tuple[Tensor, Tensor]:
    sketch, photo = sketch_tokens.contiguous(), photo_tokens.contiguous()
    grad_scores, norms = grad_scores.contiguous(), (sketch_norms, photo_norms)
    out = (torch.empty_like(sketch), torch.empty_like(photo))
    struct = _pairwise_struct(sketch, photo, all_pairs, norms, cosine, best)
    addresses = (address(out[0]), address(out[1]))
    _call("pairwise_token_backward", sketch.device, struct, address(grad_scores), addresses)
    return out


for _op, _reference, _native in (
    ("token_weighting", gradients.token_weighting_forward, _token_weighting_native),
    (
        "token_weighting_backward",
        gradients.token_weighting_backward,
        _token_weighting_backward_native,
    ),
    ("pairwise_token_score", gradients.pairwise_forward, _pairwise_native),
    ("pairwise_token_score_backward", gradients.pairwise_backward, _pairwise_backward_native),
):
    LIB.impl(_op, notice_fallback(_op, _reference), "CompositeExplicitAutograd")
    LIB.impl(_op, _native, "CPU")
    if _C.built_with_cuda:
        LIB.impl(_op, _native, "CUDA")


# --- shapes and gradients -------------------------------------------------------------------------


def _token_weighting_fake(text: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    sketch_values, photo_keys, keep = rest[3], rest[4], rest[8]
    dtype = accumulation_dtype(text.dtype)
    shape = (sketch_values.shape[0], text.shape[1], sketch_values.shape[2])
    both = photo_keys is not None
    return (
        text.new_empty(shape[0] if both else 0, dtype=dtype),
        text.new_empty(shape if keep else (0,), dtype=dtype),
        text.new_empty(shape if keep and both else (0,), dtype=dtype),
        text.new_empty((STATS, *shape[:2]), dtype=dtype),
    )


def _token_weighting_backward_fake(*given: Any) -> tuple[Tensor, ...]:
    text, _, weights, sketch_keys, sketch_values, photo_keys, photo_values = given[3:10]
    nothing = text.new_empty(0, dtype=accumulation_dtype(text.dtype))
    return tuple(
        nothing.clone() if t is None else torch.empty_like(t, memory_format=torch.contiguous_format)
        for t in (text, weights, sketch_keys, sketch_values, photo_keys, photo_values)
    )


def _pairwise_backward_fake(
    grad_scores: Tensor, sketch_tokens: Tensor, photo_tokens: Tensor, *_: Any
) -> tuple[Tensor, Tensor]:
    layout = torch.contiguous_format
    return (
        torch.empty_like(sketch_tokens, memory_format=layout),
        torch.empty_like(photo_tokens, memory_format=layout),
    )


torch.library.register_fake("zsbir::token_weighting", _token_weighting_fake, lib=LIB)
torch.library.register_fake(
    "zsbir::token_weighting_backward", _token_weighting_backward_fake, lib=LIB
)
torch.library.register_fake("zsbir::pairwise_token_score", _pairwise_outputs, lib=LIB)
torch.library.register_fake(
    "zsbir::pairwise_token_score_backward", _pairwise_backward_fake, lib=LIB
)


def _save_for_token_weighting(ctx: Any, inputs: Any, output: Any) -> None:
    *tensors, temperature, keep = inputs
    _, sketch_pooled, photo_pooled, stats = output
    ctx.mark_non_differentiable(stats)
    ctx.set_materialize_grads(False)
    ctx.temperature, ctx.keep = temperature, keep
    ctx.save_for_backward(*tensors, sketch_pooled, photo_pooled, stats)


def _token_weighting_gradient(
    ctx: Any,
    grad_scores: Tensor | None,
    grad_sketch: Tensor | None,
    grad_photo: Tensor | None,
    _: Any,
) -> tuple[Tensor | None, ...]:
    if not ctx.keep:
        raise RuntimeError("token_weighting: keep must be 1 or 2 for a backward pass, got 0")
    *tensors, sketch_pooled, photo_pooled, stats = ctx.saved_tensors
    if tensors[5] is None:
        grad_scores = grad_photo = None
    text, weights, *patches = torch.ops.zsbir.token_weighting_backward(
        grad_scores,
        grad_sketch,
        grad_photo,
        *tensors,
        ctx.temperature,
        sketch_pooled,
        photo_pooled,
        stats,
    )
    if tensors[5] is None:
        return text, None, None, patches[0], patches[1], None, None, None, None, None
    return text, None, weights, *patches, None, None, None


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
    "zsbir::token_weighting",
    _token_weighting_gradient,
    setup_context=_save_for_token_weighting,
    lib=LIB,
)
torch.library.register_autograd(
    "zsbir::pairwise_token_score", _pairwise_gradient, setup_context=_save_for_pairwise, lib=LIB
)
for _op in ("token_weighting", "pairwise_token_score"):
    torch.library.register_autograd(
        f"zsbir::{_op}_backward", refuse_second_derivatives(_op), lib=LIB
    )
