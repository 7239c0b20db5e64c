"""The hinge h5 over all quadruplets: thresholds of one class against pairs of two other classes.

A threshold is a distance of a sketch and a photo of one class plus the margin; a value is the
distance of a sketch and a photo of two classes. There are far fewer thresholds than terms, and a
value meets all of them but those of its own two classes: sort the thresholds, once all and once by
class, and count (total minus the two classes).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from zsbir_fast import _C
from zsbir_fast.ops._checks import as_kernel_input, check_margins, check_one_device
from zsbir_fast.ops._library import (
    LIB,
    address,
    current_stream,
    register,
)
from zsbir_fast.ops.quadruplet_mining.pair_distances import check_kernel_rows, is_double


def probe_sum(
    cross: Tensor, sketch_labels: Tensor, photo_labels: Tensor, *, margin: float
) -> Tensor:
    """Sum of h5 over all quadruplets of three classes, float64 scalar, differentiable.

    Args:
        cross: [B_s, B_i], float32 or float64, distances of sketches to photos.
        sketch_labels: int64 [B_s].
        photo_labels: int64 [B_i].
        margin: added to the positive distances, in their dtype.

    Cost: sorting the positive distances, and a search for each other distance; on CUDA all
    distances are sorted, as their number must not depend on the labels.
    """
    out: Tensor = torch.ops.zsbir.probe_sum(cross, sketch_labels, photo_labels, margin)[0]
    return out


def count_probe_union(
    cross: Tensor,
    photos: Tensor | None,
    sketch_labels: Tensor,
    photo_labels: Tensor,
    *,
    margins: tuple[float, float | None, float | None],
) -> Tensor:
    """Quadruplets of three classes with h5, h1 or h4 above 0.

    Args:
        cross: [B_s, B_i], distances of sketches to photos.
        photos: [B_i, B_i], distances among photos, needed with h4.
        sketch_labels: int64 [B_s].
        photo_labels: int64 [B_i].
        margins: of h5, h1 and h4; None: the hinge takes no part.

    Returns:
        int64 scalar.

    Cost: photos times positive pairs, n^3 / C for n rows in C balanced classes.
    """
    out: Tensor = torch.ops.zsbir.count_probe_union(
        cross, photos, sketch_labels, photo_labels, *margins
    )
    return out


class _Thresholds(NamedTuple):
    """Positive distances plus the margin, sorted.

    On CUDA all B_s B_i entries are there, +inf behind the first ``count``: no shape may depend on
    the labels, or the CPU would have to wait.
    """

    values: Tensor  # [T] ascending
    sums: Tensor  # float64 [T + 1] of values[i:]
    by_class: Tensor  # [T] grouped by class, ascending within
    by_class_sums: Tensor  # float64 [T] of by_class[i:end of its class]
    rank: Tensor  # int64 [T] place in `values` of an entry of by_class
    pair: Tensor  # int64 [T] place in the flat matrix of an entry of by_class
    class_of: Tensor  # int64 [T] class of an entry of by_class
    offsets: Tensor  # int64 [classes + 1] into by_class
    finite: Tensor  # int64 scalar, how many are finite
    sketch_class: Tensor  # int32 [B_s]
    photo_class: Tensor  # int32 [B_i]


def _shapes_are_fixed(tensor: Tensor) -> bool:
    """Whether no shape may depend on values, because the CPU would wait for a GPU."""
    return tensor.is_cuda


def _sorted_thresholds(
    cross: Tensor, sketch_labels: Tensor, photo_labels: Tensor, margin: float
) -> _Thresholds:
    both = torch.cat([sketch_labels, photo_labels])
    ids = torch.searchsorted(both.sort().values, both)  # the same for equal labels, below len(both)
    sketch_class, photo_class = ids.split([len(sketch_labels), len(photo_labels)])
    same = sketch_labels[:, None] == photo_labels[None, :]
    if _shapes_are_fixed(cross):
        pair = torch.arange(cross.numel(), device=cross.device)
        values = (cross + margin).masked_fill(~same, torch.inf).flatten()
    else:
        pair = same.flatten().nonzero()[:, 0]
        values = cross.flatten()[pair] + margin
    values, order = values.sort(stable=True)
    pair = pair[order]
    finite = values < torch.inf  # those without a pair, and NaN, come last
    width = max(1, cross.shape[1])
    of_entry = sketch_class[pair // width] if len(sketch_class) else pair
    of_entry = torch.where(finite, of_entry, len(both))  # entries that are no threshold come last
    class_of, rank = of_entry.sort(stable=True)
    by_class = values[rank]
    offsets = torch.searchsorted(class_of, torch.arange(len(both) + 1, device=cross.device))
    suffix = _sums_from(by_class)
    ends = offsets[(class_of + 1).clamp_max(len(both))]
    return _Thresholds(
        values,
        _sums_from(values),
        by_class,
        suffix[:-1] - suffix[ends],
        rank,
        pair[rank],
        class_of,
        offsets,
        finite.sum(),
        sketch_class.int(),
        photo_class.int(),
    )


def _sums_from(values: Tensor) -> Tensor:
    """Sums of the finite ones of values[i:], float64 [T + 1], added in a fixed order.

    On CUDA torch scans the rows of a matrix in a fixed order, but a vector in one that varies.
    """
    kept = values.double().masked_fill(~torch.isfinite(values), 0).flip(0)
    side = math.isqrt(len(kept)) + 1  # a square with room for one 0 more than there are values
    square = torch.nn.functional.pad(kept, (1, side * side - len(kept) - 1)).view(side, side)
    within = square.cumsum(1)
    of_rows = within[:, -1:].expand(-1, 2).cumsum(0)[:, :1]
    before = torch.cat([of_rows.new_zeros(1, 1), of_rows[:-1]])
    return (within + before).flatten()[: len(kept) + 1].flip(0)


# --- operators ------------------------------------------------------------------------------------

LIB.define(
    "probe_sum(Tensor cross, Tensor sketch_labels, Tensor photo_labels, float margin) -> "
    "(Tensor, Tensor)"
)
LIB.define(
    "count_probe_union(Tensor cross, Tensor? photos, Tensor sketch_labels, Tensor photo_labels, "
    "float margin, float? h1_margin, float? h4_margin) -> Tensor"
)


def _checked(
    op: str, cross: Tensor, sketch_labels: Tensor, photo_labels: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Ready for their addresses to be taken."""
    check_one_device(op, cross=cross, sketch_labels=sketch_labels, photo_labels=photo_labels)
    (cross,) = check_kernel_rows(op, cross=cross)
    sketches, photos = cross.shape
    return (
        cross,
        as_kernel_input(op, "sketch_labels", sketch_labels, torch.int64, (sketches,)),
        as_kernel_input(op, "photo_labels", photo_labels, torch.int64, (photos,)),
    )


