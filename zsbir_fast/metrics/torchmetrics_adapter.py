"""The evaluation as a ``torchmetrics.Metric``, for training loops that are built on those."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

try:
    from torchmetrics import Metric as _TorchMetric
    from torchmetrics.utilities import dim_zero_cat
except ImportError as error:
    raise ImportError(
        "zsbir_fast.RetrievalMetric needs torchmetrics: pip install 'zsbir-fast[torchmetrics]'"
    ) from error

from zsbir_fast._words import options_of
from zsbir_fast.metrics.checks import check_ks, check_labels, check_matrix
from zsbir_fast.metrics.evaluate import check_options, evaluate_retrieval
from zsbir_fast.metrics.protocols import Protocol, get_protocol
from zsbir_fast.metrics.scores import Metric
from zsbir_fast.reference.definitions import Ties

# The two sides: the argument of the embeddings, and that of their labels.
_SIDES = (("queries", "query_labels"), ("gallery", "gallery_labels"))


class RetrievalMetric(_TorchMetric):
    """Collects embeddings of queries and gallery over batches; ``compute`` evaluates them all.

    Works in a ``MetricCollection`` and under DDP: the embeddings of all processes are gathered, and
    every process evaluates them (samplers that repeat items to fill the last batch repeat them here
    too). For galleries too large for that see :class:`RetrievalEvaluator`. Call ``update``, not the
    metric itself: one batch alone is no retrieval.

    Args:
        metric: ``cosine``, ``euclidean`` or ``dot``.
        protocol: name of a preset or a :class:`Protocol`.
        ks: cut-offs of mAP@k and Prec@k.
        ties: replaces the protocol's tie mode.
        **kwargs: of ``torchmetrics.Metric``, such as ``compute_on_cpu``.

    Raises:
        ValueError: an unknown metric, protocol or tie mode, or k < 1.
        TypeError: ks that are not integers, or a protocol that is none.
        ImportError: torchmetrics is not installed; importing the name raises it.

    Example:
        >>> import torch, zsbir_fast as zf
        >>> metric = zf.RetrievalMetric(ks=(1,))
        >>> metric.update(torch.eye(2), torch.tensor([0, 1]), torch.eye(2), torch.tensor([0, 1]))
        >>> float(metric.compute()["map@1"])
        1.0
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    queries: list[Tensor] | Tensor
    query_labels: list[Tensor] | Tensor
    gallery: list[Tensor] | Tensor
    gallery_labels: list[Tensor] | Tensor

    def __init__(
        self,
        *,
        metric: Metric = "cosine",
        protocol: str | Protocol = "standard",
        ks: int | Iterable[int] = (100, 200),
        ties: Ties | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_options("RetrievalMetric", metric, None)
        self.metric: Metric = metric
        self.protocol = get_protocol(protocol, ties=ties, caller="RetrievalMetric")
        self.ks = check_ks("RetrievalMetric", ks, sys.maxsize, stacklevel=3)
        for state in itertools.chain(*_SIDES):
            self.add_state(state, default=[], dist_reduce_fx="cat")

    def extra_repr(self) -> str:
        """Return the options, for ``repr``."""
        return options_of(self)

    def update(
        self,
        queries: Tensor | None = None,
        query_labels: Tensor | None = None,
        gallery: Tensor | None = None,
        gallery_labels: Tensor | None = None,
    ) -> None:
        """Add a batch of queries, of gallery items, or of both.

        Args:
            queries: [n, D].
            query_labels: integers, [n].
            gallery: [m, D].
            gallery_labels: integers, [m].

        Raises:
            ValueError: nothing is given, embeddings and labels do not go together, or shapes do
                not fit.
            TypeError: labels that are not integers, or embeddings that are no numbers.
        """
        caller = "RetrievalMetric.update"
        given = {
            "queries": (queries, query_labels),
            "gallery": (gallery, gallery_labels),
        }
        batches = {}
        for side, of_labels in _SIDES:
            embeddings, labels = given[side]
            if (embeddings is None) != (labels is None):
                raise ValueError(f"{caller}: {side} and {of_labels} must go together")
            if embeddings is not None:
                e = check_matrix(caller, side, embeddings, shape="[n, D]")
                y = check_labels(caller, of_labels, labels, len(e), of=side)
                batches[side] = (e, y.to(e.device))
        if not batches:
            raise ValueError(f"{caller}: queries or a gallery must be given, got neither")
        like, _ = next(iter(batches.values()))
        none = (like.new_empty(0, like.shape[1]), like.new_empty(0, dtype=torch.int64))
        for side, of_labels in _SIDES:
            # A side without items here still needs a tensor of the right width to gather.
            e, y = batches.get(side, none)
            getattr(self, side).append(e)
            getattr(self, of_labels).append(y)

    def compute(self) -> dict[str, Tensor]:
        """``{"map", "map@k", "precision@k"}`` of everything collected, each a scalar.

        Raises:
            ValueError: there are no queries or no gallery, or as :func:`evaluate_retrieval`.
        """
        states = {state: _together(getattr(self, state)) for state in itertools.chain(*_SIDES)}
        sizes = [len(states[of_labels]) for _, of_labels in _SIDES]
        if 0 in sizes:
            raise ValueError(
                "RetrievalMetric.compute: queries and a gallery must have been given to update(), "
                f"got {sizes[0]} queries and {sizes[1]} gallery items"
            )
        result = evaluate_retrieval(
            states["queries"],
            states["gallery"],
            states["query_labels"],
            states["gallery_labels"],
            metric=self.metric,
            protocol=self.protocol,
            ks=self.ks,
        )
        values = {"map": result.map}
        for k in result.ks:
            values |= {f"map@{k}": result.map_at[k], f"precision@{k}": result.precision_at[k]}
        return {name: torch.tensor(value, device=self.device) for name, value in values.items()}


def _together(state: list[Tensor] | Tensor) -> Tensor:
    """A state as one tensor, which it is already after a synchronisation of processes."""
    together: Tensor = dim_zero_cat(state) if len(state) > 0 else torch.empty(0)
    return together
