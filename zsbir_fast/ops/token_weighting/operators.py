"""The operators of the token weighting: schema, kernels, fake tensors and gradients.

``zsbir::token_weighting`` scores pairs, or, without a photo, only pools the rows of the words from
the sketches. ``csrc/token_weighting/token_weighting.h`` describes the tensors that the forward pass
leaves for the backward pass.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from zsbir_fast import _C
from zsbir_fast.ops._checks import as_kernel_input, check_enum, check_one_device
from zsbir_fast.ops._library import (
    LIB,
    address,
    current_stream,
    refuse_second_derivatives,
    register,
)
from zsbir_fast.ops.token_weighting.inputs import (
    Inputs,
    check_operator,
)
from zsbir_fast.reference import token_weighting_gradients as gradients
from zsbir_fast.reference.token_weighting import accumulation_dtype

# How much the forward pass keeps (csrc/token_weighting/token_weighting.h).
KEEP_SCORES, KEEP_VALID, KEEP_ALL = 0, 1, 2
STATS = 5  # rows of `stats`
COSINE = 4

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


def call(name: str, device: torch.device, *arguments: Any) -> None:
    """The function of ``_C`` for the device, on the caller's stream."""
    if device.type == "cuda":
        getattr(_C, f"{name}_cuda")(*arguments, device.index or 0, current_stream(device))
    else:
        getattr(_C, f"{name}_cpu")(*arguments)


def dtype_name(dtype: torch.dtype) -> str:
    """The type as ``_C`` calls it."""
    return str(dtype).removeprefix("torch.")


class _Problem:
    """The tensors of one call as the kernels want them, checked."""

    def __init__(self, op: str, *inputs: Any) -> None:
        given = Inputs(*inputs)
        check_operator(op, given)
        text, text_mask, weights, sketch_keys, sketch_values, photo_keys, photo_values, *_ = given
        dtype = text.dtype
        self.temperature = given.temperature
        self.accumulator = accumulation_dtype(dtype)
        self.device = text.device
        classes, words, width = text.shape
        self.pairs = sketch_keys.shape[0]
        self.shape = (self.pairs, words, sketch_values.shape[2])
        self.text = as_kernel_input(op, "text", text, dtype, (classes, words, width))
        self.mask = as_kernel_input(op, "text_mask", text_mask, torch.bool, (classes, words))
        self.labels = as_kernel_input(op, "labels", given.labels, torch.int64, (self.pairs,))
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
            shape = (self.pairs, keys.shape[1])
            self.keys.append(as_kernel_input(op, f"{name}_keys", keys, dtype, (*shape, width)))
            self.values.append(
                as_kernel_input(op, f"{name}_values", values, dtype, (*shape, self.shape[2]))
            )

    def struct(self) -> Any:
        """Their addresses; the tensors must outlive it."""
        classes, words, width = self.text.shape
        return _C.TokenProblem(
            dtype=dtype_name(self.text.dtype),
            pairs=self.pairs,
            classes=classes,
            words=words,
            width=width,
            value_width=self.shape[2],
            sides=len(self.keys),
            scale=1 / (math.sqrt(width) * self.temperature),
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
            dtype=dtype_name(out.dtype),
            pairs=self.pairs,
            classes=out.shape[0],
            words=out.shape[1],
            width=rows.shape[2],
            rows=address(rows),
            mask=address(self.mask),
            labels=address(self.labels),
        )
        call("token_class_sums", self.device, sums, address(out))
        return out


def _two(tensors: list[Tensor] | list[Tensor | None]) -> tuple[int, int]:
    addresses = [address(t) for t in tensors] + [0, 0]
    return addresses[0], addresses[1]


def _checked_forward(*given: Any) -> _Problem:
    *inputs, keep = given
    check_enum("token_weighting", "keep", keep, KEEP_ALL + 1)
    return _Problem("token_weighting", *inputs)


