"""Read the logged numbers of a run back, across interruptions."""

from __future__ import annotations

import csv
from pathlib import Path

Points = list[tuple[float, float]]


def read_curves(folder: str | Path) -> dict[str, Points]:
    """Read the files of the CSV logger.

    A resumed run logs into a new ``version_<n>``; where versions overlap the newer one counts.

    Args:
        folder: the ``logs`` folder of a run.

    Returns:
        Name -> points (optimizer step, value), by step.
    """
    values: dict[str, dict[float, float]] = {}
    versions = sorted(
        Path(folder).glob("version_*/metrics.csv"), key=lambda p: int(p.parent.name[8:])
    )
    for file in versions:
        for row in csv.DictReader(_whole_lines(file)):
            step = float(row["step"])
            for name, value in row.items():
                if name not in ("step", "epoch") and value:
                    values.setdefault(name, {})[step] = float(value)
    return {name: sorted(points.items()) for name, points in values.items()}


def _whole_lines(file: Path) -> list[str]:
    """Lines of a file; a last one without an end was cut off by a kill or a full disk."""
    text = file.read_text(encoding="utf-8", errors="replace")
    return text[: text.rfind("\n") + 1].splitlines()
