"""Write a report: one HTML file that needs nothing beside it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import jinja2

from zsbir_fast._files import write_text
from zsbir_fast.report.attention import legend_colours
from zsbir_fast.report.charts import line_chart
from zsbir_fast.report.content import (
    Cell,
    ClusterPicture,
    Curve,
    PerClass,
    RetrievalRow,
    Table,
    WeightedPair,
)
from zsbir_fast.report.pictures import data_uri

_Row = TypeVar("_Row", RetrievalRow, WeightedPair)


def write_report(
    path: str | Path,
    *,
    title: str,
    tables: Sequence[Table],
    lead: str = "",
    retrieval: Sequence[RetrievalRow] = (),
    clusters: Sequence[ClusterPicture] = (),
    per_class: Sequence[PerClass] = (),
    curves: Sequence[Curve] = (),
    weighted: Sequence[WeightedPair] = (),
    attention: Sequence[WeightedPair] = (),
    definition: str = "",
    settings: Mapping[str, Any] | None = None,
    versions: Mapping[str, Any] | None = None,
    notes: Sequence[str] = (),
) -> Path:
    """Write one self-contained HTML report (style inside, images as data, no requests).

    Args:
        path: the file to write; its folder is made if needed. Written whole or not at all.
        title: title of the page.
        tables: result tables, shown first.
        lead: one or two sentences under the title.
        retrieval: queries with their nearest photos; rows with the same ``group`` stand together,
            in the given order.
        clusters: what the clusters of the gallery hold.
        per_class: bar charts, one bar per class.
        curves: line charts (training loss, validation metric).
        weighted: pairs with their alignment weights; those with the same ``group`` stand together.
        attention: pairs with the patches that answer each word.
        definition: how the metric is defined, in words.
        settings: the settings of the run, key -> value.
        versions: versions and hardware of the run, key -> value.
        notes: caveats, one paragraph each.

    Returns:
        The path written.

    Raises:
        ValueError: a table row is not as long as its header, or a chart has no point.
    """
    for table in tables:
        for row in table.rows:
            if len(row) != len(table.columns):
                raise ValueError(
                    f"write_report: every row of table {table.title!r} must have "
                    f"{len(table.columns)} cells, got {len(row)}"
                )
    page = _template().render(
        title=title,
        lead=lead,
        tables=tables,
        groups=_grouped(retrieval),
        reranked=any(row.reranked for row in retrieval),
        clusters=clusters,
        per_class=per_class,
        curves=[(curve, line_chart(curve)) for curve in curves],
        weighted=_grouped(weighted),
        attention=attention,
        palette=legend_colours(),
        definition=definition,
        settings=settings or {},
        versions=versions or {},
        notes=notes,
    )
    target = Path(path)
    write_text(target, page)
    return target


def _grouped(rows: Sequence[_Row]) -> list[tuple[str, list[_Row]]]:
    return [(name, list(group)) for name, group in itertools.groupby(rows, lambda row: row.group)]


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("zsbir_fast.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["cell"] = format_cell
    environment.filters["data_uri"] = data_uri
    return environment.get_template("report.html.jinja")


def format_cell(value: Cell) -> str:
    """Show a table cell: floats with three decimals, None as a dash.

    Args:
        value: the cell.

    Returns:
        Its text.
    """
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.3f}"
    return str(value)
