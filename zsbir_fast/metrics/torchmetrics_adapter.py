"""The evaluation as a ``torchmetrics.Metric``, for training loops that are built on those."""

from __future__ import annotations

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

from zsbir_fast.metrics.checks import check_ks, check_labels, check_matrix
from zsbir_fast.metrics.evaluate import check_options, evaluate_retrieval
from zsbir_fast.metrics.protocols import Protocol, get_protocol
from zsbir_fast.metrics.scores import Metric
from zsbir_fast.reference.definitions import Ties

_SIDES = ("query", "gallery")


class RetrievalMetric(_TorchMetric):
    """Collects embeddings of queries and gallery over batches; ``compute`` evaluates them all.

    Works in a ``MetricCollection`` and under DDP: the embeddings of all processes are gathered, and
    every process evaluates them (samplers that repeat items to fill the last batch repeat them here
    too). For galleries too large for that see :class:`RetrievalEvaluator`. Call ``update``, not the
    metric itself: one batch alone is no retrieval.

    Args:
        metric: ``cosine``, ``euclidean`` or ``dot``.
        protocol: Name of a preset or a :class:`Protocol`.
        ks: Cut-offs of mAP@k and Prec@k.
        ties: Replaces the protocol's tie mode.
        **kwargs: Of ``torchmetrics.Metric``, such as ``compute_on_cpu``.

    Raises:
        ValueError: On an unknown metric, protocol or tie mode, or k < 1.
        TypeError: On ks that are not integers, or a protocol that is none.
        ImportError: On import, if torchmetrics is not installed.

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

    query_embeddings: list[Tensor] | Tensor
    query_labels: list[Tensor] | Tensor
    gallery_embeddings: list[Tensor] | Tensor
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
        for side in _SIDES:
            for what in ("embeddings", "labels"):
                self.add_state(f"{side}_{what}", default=[], dist_reduce_fx="cat")

    def update(
        self,
        query_embeddings: Tensor | None = None,
        query_labels: Tensor | None = None,
        gallery_embeddings: Tensor | None = None,
        gallery_labels: Tensor | None = None,
    ) -> None:
        """Add a batch of queries, of gallery items, or of both.

        Args:
            query_embeddings: [n, D].
            query_labels: Integers, [n].
            gallery_embeddings: [m, D].
            gallery_labels: Integers, [m].

        Raises:
            ValueError: If nothing is given, embeddings and labels do not go together, or shapes do
                not fit.
            TypeError: On labels that are not integers, or embeddings that are no numbers.
        """
        caller = "RetrievalMetric.update"
        given = {
            "query": (query_embeddings, query_labels),
            "gallery": (gallery_embeddings, gallery_labels),
        }
        batches = {}
        for side, (embeddings, labels) in given.items():
            if (embeddings is None) != (labels is None):
                raise ValueError(f"{caller}: {side}_embeddings and {side}_labels must go together")
            if embeddings is not None:
                name = f"{side}_embeddings"
                e = check_matrix(caller, name, embeddings, shape="[n, D]")
                y = check_labels(caller, f"{side}_labels", labels, len(e), of=name)
                batches[side] = (e, y.to(e.device))
        if not batches:
            raise ValueError(f"{caller}: queries or a gallery must be given, got neither")
        like, _ = next(iter(batches.values()))
        none = (like.new_empty(0, like.shape[1]), like.new_empty(0, dtype=torch.int64))
        for side in _SIDES:
            # A side without items here still needs a tensor of the right width to gather.
            e, y = batches.get(side, none)
            getattr(self, f"{side}_embeddings").append(e)
            getattr(self, f"{side}_labels").append(y)

    def compute(self) -> dict[str, Tensor]:
        """``{"map", "map@k", "precision@k"}`` of everything collected, each a scalar.

        Raises:
            ValueError: If there are no queries or no gallery, or as :func:`evaluate_retrieval`.
        """
        states = {
            f"{side}_{what}": _together(getattr(self, f"{side}_{what}"))
            for side in _SIDES
            for what in ("embeddings", "labels")
        }
        sizes = [len(states[f"{side}_labels"]) for side in _SIDES]
        if 0 in sizes:
            raise ValueError(
                "RetrievalMetric.compute: queries and a gallery must have been given to update(), "
                f"got {sizes[0]} queries and {sizes[1]} gallery items"
            )
        result = evaluate_retrieval(
            states["query_embeddings"],
            states["gallery_embeddings"],
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
