"""One ranking under every definition in use: why the same retrieval reads 0.2 or 0.8."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from zsbir_fast.metrics.evaluate import evaluate_retrieval
from zsbir_fast.metrics.gallery import Metric
from zsbir_fast.metrics.protocols import PROTOCOLS, Protocol
from zsbir_fast.metrics.result import RetrievalResult


@dataclass(frozen=True)
class DefinitionTable:
    """The results of one ranking by name of protocol; ``print`` it for the table.

    Attributes:
        results: Protocol name -> result.
    """

    results: dict[str, RetrievalResult]

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Protocol name -> ``RetrievalResult.to_dict()``."""
        return {name: result.to_dict() for name, result in self.results.items()}

    def rows(self) -> list[list[str]]:
        """The table as text cells, header first."""
        first = next(iter(self.results.values()))
        header = ["protocol", "mAP@all"]
        header += [f"mAP@{k}" for k in first.ks] + [f"Prec@{k}" for k in first.ks] + ["definition"]
        body = []
        for name, r in self.results.items():
            numbers = [r.map, *r.map_at.values(), *r.precision_at.values()]
            body.append(
                [name, *(f"{x:.4f}" for x in numbers), r.definition.partition(": ")[2]]
            )
        return [header, *body]

    def __str__(self) -> str:
        rows = self.rows()
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        return "\n".join(
            "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip()
            for row in rows
        )


def compare_definitions(
    queries: Any,
    gallery: Any,
    query_labels: Any,
    gallery_labels: Any,
    *,
    metric: Metric = "cosine",
    ks: Sequence[int] = (100, 200),
    protocols: Sequence[str | Protocol] = tuple(PROTOCOLS),
) -> DefinitionTable:
    """Evaluate the same embeddings under every protocol.

    Args:
        queries: [Q, D].
        gallery: [G, D].
        query_labels: Integers, [Q].
        gallery_labels: Integers, [G].
        metric: Distance, as for :func:`evaluate_retrieval`.
        ks: Cut-offs.
        protocols: Names or objects; default all presets.

    Returns:
        A table; ``print`` it.

    Raises:
        ValueError, TypeError: As :func:`evaluate_retrieval`.
    """
    results = {}
    for protocol in protocols:
        result = evaluate_retrieval(
            queries,
            gallery,
            query_labels,
            gallery_labels,
            metric=metric,
            protocol=protocol,
            ks=ks,
        )
        results[result.protocol.name] = result
    return DefinitionTable(results)
