"""Train on seen classes, choose by held-out seen classes, export the chosen model."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

import lightning.pytorch as pl
import torch

from zsbir_fast._files import remove_leftovers
from zsbir_fast.data.benchmarks import Benchmark, load_benchmark
from zsbir_fast.methods.build import build_model
from zsbir_fast.methods.checkpoint_files import BEST, LAST, PREVIOUS, read_checkpoint
from zsbir_fast.methods.contract import Method
from zsbir_fast.methods.identity import ModelIdentity
from zsbir_fast.methods.saving import export_model
from zsbir_fast.methods.trained_parameters import TrainedParameters
from zsbir_fast.runs.resume import (
    Begun,
    course_of,
    find_begun,
    put_damaged_aside,
    require_possible_length,
    require_same_course,
    require_unfinished,
)
from zsbir_fast.runs.run_lock import Say, is_writer, lock_run, say_on_stderr
from zsbir_fast.runs.settings import Settings, check_settings, write_settings
from zsbir_fast.runs.unseen import embed_unseen
from zsbir_fast.training.callbacks import Validate
from zsbir_fast.training.data_module import RunData
from zsbir_fast.training.module import MethodModule
from zsbir_fast.training.run_config import RunConfig
from zsbir_fast.training.streams import derive_seed, seed_everything
from zsbir_fast.training.trainer import Fitted, keep_freed_memory, run_trainer


@dataclass(frozen=True)
class TrainedModel:
    """The outcome of training.

    Attributes:
        model: the chosen model in evaluation mode, on the device it was trained on.
        identity: its method, arguments and classes.
        benchmark: the whole benchmark, with the classes that were held out.
        fitted: how training went.
    """

    model: Method
    identity: ModelIdentity
    benchmark: Benchmark
    fitted: Fitted

    @property
    def parameters(self) -> TrainedParameters:
        """How many parameters of the model are trained."""
        return TrainedParameters.of(self.model)


def fit(settings: Settings, *, resume: bool = False, say: Say = say_on_stderr) -> TrainedModel:
    """Train on seen classes, choose by held-out seen classes, export the chosen model.

    Writes below ``settings.run.out``: ``config.yaml``, ``checkpoints/last.ckpt`` and
    ``best.ckpt``, ``logs/``, ``tensorboard/`` if installed, ``model/``. The folder is locked
    meanwhile.

    Args:
        settings: the whole config.
        resume: go on from the newest whole checkpoint in ``run.out``, exactly where it was.
        say: gets lines with what the method has to tell and the number of trained parameters, if
            progress is shown, and one where something unusual was found in the folder.

    Returns:
        The chosen model and how training went.

    Raises:
        ValueError: a setting is out of range or differs from those the run was begun with, nothing
            of the model is trainable, the folder holds another run, or its checkpoints are damaged
            or of another model.
        FileNotFoundError: the data, or the checkpoint to resume, is missing.
        RunFinished: the run has done all steps and its results are written.
        RuntimeError: another process runs in the folder.
    """
    check_settings(settings)
    checkpoints = Path(settings.run.out) / "checkpoints"
    if resume and not checkpoints.is_dir():  # before a folder is made for the lock
        find_begun(settings.run.out, say=say)
    with lock_run(settings.run.out, say=say):
        begun = find_begun(settings.run.out, say=say) if resume else None
        if begun is None:
            _require_new(checkpoints)
        return _fit(settings, begun, say)


def _fit(settings: Settings, begun: Begun | None, say: Say) -> TrainedModel:
    data, optim, run = settings.data, settings.optim, settings.run
    benchmark = load_benchmark(data.name, data.root, **data.places())
    seen, held_out = benchmark, None
    if data.validation_classes:
        seen, held_out = benchmark.hold_out(classes=data.validation_classes, seed=run.seed)
    identity = replace(
        ModelIdentity.of(settings.method, settings.model, seen.seen),
        chosen_by=() if held_out is None else held_out.unseen,
        benchmark=data.name,
    )
    if begun is not None:
        require_same_course(settings, begun)
        identity.require_same(begun.identity)
        require_unfinished(settings, begun)
        require_possible_length(settings, begun)
    keep_freed_memory()
    seed_everything(derive_seed(run.seed))
    model = build_model(identity)
    parameters = TrainedParameters.of(model)
    if not parameters.trained:
        raise ValueError(
            "train: model must have a trainable parameter, got none of its "
            f"{parameters.every:,}: nothing of the encoder is trained, and nothing on top of it"
        )
    settings.rerank.require_possible(model.ranker(), photos=len(benchmark.test_photos))
    module = MethodModule(model, optim, run, identity, course=course_of(settings))
    if begun is not None and begun.steps == run.total_steps:
        fitted = _take_finished(module, begun, run)
    else:
        datamodule = RunData(
            model.batches(seen, data),
            epoch_batches=run.steps_per_epoch * optim.accumulate,
            epochs=run.epochs,
            seed=run.seed,
            workers=data.workers,
        )
        _prepare_folder(settings, begun)
        if run.progress:
            for line in (*model.notes(), str(parameters)):
                say(line)
        fitted = run_trainer(
            module,
            datamodule,
            validate=None if held_out is None else _validation(model, held_out, settings),
            resume_from=None if begun is None else begun.path,
        )
    if held_out is not None:
        _load_weights(module, Path(run.out) / "checkpoints" / BEST)
    if run.precision == "64-true":
        model.float()  # as load_model gives it, and as images come
    if fitted.is_first:
        export_model(model, identity, Path(run.out) / "model")
    return TrainedModel(model.to(fitted.device).eval(), identity, benchmark, fitted)


def _validation(model: Method, held_out: Benchmark, settings: Settings) -> Validate:
    """Zero-shot retrieval on held-out seen classes; the unseen ones are left alone."""

    def validate(trainer: pl.Trainer) -> dict[str, float]:
        start = time.perf_counter()
        with trainer.precision_plugin.forward_context():
            embedded = embed_unseen(
                model,
                held_out,
                batch_size=settings.data.eval_batch_size,
                workers=settings.data.workers,
                device=trainer.strategy.root_device,
            )
        return {"val/map": embedded.evaluate().map, "val/seconds": time.perf_counter() - start}

    return validate


def _require_new(checkpoints: Path) -> None:
    if any((checkpoints / name).exists() for name in (LAST, PREVIOUS)):
        raise ValueError(
            f"train: run.out must be a new folder, got {checkpoints.parent}, which holds a run; "
            "add --resume to go on with it, or choose another --run.out"
        )


def _prepare_folder(settings: Settings, begun: Begun | None) -> None:
    """Clear away half-written files of a killed run, and write the config."""
    if is_writer():
        if begun is not None:
            put_damaged_aside(begun)
        out = Path(settings.run.out)
        for folder in (out, out / "checkpoints", out / "model"):
            remove_leftovers(folder)
        write_settings(out / "config.yaml", settings)


def _take_finished(module: MethodModule, begun: Begun, run: RunConfig) -> Fitted:
    """A run that was stopped between its last step and its results: only these are missing."""
    _load_weights(module, begun.path)
    gpu = run.accelerator != "cpu" and torch.cuda.is_available()
    return Fitted(
        steps=begun.steps,
        best=begun.best,
        best_step=begun.best_step,
        device=torch.device("cuda" if gpu else "cpu"),
        is_first=is_writer(),
    )


def _load_weights(module: MethodModule, path: Path) -> None:
    module.load_state_dict(read_checkpoint(path)["state_dict"])
