"""The nearest photos of every photo: computed once, stored, and extended when photos are added."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from zsbir_fast._arguments import as_integer
from zsbir_fast._files import reading, write_atomically
from zsbir_fast._progress import with_progress
from zsbir_fast._words import reason
from zsbir_fast.ranking.ranker import EmbeddingRanker

_BLOCK_BYTES = 64 << 20


@dataclass(frozen=True)
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
            TypeError: ``k`` is no integer.
            ValueError: ``k`` is not in 1..G.
        """
        k = as_integer("NeighbourGraph.of", "k", k, least=1, most=len(gallery))
        cosines, rows = _nearest(gallery, gallery, k, progress=progress)
        return NeighbourGraph(rows, cosines, gallery_fingerprint(gallery))

    def extended(self, gallery: Tensor, *, progress: bool = False) -> NeighbourGraph:
        """Compute the graph after photos were added, from the products of the new ones alone.

        Args:
            gallery: float [G', D]; its first G rows are those that this graph was made of.
            progress: show progress.

        Returns:
            The graph of the whole gallery, the same as ``of`` gives.

        Raises:
            ValueError: the first rows are other ones.
        """
        old = len(self)
        self.require_gallery("NeighbourGraph.extended", gallery[:old])
        if len(gallery) == old:
            return self
        added = gallery[old:]
        new_cosines, new_rows = _nearest(added, gallery, self.k, progress=progress)
        cosines, rows = _nearest(gallery[:old], added, min(self.k, len(added)), progress=progress)
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
    values, columns = torch.topk(scores, k, dim=1)
    # topk takes any of the columns that tie for the last places: such rows are sorted.
    tied = (scores >= values[:, -1:]).sum(1) > k
    equal = (values[:, 1:] == values[:, :-1]).any(1)
    redo = torch.nonzero(tied | equal)[:, 0]
    if len(redo):
        order = torch.sort(scores[redo], dim=1, descending=True, stable=True)
        values[redo], columns[redo] = order.values[:, :k], order.indices[:, :k]
    return values, columns


def _nearest(queries: Tensor, gallery: Tensor, k: int, *, progress: bool) -> tuple[Tensor, Tensor]:
    score: Callable[[Tensor], Tensor] = EmbeddingRanker("cosine").scorer(gallery)
    parts = torch.split(queries, max(1, _BLOCK_BYTES // max(1, 4 * len(gallery))))
    what = "nearest photos of the photos"
    shown = with_progress(parts, len(parts), what, unit="blocks") if progress else parts
    found = [nearest_of_block(score(part), k) for part in shown]
    values, columns = zip(*found, strict=True)
    return torch.cat(values).float(), torch.cat(columns)


def gallery_fingerprint(gallery: Tensor) -> str:
    """SHA-256 of the shape and of the numbers, as float32."""
    rows = gallery.detach().to("cpu", torch.float32).contiguous()
    found = hashlib.sha256(f"{tuple(rows.shape)}".encode())
    found.update(rows.numpy().data)
    return found.hexdigest()
