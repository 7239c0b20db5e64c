"""The inputs of the kernels of ``batched_map``: checked tensors, their addresses in structs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from zsbir_fast import _C
from zsbir_fast.ops._checks import as_kernel_input, check_kernel_float, check_one_device
from zsbir_fast.ops._library import address
from zsbir_fast.reference.definitions import AP_KINDS, NORMALISERS, PRECISION_DENOMINATORS, TIES

_INDEX_LIMIT = 2**31 - 1  # gallery positions are int32


@dataclass(frozen=True)
class GalleryClasses:
    """Which gallery columns belong to which class.

    Attributes:
        of_column: int32 [G], a class number from 0 for each column.
        offsets: int64 [classes + 1] into ``columns``.
        columns: int32 [G], the columns of each class, ascending by gallery index.
        index: int32 [G], each column's place in the user's gallery; None: the column number.
    """

    of_column: Tensor
    offsets: Tensor
    columns: Tensor
    index: Tensor | None = None

    @staticmethod
    def of(classes: Tensor, count: int, index: Tensor | None = None) -> GalleryClasses:
        """Group columns by class.

        Args:
            classes: integer, [G], in [0, count).
            count: number of classes.
            index: int32 [G], as the attribute.
        """
        if len(classes) > _INDEX_LIMIT:
            raise ValueError(f"GalleryClasses: at most 2^31 - 1 gallery items, got {len(classes)}")
        order = torch.arange(len(classes), device=classes.device)
        if index is not None:
            order = torch.argsort(index)
        columns = order[torch.argsort(classes[order], stable=True)]
        offsets = torch.zeros(count + 1, dtype=torch.int64, device=classes.device)
        offsets[1:] = torch.bincount(classes, minlength=count).cumsum(0)
        return GalleryClasses(classes.to(torch.int32), offsets, columns.to(torch.int32), index)


def check_scores(op: str, scores: Tensor, query_class: Tensor, gallery: GalleryClasses) -> None:
    """Raise unless scores, queries and gallery fit each other."""
    check_kernel_float(op, "scores", scores)
    expected = (len(query_class), len(gallery.of_column))
    if tuple(scores.shape) != expected:
        raise ValueError(
            f"{op}: scores must be [Q, G] = {list(expected)}, got {list(scores.shape)}"
        )
    check_one_device(
        op,
        scores=scores,
        query_class=query_class,
        gallery_class=gallery.of_column,
        gallery_index=gallery.index,
    )


def check_ks(op: str, ks: Sequence[int]) -> None:
    """Raise unless every cut-off is positive."""
    for k in ks:
        if k < 1:
            raise ValueError(f"{op}: every k of ks must be at least 1, got {k}")


class ScoresInput:
    """Scores and classes, checked and contiguous, with the struct that holds their addresses.

    Keeps the tensors alive for as long as the kernel reads them.
    """

    def __init__(
        self,
        op: str,
        scores: Tensor,
        query_class: Tensor,
        gallery_class: Tensor,
        gallery_index: Tensor | None,
        larger_is_closer: bool,
    ) -> None:
        check_kernel_float(op, "scores", scores)
        if scores.dim() != 2:
            raise ValueError(f"{op}: scores must be [Q, G], got shape {list(scores.shape)}")
        queries, columns = scores.shape
        if scores.stride(1) != 1 and columns > 1:
            scores = scores.contiguous()
        self.scores = scores
        self.query_class = as_kernel_input(op, "query_class", query_class, torch.int32, (queries,))
        self.gallery_class = as_kernel_input(
            op, "gallery_class", gallery_class, torch.int32, (columns,)
        )
        self.gallery_index = gallery_index
        if gallery_index is not None:
            self.gallery_index = as_kernel_input(
                op, "gallery_index", gallery_index, torch.int32, (columns,)
            )
        self.struct = _C.Scores(
            data=scores.data_ptr(),
            float64=scores.dtype == torch.float64,
            queries=queries,
            gallery=columns,
            row_stride=scores.stride(0),
            larger_is_closer=larger_is_closer,
            query_class=self.query_class.data_ptr(),
            gallery_class=self.gallery_class.data_ptr(),
            gallery_index=address(self.gallery_index),
        )


class RelevantInput:
    """The relevant items likewise; ``index`` is None where only metrics are asked."""

    def __init__(self, op: str, offsets: Tensor, key: Tensor, index: Tensor | None) -> None:
        check_kernel_float(op, "key", key)
        if offsets.dim() != 1 or len(offsets) == 0:
            raise ValueError(f"{op}: offsets must be [Q + 1], got {list(offsets.shape)}")
        self.offsets = as_kernel_input(op, "offsets", offsets, torch.int64, tuple(offsets.shape))
        self.key = as_kernel_input(op, "key", key, key.dtype, (key.numel(),))
        self.index = index
        if index is not None:
            self.index = as_kernel_input(op, "index", index, torch.int32, (key.numel(),))
        if not offsets.is_cuda:  # on a GPU the check would wait for it
            check_offsets(op, "offsets", self.offsets, key.numel())
        self.struct = _C.Relevant(
            offsets=self.offsets.data_ptr(),
            key=self.key.data_ptr(),
            index=address(self.index),
        )


def check_offsets(op: str, name: str, offsets: Tensor, end: int) -> None:
    """Raise unless the offsets ascend from 0 to ``end``."""
    bounds = [int(offsets[0]), int(offsets[-1])]
    if bounds != [0, end] or bool((offsets[1:] < offsets[:-1]).any()):
        raise ValueError(f"{op}: {name} must ascend from 0 to {end}, got {offsets.tolist()[:5]}...")


def check_range(op: str, name: str, values: Tensor, low: int, high: int) -> None:
    """Raise unless all values are in [low, high]."""
    if values.numel() == 0:
        return
    least, most = (int(x) for x in torch.aminmax(values))
    if least < low or most > high:
        raise ValueError(f"{op}: {name} must be in [{low}, {high}], got {least} to {most}")


def check_definition(op: str, definition: Sequence[int]) -> None:
    """Raise unless the codes are those of a ``Definition``."""
    known = (AP_KINDS, NORMALISERS, PRECISION_DENOMINATORS, TIES)
    if len(definition) != len(known):
        raise ValueError(f"{op}: definition must be {len(known)} codes, got {len(definition)}")
    for kind, code in zip(known, definition, strict=True):
        if not 0 <= code < len(kind):
            raise ValueError(
                f"{op}: definition must have codes of {', '.join(kind)} in [0, {len(kind)}), "
                f"got {code}"
            )


def check_counts(op: str, counts: Tensor) -> None:
    """Raise unless the counts can be those of a gallery."""
    if counts.numel() == 0:
        return
    closer, tied, tied_before = counts.long()
    wrong = (counts < 0).any(0) | (tied_before > tied) | (closer + tied > _INDEX_LIMIT)
    if bool(wrong.any()):
        at = int(torch.nonzero(wrong)[0])
        raise ValueError(
            f"{op}: counts must be those of a gallery: closer, tied, and of the tied those before, "
            f"got {counts[:, at].tolist()} in column {at}"
        )


def cut_offs(ks: Sequence[int], device: torch.device) -> Tensor:
    """int64 [K]; a few are filled in on a GPU, as a copy from the CPU would wait for it."""
    if device.type != "cpu" and 0 < len(ks) <= 8:
        return torch.stack([torch.full((), k, dtype=torch.int64, device=device) for k in ks])
    return torch.tensor(list(ks), dtype=torch.int64, device="cpu").to(device)


def definition_struct(definition: Sequence[int], ks: Tensor) -> _C.Definition:
    """The codes and cut-offs as the kernels read them; ``ks`` must outlive the struct."""
    ap, normaliser, precision, ties = definition
    return _C.Definition(
        ap=ap,
        normaliser=normaliser,
        precision=precision,
        ties=ties,
        ks=ks.data_ptr(),
        n_ks=len(ks),
    )
