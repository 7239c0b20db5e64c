"""Verdict lines: a measured number against the target set before the code was written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from benchmarks.records import Result, Row, significant

Rows = Mapping[tuple[str, str], Row]  # by case and provider


def at_most(what: str, case: str, value: float, limit: float, unit: str) -> str:
    word = "met" if value <= limit else "MISSED"
    target = f"target at most {significant(limit)}{unit}"
    return f"{word}: {what}, {case}: {significant(value)}{unit}, {target}"


def at_least(what: str, case: str, value: float, limit: float) -> str:
    word = "met" if value >= limit else "MISSED"
    return f"{word}: {what}, {case}: {significant(value)}x, target at least {significant(limit)}x"


def rows_by_name(result: Result) -> dict[tuple[str, str], Row]:
    """The rows of a run by case and provider."""
    return {(row.case, row.provider): row for row in result.rows}


def fastest(rows: Rows, case: str, names: tuple[str, ...]) -> Row | None:
    """The fastest of these providers among the rows of a case; None if none was measured."""
    found = [rows[case, name] for name in names if (case, name) in rows]
    return min(found, key=lambda row: row.p50_us, default=None)


def marked(result: Result, case: str, lines: list[str]) -> list[str]:
    """The verdicts of a case, with a mark if other processes disturbed one of its rows."""
    disturbed = any(row.case == case and row.disturbed for row in result.rows)
    return [line + "  (disturbed run)" for line in lines] if disturbed else lines


def share_limits(result: Result, limits: Mapping[str, float]) -> None:
    """Fill in ``pct_of_limit``: the shortest time a case may take, in us, over that of a row.

    Floors are the limits themselves and get none.
    """
    result.rows = [
        replace(row, pct_of_limit=100 * limits[row.case] / row.p50_us)
        if row.case in limits and row.kind != "floor"
        else row
        for row in result.rows
    ]
