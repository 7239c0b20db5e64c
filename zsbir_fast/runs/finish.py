"""The results of a run, written once for all commands: metrics.json, per_class.csv, report.html."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from zsbir_fast.runs.outcome import Outcome
from zsbir_fast.runs.results import write_metrics, write_per_class
from zsbir_fast.runs.run_report import write_run_report


def write_outcome(folder: str | Path, outcome: Outcome, **facts: Any) -> dict[str, Any]:
    """Write all results of a command into its folder.

    ``metrics.json`` comes last, as the mark of a run that is finished.

    Args:
        folder: where ``per_class.csv``, ``report.html`` and ``metrics.json`` go.
        outcome: the results and all that the report shows.
        facts: further keys of ``metrics.json``, e.g. ``seconds``.

    Returns:
        The content of ``metrics.json``.
    """
    out = Path(folder)
    leak = outcome.embedded.leak
    write_per_class(out / "per_class.csv", outcome.result, outcome.embedded.names, seen=leak.names)
    write_run_report(out / "report.html", outcome)
    by: dict[str, Any] = {"ranked_by": outcome.embedded.ranker.name}
    if outcome.reranked is not None:
        by["reranked_by"] = outcome.reranked.by
        if outcome.reranked.setting.choice is not None:
            by["rerank_choice"] = outcome.reranked.setting.to_dict()
    facts = {**by, **facts}
    if leak.names:
        facts.update(zero_shot=False, seen_classes=leak.names)
    return write_metrics(out / "metrics.json", outcome.all_results, **facts)
