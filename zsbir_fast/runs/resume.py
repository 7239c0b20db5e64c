"""Taking up a run: which checkpoint, with which settings, and how much is left."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zsbir_fast._words import shown
from zsbir_fast.methods.checkpoint_files import LAST, PREVIOUS, read_checkpoint
from zsbir_fast.runs.run_lock import Say
from zsbir_fast.runs.settings import Settings

_FREE = frozenset(
    {
        "method",  # the checkpoint's identity says these
        "data.root",
        "data.workers",
        "data.eval_batch_size",
        "run.out",
        "run.epochs",
        "run.checkpoint_every",
        "run.log_every",
        "run.precision",
        "run.accelerator",
        "run.devices",
        "run.strategy",
        "run.progress",
    }
)
"""Settings that may change when a run is taken up; the others decide its weights."""


class RunFinished(RuntimeError):
    """All steps of a run are done and its results are written: nothing is left to do."""


@dataclass(frozen=True)
class Begun:
    """A run that was begun.

    Attributes:
        path: the checkpoint to go on from.
        steps: optimizer steps done.
        best: best validation so far, None without validation.
        best_step: optimizer step of it.
        course: the result of ``course_of`` when it was written.
        identity: the stored ``ModelIdentity`` of the model.
    """

    path: Path
    steps: int
    best: float | None
    best_step: int
    course: Mapping[str, Any]
    identity: Mapping[str, Any]


def course_of(settings: Settings) -> dict[str, Any]:
    """Return the settings that decide which weights a run comes to, as plain values.

    Args:
        settings: the whole config.

    Returns:
        Dotted key -> value. Of the model nothing is in it: its identity is stored by itself.
    """
    flat = {k: v for k, v in settings.flat().items() if not k.startswith(("model.", "rerank."))}
    course = {key: value for key, value in flat.items() if key not in _FREE}
    plain: dict[str, Any] = json.loads(json.dumps({**course, "run.epochs": settings.run.epochs}))
    return plain


def find_begun(out: str | Path, *, say: Say) -> Begun:
    """Find the newest whole checkpoint of a run. A damaged one is put aside, not deleted.

    Args:
        out: folder of the run.
        say: gets a line where the newest checkpoint cannot be used.

    Returns:
        Where to go on.

    Raises:
        FileNotFoundError: there is no checkpoint.
        ValueError: none of them can be used.
    """
    folder = Path(out) / "checkpoints"
    there = [path for path in (folder / LAST, folder / PREVIOUS) if path.is_file()]
    if not there:
        raise FileNotFoundError(
            f"train: run.out must hold a run to resume, but {folder / LAST} is missing"
        )
    faults = [] if there[0].name == LAST else [f"{folder / LAST} is missing"]
    for path in there:
        try:
            begun = _read(path)
        except ValueError as error:
            faults.append(str(error))
            continue
        if faults:
            say(f"{faults[0]}; going on from {path}, {begun.steps} steps into the run")
        return begun
    raise ValueError("; ".join(faults))


def put_damaged_aside(begun: Begun) -> None:
    """Rename a newest checkpoint that was passed over, or it would replace the whole one.

    Args:
        begun: the result of ``find_begun``.
    """
    newest = begun.path.with_name(LAST)
    if begun.path != newest and newest.is_file():
        os.replace(newest, newest.with_name("damaged.ckpt"))


def require_same_course(settings: Settings, begun: Begun) -> None:
    """Refuse to go on with a run under settings that would make it another one.

    Args:
        settings: the settings that are asked for.
        begun: the run as it was begun.

    Raises:
        ValueError: a setting other than ``run.epochs`` differs; the message names it.
    """
    asked = course_of(settings)
    for key in sorted((asked.keys() | begun.course.keys()) - {"run.epochs"}):
        was, now = begun.course.get(key), asked.get(key)
        if was != now:
            raise ValueError(
                f"train: {key} must stay {shown(was)}, as the run in {settings.run.out} was begun "
                f"with, got {shown(now)}; a new run needs another run.out"
            )


def require_unfinished(settings: Settings, begun: Begun) -> None:
    """Stop where nothing is left to do.

    Args:
        settings: the settings that are asked for.
        begun: the run.

    Raises:
        RunFinished: its steps are done, no more are asked for, and its model and report are
            written.
    """
    out = Path(settings.run.out)
    whole = begun.course["run.epochs"] * settings.run.steps_per_epoch
    done = begun.steps >= max(whole, settings.run.total_steps)
    written = all((out / name).is_file() for name in ("model/model.json", "report.html"))
    if done and written and _reported_steps(out) == begun.steps:
        raise RunFinished(
            f"the run in {out} is finished: {begun.steps} steps are done, "
            f"{settings.run.total_steps} are asked for; nothing was written"
        )


def require_possible_length(settings: Settings, begun: Begun) -> None:
    """Refuse a length that the run cannot have any more.

    Args:
        settings: the settings that are asked for.
        begun: the run, not finished or to be made longer.

    Raises:
        ValueError: ``run.epochs`` differs where the learning rates depend on it, or is less than
            the epochs that are done.
    """
    was, now = begun.course["run.epochs"], settings.run.epochs
    if was != now and settings.optim.schedule != "constant":
        raise ValueError(
            f"train: run.epochs must stay {was}, as the run in {settings.run.out} was begun with, "
            f"got {now}: optim.schedule={settings.optim.schedule} spreads the learning rates over "
            "the whole run, so that only runs with optim.schedule=constant can change their length"
        )
    if settings.run.total_steps < begun.steps:
        least = math.ceil(begun.steps / settings.run.steps_per_epoch)
        raise ValueError(
            f"train: run.epochs must be at least {least}, as the run in {settings.run.out} has "
            f"done {begun.steps} steps, got {now}"
        )


def _reported_steps(out: Path) -> Any:
    try:
        return json.loads((out / "metrics.json").read_text(encoding="utf-8")).get("steps")
    except (OSError, ValueError, AttributeError):  # absent or no longer ours: written anew
        return None


def _read(path: Path) -> Begun:
    stored = read_checkpoint(path)
    callbacks = stored.get("callbacks")
    state = callbacks.get("ValidateAndSave") if isinstance(callbacks, dict) else None
    course, steps = stored.get("course"), stored.get("steps")
    if not (
        isinstance(state, dict)
        and isinstance(state.get("best_step"), int)
        and isinstance(state.get("best"), (float, type(None)))
        and isinstance(course, dict)
        and isinstance(course.get("run.epochs"), int)
        and isinstance(steps, int)
        and isinstance(stored.get("loops"), dict)
        and isinstance(stored.get("optimizer_states"), list)
    ):
        raise ValueError(
            f"train: {path} must be a whole checkpoint of a run, got one without the state of its "
            "training"
        )
    return Begun(path, steps, state["best"], state["best_step"], course, stored["zsbir"])
