"""Train one model on one benchmark: from typed settings to a folder with everything in it."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from torch import Tensor, nn

from zsbir_fast.data.benchmarks import Benchmark, load_benchmark
from zsbir_fast.data.images import ImageSet
from zsbir_fast.data.names import listing, same_names
from zsbir_fast.metrics.evaluate import evaluate_retrieval
from zsbir_fast.metrics.result import RetrievalResult
from zsbir_fast.training.assess import usual_ks
from zsbir_fast.training.checkpoints import read_checkpoint
from zsbir_fast.training.config import Settings, check_config, write_settings
from zsbir_fast.training.data_module import SeenClasses
from zsbir_fast.training.embedding import embed_pair
from zsbir_fast.training.export import export_model
from zsbir_fast.training.identity import ModelIdentity, build_model
from zsbir_fast.training.leaks import NO_LEAK, Leak, check_unseen
from zsbir_fast.training.module import RetrievalModule
from zsbir_fast.training.streams import derive_seed, seed_everything
from zsbir_fast.training.trainer import Fitted, Validate, keep_freed_memory, run_trainer


@dataclass(frozen=True)
class Embedded:
    """Test images of a benchmark as a model sees them.

    Attributes:
        queries: sketches, float32 [Q, D].
        gallery: photos, float32 [G, D].
        result: evaluation under the protocol ``standard``, cosine.
        leak: classes of the test that the model was trained on; none in a zero-shot test.
    """

    queries: Tensor
    gallery: Tensor
    result: RetrievalResult
    leak: Leak = NO_LEAK


def train(settings: Settings, *, resume: bool = False) -> tuple[nn.Module, Benchmark, Fitted]:
    """Train on seen classes, choose by held-out seen classes, export the chosen model.

    Writes below ``settings.run.out``: ``config.yaml``, ``checkpoints/last.ckpt`` and
    ``best.ckpt``, ``logs/``, ``tensorboard/`` if installed, ``model/``.

    Args:
        settings: the whole config.
        resume: go on from ``last.ckpt`` in ``run.out``, exactly where it was.

    Returns:
        The chosen model on the device it was trained on, the whole benchmark, and how training
        went.

    Raises:
        ValueError: a setting is out of range, the folder holds another run, or the checkpoint
            belongs to another model.
        FileNotFoundError: the data, or the checkpoint to resume, is missing.
    """
    check_config(settings.data, settings.optim, settings.run)
    last = _checkpoint_to_resume(Path(settings.run.out), resume=resume)
    data, optim, run = settings.data, settings.optim, settings.run
    benchmark = load_benchmark(data.name, data.root, **data.places())
    seen, held_out = benchmark, None
    if data.validation_classes:
        seen, held_out = benchmark.hold_out(classes=data.validation_classes, seed=run.seed)
    keep_freed_memory()
    seed_everything(derive_seed(run.seed))
    identity = replace(
        ModelIdentity.of(settings.method, settings.model, seen.seen),
        chosen_by=() if held_out is None else held_out.unseen,
        benchmark=data.name,
    )
    model: Any = build_model(identity)
    module = RetrievalModule(model, optim, identity, total_steps=run.total_steps)
    datamodule = SeenClasses(
        seen,
        data,
        model.encoder,
        epoch_batches=run.steps_per_epoch * optim.accumulate,
        epochs=run.epochs,
        seed=run.seed,
    )
    write_settings(Path(run.out) / "config.yaml", settings)
    fitted = run_trainer(
        module,
        datamodule,
        optim,
        run,
        validate=_validation(model, held_out, settings) if held_out is not None else None,
        resume_from=last,
    )
    if held_out is not None:
        _load_chosen(module, Path(run.out) / "checkpoints" / "best.ckpt")
    if fitted.is_first:
        export_model(model, identity, Path(run.out) / "model")
    return model.to(fitted.device).eval(), benchmark, fitted


def evaluate_unseen(
    model: Any,
    sketches: ImageSet,
    photos: ImageSet,
    *,
    allow_seen: bool = False,
    **options: Any,
) -> Embedded:
    """Search the photos by the sketches and evaluate under the protocol ``standard``.

    Args:
        model: gives ``embed`` and ``encoder``, and, in ``classes``, what it was trained on.
        sketches: the queries.
        photos: the gallery.
        allow_seen: evaluate on classes that the model was trained on, too; ``leak`` of the result
            names them.
        options: ``batch_size``, ``workers``, ``device`` and ``progress`` of ``embed_pair``.

    Returns:
        Embeddings and result.

    Raises:
        ValueError: sketches and photos have other classes, the model was trained on some of them,
            a set is empty, or no query has a relevant photo.
    """
    if not same_names(sketches.classes, photos.classes):
        raise ValueError(
            "evaluate_unseen: sketches and photos must have the same classes, got "
            f"{listing(sketches.classes, limit=3)} and {listing(photos.classes, limit=3)}"
        )
    trained = getattr(model, "classes", ())
    leak = check_unseen("evaluate_unseen", photos.classes, trained=trained, allow_seen=allow_seen)
    queries, gallery = embed_pair(model, sketches, photos, **options)
    labels = (sketches.labels, photos.labels)
    result = evaluate_retrieval(queries, gallery, *labels, ks=usual_ks(len(gallery)))
    return Embedded(queries, gallery, result, leak)


def _validation(model: Any, held_out: Benchmark, settings: Settings) -> Validate:
    """Zero-shot retrieval on held-out seen classes; the unseen ones are left alone."""

    def validate(trainer: pl.Trainer) -> dict[str, float]:
        start = time.perf_counter()
        with trainer.precision_plugin.forward_context():
            result = evaluate_unseen(
                model,
                held_out.test_sketches,
                held_out.test_photos,
                batch_size=settings.data.eval_batch_size,
                workers=settings.data.workers,
                device=trainer.strategy.root_device,
            ).result
        return {"val/map": result.map, "val/seconds": time.perf_counter() - start}

    return validate


def _checkpoint_to_resume(out: Path, *, resume: bool) -> Path | None:
    last = out / "checkpoints" / "last.ckpt"
    if resume and not last.is_file():
        raise FileNotFoundError(f"train: run.out must hold a run to resume, but {last} is missing")
    if not resume and last.is_file():
        raise ValueError(
            f"train: run.out must be a new folder, got {out}, which holds a run; "
            "add --resume to go on with it, or choose another --run.out"
        )
    return last if resume else None


def _load_chosen(module: RetrievalModule, path: Path) -> None:
    module.load_state_dict(read_checkpoint(path)["state_dict"])
