"""One ranking under every definition in use: why the same retrieval reads 0.2 or 0.8."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from zsbir_fast.metrics.evaluate import evaluate_under
from zsbir_fast.metrics.protocols import PROTOCOLS, Protocol, get_protocol
from zsbir_fast.metrics.result import RetrievalResult
from zsbir_fast.metrics.scores import Metric


@dataclass(frozen=True)
class DefinitionTable:
    """The results of one ranking by name of protocol; ``print`` it for the table.

    Attributes:
        results: protocol name -> result.
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
            body.append([name, *(f"{x:.4f}" for x in numbers), r.definition.partition(": ")[2]])
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
    ks: int | Iterable[int] = (100, 200),
    protocols: Sequence[str | Protocol] = tuple(PROTOCOLS),
) -> DefinitionTable:
    """Evaluate the same embeddings under every protocol; the product is computed once.

    Args:
        queries: [Q, D].
        gallery: [G, D].
        query_labels: integers, [Q].
        gallery_labels: integers, [G].
        metric: what orders the gallery, as for :func:`evaluate_retrieval`.
        ks: cut-offs.
        protocols: names or objects, each name once; default all presets.

    Returns:
        A table; ``print`` it.

    Raises:
        ValueError: as :func:`evaluate_retrieval`; no protocol, or two of one name.
        TypeError: as :func:`evaluate_retrieval`.
    """
    caller = "compare_definitions"
    chosen = [get_protocol(protocol, caller=caller) for protocol in protocols]
    names = [protocol.name for protocol in chosen]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"{caller}: protocols must have one name each, got {names}")
    results = evaluate_under(
        caller,
        (queries, gallery, query_labels, gallery_labels),
        protocols=chosen,
        metric=metric,
        ks=ks,
    )
    return DefinitionTable(dict(zip(names, results, strict=True)))
