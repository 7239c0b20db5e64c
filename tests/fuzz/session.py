"""A whole run: which cases, a progress bar, a report."""

from __future__ import annotations

import importlib
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import torch
from case import Case, CaseId
from inputs import Draw
from runner import Outcome, Runner
from tqdm import tqdm

Entrances = dict[str, tuple[int, Callable[[Draw], Case]]]
GROUPS = ("api", "files")
_SHOWN_OF_A_SORT = 2


def load_entrances(only: Sequence[str] | None) -> Entrances:
    """The entrances of all groups, or some.

    Args:
        only: names of groups or entrances; None: all.

    Raises:
        SystemExit: a name is unknown.
    """
    groups = {name: importlib.import_module(name).ENTRANCES for name in GROUPS}
    everything = {name: entrance for group in groups.values() for name, entrance in group.items()}
    if only is None:
        return everything
    chosen: Entrances = {}
    for name in only:
        found = groups.get(name) or {key: everything[key] for key in everything if key == name}
        if not found:
            raise SystemExit(f"--only must be of {', '.join([*groups, *everything])}, got {name}")
        chosen |= found
    return chosen


def ids_of(texts: Sequence[str], seed: int, entrances: Entrances) -> list[CaseId]:
    """Cases from ``ENTRANCE:NUMBER`` or ``ENTRANCE:FROM-TO``.

    Raises:
        SystemExit: a text is of another form, or names no entrance.
    """
    ids = []
    for text in texts:
        found = re.fullmatch(r"(\w+):(\d+)(?:-(\d+))?", text)
        if found is None or found[1] not in entrances:
            raise SystemExit(f"--case must be one of {', '.join(entrances)}:NUMBER, got {text}")
        ids += [
            CaseId(found[1], seed, n) for n in range(int(found[2]), int(found[3] or found[2]) + 1)
        ]
    return ids


def interleaved(entrances: Entrances, seed: int, count: int) -> Iterator[CaseId]:
    """So many cases of all entrances in turn, each as often as its weight says."""
    numbers: Counter[str] = Counter()
    turn = [name for name, (weight, _) in entrances.items() for _ in range(weight)]
    for index in range(count):
        name = turn[index % len(turn)]
        yield CaseId(name, seed, numbers[name])
        numbers[name] += 1


class Session:
    """Runs cases and tells what was found.

    Args:
        entrances: where cases come from.
        workers: children at a time.
        seconds: stop after so long; None: at the end.
    """

    def __init__(self, entrances: Entrances, *, workers: int, seconds: float | None) -> None:
        self.entrances, self.seconds = entrances, seconds
        self.runner = Runner(self._make, workers=workers)
        torch.set_num_threads(1)
        for group in GROUPS:
            importlib.import_module(group).prepare()

    def run(self, ids: Iterable[CaseId], report: str | None) -> int:
        """Run, print findings as they come, and a summary.

        Returns:
            The exit code: 1 with findings.
        """
        start, sorts, lines = time.monotonic(), Counter[str](), []
        ids = self._in_time(ids, start)
        cases: Counter[str] = Counter()
        with tqdm(desc="fuzz", unit="case", file=sys.stderr, mininterval=1) as bar:
            for outcome in self.runner.run(ids):
                bar.update()
                cases[outcome.case.entrance] += 1
                if outcome.complaint is None:
                    continue
                sort = _sort_of(outcome)
                sorts[sort] += 1
                lines.append(_line(outcome))
                if sorts[sort] <= _SHOWN_OF_A_SORT:
                    bar.write(lines[-1], file=sys.stdout)
                bar.set_postfix(findings=len(lines))
        seconds = time.monotonic() - start
        if report is not None:
            Path(report).write_text("\n".join(sorted(lines)) + "\n", encoding="utf-8")
        for sort, count in sorts.most_common():
            print(f"{count:6d}  {sort}")
        print(
            f"{cases.total()} cases of {len(cases)} entrances in {seconds:.0f} s: "
            f"{len(lines)} findings of {len(sorts)} sorts"
        )
        return int(bool(lines))

    def _make(self, case_id: CaseId) -> Case:
        return self.entrances[case_id.entrance][1](Draw(case_id.rng()))

    def _in_time(self, ids: Iterable[CaseId], start: float) -> Iterator[CaseId]:
        for case_id in ids:
            if self.seconds is not None and time.monotonic() - start > self.seconds:
                return
            yield case_id


def _sort_of(outcome: Outcome) -> str:
    """Findings of one sort: the same but for numbers and names."""
    text = re.sub(r"0x[0-9a-f]+|-?\d+(\.\d+)?(e[+-]?\d+)?|'[^']*'", "#", str(outcome.complaint))
    how = re.search(r"; (\w+ spoilt: [\w ,-]+)", outcome.says)
    return f"{outcome.case.entrance}: {text[:110]}{f' [{how[1]}]' if how else ''}"


def _line(outcome: Outcome) -> str:
    case = outcome.case
    return (
        f"{case}  {outcome.complaint}\n    {outcome.says}\n"
        f"    python tests/fuzz --seed {case.seed} --case {case}"
    )
