"""Files that are whole or absent: permissions, links, full disks, kills, leftovers."""

from __future__ import annotations

import ast
import errno
import os
import resource
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from zsbir_fast import _files
from zsbir_fast._files import remove_leftovers, write_atomically, write_text
from zsbir_fast.methods.checkpoint_files import read_checkpoint, write_checkpoint

PACKAGE = Path(_files.__file__).parent


def _mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def umask():
    before = os.umask(0)
    yield os.umask
    os.umask(before)


@pytest.mark.parametrize(("mask", "mode"), [(0o027, 0o640), (0o077, 0o600), (0o002, 0o664)])
def test_a_new_file_has_the_permissions_that_the_umask_leaves(tmp_path, umask, mask, mode):
    umask(mask)
    write_text(tmp_path / "new.txt", "x")
    assert _mode(tmp_path / "new.txt") == mode


def test_a_replaced_file_keeps_its_permissions(tmp_path):
    (tmp_path / "old.txt").write_text("old")
    (tmp_path / "old.txt").chmod(0o604)
    write_text(tmp_path / "old.txt", "new")
    assert _mode(tmp_path / "old.txt") == 0o604
    assert (tmp_path / "old.txt").read_text() == "new"


@pytest.mark.parametrize("dangling", [False, True])
def test_a_symbolic_link_stays_and_its_target_is_replaced(tmp_path, dangling):
    target = tmp_path / "elsewhere" / "target.txt"
    target.parent.mkdir()
    if not dangling:
        target.write_text("old")
    link = tmp_path / "link.txt"
    link.symlink_to(target)
    write_text(link, "new")
    assert link.is_symlink()
    assert target.read_text() == "new"


def test_what_is_no_file_is_refused(tmp_path):
    for path in (tmp_path, Path("/dev/null")):
        with pytest.raises(ValueError, match=r"^write_atomically: path must be a file, got /"):
            write_text(path, "x")


def test_the_file_before_can_be_kept(tmp_path):
    for text in ("1", "2", "3"):
        write_atomically(
            tmp_path / "new", lambda stream, t=text: stream.write(t.encode()), keep_as="before"
        )
    assert [(tmp_path / n).read_text() for n in ("before", "new")] == ["2", "3"]


def test_file_and_folders_are_synced_around_the_rename(tmp_path, monkeypatch):
    done = []
    sync, replace = os.fsync, os.replace
    monkeypatch.setattr(
        os, "fsync", lambda h: (done.append(os.readlink(f"/proc/self/fd/{h}")), sync(h))
    )
    monkeypatch.setattr(os, "replace", lambda a, b: (done.append("rename"), replace(a, b)))
    write_text(tmp_path / "a" / "b" / "c.txt", "x")
    a = str(tmp_path / "a")
    assert done[:2] == [a, str(tmp_path)]  # the names of the new folders
    assert done[2].startswith(f"{a}/b/.")
    assert done[3:] == ["rename", f"{a}/b"]


def test_a_full_disk_is_named_with_needed_and_free_space(tmp_path, monkeypatch):
    (tmp_path / "f.bin").write_bytes(b"old")

    def full(handle, data):
        raise OSError(errno.ENOSPC, "as the kernel says")

    monkeypatch.setattr(os, "write", full)
    message = (
        r"^write_atomically: disk must have 1\.5 MB free for .*f\.bin, got [\d,.]+ MB "
        r"\(No space left on device\)$"
    )
    with pytest.raises(OSError, match=message) as told:
        write_atomically(
            tmp_path / "f.bin", lambda stream: [stream.write(b"x" * 500_000) for _ in range(3)]
        )
    assert told.value.errno == errno.ENOSPC
    assert (tmp_path / "f.bin").read_bytes() == b"old"


def test_a_checkpoint_that_does_not_fit_leaves_the_old_one(tmp_path):
    """A real limit, with torch's own writer in between."""
    path = tmp_path / "last.ckpt"
    write_checkpoint(path, {"zsbir": {}, "state_dict": {"w": torch.zeros(100)}})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    message = r"^write_atomically: disk must have 4\.0 MB free for .*, got .* \(File too large\)$"
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
        with pytest.raises(OSError, match=message):
            write_checkpoint(path, {"zsbir": {}, "state_dict": {"w": torch.zeros(1_000_000)}})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert len(read_checkpoint(path)["state_dict"]["w"]) == 100
    assert [p.name for p in tmp_path.iterdir()] == ["last.ckpt"]


def test_an_error_of_the_writer_leaves_nothing(tmp_path):
    def fail(stream):
        stream.write(b"half")
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        write_atomically(tmp_path / "f", fail)
    assert list(tmp_path.iterdir()) == []


def test_leftovers_of_ended_processes_are_removed_and_nothing_else(tmp_path):
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    here = socket.gethostname()[:64]
    ended = tmp_path / f".{child.pid}-ab12@{here}.zsbir-part"
    old_elsewhere = tmp_path / ".1-ab12@elsewhere.zsbir-part"
    stay = [
        tmp_path / f".{os.getppid()}-ab12@{here}.zsbir-part",  # alive
        tmp_path / ".1-cd34@elsewhere.zsbir-part",  # perhaps alive
        tmp_path / ".mine.zsbir-part",
        tmp_path / "notes.txt",
    ]
    for path in (ended, old_elsewhere, *stay):
        path.touch()
    os.utime(old_elsewhere, (0, 0))
    remove_leftovers(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted(stay)


def test_a_kill_in_mid_write_is_cleaned_up_by_the_next_write(tmp_path):
    code = """
import os, signal, sys
from zsbir_fast._files import write_atomically
def write(stream):
    stream.write(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
write_atomically(sys.argv[1], write)
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "f")], check=False)
    (left,) = tmp_path.iterdir()
    assert left.name.endswith(".zsbir-part")
    write_text(tmp_path / "other.txt", "x")
    assert [p.name for p in tmp_path.iterdir()] == ["other.txt"]


def test_every_writer_of_the_package_goes_this_way():
    """No other module opens a file to write, or renames one."""
    writing = {"write_text", "write_bytes", "savez", "savez_compressed", "savefig", "to_csv",
               "save_file", "rename", "mkstemp", "NamedTemporaryFile"}  # fmt: skip
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.name == "_files.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            modes = [a.value for a in node.args[1:] if isinstance(a, ast.Constant)]
            opens = name == "open" and any(set("wax+") & set(str(m)) for m in modes)
            by_method = isinstance(node.func, ast.Attribute) and name in writing
            if opens or by_method:
                found.append(f"{path.relative_to(PACKAGE)}: {name}")
    assert found == ["cli/app.py: open"]  # os.devnull
