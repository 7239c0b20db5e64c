"""The nearest photos of every photo: computed once, stored, and extended when photos are added."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from zsbir_fast._arguments import as_integer
from zsbir_fast._files import reading, write_atomically
from zsbir_fast._progress import with_progress
from zsbir_fast._words import reason
from zsbir_fast.metrics.checks import check_finite, check_matrix, work_dtype
from zsbir_fast.metrics.scores import GallerySide, query_side
from zsbir_fast.ranking.ranker import cosines_of

_BLOCK_BYTES = 64 << 20
_GROUP = 64  # columns that one maximum stands for


@dataclass(frozen=True, repr=False)
class NeighbourGraph:
    """The k photos nearest to every photo of a gallery by cosine, itself among them.

    Attributes:
        rows: int64 [G, k], nearest first; of equals the first in the gallery.
        cosines: float32 [G, k].
        fingerprint: SHA-256 of the gallery, which a stored graph is compared with.

    Cost: G x G x D products in blocks, and O(G) per row for the k largest; memory is one block of
    scores and one packed copy of the gallery. No matrix G x G is ever made.
    """

    rows: Tensor
    cosines: Tensor
    fingerprint: str

    def __repr__(self) -> str:
        """Show the sizes."""
        return f"NeighbourGraph({len(self)} photos, k={self.k})"

    def __len__(self) -> int:
        """Return the number of photos G."""
        return len(self.rows)

    @property
    def k(self) -> int:
        """Neighbours of a photo."""
        return self.rows.shape[1]

    @staticmethod
    def of(gallery: Tensor, k: int, *, progress: bool = False) -> NeighbourGraph:
        """Compute the graph of a gallery.

        Args:
            gallery: float [G, D].
            k: neighbours of a photo, itself among them.
            progress: show progress.

        Returns:
            The graph.

        Raises:
            TypeError: ``k`` is no integer, or the gallery no array of numbers.
            ValueError: ``k`` is not in 1..G, or the gallery is no matrix of finite numbers.
        """
        gallery = check_matrix("NeighbourGraph.of", "gallery", gallery, shape="[G, D]")
        k = as_integer("NeighbourGraph.of", "k", k, least=1, most=len(gallery))
        check_finite("NeighbourGraph.of", "gallery", gallery)
        cosines, rows = nearest_photos(gallery, gallery, k, progress=progress)
        return NeighbourGraph(rows, cosines, gallery_fingerprint(gallery))

    def extended(self, gallery: Tensor, *, progress: bool = False) -> NeighbourGraph:
        """Compute the graph after photos were added, from the products of the new ones alone.

        Args:
            gallery: float [G', D]; its first G rows are those that this graph was made of.
            progress: show progress.

        Returns:
            The graph of the whole gallery, the same as ``of`` gives.

        Raises:
            ValueError: the first rows are other ones, or the new ones are not finite.
        """
        old = len(self)
        check_matrix("NeighbourGraph.extended", "gallery", gallery, shape="[G, D]")
        self.require_gallery("NeighbourGraph.extended", gallery[:old])
        check_finite("NeighbourGraph.extended", "gallery", gallery)
        if len(gallery) == old:
            return self
        added = gallery[old:]
        new_cosines, new_rows = nearest_photos(added, gallery, self.k, progress=progress)
        cosines, rows = nearest_photos(
            gallery[:old], added, min(self.k, len(added)), progress=progress
        )
        # The old photos come first, so that among equals the order of the gallery holds.
        both = torch.cat([self.cosines, cosines], dim=1)
        order = torch.sort(both, dim=1, descending=True, stable=True).indices[:, : self.k]
        joined = torch.cat([self.rows, rows + old], dim=1).gather(1, order)
        return NeighbourGraph(
            torch.cat([joined, new_rows]),
            torch.cat([both.gather(1, order), new_cosines]),
            gallery_fingerprint(gallery),
        )

    def require_gallery(self, function: str, gallery: Tensor) -> None:
        """Raise ValueError unless the graph was made of this gallery."""
        if len(gallery) != len(self) or gallery_fingerprint(gallery) != self.fingerprint:
            raise ValueError(
                f"{function}: graph must be that of the gallery of {len(gallery)} photos, got that "
                f"of another gallery of {len(self)}"
            )

    def save(self, path: str | Path) -> None:
        """Write the graph as one safetensors file, in one step.

        Args:
            path: the file.
        """
        from safetensors.torch import save

        tensors = {"rows": self.rows.to(torch.int32), "cosines": self.cosines}
        content = save(tensors, metadata={"fingerprint": self.fingerprint})
        write_atomically(path, lambda stream: stream.write(content))

    @staticmethod
    def load(path: str | Path) -> NeighbourGraph:
        """Read a graph that :meth:`save` wrote.

        Args:
            path: the file.

        Returns:
            The graph; ``require_gallery`` says whether it belongs to a gallery.

        Raises:
            FileNotFoundError: no such file.
            ValueError: it is no graph, or damaged.
        """
        from safetensors import safe_open

        with reading("NeighbourGraph.load", path, "graph"):
            Path(path).stat()
        try:
            with safe_open(str(path), framework="pt") as file:
                rows, cosines = (file.get_tensor(name) for name in ("rows", "cosines"))
                fingerprint = (file.metadata() or {})["fingerprint"]
            count = len(rows)
            fits = rows.shape == cosines.shape and rows.ndim == 2 and rows.shape[1] <= count
            if not fits or not bool(((rows >= 0) & (rows < count)).all()):
                raise ValueError("its rows are none of a gallery")
        except Exception as error:  # damaged files raise many kinds
            raise ValueError(
                f"NeighbourGraph.load: path must be a graph written by zsbir, got {path} "
                f"({reason(error)})"
            ) from error
        return NeighbourGraph(rows.long(), cosines, fingerprint)


def nearest_of_block(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Find the k largest scores of each row, in falling order; of equals the first columns.

    Args:
        scores: float [q, G].
        k: at most G.

    Returns:
        Scores float [q, k], columns int64 [q, k].
    """
    values, columns, tied = _largest(scores, k)
    equal = (values[:, 1:] == values[:, :-1]).any(1)
    redo = torch.nonzero(tied | equal)[:, 0]
    if len(redo):
        order = torch.sort(scores[redo], dim=1, descending=True, stable=True)
        values[redo], columns[redo] = order.values[:, :k], order.indices[:, :k]
    return values, columns


def _largest(scores: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """Find the k largest scores of each row, and whether others tie with the last of them.

    Scores are cut into groups of ``_GROUP`` columns, a stride apart. A score among the k largest
    is in a group whose maximum is among the k largest maxima, so that one pass over the scores,
    as fast as memory, leaves few of them to look at.
    """
    stride = scores.shape[1] // _GROUP
    if 4 * k > stride:  # as many groups as it would leave out
        values, columns = torch.topk(scores, k, dim=1)
        return values, columns, (scores >= values[:, -1:]).sum(1) > k
    grouped = scores[:, : _GROUP * stride].view(len(scores), _GROUP, stride)
    maxima = grouped.amax(1)
    chosen = torch.topk(maxima, k, dim=1).indices
    inside = chosen[:, None] + stride * torch.arange(_GROUP, device=scores.device)[:, None]
    rest = torch.arange(_GROUP * stride, scores.shape[1], device=scores.device)
    candidates = torch.cat([inside.flatten(1), rest.expand(len(scores), -1)], dim=1)
    found = scores.gather(1, candidates)
    values, places = torch.topk(found, k, dim=1)
    last = values[:, -1:]
    tied = ((found >= last).sum(1) > k) | ((maxima >= last).sum(1) > k)
    return values, candidates.gather(1, places), tied


def without_self(graph: NeighbourGraph) -> tuple[Tensor, Tensor]:
    """Leave the photo itself out of its neighbours, which equal photos may stand before.

    Args:
        graph: at least two neighbours of each photo.

    Returns:
        Rows int64 and cosines float32, both [G, k - 1].
    """
    own = graph.rows == torch.arange(len(graph), device=graph.rows.device)[:, None]
    last = torch.full_like(own[:, :1], graph.k - 1, dtype=torch.int64)
    # Where the photo itself is not among them, k photos are equal to it: the last one goes.
    place = torch.where(own.any(1, keepdim=True), own.int().argmax(1, keepdim=True), last)
    keep = torch.ones_like(own).scatter_(1, place, False)
    shape = (len(graph), graph.k - 1)
    return graph.rows[keep].view(shape), graph.cosines[keep].view(shape)


def is_mutual(rows: Tensor) -> Tensor:
    """Say which neighbours have the photo among their own.

    Args:
        rows: int64 [G, k], neighbours of every photo.

    Returns:
        bool [G, k].
    """
    count, k = rows.shape
    size = max(1, _BLOCK_BYTES // (9 * k * k))
    found = torch.empty_like(rows, dtype=torch.bool)
    for start in range(0, count, size):
        block = rows[start : start + size]
        me = torch.arange(start, start + len(block), device=rows.device)[:, None, None]
        found[start : start + size] = (rows[block] == me).any(2)
    return found


def nearest_photos(
    queries: Tensor, gallery: Tensor, k: int, *, progress: bool = False
) -> tuple[Tensor, Tensor]:
    """Find the photos nearest to each query by cosine, in blocks of 64 MiB of scores.

    Args:
        queries: float [Q, D].
        gallery: float [G, D].
        k: at most G.
        progress: show progress.

    Returns:
        Cosines float32 and rows int64, both [Q, k], nearest first; of equals the first rows.
    """
    dtype = work_dtype(queries.dtype, gallery.dtype)
    side = GallerySide.of(gallery, "cosine", dtype)
    parts = torch.split(queries, max(1, _BLOCK_BYTES // (dtype.itemsize * len(gallery))))
    # One block for all: memory that is asked for anew is filled with zeros by the system first.
    scores = torch.empty(len(parts[0]), len(gallery), dtype=dtype, device=gallery.device)
    what = "nearest photos of the photos"
    shown = with_progress(parts, len(parts), what, unit="blocks") if progress else parts
    found = []
    for part in shown:
        rows = query_side(part, "cosine", dtype)
        found.append(nearest_of_block(cosines_of(side, rows, scores[: len(part)]), k))
    values, columns = zip(*found, strict=True)
    return torch.cat(values).float(), torch.cat(columns)


def gallery_fingerprint(gallery: Tensor) -> str:
    """SHA-256 of the shape and of the numbers, as float32."""
    rows = gallery.detach().to("cpu", torch.float32).contiguous()
    found = hashlib.sha256(f"{tuple(rows.shape)}".encode())
    found.update(rows.numpy().data)
    return found.hexdigest()
