"""``zsbir train``."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from zsbir_fast.cli.parsing import Parser, shipped_configs

if TYPE_CHECKING:
    from zsbir_fast.runs.settings import Settings

_EXAMPLES = """\
  zsbir train --config dmwan-qd_caltech.yaml --run.out runs/mine
  zsbir train --config runs/mine/config.yaml --resume
  zsbir train --config dmwan-sketchy-25.yaml --data.root /data/Sketchy --optim.lr_backbone 2e-5
  zsbir train --config my.yaml --run.precision bf16-mixed
  torchrun --nproc_per_node 4 -m zsbir_fast.cli train --config dmwan-tuberlin-30.yaml \\
      --data.root /data/TUBerlin
  zsbir train --config dmwan-qd_caltech.yaml --print_config > my.yaml"""


def build_parser() -> Parser:
    """Build the parser: its keys are those of a config file.

    Returns:
        The parser.
    """
    from zsbir_fast.methods.identity import METHODS, NOT_STORED, model_class
    from zsbir_fast.runs.settings import DataConfig, OptimConfig, RunConfig

    parser = Parser(
        "train",
        description="Train a model on the seen classes of a benchmark, choose the checkpoint by "
        "held-out\nseen classes, and test it once on the unseen ones.\n\n"
        f"shipped configs: {', '.join(shipped_configs())}",
        examples=_EXAMPLES,
    )
    parser.add_argument("--config", action="config", help="YAML file, or name of a shipped config")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --run.out")
    parser.add_argument("--method", choices=list(METHODS), default="dmwan", help="the method")
    parser.add_class_arguments(model_class("dmwan"), "model", skip=set(NOT_STORED))
    for name, kind in (("data", DataConfig), ("optim", OptimConfig), ("run", RunConfig)):
        parser.add_argument(f"--{name}", type=kind, default=kind())
    return parser


def parse_settings(argv: Sequence[str]) -> tuple[Settings, bool]:
    """Parse the command's arguments into settings.

    Args:
        argv: arguments after ``train``.

    Returns:
        The settings, and whether to resume.
    """
    from zsbir_fast.runs.settings import DataConfig, OptimConfig, RunConfig, Settings

    parser = build_parser()
    parsed = parser.parse(argv)
    settings = Settings(
        method=parsed.method,
        model=parser.section(parsed, "model"),
        data=DataConfig(**parser.section(parsed, "data")),
        optim=OptimConfig(**parser.section(parsed, "optim")),
        run=RunConfig(**parser.section(parsed, "run")),
    )
    return settings, parsed.resume


def main(argv: Sequence[str]) -> None:
    """Run the command.

    Args:
        argv: arguments after ``train``.

    Raises:
        ValueError: a setting is wrong.
        FileNotFoundError: data or checkpoint are missing.
        RuntimeError: another run is at work in the folder.
        KeyboardInterrupt: Ctrl-C; its text says how to go on.
    """
    settings, resume = parse_settings(argv)

    from zsbir_fast.runs.resume import RunFinished
    from zsbir_fast.runs.run_lock import is_writer, lock_run, say_on_stderr
    from zsbir_fast.runs.settings import check_config
    from zsbir_fast.training.interrupts import TERMINATED

    check_config(settings.data, settings.optim, settings.run)
    out = Path(settings.run.out)
    if resume and not out.is_dir():  # before a folder is made for the lock
        raise FileNotFoundError(f"train: run.out must hold a run to resume, but {out} is missing")
    try:
        with lock_run(out, say=say_on_stderr):
            _run(settings, resume=resume)
    except RunFinished as finished:
        if is_writer():
            sys.stdout.write(f"{finished}\n")
    except KeyboardInterrupt:
        raise KeyboardInterrupt(_how_to_go_on(out)) from None
    except SystemExit as stop:
        if stop.code == TERMINATED:
            say_on_stderr(f"terminated{_how_to_go_on(out)}")
        raise


def _how_to_go_on(out: Path) -> str:
    from zsbir_fast.methods.checkpoint_files import LAST, PREVIOUS

    if not any((out / "checkpoints" / name).is_file() for name in (LAST, PREVIOUS)):
        return " before the first checkpoint; the same command starts anew"
    return f"; go on with: zsbir train --config {shlex.quote(str(out / 'config.yaml'))} --resume"


def _run(settings: Settings, *, resume: bool) -> None:
    from zsbir_fast.runs.baselines import chance_level
    from zsbir_fast.runs.curves import read_curves
    from zsbir_fast.runs.explain import explain_seen_pairs
    from zsbir_fast.runs.results import (
        result_table,
        table_text,
        write_metrics,
        write_per_class,
    )
    from zsbir_fast.runs.run_report import PRETRAINING_NOTE, report_run
    from zsbir_fast.runs.train import evaluate_unseen, train

    start = time.perf_counter()
    out = Path(settings.run.out)
    model, benchmark, fitted = train(settings, resume=resume)
    trained = evaluate_unseen(
        model,
        benchmark.test_sketches,
        benchmark.test_photos,
        batch_size=settings.data.eval_batch_size,
        workers=settings.data.workers,
        device=fitted.device,
        progress=settings.run.progress and fitted.is_first,
    )
    if not fitted.is_first:
        return
    results = {
        "chance": chance_level(benchmark.test_sketches.labels, benchmark.test_photos.labels),
        "trained": trained.result,
    }
    seconds = time.perf_counter() - start
    write_per_class(out / "per_class.csv", trained.result, dict(enumerate(benchmark.unseen)))
    report_run(
        out / "report.html",
        benchmark,
        results,
        trained,
        title=f"{settings.method} on {benchmark.name}",
        lead=f"Trained for {fitted.steps} steps on {len(benchmark.seen)} seen classes; the unseen "
        "ones were looked at once, after training.",
        curves=read_curves(out / "logs"),
        settings=settings.flat(),
        notes=[PRETRAINING_NOTE],
        explained=explain_seen_pairs(model, benchmark, device=fitted.device),
    )
    # Last, as the mark of a run that is finished: it says how far the report goes.
    write_metrics(
        out / "metrics.json",
        results,
        steps=fitted.steps,
        best_step=fitted.best_step,
        seconds=round(seconds, 1),
    )
    table = table_text(result_table("", results))
    sys.stdout.write(
        f"\n{table}\n\n{trained.result.definition}\n\n"
        f"{out / 'report.html'}\n{out / 'model'}: for zsbir eval --model\n"
    )
