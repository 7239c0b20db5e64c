"""What carries the result of a method: trained as shipped and with one thing changed.

``python -m benchmarks.method_table dmwan --seeds 0 1 2 3 4 --work FOLDER --out RECORD``

RECORD.json and RECORD.md are written, e.g. ``benchmarks/results/methods/dmwan``. The trainings
lie in the folder, and the same command goes on where it was stopped. Differences are paired: of the
same seed, between a variant and the first one of its group, with the standard error of their mean.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.machine import machine_facts
from benchmarks.method_variants import STUDIES, Changes, variants
from benchmarks.records import machine
from zsbir_fast._files import write_text
from zsbir_fast.cli.parsing import find_config
from zsbir_fast.runs.settings import Settings, read_settings
from zsbir_fast.runs.zoo import Zoo, plan_zoo, run_zoo

HEADINGS = ("variant", "seeds", "mAP@all", "difference", "standard error", "seconds a run")
NOTES = (
    "mAP@all of the unseen classes, by the shipped config but trained on all seen classes. "
    "*Difference* is the mean over the seeds of the paired difference to the first row (of its "
    "share of wrong pairs), with its standard error; * marks more than two of them."
)
CLEAR = 2.0  # standard errors, from which on a difference is called one


def with_changes(settings: Settings, changes: Changes) -> Settings:
    """Change arguments of a config's method; groups are changed argument by argument."""
    model: dict[str, Any] = dict(settings.model)
    for name, value in changes.items():
        held = model.get(name, {})
        model[name] = {**held, **value} if isinstance(value, Mapping) else value
    return replace(settings, model=model)


def study_configs(study: str) -> dict[str, Settings]:
    """The settings of all variants: trained on all seen classes, without a look at the others."""
    method = study.partition("-")[0]
    shipped = read_settings(find_config(f"{method}-qd_caltech"))
    configs = {}
    for name, (changes, noise) in variants(study).items():
        data = replace(shipped.data, validation_classes=0, label_noise=noise)
        run = replace(shipped.run, progress=False)
        configs[name] = with_changes(replace(shipped, data=data, run=run), changes)
    return configs


def differences(maps: Sequence[float], first: Sequence[float]) -> tuple[float, float]:
    """Mean of the paired differences, and its standard error; NaN of one pair."""
    pairs = [a - b for a, b in zip(maps, first, strict=True)]
    if len(pairs) < 2:
        return statistics.fmean(pairs), math.nan
    return statistics.fmean(pairs), statistics.stdev(pairs) / math.sqrt(len(pairs))


def group_of(name: str) -> str:
    """What a variant has in common with those it is compared with: the share of wrong pairs."""
    return name.partition("; ")[2]


def lines(zoo: Zoo) -> list[tuple[str, ...]]:
    """The cells of all variants, in their order, under ``HEADINGS``."""
    rows = [row for row in zoo.rows if row.seconds]
    firsts: dict[str, Sequence[float]] = {}
    found = []
    for row in rows:
        first = firsts.setdefault(group_of(row.name), row.maps)
        mean = f"{statistics.fmean(row.maps):.3f}"
        seconds = f"{statistics.fmean(row.seconds):.0f}"
        if first is row.maps or len(first) != len(row.maps):
            found.append((row.name, str(len(row.maps)), mean, "", "", seconds))
            continue
        difference, error = differences(row.maps, first)
        mark = " *" if abs(difference) > CLEAR * error else ""
        shown = "" if math.isnan(error) else f"{error:.3f}"
        cells = (mean, f"{difference:+.3f}{mark}", shown, seconds)
        found.append((row.name, str(len(row.maps)), *cells))
    return found


def page(study: str, zoo: Zoo, facts: Mapping[str, Any]) -> str:
    """A Markdown page of a study."""
    table = ["| " + " | ".join(HEADINGS) + " |", "|---" + "|--:" * (len(HEADINGS) - 1) + "|"]
    table += ["| " + " | ".join(line) + " |" for line in lines(zoo)]
    frozen = [
        f"{row.name}: {statistics.fmean(row.maps):.3f}" for row in zoo.rows if not row.seconds
    ]
    return (
        "\n\n".join(
            [
                f"# What carries {study} on the bundled benchmark",
                f"`python -m benchmarks.method_table {study}` writes this page.",
                f"{NOTES} Without training: {'; '.join(frozen)}.",
                "\n".join(table),
                f"{zoo.definition}.",
                machine(facts),
            ]
        )
        + "\n"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Train what is missing, and write the record."""
    parser = argparse.ArgumentParser("method_table", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("study", choices=list(STUDIES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--work", required=True, help="folder of the trainings")
    parser.add_argument("--out", help="write OUT.json and OUT.md")
    arguments = parser.parse_args(argv)
    runs = plan_zoo(study_configs(arguments.study), arguments.work, seeds=arguments.seeds)
    zoo = run_zoo(runs, arguments.work)
    facts = machine_facts("cpu", ("timm", "lightning"))
    text = page(arguments.study, zoo, facts)
    print(text)
    if arguments.out is not None:
        stem = Path(arguments.out)
        content = {"facts": facts, "rows": [vars(row) for row in zoo.rows]}
        write_text(stem.with_suffix(".json"), json.dumps(content, indent=1, default=str) + "\n")
        write_text(stem.with_suffix(".md"), text)
    return 1 if zoo.failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
