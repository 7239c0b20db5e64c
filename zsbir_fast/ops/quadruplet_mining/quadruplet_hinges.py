"""The hinges of mined quadruplets as an operator: four rows of an anchor in, one number out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from zsbir_fast import _C
from zsbir_fast.ops._checks import as_kernel_input, check_one_device
from zsbir_fast.ops._library import (
    LIB,
    current_stream,
    notice_fallback,
    refuse_second_derivatives,
    register,
    why_not_native,
)
from zsbir_fast.ops.quadruplet_mining.pair_distances import (
    CODES,
    check_distance,
    check_kernel_rows,
    is_double,
    kernel_rows,
    rows_struct,
)
from zsbir_fast.reference import quadruplet_mining as reference
from zsbir_fast.reference.quadruplet_mining import Distance, Five, Quadruplets

_fallback = notice_fallback("quadruplet_hinges", reference.quadruplet_hinges)


def quadruplet_hinges(
    sketches: Tensor,
    photos: Tensor,
    references: Tensor,
    quadruplets: Quadruplets,
    *,
    coefficients: Five,
    margins: Five,
    cross_modal_share: float | None,
    distance: Distance,
) -> Tensor:
    """Sum of the hinges of every anchor, [B_s], 0 where it is not valid.

    Arguments as for :func:`zsbir_fast.quadruplet_loss`; rows of valid anchors must exist.

    Cost: up to six distances of D elements forward, and 4 rows of gradients; deterministic: every
    row sums its own terms in the order of the anchors.
    """
    if why_not_native(sketches.device) is not None:
        return _fallback(
            sketches,
            photos,
            references,
            quadruplets,
            coefficients=coefficients,
            margins=margins,
            cross_modal_share=cross_modal_share,
            distance=distance,
        )
    needs_references = cross_modal_share is not None or any(coefficients[k] for k in (1, 2, 4))
    if references is sketches and not needs_references:
        references = sketches.detach()[:0]  # so that no gradient of zeros is made
    hinges: Tensor = torch.ops.zsbir.quadruplet_hinges(
        *(kernel_rows(x, distance) for x in (sketches, photos, references)),
        *quadruplets,
        list(coefficients),
        list(margins),
        -1.0 if cross_modal_share is None else cross_modal_share,
        CODES[distance],
    )[0]
    return hinges


# --- operators ------------------------------------------------------------------------------------

LIB.define(
    "quadruplet_hinges(Tensor sketches, Tensor photos, Tensor references, Tensor positive, "
    "Tensor photo_negative, Tensor sketch_negative, Tensor valid, float[] coefficients, "
    "float[] margins, float cross_modal_share, int distance) -> (Tensor, Tensor)"
)
LIB.define(
    "quadruplet_hinges_backward(Tensor grad, Tensor slopes, Tensor sketches, Tensor photos, "
    "Tensor references, Tensor positive, Tensor photo_negative, Tensor sketch_negative, "
    "Tensor valid, int distance, bool sketches_grad=True, bool photos_grad=True, "
    "bool references_grad=True) -> (Tensor, Tensor, Tensor)"
)
_EDGES = 6  # distances of a quadruplet
_HINGES = 5
_MATRICES = ("sketches", "photos", "references")
_INDICES = ("positive", "photo_negative", "sketch_negative", "valid")


class _Mined:
    """Contiguous tensors of a call, checked, and the C++ view of them."""

    def __init__(
        self,
        op: str,
        rows: Sequence[Tensor],
        indices: Sequence[Tensor],
        valid: Tensor,
        distance: int,
    ) -> None:
        self.op = op
        check_distance(op, distance)
        matrices = zip(_MATRICES, rows, strict=True)
        self.rows = check_kernel_rows(op, **dict(matrices))
        self.count = len(self.rows[0])
        given = dict(zip(_INDICES, (*indices, valid), strict=True))
        check_one_device(op, sketches=rows[0], **given)
        self.indices = [
            self.of_anchors(name, x, torch.bool if name == "valid" else torch.int64)
            for name, x in given.items()
        ]

    def struct(self) -> Any:
        rows = dict(zip(_MATRICES, map(rows_struct, self.rows), strict=True))
        indices = {n: x.data_ptr() for n, x in zip(_INDICES, self.indices, strict=True)}
        return _C.MinedRows(**rows, **indices)

    def of_anchors(self, name: str, x: Tensor, dtype: torch.dtype, *columns: int) -> Tensor:
        """One entry, or one row of ``columns``, for every anchor."""
        return as_kernel_input(self.op, name, x, dtype, (self.count, *columns))

    def run(self, *arguments: Any) -> None:
        first, name = self.rows[0], self.op
        if first.is_cuda:
            stream = current_stream(first.device)
            getattr(_C, f"{name}_cuda")(
                is_double(first), self.struct(), *arguments, first.get_device(), stream
            )
        else:
            getattr(_C, f"{name}_cpu")(is_double(first), self.struct(), *arguments)


def _checked_forward(
    rows: Sequence[Tensor],
    indices: Sequence[Tensor],
    valid: Tensor,
    form: tuple[list[float], list[float], float],
    distance: int,
) -> _Mined:
    op = "quadruplet_hinges"
    coefficients, margins, share = form
    for name, numbers in (("coefficients", coefficients), ("margins", margins)):
        if len(numbers) != _HINGES or not all(0 <= x < math.inf for x in numbers):
            raise ValueError(
                f"{op}: {name} must be five finite numbers, none negative, got {numbers}"
            )
    if not (share == -1 or 0 <= share <= 1):
        raise ValueError(f"{op}: cross_modal_share must be in [0, 1] or -1, got {share}")
    return _Mined(op, rows, indices, valid, distance)


def _native(
    sketches: Tensor,
    photos: Tensor,
    references: Tensor,
    positive: Tensor,
    photo_negative: Tensor,
    sketch_negative: Tensor,
    valid: Tensor,
    coefficients: list[float],
    margins: list[float],
    cross_modal_share: float,
    distance: int,
) -> tuple[Tensor, Tensor]:
    mined = _checked_forward(
        (sketches, photos, references),
        (positive, photo_negative, sketch_negative),
        valid,
        (coefficients, margins, cross_modal_share),
        distance,
    )
    form = _C.HingeForm(
        coefficients=coefficients, margins=margins, cross_modal_share=cross_modal_share
    )
    hinges, slopes = sketches.new_empty(len(sketches)), sketches.new_empty(len(sketches), _EDGES)
    mined.run(form, distance, hinges.data_ptr(), slopes.data_ptr())
    return hinges, slopes


def _fake(
    sketches: Tensor,
    photos: Tensor,
    references: Tensor,
    positive: Tensor,
    photo_negative: Tensor,
    sketch_negative: Tensor,
    valid: Tensor,
    coefficients: list[float],
    margins: list[float],
    cross_modal_share: float,
    distance: int,
) -> tuple[Tensor, Tensor]:
    rows, indices = (sketches, photos, references), (positive, photo_negative, sketch_negative)
    form = (coefficients, margins, cross_modal_share)
    _checked_forward(rows, indices, valid, form, distance)
    return sketches.new_empty(len(sketches)), sketches.new_empty(len(sketches), _EDGES)


def _checked_backward(
    grad: Tensor,
    slopes: Tensor,
    rows: Sequence[Tensor],
    indices: Sequence[Tensor],
    valid: Tensor,
    distance: int,
) -> tuple[_Mined, Tensor, Tensor]:
    op = "quadruplet_hinges_backward"
    mined = _Mined(op, rows, indices, valid, distance)
    check_one_device(op, sketches=rows[0], grad=grad, slopes=slopes)
    grad = mined.of_anchors("grad", grad, rows[0].dtype)
    return mined, grad, mined.of_anchors("slopes", slopes, rows[0].dtype, _EDGES)


def _backward(
    grad: Tensor,
    slopes: Tensor,
    sketches: Tensor,
    photos: Tensor,
    references: Tensor,
    positive: Tensor,
    photo_negative: Tensor,
    sketch_negative: Tensor,
    valid: Tensor,
    distance: int,
    sketches_grad: bool = True,
    photos_grad: bool = True,
    references_grad: bool = True,
) -> tuple[Tensor, Tensor, Tensor]:
    mined, grad, slopes = _checked_backward(
        grad,
        slopes,
        (sketches, photos, references),
        (positive, photo_negative, sketch_negative),
        valid,
        distance,
    )
    wanted = sketches_grad, photos_grad, references_grad
    out = [x.new_empty(x.shape if w else 0) for x, w in zip(mined.rows, wanted, strict=True)]
    pointers = [x.data_ptr() if w else 0 for x, w in zip(out, wanted, strict=True)]
    mined.run(distance, slopes.data_ptr(), grad.data_ptr(), *pointers)
    return out[0], out[1], out[2]


def _backward_fake(
    grad: Tensor,
    slopes: Tensor,
    sketches: Tensor,
    photos: Tensor,
    references: Tensor,
    positive: Tensor,
    photo_negative: Tensor,
    sketch_negative: Tensor,
    valid: Tensor,
    distance: int,
    sketches_grad: bool = True,
    photos_grad: bool = True,
    references_grad: bool = True,
) -> tuple[Tensor, Tensor, Tensor]:
    indices = (positive, photo_negative, sketch_negative)
    _checked_backward(grad, slopes, (sketches, photos, references), indices, valid, distance)
    return (
        sketches.new_empty(sketches.shape if sketches_grad else 0),
        photos.new_empty(photos.shape if photos_grad else 0),
        references.new_empty(references.shape if references_grad else 0),
    )


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *rows, _coefficients, _margins, _share, ctx.distance = inputs
    ctx.save_for_backward(output[1], *rows)
    ctx.mark_non_differentiable(output[1])


def _autograd(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Any, ...]:
    wanted = ctx.needs_input_grad[:3]  # a bank's gradient would be as large as the bank
    grads = torch.ops.zsbir.quadruplet_hinges_backward(
        grad, *ctx.saved_tensors, ctx.distance, *wanted
    )
    return *(x if w else None for x, w in zip(grads, wanted, strict=True)), *(None,) * 8


register("quadruplet_hinges", _native, _fake, None)
register("quadruplet_hinges_backward", _backward, _backward_fake, None)
torch.library.register_autograd(
    "zsbir::quadruplet_hinges", _autograd, setup_context=_setup_context, lib=LIB
)
torch.library.register_autograd(
    "zsbir::quadruplet_hinges_backward", refuse_second_derivatives("quadruplet_loss"), lib=LIB
)
