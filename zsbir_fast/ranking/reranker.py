"""What all rankers share that re-rank by what the gallery knows: its graph, and their checks."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from zsbir_fast._arguments import as_integer, as_number
from zsbir_fast._words import options_of
from zsbir_fast.metrics.checks import check_finite, check_matrix, work_dtype
from zsbir_fast.metrics.result import RetrievalResult
from zsbir_fast.metrics.scores import query_side
from zsbir_fast.ranking.graph import NeighbourGraph
from zsbir_fast.ranking.ranker import Ranker


class Reranker(Ranker):
    """A ranker that takes the neighbours of the photos into account.

    It uses the gallery and the query alone: no label, and no other query.

    Args:
        graph: neighbours of the gallery, at least ``graph_size`` of each photo, if they were
            computed before; None: they are computed when a gallery is made ready.

    Raises:
        TypeError: ``graph`` is none.
    """

    larger_is_closer = True

    def __init__(self, graph: NeighbourGraph | None) -> None:
        if graph is not None and not isinstance(graph, NeighbourGraph):
            raise TypeError(
                f"{self._function}: graph must be a zsbir_fast.NeighbourGraph or None, got a "
                f"{type(graph).__name__}"
            )
        self.graph = graph

    @property
    @abstractmethod
    def graph_size(self) -> int:
        """Neighbours of a photo, itself among them, that the options need; 0: no graph."""

    @abstractmethod
    def require_size(self, photos: int) -> None:
        """Raise ValueError if a gallery of that many photos is too small for the options."""

    def evaluate(self, *data: Any, **options: Any) -> RetrievalResult:
        """Evaluate this ranking exactly, as :meth:`Ranker.evaluate`; the result names it."""
        return replace(super().evaluate(*data, **options), reranked_by=self.name)

    def __repr__(self) -> str:
        """Show the options."""
        return f"{type(self).__name__}({options_of(self)})"

    @property
    def _function(self) -> str:
        """The name that error messages begin with."""
        return type(self).__name__

    def _require_option(
        self, option: str, photos: int, *, least: int, others: bool = False
    ) -> None:
        """Raise ValueError unless an option is of the range that the gallery allows.

        Args:
            option: its name.
            photos: size of the gallery.
            least: the smallest value.
            others: it counts photos other than a certain one, so that at least two are needed.
        """
        if others and photos < 2:
            raise ValueError(f"{self._function}: gallery must have at least 2 photos, got {photos}")
        most = photos - others
        as_integer(self._function, option, getattr(self, option), least=least, most=most)

    def _ready(self, gallery: Tensor) -> tuple[Tensor, NeighbourGraph | None]:
        """Check a gallery and give its photos, L2-normalised, with their neighbours.

        The neighbours are None where the options need none.
        """
        check_embeddings(self._function, "gallery", gallery)
        self.require_size(len(gallery))
        graph = self.graph
        if graph is not None:
            graph.require_gallery(self._function, gallery)
            if graph.k < self.graph_size:
                raise ValueError(
                    f"{self._function}: graph must have at least {self.graph_size} neighbours of "
                    f"each photo, itself among them, got {graph.k}"
                )
        elif self.graph_size:
            graph = NeighbourGraph.of(gallery, self.graph_size)
        return unit_rows(gallery), graph


def check_embeddings(function: str, name: str, rows: Tensor) -> None:
    """Raise unless these are finite embeddings.

    Args:
        function: named in the error.
        name: ``"gallery"`` or ``"queries"``.
        rows: [n, D]; only queries may be none.

    Raises:
        ValueError: another shape, or a NaN or infinity; the row is named.
        TypeError: no real numbers.
    """
    if name == "queries" and isinstance(rows, Tensor) and rows.ndim == 2 and len(rows) == 0:
        return
    check_finite(function, name, check_matrix(function, name, rows, shape="[n, D]"))


def unit_rows(rows: Tensor) -> Tensor:
    """Give the directions of embeddings, however long they are; rows of zeros stay.

    Args:
        rows: real [n, D].

    Returns:
        float32 [n, D], L2-normalised.
    """
    wide = query_side(rows, "cosine", work_dtype(rows.dtype))  # squares within the range
    return F.normalize(wide, dim=1, eps=torch.finfo(wide.dtype).tiny).float()


def as_power(function: str, power: float) -> float:
    """Take the power that makes a weight of a cosine.

    Raises:
        ValueError: it is negative or not finite.
        TypeError: it is no number.
    """
    power = as_number(function, "power", power)
    if not 0 <= power < float("inf"):
        raise ValueError(f"{function}: power must be finite and not negative, got {power}")
    return power