def _native(
    cross: Tensor, sketch_labels: Tensor, photo_labels: Tensor, margin: float
) -> tuple[Tensor, Tensor]:
    cross, sketch_labels, photo_labels = _checked("probe_sum", cross, sketch_labels, photo_labels)
    check_margins("probe_sum", margin=margin)
    t = _sorted_thresholds(cross, sketch_labels, photo_labels, margin)
    sums = cross.new_empty(len(cross), dtype=torch.float64)
    slopes = torch.empty_like(cross)
    hits = t.offsets.new_zeros(len(t.values) + 1)
    class_hits = torch.zeros_like(hits)
    struct = _C.Probes(
        values=cross.data_ptr(),
        rows=cross.shape[0],
        columns=cross.shape[1],
        row_class=t.sketch_class.data_ptr(),
        column_class=t.photo_class.data_ptr(),
        thresholds=t.values.data_ptr(),
        threshold_sums=t.sums.data_ptr(),
        by_class=t.by_class.data_ptr(),
        by_class_sums=t.by_class_sums.data_ptr(),
        class_offsets=t.offsets.data_ptr(),
        count=t.finite.data_ptr(),
        capacity=len(t.values),
    )
    out = (x.data_ptr() for x in (sums, slopes, hits, class_hits))
    arguments = (is_double(cross), struct, *out)
    if cross.is_cuda:
        _C.probe_pairs_cuda(*arguments, cross.get_device(), current_stream(cross.device))
    else:
        _C.probe_pairs_cpu(*arguments)
    # A threshold is above the values that hit at or before its place, less those of its own class.
    below = hits.cumsum(0)[t.rank]
    of_class = torch.cat([class_hits.new_zeros(1), class_hits]).cumsum(0)
    first = t.offsets[t.class_of.clamp_max(len(t.offsets) - 2)]
    own = of_class[1:-1] - of_class[first]
    counts = torch.where(torch.isfinite(t.by_class), below - own, 0)
    slopes.view(-1)[t.pair] += counts.to(slopes.dtype)
    return sums.sum(), slopes


def _reference(
    cross: Tensor, sketch_labels: Tensor, photo_labels: Tensor, margin: float
) -> tuple[Tensor, Tensor]:
    same = sketch_labels[:, None] == photo_labels[None, :]
    total, slopes = cross.new_zeros((), dtype=torch.float64), torch.zeros_like(cross)
    for s, p in same.nonzero().tolist():
        others = (sketch_labels != sketch_labels[s])[:, None] & (photo_labels != photo_labels[p])
        gap = torch.where(others & ~same, cross[s, p] + margin - cross, 0)
        active = gap > 0
        total = total + gap[active].double().sum()
        slopes -= active.to(slopes.dtype)
        slopes[s, p] += active.sum()
    return total, slopes


def _fake(
    cross: Tensor, sketch_labels: Tensor, photo_labels: Tensor, margin: float
) -> tuple[Tensor, Tensor]:
    _checked("probe_sum", cross, sketch_labels, photo_labels)
    check_margins("probe_sum", margin=margin)
    return cross.new_empty((), dtype=torch.float64), cross.new_empty(cross.shape)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    del inputs
    ctx.save_for_backward(output[1])
    ctx.mark_non_differentiable(output[1])


