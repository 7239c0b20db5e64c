"""How well rankings rank: the quickstart and frozen features, plain and re-ranked.

With RECORD for ``benchmarks/results/rankings/bundled_cpu``:

``python -m benchmarks.ranking_table --out RECORD --docs RECORD.md``   every row, and a page
``python -m benchmarks.ranking_table --only frozen,splits``   under two minutes, printed
``python -m benchmarks.ranking_table --show RECORD.json``   a former run

A run with ``--only`` replaces the rows of its groups in the records, and keeps the others.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.ablation_rows import ABLATIONS
from benchmarks.machine import machine_facts
from benchmarks.ranking_rows import GROUPS as PLAIN_GROUPS
from benchmarks.ranking_rows import RankingRow
from benchmarks.records import machine
from zsbir_fast._files import write_text

GROUPS = {**PLAIN_GROUPS, **ABLATIONS}
HEADINGS = ("what", "seed", "plain", "expansion", "re-ranked", "gain", "worst class", "seconds")
TITLES = {
    "quickstart": "The quickstart: trained on all seen classes",
    "frozen": "Without training",
    "clusterretri": "ClusterRetri, ranked by its clusters; with and without its parts",
    "sbka": "SBKA, ranked by its codewords; with and without its parts",
    "splits": "Without training, on seen classes that are held out (the seed chooses them)",
}
NOTES = (
    "mAP@all of the protocol `standard` on the bundled benchmark. *Plain* is the ranking by "
    "cosine. *Expansion* re-ranks by database augmentation and query expansion with their default "
    "options, and *re-ranked* by the rule that `rerank.kind: auto` chose on seen classes, which is "
    "named below the table; ClusterRetri and SBKA rank by their own clusters there. *Gain* and "
    "*worst class* belong to it: the change of the mean, and "
    "that of the class that gains least (over all seeds, in the line of the mean). Seconds are of "
    "one row on this machine, from images to result; in the third table the features were computed "
    "before; (!) says that other processes took more than 0.2 cores meanwhile. The networks saw "
    "ImageNet, which holds photos of some unseen classes."
)


@dataclass(frozen=True)
class Record:
    """Rows of all groups, and for each group the machine and the versions of its run."""

    facts: dict[str, dict[str, Any]]
    rows: list[RankingRow]

    @staticmethod
    def read(path: Path) -> Record:
        """The record that ``write`` wrote."""
        content = json.loads(path.read_text(encoding="utf-8"))
        rows = [
            RankingRow(**{**row, "targets": tuple((what, least) for what, least in row["targets"])})
            for row in content["rows"]
        ]
        return Record(content["facts"], rows)

    def write(self, path: Path) -> None:
        """Write it as JSON."""
        content = {"facts": self.facts, "rows": [asdict(row) for row in self.rows]}
        write_text(path, json.dumps(content, indent=1) + "\n")

    def joined(self, older: Record) -> Record:
        """This record, with the groups that only the older one has."""
        kept = [row for row in older.rows if row.group not in self.facts]
        rows = sorted([*kept, *self.rows], key=lambda row: list(GROUPS).index(row.group))
        return Record({**older.facts, **self.facts}, rows)


def cells(row: RankingRow) -> tuple[str, ...]:
    """The cells of a row under ``HEADINGS``."""
    worst = "" if row.worst_class is None else f"{row.worst_class:+.3f}"
    seed = "" if row.seed is None else str(row.seed)
    expansion = "" if row.expansion is None else f"{row.expansion:.3f}"
    numbers = (f"{row.plain:.3f}", expansion, f"{row.reranked:.3f}", f"{row.gain:+.3f}")
    return (row.what, seed, *numbers, worst, f"{row.seconds:.0f}{' (!)' * bool(row.remark)}")


def table(rows: Sequence[RankingRow]) -> str:
    """A Markdown table; several seeds of one thing end with their mean."""
    lines = []
    for what in dict.fromkeys(row.what for row in rows):
        same = [row for row in rows if row.what == what]
        lines += [cells(row) for row in same]
        if len(same) > 1:
            what_of, _, *numbers = cells(_mean(same))
            lines.append((what_of, "mean", *numbers))
    head = ["| " + " | ".join(HEADINGS) + " |", "|---" + "|--:" * (len(HEADINGS) - 1) + "|"]
    return "\n".join([*head, *("| " + " | ".join(line) + " |" for line in lines)])


def _mean(rows: Sequence[RankingRow]) -> RankingRow:
    worst = [row.worst_class for row in rows if row.worst_class is not None]
    expansion = [row.expansion for row in rows if row.expansion is not None]
    return replace(
        rows[0],
        seed=None,
        plain=statistics.fmean(row.plain for row in rows),
        expansion=statistics.fmean(expansion) if expansion else None,
        reranked=statistics.fmean(row.reranked for row in rows),
        worst_class=min(worst) if worst else None,
        other_load=statistics.fmean(row.other_load for row in rows),
        seconds=statistics.fmean(row.seconds for row in rows),
    )


def page(record: Record) -> str:
    """A Markdown page: a table for each group, its rules and machine, and the targets."""
    blocks = [
        "# Rankings on the bundled benchmark",
        "`python -m benchmarks.ranking_table --docs` writes this page.",
        NOTES,
    ]
    for group in GROUPS:
        if group not in record.facts:
            continue
        rows = [row for row in record.rows if row.group == group]
        rules = "; ".join(dict.fromkeys(row.by for row in rows))
        blocks += [f"## {TITLES.get(group, group)}", table(rows)]
        blocks.append(f"Re-ranked by: {rules}.")
        blocks.append(machine(record.facts[group]))
    return "\n\n".join([*blocks, "## Targets", verdict(record)]) + "\n"


def verdict(record: Record) -> str:
    """Which rows miss a target, and which number misses it."""
    missed = [
        f"- {row.what}{'' if row.seed is None else f', seed {row.seed}'}: {text}"
        for row in record.rows
        for text in row.missed
    ]
    return "\n".join(["These rows miss a target.", "", *missed] if missed else ["All are reached."])


def measure(names: Sequence[str], seeds: Sequence[int]) -> Record:
    """Make the rows of some groups, and say each as it is done."""
    record = Record({}, [])
    for name in names:
        record.facts[name] = machine_facts("cpu", ("timm", "lightning"))
        for row in GROUPS[name](seeds):
            record.rows.append(row)
            print("  ".join(cells(row)), flush=True)
    return record


def parse_args(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ranking_table")
    parser.add_argument("--only", help=f"groups of rows, of {', '.join(GROUPS)}")
    parser.add_argument("--seeds", default="0,1,2", help="seeds of trainings")
    parser.add_argument("--out", type=Path, help="records: OUT.json")
    parser.add_argument("--docs", type=Path, help="page to write")
    parser.add_argument("--show", type=Path, help="records of a former run, instead of measuring")
    args = parser.parse_args(argv)
    args.only = args.only.split(",") if args.only else list(GROUPS)
    unknown = [name for name in args.only if name not in GROUPS]
    if unknown:
        parser.error(f"--only must be of {', '.join(GROUPS)}, got {unknown[0]!r}")
    try:
        args.seeds = [int(seed) for seed in args.seeds.split(",")]
    except ValueError:
        parser.error(f"--seeds must be whole numbers with commas, got {args.seeds!r}")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(sys.argv[1:] if argv is None else argv)
    record = Record.read(args.show) if args.show else measure(args.only, args.seeds)
    if args.out:
        path = args.out.with_suffix(".json")
        record = record.joined(Record.read(path)) if path.is_file() else record
        record.write(path)
    text = page(record)
    if args.docs:
        write_text(args.docs, text)
    print(f"\n{text}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
