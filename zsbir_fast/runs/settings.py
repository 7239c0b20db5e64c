"""What a training run can be told, typed: the keys of the YAML configs and of the command line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import yaml

from zsbir_fast._files import reading, write_text
from zsbir_fast._words import reason, shown
from zsbir_fast.runs.yaml_limits import require_modest

Layout = Literal["auto", "lists", "folders"]
PLACES = ("layout", "unseen", "sketch_folders", "photo_folders")
"""Keys of ``data`` that say where images of a benchmark lie."""
Precision = Literal["32-true", "16-mixed", "bf16-mixed", "64-true"]


@dataclass(frozen=True)
class DataConfig:
    """Which images, and how batches are drawn from them.

    Attributes:
        name: benchmark (``qd_caltech`` is bundled).
        root: folder of the benchmark; None for the bundled one.
        layout: list files, folders of classes, or ``auto``: whichever is there.
        unseen: names of the unseen classes, for data of your own in folders of classes;
            published splits fix theirs.
        sketch_folders: folders below ``root`` that hold the class folders of sketches; None looks
            at the usual places.
        photo_folders: the same for photos, all of which are used.
        validation_classes: seen classes held out for validation; 0 trains on all of them and
            keeps no ``best`` checkpoint. Unseen classes are never used before the final test.
        classes_per_batch: classes in a batch.
        sketches_per_class: sketches of each class in a batch.
        photos_per_class: photos of each class in a batch.
        eval_batch_size: images per forward pass when embedding.
        workers: processes that load images; 0 loads in the training process.
    """

    name: str = "qd_caltech"
    root: str | None = None
    layout: Layout = "auto"
    unseen: list[str] | None = None
    sketch_folders: list[str] | None = None
    photo_folders: list[str] | None = None
    validation_classes: int = 5
    classes_per_batch: int = 8
    sketches_per_class: int = 2
    photos_per_class: int = 2
    eval_batch_size: int = 64
    workers: int = 0

    def places(self) -> dict[str, Any]:
        """Return what ``load_benchmark`` is told besides name and root."""
        return {key: getattr(self, key) for key in PLACES}


@dataclass(frozen=True)
class OptimConfig:
    """AdamW with a warm-up and a cosine.

    Attributes:
        lr_backbone: peak learning rate of the image encoder.
        lr_head: peak learning rate of everything else.
        weight_decay: decoupled weight decay; vectors (biases, norms) have none.
        warmup_steps: optimizer steps over which the rates rise linearly from 0.
        schedule: after the warm-up, ``cosine`` down to ``final_lr_ratio`` or ``constant``.
        final_lr_ratio: last learning rate of the cosine, relative to the peak.
        gradient_clip: largest norm of the whole gradient; 0 turns clipping off.
        accumulate: batches per optimizer step.
    """

    lr_backbone: float = 1e-5
    lr_head: float = 1e-4
    weight_decay: float = 1e-2
    warmup_steps: int = 0
    schedule: Literal["cosine", "constant"] = "cosine"
    final_lr_ratio: float = 0.0
    gradient_clip: float = 1.0
    accumulate: int = 1


@dataclass(frozen=True)
class RunConfig:
    """How long, where and on what.

    Attributes:
        out: folder of the run: checkpoints, logs, config, exported model.
        epochs: number of epochs.
        steps_per_epoch: optimizer steps per epoch; validation comes after each epoch.
        checkpoint_every: write ``last.ckpt`` every so many optimizer steps, and after each epoch.
        log_every: write a line of the logs every so many optimizer steps.
        seed: start of all randomness: weights, batches, augmentation, dropout.
        precision: ``32-true``, or mixed precision: ``bf16-mixed``, ``16-mixed``.
        accelerator: ``auto``, ``cpu`` or ``gpu``.
        devices: processes on this machine; under torchrun its number is taken instead.
        strategy: how several processes work together, a Lightning strategy name.
        progress: show a progress bar.
    """

    out: str = "runs/zsbir"
    epochs: int = 10
    steps_per_epoch: int = 100
    checkpoint_every: int = 100
    log_every: int = 10
    seed: int = 0
    precision: Precision = "32-true"
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    devices: int = 1
    strategy: str = "auto"
    progress: bool = True

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self.epochs * self.steps_per_epoch


@dataclass(frozen=True)
class Settings:
    """A whole training config.

    Attributes:
        method: name of the method.
        model: constructor arguments of its model, without the classes.
        data: data settings.
        optim: optimizer settings.
        run: run settings.
    """

    method: str = "dmwan"
    model: Mapping[str, Any] = field(default_factory=dict)
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    run: RunConfig = field(default_factory=RunConfig)

    def flat(self) -> dict[str, Any]:
        """Return every setting by its dotted key, as on the command line."""
        found: dict[str, Any] = {"method": self.method}
        found.update({f"model.{key}": value for key, value in self.model.items()})
        for name in ("data", "optim", "run"):
            part = vars(getattr(self, name))
            found.update({f"{name}.{key}": value for key, value in part.items()})
        return found


def read_settings(path: str | Path) -> Settings:
    """Read a YAML config as it stands; what it leaves out keeps its default.

    Args:
        path: the file.

    Returns:
        The settings. Types are those of the file: the command line checks them, this does not.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is no YAML of this form, or has an unknown key.
    """
    try:
        with reading("read_settings", path, "config"):
            text = Path(path).read_text(encoding="utf-8")
        require_modest(text)
        stored = yaml.safe_load(text)
    except (ValueError, yaml.YAMLError) as error:
        raise ValueError(
            f"read_settings: path must be a YAML config, got {path}: {reason(error)}"
        ) from error
    parts = {"data": DataConfig, "optim": OptimConfig, "run": RunConfig}
    _require_keys(path, "config", stored, {"method", "model", *parts})
    given = {name: stored.get(name, {}) for name in parts}
    for name, kind in parts.items():
        _require_keys(path, name, given[name], {field.name for field in fields(kind)})
    model = stored.get("model", {})
    if not isinstance(model, dict):
        raise ValueError(f"read_settings: model must be a mapping, got {shown(model)} in {path}")
    return Settings(
        method=stored.get("method", "dmwan"),
        model=model,
        data=DataConfig(**given["data"]),
        optim=OptimConfig(**given["optim"]),
        run=RunConfig(**given["run"]),
    )


def _require_keys(path: str | Path, name: str, part: Any, known: set[str]) -> None:
    if not isinstance(part, dict):
        raise ValueError(f"read_settings: {name} must be a mapping, got {shown(part)} in {path}")
    unknown = [key for key in part if key not in known]
    if unknown:
        raise ValueError(
            f"read_settings: keys of {name} must be among {', '.join(sorted(known))}, got "
            f"{shown(unknown[0])} in {path}"
        )


def write_settings(path: str | Path, settings: Settings) -> None:
    """Write settings as a YAML config that ``zsbir train --config`` takes.

    Args:
        path: the file.
        settings: the settings.
    """
    stored = {
        "method": settings.method,
        "model": json.loads(json.dumps(dict(settings.model))),  # tuples become lists
        **{name: vars(getattr(settings, name)) for name in ("data", "optim", "run")},
    }
    text = yaml.safe_dump(stored, sort_keys=False)
    write_text(path, text)


def check_config(data: DataConfig, optim: OptimConfig, run: RunConfig) -> None:
    """Refuse settings that cannot work, before anything is loaded.

    Args:
        data: data settings.
        optim: optimizer settings.
        run: run settings.

    Raises:
        ValueError: a number is out of its range; the message names the key.
    """
    at_least = [
        ("data.validation_classes", data.validation_classes, 0),
        ("data.classes_per_batch", data.classes_per_batch, 2),
        ("data.sketches_per_class", data.sketches_per_class, 1),
        ("data.photos_per_class", data.photos_per_class, 1),
        ("data.eval_batch_size", data.eval_batch_size, 1),
        ("data.workers", data.workers, 0),
        ("optim.lr_backbone", optim.lr_backbone, 0),
        ("optim.lr_head", optim.lr_head, 0),
        ("optim.weight_decay", optim.weight_decay, 0),
        ("optim.warmup_steps", optim.warmup_steps, 0),
        ("optim.final_lr_ratio", optim.final_lr_ratio, 0),
        ("optim.gradient_clip", optim.gradient_clip, 0),
        ("optim.accumulate", optim.accumulate, 1),
        ("run.epochs", run.epochs, 1),
        ("run.steps_per_epoch", run.steps_per_epoch, 1),
        ("run.checkpoint_every", run.checkpoint_every, 1),
        ("run.log_every", run.log_every, 1),
        ("run.seed", run.seed, 0),
        ("run.devices", run.devices, 1),
    ]
    for key, value, least in at_least:
        if value < least:
            raise ValueError(f"check_config: {key} must be at least {least}, got {shown(value)}")
