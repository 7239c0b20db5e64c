"""The nearest and farthest references of every anchor, by class, without a matrix of distances.

A matrix product, by blocks of anchors, tells which references may be chosen; the kernel then sums
the distances of those alone, about one for each choice. So the cost is that of the product, and the
choices are exact and the same however the product was rounded: by another library, in bfloat16, or
by blocks of another size.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from zsbir_fast import _C
from zsbir_fast.ops._checks import as_kernel_input, check_enum, check_one_device
from zsbir_fast.ops._library import (
    LIB,
    address,
    current_stream,
    register,
)
from zsbir_fast.ops.quadruplet_mining.pair_distances import (
    CODES,
    check_distance,
    check_kernel_rows,
    is_double,
    rows_struct,
)
from zsbir_fast.ops.row_products import bfloat16_is_faster, pack_rows, row_products
from zsbir_fast.reference import quadruplet_mining as reference
from zsbir_fast.reference.quadruplet_mining import Distance

Precision = Literal["float32", "bfloat16"]
Choice = Literal["nearest_same", "farthest_same", "nearest_other", "farthest_other"]
CHOICES: tuple[Choice, ...] = get_args(Choice)
# Bytes of products at a time: few enough for L3, or L2 of a GPU, many enough for a fast product.
_WORKSPACE = {"cpu": 8 << 20, "cuda": 32 << 20}
_SUM = 32  # a summed distance takes about as long as the float32 products of 32 references
_MOST_REFERENCES = 2**31 - 1  # their rows are 32-bit numbers in the kernels
_LEAST_ANCHORS = 64  # at a time: a product of fewer rows takes longer for each


class Selected(NamedTuple):
    """The choice of every anchor.

    Attributes:
        index: int64 [A], row of the reference; -1: none.
        distance: [A], to it; 0 where there is none.
    """

    index: Tensor  # type: ignore[assignment]  # a tuple has a method of that name
    distance: Tensor


class Selection(NamedTuple):
    """The four choices: by distance, among references of the anchor's class or of others."""

    nearest_same: Selected
    farthest_same: Selected
    nearest_other: Selected
    farthest_other: Selected


def select_pairs(
    anchors: Tensor,
    references: Tensor,
    anchor_labels: Tensor,
    reference_labels: Tensor,
    *,
    distance: Distance,
    same_limit: int | None = None,
    forbidden: Tensor | None = None,
    low: Tensor | None = None,
    high: Tensor | None = None,
    wanted: tuple[Choice, ...] = CHOICES,
) -> Selection:
    """Choose among equal distances the lowest index.

    Args:
        anchors: [A, D], float32 or float64, from ``kernel_rows``.
        references: [R, D], of the same dtype.
        anchor_labels: int64 [A].
        reference_labels: int64 [R].
        distance: which.
        same_limit: only references before it count as of the same class.
        forbidden: int64 [A], a class that does not count as another.
        low: [A], only distances above it count.
        high: [A], only distances below it count.
        wanted: which choices to make; the others are -1.

    Cost: the product of both sets of rows, and D multiply-adds for each candidate: the references
    within the product's error of the best. Extra memory: both sets once more, and a workspace.
    """
    limit = len(references) if same_limit is None else same_limit
    index, chosen = torch.ops.zsbir.select_pairs(
        anchors,
        references,
        anchor_labels,
        reference_labels,
        limit,
        forbidden,
        low,
        high,
        CODES[distance],
        sum(1 << CHOICES.index(choice) for choice in wanted),
    )
    return Selection(*(Selected(index[i], chosen[i]) for i in range(len(CHOICES))))


# --- operators ------------------------------------------------------------------------------------

LIB.define(
    "select_pairs(Tensor anchors, Tensor references, Tensor anchor_labels, Tensor reference_labels,"
    " int same_limit, Tensor? forbidden, Tensor? low, Tensor? high, int distance, int wanted=15)"
    " -> (Tensor, Tensor)"
)


def _precision_on(device: torch.device) -> Precision:
    """The precision of the fastest product; the results are exact with any.

    It is bfloat16 where there are matrix units for that. The type of the factors asks for it, never
    a switch, because switches of precision belong to the whole process.
    """
    return "bfloat16" if bfloat16_is_faster(device.type) else "float32"


def _bfloat16_products(out: Tensor, left: Tensor, right: Tensor) -> None:
    """``left @ right.T`` of bfloat16 factors into float32."""
    if left.is_cuda:
        torch.mm(left, right.mT, out_dtype=torch.float32, out=out)
    else:
        out.copy_(torch.mm(left, right.mT))


# The error that two factors, and on the CPU their product, may have together: bfloat16 rounds to
# eight bits.
_ROUNDED: dict[Precision, float] = {"float32": 0, "bfloat16": 2**-8 + 2**-9 + 2**-15}


