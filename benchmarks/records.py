"""Rows of measurements: CSV, JSON and tables."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from zsbir_fast._files import write_text


@dataclass(frozen=True)
class Row:
    """One measurement; times in microseconds per item, peak memory above the inputs."""

    date: str
    op: str
    provider: str
    title: str
    kind: str
    case: str
    dtype: str
    device: str
    threads: int
    torch: str
    n: int
    repeats: int
    p20_us: float
    p50_us: float
    p80_us: float
    peak_bytes: int
    gb_per_s: float | None
    gflop_per_s: float | None
    pct_of_limit: float | None
    floor_p50_us: float | None  # the provider's own floor, timed in turn with it
    over_floor: float | None  # median of the ratios of those pairs
    max_err: float
    other_load: float  # cores that other processes used meanwhile
    definition: str
    note: str
    against: str = ""  # the provider whose time is 1 in the ratio column; default: the suite's

    @property
    def disturbed(self) -> bool:
        """Whether other processes took its cores; a GPU hardly notices busy cores."""
        return self.device == "cpu" and self.other_load > 0.2


@dataclass
class Result:
    """The result of a run: facts of the machine, rows, skipped and failed providers, verdicts."""

    facts: dict[str, Any]
    rows: list[Row] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    verdicts: list[str] = field(default_factory=list)


def quantile(values: Sequence[float], share: float) -> float:
    """Linear interpolation between order statistics."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def write_records(result: Result, stem: Path) -> None:
    """``stem``.csv (rows) and ``stem``.json (facts, rows, skipped, verdicts)."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, [f.name for f in fields(Row)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in result.rows)
    write_text(stem.with_suffix(".csv"), text.getvalue())
    write_text(stem.with_suffix(".json"), json.dumps(asdict(result), indent=1) + "\n")


def read_records(path: Path) -> Result:
    """The result that ``write_records`` wrote as JSON."""
    content = json.loads(path.read_text())
    rows = [Row(**row) for row in content.pop("rows")]
    return Result(rows=rows, **content)


@dataclass(frozen=True)
class Layout:
    """Columns of a table: heading, and the cell of a row given the time that counts as 1."""

    columns: tuple[tuple[str, Callable[[Row, float | None], str]], ...]

    @property
    def headings(self) -> tuple[str, ...]:
        """The first line."""
        return tuple(heading for heading, _ in self.columns)


def with_limits(rows: Sequence[Row], pct: Callable[[Row], float | None]) -> list[Row]:
    """Rows with their share of the physical limit filled in."""
    return [replace(row, pct_of_limit=pct(row)) for row in rows]


def significant(value: float) -> str:
    """Three digits, with thousands separators and no exponent."""
    if value == 0 or not math.isfinite(value):
        return str(value)
    return f"{value:,.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


def _times(per_us: float) -> tuple[Callable[[Row, float | None], str], ...]:
    """Cells for the median and the spread, in units of ``per_us`` microseconds."""

    def median(row: Row, unit: float | None) -> str:
        return significant(row.p50_us / per_us)

    def spread(row: Row, unit: float | None) -> str:
        return f"{significant(row.p20_us / per_us)}-{significant(row.p80_us / per_us)}"

    return median, spread


def _rate(row: Row, unit: float | None) -> str:
    if row.gflop_per_s:
        return f"{row.gflop_per_s:.0f} GFLOP/s"
    return f"{row.gb_per_s:.1f} GB/s" if row.gb_per_s else ""


_METHOD = ("method", lambda row, unit: row.title + (" (!)" if row.disturbed else ""))
_RATIO = ("ratio", lambda row, unit: f"{significant(row.p50_us / unit)}x" if unit else "")
_REST = (
    ("peak MB", lambda row, unit: f"{row.peak_bytes / 2**20:,.0f}"),
    ("rate", _rate),
    ("% limit", lambda row, unit: f"{row.pct_of_limit:.0f}" if row.pct_of_limit else ""),
    ("max err", lambda row, unit: f"{row.max_err:.0e}"),
)
PER_ITEM = Layout(
    (
        _METHOD,
        ("n", lambda row, unit: f"{row.n:,}"),
        *zip(("us/item", "p20-p80"), _times(1.0), strict=True),
        _RATIO,
        *_REST,
    )
)
PER_STEP = Layout(
    (
        _METHOD,
        *zip(("ms/step", "p20-p80"), _times(1e3), strict=True),
        _RATIO,
        ("/ floor", lambda row, u: f"{significant(row.over_floor)}x" if row.over_floor else ""),
        *_REST,
    )
)


def table(rows: Sequence[Row], ours: str, layout: Layout = PER_ITEM) -> list[tuple[str, ...]]:
    """Lines of text for the rows of one case; ratios to ``row.against`` or ``ours``."""
    times = {row.provider: row.p50_us for row in rows}
    return [
        tuple(cell(row, times.get(row.against or ours)) for _, cell in layout.columns)
        for row in rows
    ]


def plain(lines: Sequence[tuple[str, ...]], layout: Layout = PER_ITEM) -> str:
    """Aligned columns: the first to the left, numbers to the right."""
    everything = (layout.headings, *lines)
    widths = [max(map(len, column)) for column in zip(*everything, strict=True)]
    out = []
    for line in everything:
        numbers = [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
        out.append("  ".join([line[0].ljust(widths[0]), *numbers]).rstrip())
    return "\n".join([out[0], "-" * max(map(len, out)), *out[1:]])


def markdown(lines: Sequence[tuple[str, ...]], layout: Layout = PER_ITEM) -> str:
    """The same table for a document."""
    names = layout.headings
    head = ["| " + " | ".join(names) + " |", "|---" + "|--:" * (len(names) - 1) + "|"]
    return "\n".join([*head, *("| " + " | ".join(line) + " |" for line in lines)])


def report(
    result: Result,
    titles: Mapping[str, str],
    ours: str,
    module: str,
    layout: Layout = PER_ITEM,
) -> str:
    """The output of a run: machine, a table for each case, verdicts, skipped rows with reasons."""
    blocks = [machine(result.facts)]
    for case in dict.fromkeys(row.case for row in result.rows):
        rows = [row for row in result.rows if row.case == case]
        blocks.append(f"{titles.get(case, case)}\n{plain(table(rows, ours, layout), layout)}")
    if any(row.disturbed for row in result.rows):
        blocks.append("(!) other processes took more than 0.2 core during this row: repeat it")
    blocks += [
        "\n".join(lines) for lines in (result.verdicts, result.skipped, result.failed) if lines
    ]
    blocks.append(
        f"one row again: python -m {module} --full --case CASE --only METHOD (see --list)"
    )
    return "\n\n".join(blocks)


def document(
    result: Result,
    titles: Mapping[str, str],
    ours: str,
    module: str,
    layout: Layout = PER_ITEM,
) -> str:
    """A Markdown page of a run: machine, a table for each case, verdicts, skipped and failed rows.

    A part with nothing in it is not printed.
    """
    op, device = module.rpartition("bench_")[2], "GPU" if "gpu" in result.facts else "CPU"
    blocks = [
        f"# Measurements of {op} on the {device}",
        f"`python -m {module} --docs` writes this page. `docs/performance_notes.md` says how the "
        "rows are measured.",
        machine(result.facts),
    ]
    for case in dict.fromkeys(row.case for row in result.rows):
        rows = [row for row in result.rows if row.case == case]
        printed = markdown(table(rows, ours, layout), layout)
        blocks.append(f"## {titles.get(case, case)}\n\n{printed}")
    if any(row.disturbed for row in result.rows):
        blocks.append("(!) Other processes took more than 0.2 core during this row.")
    for heading, lines in (
        ("Verdicts", result.verdicts),
        ("Rows that could not run", result.skipped),
        ("Rows that failed", result.failed),
    ):
        if lines:
            blocks.append(f"## {heading}\n\n" + "\n".join(f"- {line}" for line in lines))
    return "\n\n".join(blocks) + "\n"


def machine(facts: Mapping[str, Any]) -> str:
    """Hardware and versions in one paragraph."""
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    parts = [
        *(_gpu(facts) if "gpu" in facts else []),
        f"{facts['cpu']} (family/model {facts['cpu_family_model']}, {', '.join(facts['simd'])})",
        f"{facts['cores']} cores, {facts['threads']} threads, {facts['memory_GiB']} GiB",
        f"{facts['date'][:10]}, commit {facts['commit']}",
        versions,
    ]
    return "; ".join(parts) + "."


def _gpu(facts: Mapping[str, Any]) -> list[str]:
    return [f"{facts['gpu']}, driver {facts.get('driver', 'unknown')}, CUDA {facts.get('cuda')}"]
