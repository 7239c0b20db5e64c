"""Entry of the command line: chooses the command, turns errors into one line and an exit code."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TextIO, cast

from zsbir_fast._words import shown

# command -> (module with main(argv), its line in the overview)
COMMANDS = {
    "quickstart": (
        "quickstart",
        "train on the bundled real benchmark, write a report",
    ),
    "train": ("train", "train a model from a YAML config, resume a run"),
    "eval": ("evaluate", "evaluate a trained model, or ready features"),
    "describe": ("describe", "describe classes with a language model, for the text of methods"),
    "bench": ("bench", "measure the installed kernels against plain PyTorch"),
    "env": ("env", "print versions, what was built, and why something is not"),
}

_EXAMPLES = """\
examples:
  zsbir quickstart                                  see it work, with a report
  zsbir train --config dmwan-qd_caltech.yaml        train on the bundled benchmark
  zsbir train --config dmwan-sketchy-25.yaml --data.root /data/Sketchy
  zsbir eval --model runs/dmwan-sketchy-25/model --data.root /data/Sketchy
  zsbir eval --queries q.npz --gallery g.npz        evaluate embeddings of any origin
  zsbir describe qd_caltech --model gpt-4o-mini --out descriptions.json
  zsbir COMMAND --help                              options and examples of a command

exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted. ZSBIR_DEBUG=1 shows tracebacks.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: arguments without the program's name; None takes those of the process.

    Returns:
        The exit code: 0 done, 1 failed, 2 wrong usage, 130 interrupted, 143 terminated.
    """
    with _tolerant_output() as output:
        code = _dispatch(argv)
        output.flush()
        # A closed pipe has seen enough; anything else that output cannot take is a failure.
        if output.error is not None and not isinstance(output.error, BrokenPipeError):
            code = _complain(f"standard output: {output.error.strerror}", code or 1)
    return code


def _dispatch(argv: Sequence[str] | None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    if "torch" not in sys.modules:
        # Idle threads that spin make a training step several times slower as soon as another
        # program wants a core. OpenMP reads this when torch loads it.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if not arguments or arguments[0] in ("-h", "--help"):
        sys.stdout.write(_help())
        return 0 if arguments else 2
    if arguments[0] == "--version":
        from zsbir_fast import __version__

        sys.stdout.write(f"zsbir {__version__}\n")
        return 0
    command, *rest = arguments
    if command not in COMMANDS:
        near = difflib.get_close_matches(command, COMMANDS, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        return _complain(
            f"command must be one of {', '.join(COMMANDS)}, got {shown(command)}{hint}", 2
        )
    return _run(command, rest)


def _run(command: str, arguments: list[str]) -> int:
    try:
        module = importlib.import_module(f"zsbir_fast.cli.{COMMANDS[command][0]}")
        module.main(arguments)
    except SystemExit as stop:  # jsonargparse: 0 after --help, 2 after wrong usage
        return stop.code if isinstance(stop.code, int) else 1
    except KeyboardInterrupt as stop:  # its text, if any, says how to go on
        return _complain(f"interrupted{stop}", 130)
    except (ValueError, TypeError, OSError, RuntimeError, ImportError, MemoryError) as error:
        if os.environ.get("ZSBIR_DEBUG") == "1":
            raise
        return _complain(" ".join(str(error).split()) or type(error).__name__, 1)
    return 0


def _complain(message: str, code: int) -> int:
    with suppress(OSError):
        sys.stderr.write(f"zsbir: error: {message}\n")
        sys.stderr.flush()
    return code


class _Tolerant:
    """A text stream that never stops a command: it drops a text it cannot write, and remembers why.

    So a command writes its files even if the reader of its output is gone.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.error: OSError | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        self._try(self.stream.write, text)
        return len(text)

    def flush(self) -> None:
        self._try(self.stream.flush)

    def _try(self, act: Any, *arguments: Any) -> None:
        if self.error is not None:
            return
        try:
            act(*arguments)
        except OSError as error:
            self.error = error
            _discard_rest(self.stream)


def _discard_rest(stream: TextIO) -> None:
    """Python writes the rest once more when it ends: send that nowhere."""
    with suppress(OSError, ValueError):
        handle = stream.fileno()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, handle)
        os.close(nowhere)


@contextmanager
def _tolerant_output() -> Iterator[_Tolerant]:
    """Print through ``_Tolerant`` streams; a stream that was closed at the start is nowhere."""
    before = sys.stdout, sys.stderr
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        output, errors = (_Tolerant(stream or nowhere) for stream in before)
        sys.stdout, sys.stderr = cast(TextIO, output), cast(TextIO, errors)
        try:
            yield output
        finally:
            errors.flush()
            sys.stdout, sys.stderr = before


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {does}" for name, (_, does) in COMMANDS.items()]
    return (
        "usage: zsbir COMMAND [options]\n\n"
        "Zero-shot sketch-based image retrieval: train, evaluate, measure.\n\n"
        "commands:\n" + "\n".join(lines) + "\n\n" + _EXAMPLES
    )
