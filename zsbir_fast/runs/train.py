"""A whole training run: fit, test once on unseen classes, write the results."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zsbir_fast.data.benchmarks import Benchmark
from zsbir_fast.methods.arguments import typed_arguments
from zsbir_fast.methods.contract import Method
from zsbir_fast.methods.identity import ModelIdentity
from zsbir_fast.methods.registry import method_class
from zsbir_fast.methods.trained_parameters import TrainedParameters
from zsbir_fast.metrics.result import RetrievalResult
from zsbir_fast.runs.baselines import baseline_results
from zsbir_fast.runs.curves import read_curves
from zsbir_fast.runs.explain import explain_seen_pairs
from zsbir_fast.runs.finish import write_outcome
from zsbir_fast.runs.fit import TrainedModel, fit
from zsbir_fast.runs.outcome import Outcome
from zsbir_fast.runs.rerank_choice import settle_rerank
from zsbir_fast.runs.run_lock import Say, lock_run, say_on_stderr
from zsbir_fast.runs.run_report import PRETRAINING_NOTE
from zsbir_fast.runs.settings import Settings, check_settings
from zsbir_fast.runs.unseen import embed_unseen


@dataclass(frozen=True)
class TrainedRun:
    """A finished run.

    Attributes:
        model: the chosen model in evaluation mode, on the device it was trained on.
        identity: its method, arguments and classes.
        benchmark: the benchmark.
        outcome: its results, and all else that the report shows.
        is_first: whether this process is the one that wrote the files.
    """

    model: Method
    identity: ModelIdentity
    benchmark: Benchmark
    outcome: Outcome
    is_first: bool

    @property
    def parameters(self) -> TrainedParameters:
        """How many parameters of the model are trained."""
        return TrainedParameters.of(self.model)

    @property
    def result(self) -> RetrievalResult:
        """The result of the trained model on the unseen classes."""
        return self.outcome.result


def train(settings: Settings, *, resume: bool = False, say: Say = say_on_stderr) -> TrainedRun:
    """Train a method, test it once on the unseen classes, and write everything into one folder.

    Writes below ``settings.run.out``: ``config.yaml``, ``checkpoints/``, ``logs/``, ``model/``,
    ``metrics.json``, ``per_class.csv`` and ``report.html``. ``zsbir train`` calls it.

    Args:
        settings: the whole config.
        resume: go on from the newest whole checkpoint in ``run.out``, exactly where it was.
        say: gets lines with what the method has to tell and the number of trained parameters, if
            progress is shown, and one where something unusual was found in the folder.

    Returns:
        The model and its results.

    Raises:
        ValueError: a setting is out of range or differs from those the run was begun with, the
            folder holds another run, or its checkpoints are damaged or of another model.
        FileNotFoundError: the data, or the checkpoint to resume, is missing.
        RunFinished: the run has done all steps and its results are written.
        RuntimeError: another process runs in the folder.
    """
    start = time.perf_counter()
    check_settings(settings)
    out = Path(settings.run.out)
    if resume and not out.is_dir():  # before a folder is made for the lock
        raise FileNotFoundError(f"train: run.out must hold a run to resume, but {out} is missing")
    with lock_run(out, say=say):
        trained = fit(settings, resume=resume, say=say)
        benchmark, fitted = trained.benchmark, trained.fitted
        lead = (
            f"Trained for {fitted.steps} steps on {len(trained.model.classes)} seen classes; the "
            f"unseen ones were looked at once, after training. It {trained.parameters}."
        )
        outcome = outcome_of(
            trained,
            settings,
            title=f"{settings.method} on {benchmark.name}",
            lead=lead,
            baselines=untrained_results(settings, benchmark, trained),
        )
        if fitted.is_first:
            facts = {
                "steps": fitted.steps,
                "parameters": trained.parameters.every,
                "trained_parameters": trained.parameters.trained,
                "best_step": fitted.best_step,
                "seconds": round(time.perf_counter() - start, 1),
            }
            write_outcome(out, outcome, **facts)
    return TrainedRun(trained.model, trained.identity, benchmark, outcome, fitted.is_first)


def untrained_results(
    settings: Settings, benchmark: Benchmark, trained: TrainedModel | None = None
) -> dict[str, RetrievalResult]:
    """Evaluate the start of a method: chance, and the encoder before training if it has one.

    Args:
        settings: the config; the method and its encoder.
        benchmark: the images.
        trained: says on which device to run and whether to show progress; None: before training,
            on the CPU.

    Returns:
        Row -> result.
    """
    make = method_class(settings.method)
    encoder = make.pretrained_encoder(typed_arguments(settings.method, make, settings.model))
    return baseline_results(
        encoder,
        benchmark,
        device="cpu" if trained is None else trained.fitted.device,
        batch_size=settings.data.eval_batch_size,
        workers=settings.data.workers,
        progress=settings.run.progress and (trained is None or trained.fitted.is_first),
    )


def outcome_of(
    trained: TrainedModel,
    settings: Settings,
    *,
    title: str,
    lead: str,
    baselines: Mapping[str, RetrievalResult],
) -> Outcome:
    """Search the unseen classes with a trained model, and gather all that the report shows.

    Args:
        trained: the model.
        settings: the settings of its training.
        title: title of the report.
        lead: a sentence under it.
        baselines: rows that stand before the trained model's.

    Returns:
        The outcome.
    """
    benchmark, fitted = trained.benchmark, trained.fitted
    shows_progress = settings.run.progress and fitted.is_first
    embedding: dict[str, Any] = {
        "batch_size": settings.data.eval_batch_size,
        "workers": settings.data.workers,
        "device": fitted.device,
        "progress": shows_progress,
    }
    chosen_by = trained.identity.chosen_by
    embedded = embed_unseen(trained.model, benchmark, chosen_by=chosen_by, **embedding)
    rerank = settle_rerank(settings.rerank, trained.model, benchmark, embedded.ranker, **embedding)
    return Outcome(
        title=title,
        lead=lead,
        of_what=f"Zero-shot retrieval on {benchmark.name}",
        results={**baselines, **embedded.rows("trained", progress=shows_progress)},
        embedded=embedded,
        reranked=embedded.rerank(rerank),
        baseline="raw" if "raw" in baselines else "",
        curves=read_curves(Path(settings.run.out) / "logs"),
        settings=settings.flat(),
        notes=[PRETRAINING_NOTE] if "raw" in baselines else [],
        explained=explain_seen_pairs(trained.model, benchmark) if fitted.is_first else None,
    )
