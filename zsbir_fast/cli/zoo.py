"""``zsbir zoo``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from zsbir_fast.cli.parsing import Parser, find_config, shipped_configs

_EXAMPLES = """\
  zsbir zoo dmwan-qd_caltech cmaan-qd_caltech finetune-qd_caltech --out runs/zoo
  zsbir zoo dmwan-qd_caltech --encoders bundled:mobilenet_v2 bundled:efficientnet_lite0
  zsbir zoo dmwan-sketchy-25 finetune-sketchy-25-clip-b32 --data.root /data/Sketchy
  zsbir zoo my.yaml dmwan-qd_caltech --epochs 1                  a very short training of each

The same command goes on where it was stopped, and adds the rows of further configs, encoders and
seeds."""


def main(argv: Sequence[str]) -> None:
    """Run the command.

    Args:
        argv: arguments after ``zoo``.

    Raises:
        ValueError: a setting is wrong, or a run of several failed.
        FileNotFoundError: a config or the data is missing.
        RuntimeError: another process runs in the folder.
        KeyboardInterrupt: Ctrl-C; its text says how to go on.
    """
    parser = Parser(
        "zoo",
        description="Train several methods, with several encoders, from several seeds, and compare "
        "them on one\nbenchmark by one evaluation. Frozen encoders stand in the same table. "
        f"Shipped configs:\n{', '.join(shipped_configs())}",
        examples=_EXAMPLES,
    )
    parser.add_argument("configs", nargs="+", help="YAML files, or names of shipped configs")
    parser.add_argument(
        "--encoders", type=str, nargs="+", default=[],
        help="train each config with each of these; unset: with its own",
    )  # fmt: skip
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="seeds of the trainings")
    parser.add_argument("--out", default="zsbir-zoo", help="folder of all runs and of the table")
    parser.add_argument("--data.root", type=str | None, help="folder of the benchmark")
    parser.add_argument("--epochs", type=int | None, help="length of every run; unset: its own")
    parser.add_argument("--progress", type=bool, default=True, help="show progress bars")
    arguments = parser.parse(argv)
    try:
        paths = [find_config(name) for name in arguments.configs]
    except ValueError as error:
        parser.error(str(error).replace("--config must", "configs must"))

    from zsbir_fast.runs.settings import read_settings
    from zsbir_fast.runs.zoo import plan_zoo, run_zoo

    configs = {}
    for path in paths:
        settings = read_settings(path)
        root, epochs = arguments.data.root, arguments.epochs
        data = settings.data if root is None else replace(settings.data, root=root)
        run = replace(settings.run, progress=arguments.progress)
        run = run if epochs is None else replace(run, epochs=epochs)
        name = Path(path).stem
        if name in configs:
            parser.error(f"configs must have names of their own, got {name!r} twice")
        configs[name] = replace(settings, data=data, run=run)
    try:
        runs = plan_zoo(configs, arguments.out, encoders=arguments.encoders, seeds=arguments.seeds)
    except (ValueError, TypeError) as error:
        parser.error(str(error))
    try:
        zoo = run_zoo(runs, arguments.out)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("; the same command goes on") from None
    sys.stdout.write(f"\n{zoo.text}\n\n{zoo.out / 'zoo.html'}\n")
    if zoo.failed:
        raise ValueError(f"run_zoo: {len(zoo.failed)} of {len(runs)} runs failed, see above")