def _centred(anchors: Tensor, references: Tensor) -> tuple[Tensor, Tensor]:
    """Both relative to the references' mean; on the CPU only if it is long beside them.

    A bank takes longer to copy than to multiply. On CUDA looking would wait for the GPU.
    """
    itself = anchors.data_ptr() == references.data_ptr() and len(anchors) == len(references)
    centre = references.mean(0)
    if not references.is_cuda:
        sample = references[:: max(1, len(references) // 64)]
        if centre.square().sum() <= sample.square().sum() / (2 * len(sample)):
            return anchors, references
    references = references - centre
    return references if itself else anchors - centre, references


class _Estimates:
    """Products of rows, and how far distances from them may be from the summed ones.

    With u half the spacing of numbers near 1:

    - a product of D terms errs by at most D u |a| |b| in any order of its sums (Higham,
      Accuracy and Stability of Numerical Algorithms, section 3.1), and by more where factors or the
      product are rounded and matrix units cut sums off; it counts twice in |a|^2 + |b|^2 - 2 a.b;
    - the chain that is the distance errs by (D + 4) u of itself, at most 2 (|a|^2 + |b|^2); for
      the cosine, by D u |a| |b| and the rounding of 1 - a.b;
    - |a|^2 + |b|^2 errs by (D + 8) u, the shift, the sum of three terms and comparisons by a few u.

    Differences do not change with a common shift: rows are taken relative to their mean, or a mean
    much longer than the differences would leave every reference a candidate.
    """

    def __init__(self, anchors: Tensor, references: Tensor, distance: int) -> None:
        info = torch.finfo(anchors.dtype)
        width = anchors.shape[1]
        self._unit, self._width = info.eps / 2, width
        self._cosine = distance == CODES["cosine"]
        if not self._cosine:
            anchors, references = _centred(anchors, references)
        self.anchors, self.references = anchors, references
        self.anchor_lengths = torch.linalg.vector_norm(anchors, dim=1)
        self.reference_lengths = torch.linalg.vector_norm(references, dim=1)
        single = anchors.dtype == torch.float32
        self.precision: Precision = _precision_on(anchors.device) if single else "float32"
        self._right: tuple[Precision, Tensor] | None = None  # the references as products take them
        # 1.25 allows for terms of second order, tiny for underflow.
        self.norm_error = 1.25 * ((width if self._cosine else 3 * width) + 40) * self._unit
        self.tiny = 8 * (width + 1) * info.tiny

    @property
    def product_error(self) -> float:
        """Of a distance, by the lengths of both rows."""
        sums = self._width * self._unit * (1 if self.precision == "float32" else 2)
        return 1.25 * (1 if self._cosine else 2) * (_ROUNDED[self.precision] + sums)

    def blocks(self) -> Iterator[tuple[int, Tensor]]:
        """The first anchor of a block, and its products with all references."""
        count, anchors = len(self.references), len(self.anchors)
        row_bytes = count * self.references.element_size()
        rows = max(_LEAST_ANCHORS, _WORKSPACE[self.anchors.device.type] // row_bytes)
        rows = min(anchors, max(rows, self._width // 2))  # half as much as a large bank holds
        workspace = self.anchors.new_empty(rows, count)
        first = 0
        with torch.autocast(self.anchors.device.type, enabled=False):
            while first < anchors:
                # A small block shows whether bfloat16 is good enough.
                size = _LEAST_ANCHORS if first == 0 and self.precision == "bfloat16" else rows
                block = self.anchors[first : first + size]
                yield first, self._products(workspace[: len(block)], block)
                first += len(block)

    def _products(self, out: Tensor, block: Tensor) -> Tensor:
        """Products of a block of anchors with all references."""
        if self._right is None or self._right[0] != self.precision:
            narrow = self.precision == "bfloat16"
            made = self.references.bfloat16() if narrow else pack_rows(self.references)
            self._right = self.precision, made
        if self.precision == "bfloat16":
            _bfloat16_products(out, block.bfloat16(), self._right[1])
        else:
            row_products(block, self._right[1], out=out)
        return out

    def look_again(self, block: int, summed: int) -> None:
        """Go on in float32 if too many distances of a block were worth summing."""
        if self.precision == "bfloat16" and summed * _SUM > block * len(self.references):
            self.precision = "float32"


def _checked(
    tensors: tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None, Tensor | None, Tensor | None],
    same_limit: int,
    distance: int,
    wanted: int,
) -> tuple[Tensor, Tensor, dict[str, Tensor | None]]:
    """Anchors, references and the tensors of the filter, ready for their addresses to be taken."""
    op, (anchors, references, *others) = "select_pairs", tensors
    check_distance(op, distance)
    check_enum(op, "wanted", wanted, 1 << len(CHOICES))
    anchors, references = check_kernel_rows(op, anchors=anchors, references=references)
    if same_limit < 0:
        raise ValueError(f"{op}: same_limit must not be negative, got {same_limit}")
    count, anchor_count = len(references), len(anchors)
    if count > _MOST_REFERENCES:
        raise ValueError(f"{op}: references must be below 2^31, got {count}")
    names = ("anchor_labels", "reference_labels", "forbidden", "low", "high")
    given = dict(zip(names, others, strict=True))
    check_one_device(op, anchors=anchors, **given)
    checked: dict[str, Tensor | None] = {}
    for name, x in given.items():
        dtype = anchors.dtype if name in ("low", "high") else torch.int64
        shape = (count if name == "reference_labels" else anchor_count,)
        checked[name] = None if x is None else as_kernel_input(op, name, x, dtype, shape)
    return anchors, references, checked


def _native(
    anchors: Tensor,
    references: Tensor,
    anchor_labels: Tensor,
    reference_labels: Tensor,
    same_limit: int,
    forbidden: Tensor | None,
    low: Tensor | None,
    high: Tensor | None,
    distance: int,
    wanted: int = 15,
) -> tuple[Tensor, Tensor]:
    tensors = (anchors, references, anchor_labels, reference_labels, forbidden, low, high)
    anchors, references, checked = _checked(tensors, same_limit, distance, wanted)
    shape = (len(CHOICES), len(anchors))
    if len(anchors) == 0 or len(references) == 0:
        return anchor_labels.new_full(shape, -1), anchors.new_zeros(shape)
    index, chosen = anchor_labels.new_empty(shape), anchors.new_empty(shape)
    addresses = {name: address(x) for name, x in checked.items()}
    conditions = _C.SelectFilter(same_limit=same_limit, **addresses)
    rows = (is_double(anchors), rows_struct(anchors), rows_struct(references), conditions)
    out = (distance, wanted, index.data_ptr(), chosen.data_ptr())
    estimates = _Estimates(anchors, references, distance)
    summed = torch.zeros((), dtype=torch.int64, device="cpu")
    for first, products in estimates.blocks():
        block = _C.Estimates(
            products=products.data_ptr(),
            first=first,
            rows=len(products),
            anchor_lengths=estimates.anchor_lengths.data_ptr(),
            reference_lengths=estimates.reference_lengths.data_ptr(),
            product_error=estimates.product_error,
            norm_error=estimates.norm_error,
            tiny=estimates.tiny,
        )
        if anchors.is_cuda:
            device = anchors.get_device()
            _C.select_pairs_cuda(*rows, block, *out, device, current_stream(anchors.device))
        else:
            _C.select_pairs_cpu(*rows, block, *out, summed.data_ptr())
            estimates.look_again(len(products), int(summed))
    return index, chosen


def _reference(
    anchors: Tensor,
    references: Tensor,
    anchor_labels: Tensor,
    reference_labels: Tensor,
    same_limit: int,
    forbidden: Tensor | None,
    low: Tensor | None,
    high: Tensor | None,
    distance: int,
    wanted: int = 15,
) -> tuple[Tensor, Tensor]:
    index = anchor_labels.new_full((len(CHOICES), len(anchors)), -1)
    chosen = anchors.new_zeros(len(CHOICES), len(anchors))
    if len(references) == 0:
        return index, chosen
    distances = reference.pair_distances(anchors, references, list(CODES)[distance])
    inside = torch.ones_like(distances, dtype=torch.bool)
    if low is not None:
        inside &= distances > low[:, None]
    if high is not None:
        inside &= distances < high[:, None]
    same = anchor_labels[:, None] == reference_labels[None, :]
    other = ~same
    if forbidden is not None:
        other = other & (reference_labels[None, :] != forbidden[:, None])
    same = same & (torch.arange(len(references), device=same.device) < same_limit)
    for i, (allowed, sign) in enumerate(((same, 1), (same, -1), (other, 1), (other, -1))):
        if not wanted >> i & 1:
            continue
        index[i] = reference.nearest_index(sign * distances, allowed & inside)
        taken = distances.gather(1, index[i].clamp_min(0)[:, None])[:, 0]
        chosen[i] = torch.where(index[i] >= 0, taken, 0)
    return index, chosen


def _fake(
    anchors: Tensor,
    references: Tensor,
    anchor_labels: Tensor,
    reference_labels: Tensor,
    same_limit: int,
    forbidden: Tensor | None,
    low: Tensor | None,
    high: Tensor | None,
    distance: int,
    wanted: int = 15,
) -> tuple[Tensor, Tensor]:
    tensors = (anchors, references, anchor_labels, reference_labels, forbidden, low, high)
    _checked(tensors, same_limit, distance, wanted)
    shape = (len(CHOICES), len(anchors))
    return anchor_labels.new_empty(shape), anchors.new_empty(shape)


register("select_pairs", _native, _fake, _reference)
