"""``zsbir train``."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zsbir_fast._words import did_you_mean
from zsbir_fast.cli.parsing import (
    Parser,
    read_config,
    shipped_configs,
    with_config_paths,
)

if TYPE_CHECKING:
    from zsbir_fast.runs.settings import Settings
    from zsbir_fast.runs.train import TrainedRun

_EXAMPLES = """\
  zsbir train --config dmwan-qd_caltech.yaml --run.out runs/mine
  zsbir train --config runs/mine/config.yaml --resume
  zsbir train --config dmwan-sketchy-25.yaml --data.root /data/Sketchy --optim.lr_backbone 2e-5
  zsbir train --config my.yaml --run.precision bf16-mixed
  torchrun --nproc_per_node 4 -m zsbir_fast.cli train --config dmwan-tuberlin-30.yaml \\
      --data.root /data/TUBerlin
  zsbir train --config dmwan-qd_caltech.yaml --print_config > my.yaml"""


def build_parser(method: str = "dmwan") -> Parser:
    """Build the parser: its keys are those of a config file.

    Args:
        method: the method whose arguments ``--model.*`` takes.

    Returns:
        The parser.

    Raises:
        ValueError, TypeError: there is no such method, or it lacks a member of the contract.
    """
    from zsbir_fast.methods.registry import method_class, method_names
    from zsbir_fast.runs.settings import SECTIONS

    kind = method_class(method)
    parser = Parser(
        "train",
        description="Train a model on the seen classes of a benchmark, choose the checkpoint by "
        "held-out\nseen classes, and test it once on the unseen ones.\n\n"
        f"--model.* below are the arguments of the method {method}; --method NAME --help shows "
        f"those of another\none of {', '.join(method_names())}.\n"
        f"shipped configs: {', '.join(shipped_configs())}",
        examples=_EXAMPLES,
    )
    parser.add_argument("--config", action="config", help="YAML file, or name of a shipped config")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --run.out")
    parser.add_argument("--method", choices=method_names(), default=method, help="the method")
    parser.add_class_arguments(kind, "model", skip={"classes", *kind.data_arguments})
    for name, part in SECTIONS.items():
        parser.add_argument(f"--{name}", type=part, default=part())
    return parser


def parse_settings(argv: Sequence[str]) -> tuple[Settings, bool]:
    """Parse the command's arguments into settings.

    Args:
        argv: arguments after ``train``.

    Returns:
        The settings, and whether to resume.
    """
    from zsbir_fast.runs.settings import SECTIONS, Settings

    try:
        arguments = with_config_paths(argv)
        configs = {path: read_config(path) for path in _values_of("--config", arguments)}
        method = _chosen_method(arguments, configs)
        parser = build_parser(method)
        _require_own_arguments(method, arguments)
    except (ValueError, TypeError) as error:
        build_parser().error(str(error))
    for path, config in configs.items():
        parser.require_known_keys(path, config)
    parsed = parser.parse(arguments)
    settings = Settings(
        method=parsed.method,
        model=parser.section(parsed, "model"),
        **{name: kind(**parser.section(parsed, name)) for name, kind in SECTIONS.items()},
    )
    return settings, parsed.resume


def _require_own_arguments(method: str, arguments: Sequence[str]) -> None:
    """Refuse ``--model.*`` of another method, and say whose it is."""
    from zsbir_fast.methods.arguments import argument_names
    from zsbir_fast.methods.registry import method_class, method_names

    names = argument_names(method_class(method))
    for argument in arguments:
        key = argument.partition("=")[0]
        name = key.removeprefix("--model.")
        if name != key and name not in names:
            others = (other for other in method_names() if other != method)
            owners = [other for other in others if name in _arguments_of(other)]
            whose = f"one of {', '.join(owners)}" if owners else "none"
            raise ValueError(
                f"{key} must be an argument of the method {method}, got {whose}"
                f"{did_you_mean(name, names)}"
            )


def _arguments_of(method: str) -> list[str]:
    from zsbir_fast.methods.arguments import argument_names
    from zsbir_fast.methods.registry import method_class

    try:
        return argument_names(method_class(method))
    except (ValueError, TypeError):  # another package's, and broken: not what was asked for
        return []


def _values_of(key: str, arguments: Sequence[str]) -> list[str]:
    """Find the values of an option before the arguments can be parsed."""
    values: list[str] = []
    for place, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name == key:
            values += [value] if equals else arguments[place + 1 : place + 2]
    return values


def _chosen_method(arguments: Sequence[str], configs: Mapping[str, Any]) -> str:
    """Find the method: on the command line, else in a config."""
    chosen = {f"--method says {name!r}": name for name in _values_of("--method", arguments)[-1:]}
    for path, config in configs.items():
        name = config.get("method") if isinstance(config, dict) else None
        if isinstance(name, str):
            chosen[f"{path} is of method {name!r}"] = name
    if len(set(chosen.values())) > 1:
        raise ValueError(
            "a run has one method, and arguments of another do not fit it, but "
            f"{' and '.join(chosen)}"
        )
    return next(iter(chosen.values()), "dmwan")


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
    from zsbir_fast.runs.run_lock import is_writer, say_on_stderr
    from zsbir_fast.runs.train import train
    from zsbir_fast.training.interrupts import TERMINATED

    out = Path(settings.run.out)
    try:
        run = train(settings, resume=resume)
    except RunFinished as finished:
        if is_writer():
            sys.stdout.write(f"{finished}\n")
        return
    except KeyboardInterrupt:
        raise KeyboardInterrupt(_how_to_go_on(out)) from None
    except SystemExit as stop:
        if stop.code == TERMINATED:
            say_on_stderr(f"terminated{_how_to_go_on(out)}")
        raise
    if run.is_first:
        sys.stdout.write(_summary(out, run))


def _how_to_go_on(out: Path) -> str:
    from zsbir_fast.methods.checkpoint_files import LAST, PREVIOUS

    if not any((out / "checkpoints" / name).is_file() for name in (LAST, PREVIOUS)):
        return " before the first checkpoint; the same command starts anew"
    return f"; go on with: zsbir train --config {shlex.quote(str(out / 'config.yaml'))} --resume"


def _summary(out: Path, run: TrainedRun) -> str:
    from zsbir_fast.runs.results import result_table, table_text

    table = table_text(result_table("", run.outcome.table))
    rankings = "".join(f"{line}\n" for line in run.outcome.rankings)
    return (
        f"\n{table}\n\n{run.result.definition}\n{rankings}{run.parameters}\n\n"
        f"{out / 'report.html'}\n{out / 'model'}: for zsbir eval --model\n"
    )
