"""Types reach users: mypy --strict sees the installed package, and reports wrong calls of it."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import files
from pathlib import Path

import pytest

import zsbir_fast as zf

HERE = Path(__file__).parent / "typing"
PACKAGE = Path(zf.__file__).parent
# What costs most and has no part in our signatures.
SETTINGS = """
[mypy]
strict = True
[mypy-torchvision.*,lightning.*,timm.*,open_clip.*,peft.*,transformers.*,matplotlib.*,jsonargparse.*,PIL.*,\
torchmetrics.*,sympy.*,torch._inductor.*,torch._dynamo.*,torch.fx.*,torch.distributed.*,\
torch.ao.*,torch.onnx.*,torch.export.*,torch._subclasses.*,torch.testing.*,torch.profiler.*]
follow_imports = skip
"""


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    """What mypy says of the snippets: codes by (file, line), and all lines."""
    pytest.importorskip("mypy")
    folder = tmp_path_factory.mktemp("user")
    (folder / "mypy.ini").write_text(SETTINGS)
    for name in ("right_calls.py", "wrong_calls.py"):
        shutil.copy(HERE / name, folder)
    # As an installed package, which counts only with its py.typed: an editable one is no folder
    # of site-packages, so the folder that it lies in is searched as one.
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    command = [sys.executable, "-m", "mypy", "right_calls.py", "wrong_calls.py"]
    run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert run.returncode in (0, 1), run.stderr
    found = {}
    for name, line, code in re.findall(r"^(\w+)\.py:(\d+): error: .*\[(.+)\]$", run.stdout, re.M):
        found.setdefault((name, int(line)), set()).add(code)
    return found, run.stdout


def test_a_users_calls_pass(reported):
    found, text = reported
    assert not [place for place in found if place[0] == "right_calls"], text


def test_wrong_calls_are_reported(reported):
    found, text = reported
    expected = {}
    for number, line in enumerate((HERE / "wrong_calls.py").read_text().splitlines(), start=1):
        if "  # " in line:
            expected["wrong_calls", number] = set(line.partition("  # ")[2].split())
    assert len(expected) > 10
    assert {place: codes for place, codes in found.items() if place[0] == "wrong_calls"} == (
        expected
    ), text


def test_the_marker_of_typed_packages_is_installed():
    assert (PACKAGE / "py.typed").is_file()
    recorded = [str(path) for path in files("zsbir-fast") or ()]
    editable = not any(path.endswith("zsbir_fast/__init__.py") for path in recorded)
    assert editable or "zsbir_fast/py.typed" in recorded


def test_type_checkers_see_every_public_name():
    """The imports under TYPE_CHECKING are those that the table of public names stands for."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    seen = {
        alias.asname: node.module
        for block in tree.body
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname == alias.name
    }
    assert seen == zf._MODULES
