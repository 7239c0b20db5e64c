"""Work in a process of its own: a clean fork of a server that has only imported torch."""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import traceback
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any


def call_apart(job: Callable[..., Any], arguments: tuple[Any, ...], timeout_s: float) -> Any | str:
    """``job(*arguments)`` in a fresh process; the reason as a string if it gave no answer."""
    forks = "forkserver" in multiprocessing.get_all_start_methods()
    context: Any = multiprocessing.get_context("forkserver" if forks else "spawn")
    if forks:
        context.set_forkserver_preload(["torch"])  # imported once; starts no thread pool
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(job, arguments, sender))
    process.start()
    sender.close()
    try:
        if not receiver.poll(timeout_s):
            process.kill()
            return f"no result within {timeout_s:.0f} s"
        return receiver.recv()
    except EOFError:
        process.join()
        return f"the process ended with code {process.exitcode} (out of memory?)"
    finally:
        process.join(2.0)
        process.kill()
        process.join()


def _child(job: Callable[..., Any], arguments: tuple[Any, ...], out: Connection) -> None:
    try:
        warnings.simplefilter("ignore")  # of third-party packages, on a terminal that shows a table
        with contextlib.redirect_stdout(io.StringIO()):
            out.send(job(*arguments))
    except Exception as problem:
        if os.environ.get("ZSBIR_BENCH_TRACE"):
            traceback.print_exc()
        out.send(f"{type(problem).__name__}: {problem}".splitlines()[0])
