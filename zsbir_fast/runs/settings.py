"""The settings of a training run, typed: the keys of YAML configs and of the command line."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from zsbir_fast._files import reading, write_text
from zsbir_fast._words import reason, shown
from zsbir_fast.methods.arguments import flat_arguments, plain_arguments, typed_arguments
from zsbir_fast.methods.registry import method_class
from zsbir_fast.methods.settings import DataConfig, OptimConfig
from zsbir_fast.ranking.rerank import RerankOptions
from zsbir_fast.runs.yaml_limits import require_modest
from zsbir_fast.training.run_config import RunConfig

SECTIONS: dict[str, type[Any]] = {
    "data": DataConfig,
    "optim": OptimConfig,
    "rerank": RerankOptions,
    "run": RunConfig,
}
"""Sections of a config beside ``method`` and ``model``."""


@dataclass(frozen=True)
class Settings:
    """A whole training config.

    Attributes:
        method: name of the method.
        model: constructor arguments of the method, without the classes; groups of them as
            mappings or as their dataclasses.
        data: data settings.
        optim: optimizer settings.
        rerank: how the test on unseen classes is re-ranked, beside the plain ranking.
        run: run settings.
    """

    method: str = "dmwan"
    model: Mapping[str, Any] = field(default_factory=dict)
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    rerank: RerankOptions = field(default_factory=RerankOptions)
    run: RunConfig = field(default_factory=RunConfig)

    def plain_model(self) -> dict[str, Any]:
        """Return all arguments of the method, as files hold them.

        Raises:
            ValueError: the method or an argument is unknown, or an argument is missing.
        """
        return plain_arguments(self.method, method_class(self.method), self.model)

    def flat(self) -> dict[str, Any]:
        """Return every setting by its dotted key, as on the command line."""
        found: dict[str, Any] = {"method": self.method}
        model = flat_arguments(self.plain_model())
        found.update({f"model.{key}": value for key, value in model.items()})
        for name in SECTIONS:
            part = vars(getattr(self, name))
            found.update({f"{name}.{key}": value for key, value in part.items()})
        return found


def read_settings(path: str | Path) -> Settings:
    """Read a YAML config as it stands; keys that it leaves out keep their defaults.

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
    except OSError:
        raise
    except Exception as error:  # tags of YAML raise many kinds
        raise ValueError(
            f"read_settings: path must be a YAML config, got {path}: {reason(error)}"
        ) from error
    _require_keys(path, "config", stored, {"method", "model", *SECTIONS})
    given = {name: stored.get(name, {}) for name in SECTIONS}
    for name, kind in SECTIONS.items():
        _require_keys(path, name, given[name], {field.name for field in fields(kind)})
    model = stored.get("model", {})
    if not isinstance(model, dict):
        raise ValueError(f"read_settings: model must be a mapping, got {shown(model)} in {path}")
    method = stored.get("method", "dmwan")
    try:
        typed_arguments(method, method_class(method), model)
    except (ValueError, TypeError) as error:
        raise ValueError(f"read_settings: {reason(error)}, in {path}") from error
    return Settings(
        method=method,
        model=model,
        **{name: kind(**given[name]) for name, kind in SECTIONS.items()},
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
        "model": settings.plain_model(),
        **{name: vars(getattr(settings, name)) for name in SECTIONS},
    }
    text = yaml.safe_dump(stored, sort_keys=False)
    write_text(path, text)


def check_settings(settings: Settings) -> None:
    """Refuse settings that cannot work, before anything is loaded.

    Args:
        settings: the whole config.

    Raises:
        ValueError: a number is out of its range, or an argument of the method is unknown or
            missing; the message names the key.
        TypeError: a folder is not given as text.
    """
    data, optim, run = settings.data, settings.optim, settings.run
    settings.plain_model()
    for key, place in (("data.root", data.root or ""), ("run.out", run.out)):
        if not isinstance(place, str):
            raise TypeError(f"check_settings: {key} must be text, got {shown(place)}")
    at_least = [
        ("data.validation_classes", data.validation_classes, 0),
        ("data.classes_per_batch", data.classes_per_batch, 2),
        ("data.sketches_per_class", data.sketches_per_class, 1),
        ("data.photos_per_class", data.photos_per_class, 1),
        ("data.batch_size", data.batch_size, 2),
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
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"check_settings: {key} must be a finite number, got {shown(value)}")
        if value < least:
            raise ValueError(f"check_settings: {key} must be at least {least}, got {shown(value)}")
    if not 0 <= data.label_noise <= 1:
        raise ValueError(
            f"check_settings: data.label_noise must be from 0 to 1, got {shown(data.label_noise)}"
        )
    if not 0 < data.sketch_share < 1:
        raise ValueError(
            "check_settings: data.sketch_share must be between 0 and 1, got "
            f"{shown(data.sketch_share)}"
        )
    if optim.schedule == "exponential" and optim.final_lr_ratio == 0:
        raise ValueError(
            "check_settings: optim.final_lr_ratio must be above 0 for an exponential schedule, got "
            f"{shown(optim.final_lr_ratio)}"
        )
