"""The outcome of a finished command, the same for all commands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from zsbir_fast.metrics.result import RetrievalResult
from zsbir_fast.runs.curves import Points
from zsbir_fast.runs.explain import ExplainedPairs
from zsbir_fast.runs.unseen import Embedded, Reranked

_TABLE_NAMES = {
    "raw": "raw features",
    "centred": "centred features",
    "cosine": "trained, by cosine",
}


def table_name(row: str) -> str:
    """Return the name that tables give to a row of ``metrics.json``."""
    return _TABLE_NAMES.get(row, row)


@dataclass(frozen=True)
class Outcome:
    """All that a finished command has to say.

    Attributes:
        title: title of the report.
        lead: a sentence under it.
        of_what: name of the search, for the heading of the table.
        results: row -> result, in the order of the table: ``"chance"``, ``"raw"``, ``"centred"``,
            ``"cosine"`` (embeddings that the next row ranks in another way), ``"trained"`` or
            ``"features"``. The pictures show the last one.
        embedded: the embeddings of that row.
        reranked: what re-ranking made of it, and by what; None without re-ranking.
        baseline: row that the bars per class are compared with; none if empty.
        curves: logged numbers by name, as ``read_curves`` gives them.
        settings: the settings of the command.
        notes: caveats.
        explained: pairs of seen classes with their weights; None leaves them out.
    """

    title: str
    lead: str
    of_what: str
    results: Mapping[str, RetrievalResult]
    embedded: Embedded
    reranked: Reranked | None = None
    baseline: str = ""
    curves: Mapping[str, Points] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()
    explained: ExplainedPairs | None = None

    @property
    def row(self) -> str:
        """The row of the trained model, or of the features: the last one."""
        return list(self.results)[-1]

    @property
    def result(self) -> RetrievalResult:
        """Its result."""
        return self.results[self.row]

    @property
    def table(self) -> dict[str, RetrievalResult]:
        """The results under the names that tables use, the re-ranked one last."""
        return {table_name(row): result for row, result in self.all_results.items()}

    @property
    def all_results(self) -> dict[str, RetrievalResult]:
        """The results, with the row ``"re-ranked"`` at the end if there is one."""
        again = {} if self.reranked is None else {"re-ranked": self.reranked.result}
        return {**self.results, **again}

    @property
    def rankings(self) -> list[str]:
        """Say, line by line, what ranks the rows that are not ranked by cosine alone."""
        lines = []
        if "cosine" in self.results:
            lines.append(f"{self.row}: ranked by {self.embedded.ranker.name}")
        if self.reranked is not None:
            lines.append(f"re-ranked: {self.reranked.text}")
        return lines
