"""tools/new_room in a copy of the repository: a new room that satisfies the gate, and refusals."""

from __future__ import annotations

import ast
import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

REPO = Path(__file__).resolve().parents[2]
NAME = "hamming"
pytestmark = pytest.mark.skipif(
    shutil.which("git") is None or not (REPO / ".git").exists(), reason="needs a git checkout"
)


def copy_of_repository(folder: Path) -> Path:
    """The tracked files, without the bundled data."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=REPO, capture_output=True, text=True, check=True
    ).stdout
    for name in filter(None, listed.split("\0")):
        if "bundled" not in name and (REPO / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPO / name, folder / name)
    return folder


def run(repository: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(repository / "tools/new_room"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def contents(folder: Path) -> dict[str, str]:
    texts = (p for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
    return {str(p.relative_to(folder)): p.read_text(errors="replace") for p in texts}


def gate_of(repository: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "gate_of_the_copy", repository / "tests/test_architecture.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def with_room(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str], str]:
    """A copy that has the room, what it held before, and what the command printed."""
    repository = copy_of_repository(tmp_path_factory.mktemp("repository"))
    before = contents(repository)
    done = run(repository, NAME)
    assert (done.returncode, done.stderr) == (0, "")
    return repository, before, done.stdout


def test_the_gate_is_satisfied_and_misses_every_file(
    with_room: tuple[Path, dict[str, str], str],
) -> None:
    repository, before, _ = with_room
    gate = gate_of(repository)
    assert NAME in gate.rooms()
    gate.test_every_room_has_its_name_in_every_layer()
    gate.test_what_has_the_name_of_a_room_is_a_room()
    new = sorted(contents(repository).keys() - before.keys())
    assert len(new) == len(gate.demanded()[0])
    for file in new:
        text = (repository / file).read_text()
        (repository / file).unlink()
        with pytest.raises(AssertionError, match="rooms lack"):
            gate.test_every_room_has_its_name_in_every_layer()
        (repository / file).write_text(text)
    for file in gate.demanded()[1]:
        text = (repository / file).read_text()
        (repository / file).write_text(text.replace(NAME, "other"))
        with pytest.raises(AssertionError, match="lists that lack a room"):
            gate.test_every_room_has_its_name_in_every_layer()
        (repository / file).write_text(text)


def test_the_new_files_speak_of_the_new_room_only(
    with_room: tuple[Path, dict[str, str], str],
) -> None:
    repository, before, printed = with_room
    after = contents(repository)
    for file in after.keys() - before.keys():
        assert NAME in after[file] or file.endswith("__init__.py"), file
        assert not re.search("null(?!ptr)", after[file]), file
        assert file in printed
        if file.endswith(".py"):
            ast.parse(after[file])
    changed = {file for file in before if before[file] != after[file]}
    assert changed == {
        "cmake/rooms.cmake",
        "csrc/README.md",
        "csrc/bindings.cpp",
        "tests/ops/operator_calls.py",
        "tests/ops/test_operator_checks.py",
    }
    for file in changed:  # what was there stays
        lines = [line for line in after[file].splitlines() if NAME not in line]
        assert lines == before[file].splitlines()
    assert f"  bind_{NAME}(m);\n" in after["csrc/bindings.cpp"]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("Hamming", "NAME must be lower-case words joined by underscores, got 'Hamming'"),
        ("../x", "NAME must be lower-case words joined by underscores, got '../x'"),
        ("", "NAME must be lower-case words joined by underscores, got ''"),
        ("union", "NAME must be no word of Python, of C++ or of csrc/, got 'union'"),
        ("lambda", "NAME must be no word of Python, of C++ or of csrc/, got 'lambda'"),
        ("common", "NAME must be no word of Python, of C++ or of csrc/, got 'common'"),
        (NAME, "NAME must be new, but zsbir_fast/reference/hamming.py exists, got 'hamming'"),
        (
            "pair_distances",
            "NAME must be new, but zsbir_fast/ops/quadruplet_mining/pair_distances.py defines an "
            "operator of that name, got 'pair_distances'",
        ),
    ],
)
def test_a_bad_or_taken_name_is_refused_before_anything_is_written(
    with_room: tuple[Path, dict[str, str], str], name: str, says: str
) -> None:
    repository, *_ = with_room
    before = contents(repository)
    done = run(repository, name)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"new_room: {says}\n")
    assert contents(repository) == before


def test_the_new_room_builds_and_its_kernels_agree(
    with_room: tuple[Path, dict[str, str], str], tmp_path: Path
) -> None:
    cmake = shutil.which("cmake")
    if cmake is None:
        pytest.skip("needs cmake")
    repository, *_ = with_room
    for command in (
        [cmake, "-S", str(repository / "tests/csrc"), "-B", str(tmp_path)],
        [cmake, "--build", str(tmp_path), "--target", f"test_{NAME}"],
        [str(tmp_path / f"test_{NAME}")],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout == f"{NAME}: 6 cases, 0 failures\n"
