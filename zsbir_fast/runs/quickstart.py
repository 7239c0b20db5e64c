"""``zsbir quickstart``: the whole pipeline on real data in minutes, with nothing to download."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

from zsbir_fast._files import remove_leftovers, write_text
from zsbir_fast.data.benchmarks import load_benchmark
from zsbir_fast.ranking.rerank import RerankOptions
from zsbir_fast.runs.finish import write_outcome
from zsbir_fast.runs.fit import fit
from zsbir_fast.runs.results import result_table, table_text
from zsbir_fast.runs.run_lock import LOCK, lock_run, say_on_stderr
from zsbir_fast.runs.run_report import PRETRAINING_NOTE
from zsbir_fast.runs.settings import Settings, read_settings
from zsbir_fast.runs.train import outcome_of, untrained_results
from zsbir_fast.training.trainer import keep_freed_memory

MARKER = "quickstart.json"
_CONFIG = "dmwan-qd_caltech.yaml"
_NOTES = (
    "Chance: the exact expectation of a random order. Raw features: the pre-trained encoder, "
    "untouched. Centred features: the mean of each modality over the seen classes is taken away. "
    "Trained: DM-WAN after training on the seen classes.",
    "This benchmark is small: a check of the whole pipeline on real data, no substitute for the "
    "published benchmarks.",
)


def quickstart_settings(out: Path, *, seed: int, epochs: int | None) -> Settings:
    """Return the shipped settings of the bundled benchmark, with all seen classes in training.

    Args:
        out: folder of the training run.
        seed: seed of the run.
        epochs: epochs; None keeps those of the config.

    Returns:
        The settings.
    """
    path = resources.files("zsbir_fast.runs") / "configs" / _CONFIG
    with resources.as_file(path) as file:
        shipped = read_settings(file)
    run = replace(shipped.run, out=str(out), seed=seed, epochs=epochs or shipped.run.epochs)
    return replace(
        shipped,
        data=replace(shipped.data, validation_classes=0),
        rerank=RerankOptions(kind="expansion"),
        run=run,
    )


def quickstart(
    out: str | Path,
    *,
    seed: int = 0,
    epochs: int | None = None,
    say: Callable[[str], object] = print,
    progress: bool = True,
) -> dict[str, Any]:
    """Train on the seen classes of the bundled benchmark and search the unseen ones.

    Writes ``metrics.json``, ``per_class.csv``, ``report.html``, ``model/`` and the training run
    below ``out``.

    Args:
        out: folder; an older quickstart there is replaced.
        seed: seed of the training.
        epochs: epochs of training; None takes the shipped number.
        say: gets the lines of progress.
        progress: show progress bars.

    Returns:
        The content of ``metrics.json``.

    Raises:
        ValueError: ``out`` is a file, or holds something that quickstart did not write.
        RuntimeError: another process works in the folder.
    """
    folder = require_own_folder(out)
    with lock_run(folder, say=say_on_stderr):
        clear_folder(folder)
        return _run(folder, seed=seed, epochs=epochs, say=say, progress=progress)


def _run(
    folder: Path, *, seed: int, epochs: int | None, say: Callable[[str], object], progress: bool
) -> dict[str, Any]:
    start = time.perf_counter()
    settings = quickstart_settings(folder / "run", seed=seed, epochs=epochs)
    settings = replace(settings, run=replace(settings.run, progress=progress))
    keep_freed_memory()
    say("1/4  data: real sketches (Quick, Draw!) and photos (Caltech-101), bundled")
    benchmark = load_benchmark(settings.data.name)
    say(
        f"     {len(benchmark.train_sketches)} sketches and {len(benchmark.train_photos)} photos "
        f"of {len(benchmark.seen)} seen classes to train on\n"
        f"     {len(benchmark.test_sketches)} sketches search {len(benchmark.test_photos)} photos "
        f"of {len(benchmark.unseen)} unseen classes"
    )
    say("2/4  before training: the pre-trained features as they are")
    baselines = untrained_results(settings, benchmark)
    say(f"3/4  training DM-WAN: {settings.run.total_steps} steps")
    trained = fit(settings)
    say("4/4  after training: the same search again")
    outcome = outcome_of(
        trained,
        settings,
        title="Sketches find photos of classes never trained on",
        lead=f"DM-WAN was trained on {len(benchmark.seen)} classes of the bundled benchmark. Then "
        f"{len(benchmark.test_sketches)} sketches of {len(benchmark.unseen)} other classes "
        f"searched {len(benchmark.test_photos)} photos.",
        baselines=baselines,
    )
    outcome = replace(outcome, notes=[*_NOTES, *outcome.notes])
    shutil.move(folder / "run" / "model", folder / "model")
    seconds = time.perf_counter() - start
    metrics = write_outcome(folder, outcome, seconds=round(seconds, 1))
    table = table_text(result_table("", outcome.table))
    rankings = "".join(f"{line}\n" for line in outcome.rankings)
    say(f"\n{table}\n\n{outcome.result.definition}\n{rankings}{PRETRAINING_NOTE}\n")
    say(f"Done in {seconds:.0f} s. Open {(folder / 'report.html').resolve()}")
    return metrics


def require_own_folder(out: str | Path) -> Path:
    """Refuse a folder with anything in it but an older quickstart.

    Args:
        out: the folder.

    Returns:
        Its path; nothing was changed.

    Raises:
        ValueError: it is a file, or holds something that quickstart did not write.
    """
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"quickstart: --out must be a folder, got the file {folder}")
    others = folder.is_dir() and any(path.name != LOCK for path in folder.iterdir())
    if others and not (folder / MARKER).is_file():
        raise ValueError(
            f"quickstart: --out must be a new or empty folder or an older quickstart, got "
            f"{folder}, which holds other files"
        )
    return folder


def clear_folder(folder: Path) -> None:
    """Remove an older quickstart, and write the marker of a new one.

    Args:
        folder: a folder that ``require_own_folder`` accepts, locked.
    """
    for name in ("run", "model"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in ("metrics.json", "per_class.csv", "report.html"):
        (folder / name).unlink(missing_ok=True)
    remove_leftovers(folder)
    write_text(folder / MARKER, json.dumps({"written_by": "zsbir quickstart"}) + "\n")
