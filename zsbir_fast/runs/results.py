"""Results as files and as text: ``metrics.json``, ``per_class.csv`` and the printed table."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from zsbir_fast._files import write_text
from zsbir_fast.metrics.result import RetrievalResult
from zsbir_fast.report.content import Table
from zsbir_fast.report.html import format_cell


def write_metrics(
    path: str | Path, results: Mapping[str, RetrievalResult], **more: Any
) -> dict[str, Any]:
    """Write ``metrics.json``.

    Args:
        path: the file.
        results: e.g. ``{"chance": ..., "trained": ...}``; each becomes a key with ``map``,
            ``map_at``, ``precision_at`` and the rest of ``RetrievalResult.to_dict()``.
        more: further keys, e.g. ``seconds``.

    Returns:
        The content of the file.
    """
    last = list(results.values())[-1]
    metrics: dict[str, Any] = {"definition": last.definition}
    for name, result in results.items():
        metrics[name] = result.to_dict()
        if name == "chance":  # made of ties: how far they could move it means nothing
            for key in ("tie_spread", "map_worst", "map_best"):
                metrics[name].pop(key, None)
    metrics.update(more)
    text = json.dumps(metrics, indent=2) + "\n"
    write_text(path, text)
    return metrics


def write_per_class(
    path: str | Path,
    result: RetrievalResult,
    names: Mapping[int, str],
    *,
    seen: Sequence[str] = (),
) -> None:
    """Write a CSV with one line per class, best class first.

    Args:
        path: the file.
        result: the evaluation.
        names: label -> class name.
        seen: classes that the model was trained on; if there are any, a last column says of every
            class whether it is one.
    """
    stream = io.StringIO()
    table = csv.writer(stream)
    table.writerow(
        ["class", "queries", "relevant", "map"]
        + [f"map_at_{k}" for k in result.ks]
        + [f"precision_at_{k}" for k in result.ks]
        + ["seen"] * bool(seen)
    )
    classes = sorted(result.per_class.items(), key=lambda item: -item[1]["map"])
    for label, values in classes:
        numbers = [values["map"], *values["map_at"].values(), *values["precision_at"].values()]
        row = [names[label], values["queries"], values["relevant"], *(f"{n:.6f}" for n in numbers)]
        table.writerow(row + ["yes" if names[label] in seen else "no"] * bool(seen))
    text = stream.getvalue()
    write_text(path, text)


def result_table(
    title: str, results: Mapping[str, RetrievalResult], *, highlight: str | None = None
) -> Table:
    """Lay results out as a table, one row each.

    Args:
        title: heading.
        results: row name -> result; all with the same cut-offs.
        highlight: row to emphasise.

    Returns:
        A table for the report or for ``table_text``.
    """
    first = next(iter(results.values()))
    return Table(
        title=title,
        columns=[
            "",
            "mAP@all",
            *(f"mAP@{k}" for k in first.ks),
            *(f"Prec@{k}" for k in first.ks),
        ],
        rows=[
            [name, result.map, *result.map_at.values(), *result.precision_at.values()]
            for name, result in results.items()
        ],
        highlight=list(results).index(highlight) if highlight else None,
    )


def table_text(table: Table) -> str:
    """Lay a table out for a terminal.

    Args:
        table: the table.

    Returns:
        Aligned lines; the first column to the left, numbers to the right.
    """
    cells = [list(table.columns), *([format_cell(c) for c in row] for row in table.rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(table.columns))]
    lines = [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in cells
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])
