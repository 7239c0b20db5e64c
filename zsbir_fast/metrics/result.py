"""The result of an evaluation: per-query metrics, their means, and the definition behind them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from zsbir_fast._arguments import check_choice
from zsbir_fast.metrics.protocols import Protocol
from zsbir_fast.reference.definitions import COLUMNS_AT_K, FIXED_COLUMNS

TIE_SPREAD_WORTH_TELLING = 0.001


@dataclass(frozen=True, eq=False)
class RetrievalResult:
    """Ranking metrics of Q queries against G gallery items.

    Every mean follows ``protocol`` (over queries or over classes, empty queries skipped or zero).
    Fractions, not percent.

    Attributes:
        protocol: definition of the numbers.
        ks: cut-offs.
        query_labels: int64 [Q].
        gallery_size: G.
        columns: float64 [Q, 7 + 4 * len(ks)], on the CPU: number of relevant items R, AP, worst and
            best AP over orders of tied items, reciprocal rank, AP@R, R-precision; then AP@k,
            Prec@k, Recall@k, hit@k for each k. NaN but for the first column where nothing is
            relevant.
        reranked_by: name of the ranker, with its options, that re-ranked what was found by the
            gallery itself; empty for a plain ranking.
    """

    protocol: Protocol
    ks: tuple[int, ...]
    query_labels: Tensor
    gallery_size: int
    columns: Tensor
    reranked_by: str = ""

    @staticmethod
    def of(
        protocol: Protocol,
        ks: tuple[int, ...],
        query_labels: Tensor,
        gallery_size: int,
        columns: Tensor,
    ) -> RetrievalResult:
        """Build the result from the columns of ``batched_map``, which does not know G.

        Where k exceeds the gallery all of it is ranked, so that H(k) is R, and Prec@k under
        ``precision="min_gallery_k"`` is R / G.

        Args:
            protocol: as the attribute, like the rest.
            ks: cut-offs.
            query_labels: int64 [Q].
            gallery_size: G.
            columns: rows of ``batched_map`` with the protocol's ``definition()``; not changed.

        Returns:
            The result.
        """
        beyond = [i for i, k in enumerate(ks) if k > gallery_size]
        if protocol.precision == "min_gallery_k" and beyond:
            columns = columns.clone()
            share = columns[:, 0] / gallery_size
            share[columns[:, 0] == 0] = torch.nan
            for i in beyond:
                at = len(FIXED_COLUMNS) + len(COLUMNS_AT_K) * i
                columns[:, at + COLUMNS_AT_K.index("precision_at")] = share
        return RetrievalResult(protocol, ks, query_labels, gallery_size, columns)

    @property
    def map(self) -> float:
        """mAP@all."""
        return self._mean(self.ap)

    @property
    def map_at(self) -> dict[int, float]:
        """mAP@k for each k."""
        return self._means_at("ap_at")

    @property
    def precision_at(self) -> dict[int, float]:
        """Prec@k for each k."""
        return self._means_at("precision_at")

    @property
    def recall_at(self) -> dict[int, float]:
        """Recall@k for each k: hits over R."""
        return self._means_at("recall_at")

    @property
    def hit_at(self) -> dict[int, float]:
        """Share of queries with a hit within k, for each k (known elsewhere as Recall@k, acc@k)."""
        return self._means_at("hit_at")

    @property
    def mrr(self) -> float:
        """Mean reciprocal rank of the first relevant item."""
        return self._mean(self._fixed("reciprocal_rank"))

    @property
    def map_at_r(self) -> float:
        """MAP@R: mean over the queries of the sum of P(n) rel(n) over n <= R, over R.

        P(n) is the plain precision under every protocol (Musgrave et al., ECCV 2020,
        arXiv 2003.08505); only ties, mean and empty queries follow the protocol.
        """
        return self._mean(self._fixed("ap_at_r"))

    @property
    def r_precision(self) -> float:
        """R-precision: hits among the first R over R, R being the relevant items of the query."""
        return self._mean(self._fixed("r_precision"))

    @property
    def ap(self) -> Tensor:
        """AP@all of each query, float64 [Q]; NaN where nothing is relevant."""
        return self._fixed("ap")

    @property
    def relevant(self) -> Tensor:
        """Relevant gallery items of each query, int64 [Q]."""
        return self.columns[:, 0].long()

    def at(self, what: str, k: int) -> Tensor:
        """One metric of each query, float64 [Q].

        Args:
            what: ``ap_at``, ``precision_at``, ``recall_at`` or ``hit_at``.
            k: one of ``ks``.
        """
        check_choice("RetrievalResult.at", "what", what, COLUMNS_AT_K)
        if k not in self.ks:
            raise ValueError(f"RetrievalResult.at: k must be one of {list(self.ks)}, got {k}")
        column = len(FIXED_COLUMNS) + len(COLUMNS_AT_K) * self.ks.index(k)
        return self.columns[:, column + COLUMNS_AT_K.index(what)]

    @property
    def map_worst(self) -> float:
        """mAP@all if tied items were ordered as badly as possible."""
        return self._mean(self._fixed("ap_worst"))

    @property
    def map_best(self) -> float:
        """mAP@all if tied items were ordered as well as possible."""
        return self._mean(self._fixed("ap_best"))

    @property
    def tie_spread(self) -> float:
        """How far ties can move mAP@all: best minus worst case."""
        return self.map_best - self.map_worst

    @property
    def per_class(self) -> dict[int, dict[str, Any]]:
        """Means over the queries of each label.

        ``{label: {"queries", "relevant", "map", "map_at": {k: …}, "precision_at": {k: …}}}``;
        classes without a relevant item have NaN means.
        """
        report = {}
        for label in torch.unique(self.query_labels).tolist():
            own = self.query_labels == label
            report[label] = {
                "queries": int(own.sum()),
                "relevant": int(self.relevant[own][0]),
                "map": float(self.ap[own].mean()),
                "map_at": {k: float(self.at("ap_at", k)[own].mean()) for k in self.ks},
                "precision_at": {k: float(self.at("precision_at", k)[own].mean()) for k in self.ks},
            }
        return report

    @property
    def definition(self) -> str:
        """The definition behind every number, in one line."""
        return self.protocol.describe()

    def to_dict(self) -> dict[str, Any]:
        """Everything but the per-query values, ready for JSON."""
        out: dict[str, Any] = {
            "definition": self.definition,
            **({"reranked_by": self.reranked_by} if self.reranked_by else {}),
            "map": self.map,
            "map_at": {str(k): v for k, v in self.map_at.items()},
            "precision_at": {str(k): v for k, v in self.precision_at.items()},
            "recall_at": {str(k): v for k, v in self.recall_at.items()},
            "hit_at": {str(k): v for k, v in self.hit_at.items()},
            "mrr": self.mrr,
            "map_at_r": self.map_at_r,
            "r_precision": self.r_precision,
            "queries": len(self.query_labels),
            "queries_without_relevant": int((self.relevant == 0).sum()),
            "gallery": self.gallery_size,
            "tie_spread": self.tie_spread,
        }
        if self.tie_spread > TIE_SPREAD_WORTH_TELLING:
            out |= {"map_worst": self.map_worst, "map_best": self.map_best}
        return out

    def __str__(self) -> str:
        rows = [("mAP@all", self.map)]
        rows += [(f"mAP@{k}", v) for k, v in self.map_at.items()]
        rows += [(f"Prec@{k}", v) for k, v in self.precision_at.items()]
        text = "  ".join(f"{name} {value:.4f}" for name, value in rows)
        if self.tie_spread > TIE_SPREAD_WORTH_TELLING:
            text += f"  (ties: mAP@all from {self.map_worst:.4f} to {self.map_best:.4f})"
        by = f"; ranked by {self.reranked_by}" if self.reranked_by else ""
        return f"{text}\n[{self.definition}{by}; {len(self.query_labels)} x {self.gallery_size}]"

    def _fixed(self, name: str) -> Tensor:
        return self.columns[:, FIXED_COLUMNS.index(name)]

    def _means_at(self, what: str) -> dict[int, float]:
        return {k: self._mean(self.at(what, k)) for k in self.ks}

    def _mean(self, values: Tensor) -> float:
        """Mean over queries or classes; empty queries out, or as zeros."""
        labels, empty = self.query_labels, self.relevant == 0
        if self.protocol.empty == "zero":
            values = torch.where(empty, 0.0, values)
        else:
            values, labels = values[~empty], labels[~empty]
        if self.protocol.average == "query":
            return float(values.mean())
        _, group = torch.unique(labels, return_inverse=True)
        sums = values.new_zeros(int(group.max()) + 1).index_add_(0, group, values)
        return float((sums / torch.bincount(group)).mean())
