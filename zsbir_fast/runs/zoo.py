"""Methods by encoders on one benchmark: many runs, one evaluation, one table."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from zsbir_fast._files import write_text
from zsbir_fast._words import reason, shown
from zsbir_fast.data.names import check_distinct, listing
from zsbir_fast.methods.checkpoint_files import LAST, PREVIOUS
from zsbir_fast.report.content import Table
from zsbir_fast.report.html import format_cell, write_report
from zsbir_fast.runs.results import table_text
from zsbir_fast.runs.run_lock import Say, lock_run, say_on_stderr
from zsbir_fast.runs.run_report import PRETRAINING_NOTE, versions
from zsbir_fast.runs.settings import Settings, check_settings
from zsbir_fast.runs.train import train

COLUMNS = (
    "",
    "seeds",
    "mAP@all",
    "deviation",
    "Prec@100",
    "re-ranked",
    "trained parameters",
    "seconds a run",
)
_RESULTS = "metrics.json"


@dataclass(frozen=True)
class ZooRun:
    """One training of the table.

    Attributes:
        name: of its row: the config, and the encoder where encoders are compared.
        seed: of the training.
        settings: its whole config.
    """

    name: str
    seed: int
    settings: Settings

    @property
    def folder(self) -> Path:
        """Where its files are."""
        return Path(self.settings.run.out)


@dataclass(frozen=True)
class ZooRow:
    """Runs that differ by their seed alone, or an encoder before training.

    Attributes:
        name: what was trained.
        maps: mAP@all of each seed.
        precisions: share of right photos among the first 100 (Prec@100), of each seed; None where
            the gallery is smaller.
        reranked: mAP@all after re-ranking, of each seed; empty where nothing is re-ranked.
        parameters: how many are trained.
        seconds: of each run.
    """

    name: str
    maps: Sequence[float]
    precisions: Sequence[float | None]
    reranked: Sequence[float] = ()
    parameters: int | None = None
    seconds: Sequence[float] = ()

    @property
    def cells(self) -> list[Any]:
        """The cells under ``COLUMNS``."""
        precisions = [each for each in self.precisions if each is not None]
        return [
            self.name,
            len(self.maps) if self.seconds else None,
            statistics.fmean(self.maps),
            statistics.stdev(self.maps) if len(self.maps) > 1 else None,
            statistics.fmean(precisions) if precisions else None,
            statistics.fmean(self.reranked) if self.reranked else None,
            None if self.parameters is None else f"{self.parameters:,}",
            round(statistics.fmean(self.seconds)) if self.seconds else None,
        ]


@dataclass(frozen=True)
class Zoo:
    """The outcome of all runs.

    Attributes:
        rows: those that are done.
        failed: name and seed of a run that failed -> what it said.
        definition: of the metrics, the same for all.
        out: the folder with ``zoo.html``, ``zoo.md`` and ``zoo.json``.
    """

    rows: Sequence[ZooRow]
    failed: Mapping[str, str]
    definition: str
    out: Path

    @property
    def table(self) -> Table:
        """All rows, the best first."""
        best = sorted(self.rows, key=lambda row: -statistics.fmean(row.maps))
        return Table("Retrieval of the unseen classes", list(COLUMNS), [row.cells for row in best])

    @property
    def text(self) -> str:
        """The table for a terminal, the definition, and what failed."""
        failed = [f"failed: {name}: {text}" for name, text in self.failed.items()]
        return "\n".join([table_text(self.table), "", self.definition, *failed])


def plan_zoo(
    configs: Mapping[str, Settings],
    out: str | Path,
    *,
    encoders: Sequence[str] = (),
    seeds: Sequence[int] = (0,),
) -> list[ZooRun]:
    """Make the runs: every config, with every encoder, from every seed.

    Args:
        configs: settings by name; all of one benchmark, in its test alike.
        out: folder of all runs; theirs are ``out/NAME/SEED``.
        encoders: encoder names that replace each config's own, with the pre-trained weights that
            belong to them (``imagenet``, or ``pretrained`` for timm); an encoder of open_clip is
            given with its tag, ``open_clip:MODEL/TAG``. Empty: each config's own.
        seeds: of the trainings.

    Returns:
        The runs, those of one seed together, so that a table of all rows is there early.

    Raises:
        ValueError: nothing to run, a name twice, or configs of several benchmarks.
    """
    if not configs or not seeds:
        raise ValueError("plan_zoo: configs and seeds must be at least one each, got none")
    check_distinct("plan_zoo", "encoders", [*encoders])
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"plan_zoo: seeds must differ, got {listing(map(str, seeds))}")
    _require_one_test(configs)
    runs = []
    wanted: Sequence[str | None] = encoders or [None]
    for seed in seeds:
        for name, settings in configs.items():
            for encoder in wanted:
                row = name if encoder is None else f"{name}, {encoder}"
                folder = Path(out) / _folder_name(row) / str(seed)
                model = settings.model if encoder is None else _with_encoder(settings, encoder)
                run = replace(settings.run, out=str(folder), seed=seed)
                changed = replace(settings, model=model, run=run)
                check_settings(changed)
                runs.append(ZooRun(row, seed, changed))
    return runs


def run_zoo(
    runs: Sequence[ZooRun], out: str | Path, *, say: Say = say_on_stderr, notes: Sequence[str] = ()
) -> Zoo:
    """Train all runs that are not finished, and write one table of all.

    A run that is finished is read, one that was begun goes on from its checkpoint, and one that
    fails leaves the others alone. The table is written again after every run.

    Args:
        runs: from :func:`plan_zoo`.
        out: where ``zoo.html``, ``zoo.md`` and ``zoo.json`` go.
        say: gets a line for every run.
        notes: paragraphs of the report.

    Returns:
        The outcome.

    Raises:
        RuntimeError: another process runs in the folder.
    """
    failed: dict[str, str] = {}
    with lock_run(Path(out), say=say):
        for number, run in enumerate(runs, 1):
            what = f"{run.name}, seed {run.seed}"
            if (run.folder / _RESULTS).is_file():
                say(f"{number}/{len(runs)}: {what} is done")
                continue
            begun = any((run.folder / "checkpoints" / name).is_file() for name in (LAST, PREVIOUS))
            say(f"{number}/{len(runs)}: {what}{' goes on' * begun}")
            try:
                train(run.settings, resume=begun, say=say)
            except (ValueError, TypeError, OSError, RuntimeError) as error:
                failed[what] = reason(error)
                say(f"{what} failed: {failed[what]}")
            _write(_outcome(runs, failed, out), notes)
        found = _outcome(runs, failed, out)
        _write(found, notes)
    return found


def _outcome(runs: Iterable[ZooRun], failed: Mapping[str, str], out: str | Path) -> Zoo:
    done: dict[str, list[dict[str, Any]]] = {}
    frozen: dict[str, dict[str, Any]] = {}
    definition = ""
    for run in runs:
        path = run.folder / _RESULTS
        if not path.is_file():
            continue
        metrics = json.loads(path.read_text(encoding="utf-8"))
        definition = metrics["definition"]
        done.setdefault(run.name, []).append(metrics)
        encoder = _encoder_name(run.settings)
        for row in ("raw", "centred"):
            if encoder is not None and row in metrics:
                frozen.setdefault(f"frozen {encoder}, {row}", metrics[row])
    rows = [_row(name, held) for name, held in done.items()]
    rows += [ZooRow(name, [held["map"]], [_precision(held)]) for name, held in frozen.items()]
    return Zoo(rows, dict(failed), definition, Path(out))


def _row(name: str, held: Sequence[Mapping[str, Any]]) -> ZooRow:
    again = [metrics["re-ranked"]["map"] for metrics in held if "re-ranked" in metrics]
    return ZooRow(
        name,
        maps=[metrics["trained"]["map"] for metrics in held],
        precisions=[_precision(metrics["trained"]) for metrics in held],
        reranked=again if len(again) == len(held) else [],
        parameters=held[0].get("trained_parameters"),
        seconds=[metrics["seconds"] for metrics in held],
    )


def _precision(result: Mapping[str, Any]) -> float | None:
    value: float | None = result["precision_at"].get("100")
    return value


def _write(zoo: Zoo, notes: Sequence[str]) -> None:
    if not zoo.rows:
        return
    content = {
        "definition": zoo.definition,
        "rows": [vars(row) for row in zoo.rows],
        "failed": dict(zoo.failed),
        "versions": versions(),
    }
    write_text(zoo.out / "zoo.json", json.dumps(content, indent=1, default=str) + "\n")
    write_text(zoo.out / "zoo.md", _markdown(zoo))
    write_report(
        zoo.out / "zoo.html",
        title="Methods by encoders",
        lead="Every row is the mean over its seeds; the deviation is that between seeds.",
        tables=[zoo.table],
        definition=zoo.definition,
        versions=versions(),
        notes=[PRETRAINING_NOTE, *notes, *(f"Failed: {n}: {t}" for n, t in zoo.failed.items())],
    )


def _markdown(zoo: Zoo) -> str:
    table = zoo.table
    lines = ["| " + " | ".join(table.columns) + " |", "|---" + "|--:" * (len(COLUMNS) - 1) + "|"]
    for row in table.rows:
        lines.append("| " + " | ".join(map(format_cell, row)) + " |")
    failed = [f"- failed: {name}: {text}" for name, text in zoo.failed.items()]
    return "\n".join([*lines, "", zoo.definition, "", *failed]).rstrip() + "\n"


def _require_one_test(configs: Mapping[str, Settings]) -> None:
    """Refuse configs whose numbers could not be compared."""
    names = ("name", "root", "layout", "unseen", "sketch_folders", "photo_folders")
    tests = {
        config: tuple(str(getattr(settings.data, name, None)) for name in names)
        for config, settings in configs.items()
    }
    first, test = next(iter(tests.items()))
    for config, other in tests.items():
        for name, mine, theirs in zip(names, test, other, strict=True):
            if mine != theirs:
                raise ValueError(
                    f"plan_zoo: configs must be of one benchmark, got data.{name} {shown(mine)} of "
                    f"{first} and {shown(theirs)} of {config}"
                )


def _with_encoder(settings: Settings, encoder: str) -> dict[str, Any]:
    """The method's arguments with another encoder; its other settings stay."""
    own = settings.plain_model().get("encoder")
    if not isinstance(own, dict):
        raise ValueError(
            f"plan_zoo: encoders must be none for the method {settings.method}, which has no "
            f"argument 'encoder', got {shown(encoder)}"
        )
    family, _, model = encoder.partition(":")
    name, _, tag = model.partition("/") if family == "open_clip" else (model, "", "")
    if family == "open_clip" and not tag:
        raise ValueError(
            f"plan_zoo: encoders of open_clip must have a tag, open_clip:MODEL/TAG, got "
            f"{shown(encoder)}"
        )
    weights = tag or ("pretrained" if family == "timm" else "imagenet")
    changed = {**own, "name": f"{family}:{name}", "weights": weights}
    return {**settings.model, "encoder": changed}


def _encoder_name(settings: Settings) -> str | None:
    encoder = settings.plain_model().get("encoder")
    if not isinstance(encoder, dict):
        return None
    size = encoder["image_size"]
    return f"{encoder['name']} at {size} px" if size else str(encoder["name"])


def _folder_name(row: str) -> str:
    return "".join(each if each.isalnum() or each in "-_." else "-" for each in row)
