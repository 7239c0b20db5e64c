"""One run per folder: a lock that vanishes with its process."""

from __future__ import annotations

import fcntl
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_only

Say = Callable[[str], object]
LOCK = ".lock"
"""Name of the lock in a folder; it says who holds it, and stays behind empty."""

_LONGEST = 200
_holders: dict[tuple[int, int], int] = {}  # (device, inode) of a lock -> thread that holds it
_handles: set[int] = set()


def _forget_in_child() -> None:
    """A forked worker of a killed run must not keep its lock."""
    for handle in _handles:
        os.close(handle)
    _handles.clear()
    _holders.clear()


os.register_at_fork(after_in_child=_forget_in_child)


def say_on_stderr(line: str) -> None:
    """Print a line for the user, from the first process of a run only."""
    if is_writer():
        sys.stderr.write(f"zsbir: {line}\n")


def is_writer() -> bool:
    """Whether this process is the one of its run that writes files: the first."""
    return int(getattr(rank_zero_only, "rank", 0)) == 0


@contextmanager
def lock_run(folder: str | Path, *, say: Say) -> Iterator[None]:
    """Keep a folder for this run; a thread that holds it may ask again.

    Of the processes of one run only the first locks. The operating system lifts the lock when the
    process ends, however it ends.

    Args:
        folder: folder of the run; made if needed.
        say: gets a line where an ended run left its lock behind.

    Raises:
        RuntimeError: another process runs in the folder; the message says which one and where.
    """
    if not is_writer():
        yield
        return
    Path(folder).mkdir(parents=True, exist_ok=True)
    path = Path(folder) / LOCK
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    status = os.fstat(handle)
    key = (status.st_dev, status.st_ino)
    if _holders.get(key) == threading.get_ident():
        os.close(handle)
        yield
        return
    _handles.add(handle)
    try:
        _take(handle, path, say)
        _holders[key] = threading.get_ident()
        try:
            yield
        finally:
            del _holders[key]
            os.ftruncate(handle, 0)
    finally:
        _handles.discard(handle)
        os.close(handle)


def _take(handle: int, path: Path, say: Say) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = _read(handle) or "another process"
        raise RuntimeError(
            f"lock_run: folder must be free of other runs, got {path.parent}, where {holder} is at "
            "work; wait for it, or choose another folder"
        ) from None
    except OSError as error:
        say(f"{path.parent} cannot be locked ({error.strerror}): let no other run write there")
    holder = _read(handle)
    if holder:
        say(f"{path.parent} was locked by {holder}, which has ended: this run takes over")
    os.ftruncate(handle, 0)
    os.pwrite(handle, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)


def _read(handle: int) -> str:
    return os.pread(handle, _LONGEST, 0).decode(errors="replace")