def _autograd(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor, None, None, None]:
    (slopes,) = ctx.saved_tensors
    return grad.to(slopes.dtype) * slopes, None, None, None


def _count_checked(
    cross: Tensor,
    photos: Tensor | None,
    sketch_labels: Tensor,
    photo_labels: Tensor,
    margins: tuple[float, float | None, float | None],
) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
    """Ready for their addresses to be taken."""
    op = "count_probe_union"
    cross, sketch_labels, photo_labels = _checked(op, cross, sketch_labels, photo_labels)
    check_margins(op, margin=margins[0], h1_margin=margins[1], h4_margin=margins[2])
    if photos is None:
        if margins[2] is not None:
            raise ValueError(f"{op}: photos must be given with h4_margin, got None")
        return cross, None, sketch_labels, photo_labels
    check_one_device(op, cross=cross, photos=photos)
    photos = as_kernel_input(op, "photos", photos, cross.dtype, (cross.shape[1],) * 2)
    return cross, photos, sketch_labels, photo_labels


def _count_native(
    cross: Tensor,
    photos: Tensor | None,
    sketch_labels: Tensor,
    photo_labels: Tensor,
    margin: float,
    h1_margin: float | None,
    h4_margin: float | None,
) -> Tensor:
    margins = (margin, h1_margin, h4_margin)
    cross, photos, sketch_labels, photo_labels = _count_checked(
        cross, photos, sketch_labels, photo_labels, margins
    )
    t = _sorted_thresholds(cross, sketch_labels, photo_labels, margin)
    columns = max(1, cross.shape[1])
    anchor, positive = (t.pair // columns).int(), (t.pair % columns).int()
    distances = cross.flatten()[t.pair]
    h1 = None if h1_margin is None else distances + h1_margin
    h4 = None if h4_margin is None else distances + h4_margin
    transposed = cross.mT.contiguous()
    photos = None if h4 is None else photos
    rank = t.rank.int()
    arguments = {
        "values": transposed.data_ptr(),
        "photos": address(photos),
        "sketch_count": cross.shape[0],
        "photo_count": cross.shape[1],
        "sketch_class": t.sketch_class.data_ptr(),
        "photo_class": t.photo_class.data_ptr(),
        "thresholds": t.values.data_ptr(),
        "by_class": t.by_class.data_ptr(),
        "anchor": anchor.data_ptr(),
        "positive": positive.data_ptr(),
        "rank": rank.data_ptr(),
        "h1_threshold": address(h1),
        "h4_threshold": address(h4),
        "class_offsets": t.offsets.data_ptr(),
        "classes": len(t.offsets) - 1,
        "count": len(t.values),
    }
    if not cross.is_cuda:
        out = sketch_labels.new_zeros(())
        _C.probe_union_cpu(is_double(cross), _C.ProbeUnion(**arguments), out.data_ptr())
        return out
    # The kernel searches this instead of a histogram per photo, which would not fit into a block.
    same = photo_labels[:, None] == sketch_labels[None, :]
    ascending = transposed.masked_fill(same, torch.inf).sort(1).values
    classes, members = t.sketch_class.sort(stable=True)
    bounds = torch.searchsorted(classes, torch.arange(len(t.offsets), device=cross.device).int())
    struct = _C.ProbeUnion(
        **arguments,
        sorted=ascending.data_ptr(),
        members=members.data_ptr(),
        member_offsets=bounds.data_ptr(),
    )
    totals = sketch_labels.new_zeros(len(t.values))
    stream = current_stream(cross.device)
    _C.probe_union_cuda(is_double(cross), struct, totals.data_ptr(), cross.get_device(), stream)
    return totals.sum()


def _count_reference(
    cross: Tensor,
    photos: Tensor | None,
    sketch_labels: Tensor,
    photo_labels: Tensor,
    margin: float,
    h1_margin: float | None,
    h4_margin: float | None,
) -> Tensor:
    same = sketch_labels[:, None] == photo_labels[None, :]
    total = sketch_labels.new_zeros(())
    for s in range(len(cross)):
        others = (sketch_labels != sketch_labels[s])[:, None] & ~same[s] & ~same
        for p in same[s].nonzero()[:, 0].tolist():
            active = cross < cross[s, p] + margin
            if h1_margin is not None:
                active = active | (cross[s] < cross[s, p] + h1_margin)
            if h4_margin is not None and photos is not None:
                active = active | (photos[p] < cross[s, p] + h4_margin)
            total = total + (active & others).sum()
    return total


def _count_fake(
    cross: Tensor,
    photos: Tensor | None,
    sketch_labels: Tensor,
    photo_labels: Tensor,
    margin: float,
    h1_margin: float | None,
    h4_margin: float | None,
) -> Tensor:
    _count_checked(cross, photos, sketch_labels, photo_labels, (margin, h1_margin, h4_margin))
    return sketch_labels.new_empty(())


register("probe_sum", _native, _fake, _reference)
register("count_probe_union", _count_native, _count_fake, _count_reference)
torch.library.register_autograd(
    "zsbir::probe_sum", _autograd, setup_context=_setup_context, lib=LIB
)
