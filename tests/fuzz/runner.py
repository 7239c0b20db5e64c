"""A fork server: every case runs in a child process, so that a crash or a hang is a finding.

The parent has imported everything and never enters a parallel region, so that a fork is cheap and
safe. A child works through a batch and tells the outcome of each case on a pipe: what kills it is
the first case without an outcome, and the rest of the batch goes to the next child.
"""

from __future__ import annotations

import faulthandler
import json
import os
import resource
import selectors
import signal
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import torch
from case import Case, CaseId, judge

MEMORY = 2 * 2**30  # what a child may take beyond what it was born with
_THREADS = (1, 1, 2, 3)
_SECONDS_TO_MAKE = 30.0  # of the harness itself, before a case says its own limit


@dataclass(frozen=True)
class Outcome:
    """What came of a case: no complaint, or one, with the call in words."""

    case: CaseId
    complaint: str | None
    says: str


@dataclass
class _Child:
    pid: int
    pipe: int
    batch: list[CaseId]
    errors: IO[bytes]
    deadline: float
    finished: int = 0
    says: str = ""
    buffer: bytes = b""
    killed: bool = False

    def has_more_time_than(self, seconds: float) -> None:
        self.deadline = time.monotonic() + seconds


class Runner:
    """Runs cases in children.

    Args:
        make: gives the case of an id.
        workers: children at a time.
        batch: cases that a child works through.
    """

    def __init__(self, make: Callable[[CaseId], Case], *, workers: int = 2, batch: int = 100):
        self.make, self.workers, self.batch = make, workers, batch

    def run(self, cases: Iterable[CaseId]) -> Iterator[Outcome]:
        """Run cases; every one has an outcome, in the order in which they end."""
        source, rests = iter(cases), deque[list[CaseId]]()
        children: dict[int, _Child] = {}
        selector = selectors.DefaultSelector()
        with tempfile.TemporaryDirectory() as folder:
            try:
                while True:
                    while len(children) < self.workers:
                        batch = rests.popleft() if rests else _take(source, self.batch)
                        if not batch:
                            break
                        child = self._fork(batch, folder)
                        children[child.pipe] = child
                        selector.register(child.pipe, selectors.EVENT_READ)
                    if not children:
                        return
                    for key, _ in selector.select(timeout=0.5):
                        child, data = children[key.fd], os.read(key.fd, 65536)
                        yield from _hear(child, data)
                        if not data:
                            selector.unregister(key.fd)
                            del children[key.fd]
                            yield from _bury(child)
                            rests.extend([rest] if (rest := child.batch[child.finished :]) else [])
                    for child in children.values():
                        if time.monotonic() > child.deadline and not child.killed:
                            child.killed = True
                            os.kill(child.pid, signal.SIGKILL)
            finally:
                for child in children.values():
                    os.kill(child.pid, signal.SIGKILL)
                    os.waitpid(child.pid, 0)

    def _fork(self, batch: list[CaseId], folder: str) -> _Child:
        read, write = os.pipe()
        errors = os.fdopen(os.memfd_create("output of a fuzz child"), "w+b")
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            try:
                os.close(read)
                _work(self.make, batch, write, errors, folder)
            finally:
                os._exit(0)
        os.close(write)
        return _Child(pid, read, batch, errors, time.monotonic() + _SECONDS_TO_MAKE)


def _hear(child: _Child, data: bytes) -> Iterator[Outcome]:
    child.buffer += data
    *lines, child.buffer = child.buffer.split(b"\n")
    for line in lines:
        message = json.loads(line)
        if "begins" in message:
            child.says = message["begins"]
            child.has_more_time_than(message["seconds"])
        else:
            yield Outcome(child.batch[child.finished], message["complaint"], child.says)
            child.finished += 1
            child.says = ""
            child.has_more_time_than(_SECONDS_TO_MAKE)


def _bury(child: _Child) -> Iterator[Outcome]:
    """The case that a child died of, if it did not end by itself."""
    os.close(child.pipe)
    _, status = os.waitpid(child.pid, 0)
    if child.finished < len(child.batch):
        how = "hang" if child.killed else f"crash: {_how(status)}{_last_words(child.errors)}"
        yield Outcome(child.batch[child.finished], how, child.says)
        child.finished += 1
    child.errors.close()


def _work(
    make: Callable[[CaseId], Case], batch: list[CaseId], pipe: int, errors: IO[bytes], folder: str
) -> None:
    """The life of a child."""
    os.dup2(errors.fileno(), 1)
    os.dup2(errors.fileno(), 2)
    faulthandler.enable(errors)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    limit = _data_bytes() + MEMORY
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    os.chdir(tempfile.mkdtemp(dir=folder))
    for case_id in batch:
        torch.set_num_threads(_THREADS[case_id.number % len(_THREADS)])
        torch.manual_seed(case_id.number)
        try:
            case = make(case_id)
            _tell(pipe, begins=case.says, seconds=case.seconds)
            complaint = judge(case)
        except Exception as error:
            complaint = f"the fuzzer failed: {type(error).__name__}: {error}"
        _tell(pipe, complaint=complaint)


def _tell(pipe: int, **message: object) -> None:
    rest = json.dumps(message).encode() + b"\n"
    while rest:
        rest = rest[os.write(pipe, rest) :]


def _data_bytes() -> int:
    status = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return sum(int(line.split()[1]) * 1024 for line in status if line.startswith("VmData:"))


def _take(source: Iterator[CaseId], count: int) -> list[CaseId]:
    return [case for _, case in zip(range(count), source, strict=False)]


def _how(status: int) -> str:
    if os.WIFSIGNALED(status):
        return signal.Signals(os.WTERMSIG(status)).name
    return f"exit {os.WEXITSTATUS(status)}"


def _last_words(errors: IO[bytes]) -> str:
    """The lines of a dead child's output that say where it died."""
    errors.seek(0)
    lines = errors.read().decode(errors="replace").splitlines()
    telling = [line.strip() for line in lines if "zsbir_fast/" in line or "terminate" in line]
    return f" ({'; '.join(telling[:3])[:300]})" if telling else ""
