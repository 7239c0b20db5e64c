"""Files that are whole or absent, never half written. Standard library only."""

from __future__ import annotations

import errno
import io
import os
import re
import secrets
import shutil
import socket
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from zsbir_fast._words import reason, shortened

_SUFFIX = ".zsbir-part"
_PART = re.compile(r"\.(?P<pid>\d{1,9})-\w+@(?P<host>.+)" + re.escape(_SUFFIX))
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EACCES)  # folders of some file systems
_DAY = 86_400.0
_writing: set[str] = set()  # names of the temporary files that this process has open


def write_atomically(
    path: str | Path, write: Callable[[io.RawIOBase], object], *, keep_as: str | Path | None = None
) -> None:
    """Let ``write`` fill a temporary file beside ``path``, then put it in place in one step.

    A reader, or a run that is killed meanwhile, sees the old file or the new one, never a part;
    and what is in place is on the disk. A new file has the permissions that the umask leaves, an
    old one keeps its own. A symbolic link stays, and its target is replaced.

    Args:
        path: the file to write; its folder is made if needed.
        write: gets a binary stream that can be written to, not read, and has no position.
        keep_as: the file that was at ``path`` gets this name, in the same folder.

    Raises:
        ValueError: ``path`` is there and is no file.
        OSError: the file cannot be written; where space lacks, the text says how much.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        raise ValueError(f"write_atomically: path must be a file, got {path}")
    _make_folder(target.parent)
    remove_leftovers(target.parent)
    name = f".{os.getpid()}-{secrets.token_hex(6)}@{socket.gethostname()[:64]}{_SUFFIX}"
    temporary = target.with_name(name)
    _writing.add(name)
    try:
        _fill(temporary, target, write)
        if keep_as is not None and target.exists():
            os.replace(target, target.with_name(Path(keep_as).name))
        os.replace(temporary, target)
        _sync_folder(target.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    finally:
        _writing.discard(name)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file in one step, as UTF-8 and with the line ends of ``text``.

    Args:
        path: the file.
        text: its content.
    """
    content = text.encode("utf-8")
    write_atomically(path, lambda stream: stream.write(content))


@contextmanager
def reading(function: str, path: str | os.PathLike[str], what: str) -> Iterator[None]:
    """While a file is read, let errors of the system name the function and the file.

    Args:
        function: whom the error text names.
        path: the file.
        what: its kind, e.g. ``"list file"``.

    Raises:
        TypeError: ``path`` is no path.
        FileNotFoundError: no such file.
        OSError: it cannot be read, e.g. as it is a folder; the type is that of the system's error.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"{function}: path must be text or a Path, got {type(path).__name__}")
    try:
        yield
    except FileNotFoundError:
        raise FileNotFoundError(f"{function}: no such {what}: {shortened(path)}") from None
    except OSError as error:
        told = error.strerror or reason(error)
        raise type(error)(
            f"{function}: {shortened(path)} must be a readable {what}, got: {told}"
        ) from None


def remove_leftovers(folder: str | Path) -> None:
    """Remove temporary files whose process was killed while it wrote them.

    Args:
        folder: where to look; folders in it are left alone. Files of other origin stay.
    """
    for path in Path(folder).glob(f".*{_SUFFIX}"):
        if _is_left_over(path):
            path.unlink(missing_ok=True)


def _is_left_over(path: Path) -> bool:
    found = _PART.fullmatch(path.name)
    if found is None or path.name in _writing:
        return False
    pid = int(found["pid"])
    if found["host"] == socket.gethostname()[:64]:
        return pid == os.getpid() or not _is_alive(pid)
    try:  # the processes of another machine cannot be asked for
        return time.time() - path.stat().st_mtime > _DAY
    except FileNotFoundError:
        return False


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's process
        return True
    return True


class _Counted(io.RawIOBase):
    """Writes to a file, and goes on counting when the disk is full: the error says the sum."""

    def __init__(self, handle: int) -> None:
        self.handle = handle
        self.size = 0
        self.full: OSError | None = None

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        size = len(view)
        self.size += size
        try:
            while view and self.full is None:
                view = view[os.write(self.handle, view) :]
        except OSError as error:
            if error.errno not in _NO_SPACE:
                raise
            self.full = error
        return size


def _fill(temporary: Path, target: Path, write: Callable[[io.RawIOBase], object]) -> None:
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        if target.exists():
            os.fchmod(handle, stat.S_IMODE(target.stat().st_mode))
        stream = _Counted(handle)
        write(stream)
        try:
            if stream.full is not None:
                raise stream.full
            os.fsync(handle)
        except OSError as error:  # some file systems notice in the end only
            if error.errno not in _NO_SPACE:
                raise
            os.ftruncate(handle, 0)  # or the bytes written so far count as not free
            raise _no_space(error, target, stream.size) from error
    finally:
        os.close(handle)


def _no_space(error: OSError, target: Path, needed: int) -> OSError:
    free = shutil.disk_usage(target.parent).free
    told = OSError(
        f"write_atomically: disk must have {_bytes(needed)} free for {target}, got {_bytes(free)} "
        f"({os.strerror(error.errno or errno.ENOSPC)})"
    )
    told.errno = error.errno
    return told


def _bytes(count: int) -> str:
    return f"{count / 1e6:,.1f} MB" if count >= 100_000 else f"{count:,} bytes"


def _make_folder(folder: Path) -> None:
    made = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for parent in made:
        _sync_folder(parent.parent)


def _sync_folder(folder: Path) -> None:
    """A name is on the disk only when its folder is."""
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:  # a folder that may be written and not read
        return
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise
    finally:
        os.close(handle)
