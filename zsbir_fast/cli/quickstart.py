"""``zsbir quickstart``."""

from __future__ import annotations

from collections.abc import Sequence

from zsbir_fast.cli.parsing import Parser

_EXAMPLES = """\
  zsbir quickstart
  zsbir quickstart --out first-look --seed 1
  zsbir quickstart --epochs 1                       a very short training"""


def main(argv: Sequence[str]) -> None:
    """Run the command.

    Args:
        argv: arguments after ``quickstart``.

    Raises:
        ValueError: the folder holds something else.
        RuntimeError: another process works in the folder.
        KeyboardInterrupt: Ctrl-C; its text says how to go on.
    """
    parser = Parser(
        "quickstart",
        description="Train DM-WAN on the bundled real benchmark (37 seen classes, sketches and "
        "photos),\nsearch 10 unseen classes, and write a report. Minutes on two cores, no network.",
        examples=_EXAMPLES,
    )
    parser.add_argument("--out", default="zsbir-quickstart", help="folder to write")
    parser.add_argument("--seed", type=int, default=0, help="seed of the training")
    parser.add_argument("--epochs", type=int | None, default=None, help="shipped number if unset")
    parser.add_argument("--progress", type=bool, default=True, help="show progress bars")
    arguments = parser.parse(argv)
    if arguments.epochs is not None and arguments.epochs < 1:
        parser.error(f"--epochs must be at least 1, got {arguments.epochs}")
    if arguments.seed < 0:
        parser.error(f"--seed must be at least 0, got {arguments.seed}")

    from zsbir_fast.runs.quickstart import quickstart

    try:
        quickstart(
            arguments.out,
            seed=arguments.seed,
            epochs=arguments.epochs,
            progress=arguments.progress,
            say=_say,
        )
    except KeyboardInterrupt:
        raise KeyboardInterrupt("; the same command starts anew") from None


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201
