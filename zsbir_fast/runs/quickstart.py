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

from torch import Tensor

from zsbir_fast._files import remove_leftovers, write_text
from zsbir_fast.data.benchmarks import Benchmark, load_benchmark
from zsbir_fast.encoders.build import build_encoder
from zsbir_fast.metrics.evaluate import evaluate_retrieval
from zsbir_fast.metrics.result import RetrievalResult
from zsbir_fast.retrieval.embed import embed_images
from zsbir_fast.runs.baselines import chance_level, remove_domain_mean, usual_ks
from zsbir_fast.runs.curves import read_curves
from zsbir_fast.runs.explain import ExplainedPairs, explain_seen_pairs
from zsbir_fast.runs.results import result_table, table_text, write_metrics, write_per_class
from zsbir_fast.runs.run_lock import LOCK, lock_run, say_on_stderr
from zsbir_fast.runs.run_report import PRETRAINING_NOTE, report_run
from zsbir_fast.runs.settings import Settings, read_settings
from zsbir_fast.runs.train import Embedded, evaluate_unseen, train
from zsbir_fast.training.trainer import keep_freed_memory

MARKER = "quickstart.json"
_CONFIG = "dmwan-qd_caltech.yaml"


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
    return replace(shipped, data=replace(shipped.data, validation_classes=0), run=run)


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
        What is in ``metrics.json``.

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
    results = _before_training(benchmark, settings, progress=progress)
    say(f"3/4  training DM-WAN: {settings.run.total_steps} steps")
    model, _, fitted = train(settings)
    say("4/4  after training: the same search again")
    trained = evaluate_unseen(
        model,
        benchmark.test_sketches,
        benchmark.test_photos,
        device=fitted.device,
        progress=progress,
    )
    results["trained"] = trained.result
    explained = explain_seen_pairs(model, benchmark, device=fitted.device)
    return _write(folder, benchmark, settings, results, trained, explained, start, say)


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


def _before_training(
    benchmark: Benchmark, settings: Settings, *, progress: bool
) -> dict[str, RetrievalResult]:
    """Chance, raw pre-trained features, and those with the seen classes' domain means removed."""
    model = settings.model
    encoder = build_encoder(
        model["encoder"], weights=model["weights"], image_size=model["image_size"]
    ).eval()

    def features(images: Any, what: str) -> Tensor:
        return embed_images(
            lambda batch, _: encoder(batch).global_,
            images,
            encoder=encoder,
            batch_size=settings.data.eval_batch_size,
            progress=what if progress else None,
        )

    sketches, photos = benchmark.test_sketches, benchmark.test_photos
    queries, gallery = features(sketches, "unseen sketches"), features(photos, "unseen photos")
    centred = (
        remove_domain_mean(queries, features(benchmark.train_sketches, "seen sketches")),
        remove_domain_mean(gallery, features(benchmark.train_photos, "seen photos")),
    )
    labels, ks = (sketches.labels, photos.labels), usual_ks(len(gallery))
    return {
        "chance": chance_level(*labels),
        "raw": evaluate_retrieval(queries, gallery, *labels, ks=ks),
        "centred": evaluate_retrieval(*centred, *labels, ks=ks),
    }


def _write(
    folder: Path,
    benchmark: Benchmark,
    settings: Settings,
    results: dict[str, RetrievalResult],
    trained: Embedded,
    explained: ExplainedPairs | None,
    start: float,
    say: Callable[[str], object],
) -> dict[str, Any]:
    shutil.move(folder / "run" / "model", folder / "model")
    named = {
        "chance": results["chance"],
        "raw features": results["raw"],
        "centred features": results["centred"],
        "trained": results["trained"],
    }
    seconds = time.perf_counter() - start
    write_per_class(folder / "per_class.csv", trained.result, dict(enumerate(benchmark.unseen)))
    report_run(
        folder / "report.html",
        benchmark,
        named,
        trained,
        title="Sketches find photos of classes never trained on",
        lead=f"DM-WAN was trained on {len(benchmark.seen)} classes of the bundled benchmark. Then "
        f"{len(trained.queries)} sketches of {len(benchmark.unseen)} other classes searched "
        f"{len(trained.gallery)} photos. All of it took {seconds / 60:.1f} minutes.",
        curves=read_curves(folder / "run" / "logs"),
        settings=settings.flat(),
        notes=[
            "Chance: the exact expectation of a random order. Raw features: the pre-trained "
            "encoder, untouched. Centred features: the mean of each modality over the seen "
            "classes is taken away. Trained: DM-WAN after training on the seen classes.",
            PRETRAINING_NOTE,
            "This benchmark is small: a check of the whole pipeline on real data, no substitute "
            "for the published benchmarks.",
        ],
        baseline="raw features",
        explained=explained,
    )
    metrics = write_metrics(folder / "metrics.json", results, seconds=round(seconds, 1))
    table = result_table("", named, highlight="trained")
    say(f"\n{table_text(table)}\n\n{trained.result.definition}\n{PRETRAINING_NOTE}\n")
    say(f"Done in {seconds:.0f} s. Open {(folder / 'report.html').resolve()}")
    return metrics