def _token_weighting_outputs(*given: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return _empty_results(_checked_forward(*given), given[-1])


def _empty_results(p: _Problem, keep: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    both = len(p.keys) == 2
    pooled = [p.empty(*(p.shape if keep and (both or i == 0) else (0,))) for i in range(2)]
    scores = p.empty(p.pairs if both else 0)
    return scores, pooled[0], pooled[1], p.empty(STATS, *p.shape[:2])


def _token_weighting_native(*given: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    p, keep = _checked_forward(*given), given[-1]
    scores, *pooled, stats = results = _empty_results(p, keep)
    out = _C.TokenForward(
        weights=address(p.weights),
        scores=address(scores),
        pooled=_two(pooled),
        stats=address(stats),
        keep=keep,
    )
    call("token_weighting_forward", p.device, p.struct(), out)
    return results


class _Saved:
    """The results that a forward pass left, and their gradients, checked."""

    def __init__(
        self,
        p: _Problem,
        grads: tuple[Tensor | None, Tensor | None, Tensor | None],
        sketch_pooled: Tensor,
        photo_pooled: Tensor,
        stats: Tensor,
    ) -> None:
        op, dtype, both = "token_weighting_backward", p.accumulator, len(p.keys) == 2
        names = ("grad_scores", "grad_sketch", "grad_photo")
        given = dict(zip(names, grads, strict=True))
        if not both and (grads[0] is not None or grads[2] is not None):
            wrong = "grad_scores" if grads[0] is not None else "grad_photo"
            raise ValueError(f"{op}: {wrong} must be None without a photo, got a tensor")
        saved = {"sketch_pooled": sketch_pooled, "photo_pooled": photo_pooled, "stats": stats}
        check_one_device(op, text=p.text, **given, **saved)

        def checked(name: str, x: Tensor, shape: tuple[int, ...]) -> Tensor:
            return as_kernel_input(op, name, x, dtype, shape)

        shapes = dict(zip(names, ((p.pairs,), p.shape, p.shape), strict=True))
        self.grad_scores, *self.grad_pooled = (
            None if x is None else checked(name, x, shapes[name]) for name, x in given.items()
        )
        self.pooled = [
            checked("sketch_pooled", sketch_pooled, p.shape),
            checked("photo_pooled", photo_pooled, p.shape if both else (0,)),
        ]
        self.stats = checked("stats", stats, (STATS, *p.shape[:2]))


def _checked_backward(
    grad_scores: Tensor | None, grad_sketch: Tensor | None, grad_photo: Tensor | None, *given: Any
) -> tuple[_Problem, _Saved]:
    *inputs, sketch_pooled, photo_pooled, stats = given
    p = _Problem("token_weighting_backward", *inputs)
    grads = grad_scores, grad_sketch, grad_photo
    return p, _Saved(p, grads, sketch_pooled, photo_pooled, stats)


def _token_weighting_backward_native(*given: Any) -> tuple[Tensor, ...]:
    p, saved = _checked_backward(*given)
    text_rows = p.empty(*p.shape[:2], p.text.shape[2])
    keys, values = [torch.empty_like(k) for k in p.keys], [torch.empty_like(v) for v in p.values]
    arguments = _C.TokenBackward(
        weights=address(p.weights),
        pooled=_two(saved.pooled),
        stats=address(saved.stats),
        grad_scores=address(saved.grad_scores),
        grad_pooled=_two(saved.grad_pooled),
        text_rows=address(text_rows),
        keys=_two(keys),
        values=_two(values),
    )
    call("token_weighting_backward", p.device, p.struct(), arguments)
    grad_text = p.class_sums(text_rows, torch.empty_like(p.text))
    nothing = p.empty(0)
    if p.weights is None:
        return grad_text, nothing, keys[0], values[0], nothing, nothing
    if saved.grad_scores is None:
        grad_weights = torch.zeros_like(p.weights)
    else:
        shares = (saved.grad_scores[:, None] * saved.stats[COSINE])[:, :, None].contiguous()
        grad_weights = p.class_sums(shares, p.empty(*p.text.shape[:2]))
    return grad_text, grad_weights, keys[0], values[0], keys[1], values[1]


# --- shapes and gradients -------------------------------------------------------------------------


def _token_weighting_backward_fake(*given: Any) -> tuple[Tensor, ...]:
    _checked_backward(*given)
    text, _, weights, sketch_keys, sketch_values, photo_keys, photo_values = given[3:10]
    nothing = text.new_empty(0, dtype=accumulation_dtype(text.dtype))
    return tuple(
        nothing.clone() if t is None else torch.empty_like(t, memory_format=torch.contiguous_format)
        for t in (text, weights, sketch_keys, sketch_values, photo_keys, photo_values)
    )


register(
    "token_weighting",
    _token_weighting_native,
    _token_weighting_outputs,
    gradients.token_weighting_forward,
)
register(
    "token_weighting_backward",
    _token_weighting_backward_native,
    _token_weighting_backward_fake,
    gradients.token_weighting_backward,
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


torch.library.register_autograd(
    "zsbir::token_weighting",
    _token_weighting_gradient,
    setup_context=_save_for_token_weighting,
    lib=LIB,
)
torch.library.register_autograd(
    "zsbir::token_weighting_backward", refuse_second_derivatives("token_weighting"), lib=LIB
)
