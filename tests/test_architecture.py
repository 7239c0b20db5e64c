"""The rules of docs/design.md that can be checked: arrows, rooms, the C++ border, the API."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[1]
PACKAGE = REPO / "zsbir_fast"

# What each layer may import of the package, besides itself.
_KERNELS = {"reference", "ops"}
_LOSSES_METRICS = _KERNELS | {"losses", "metrics"}
_RANKING = _LOSSES_METRICS | {"ranking"}
_ENCODERS = {"data", "encoders"}
_REPORT = _LOSSES_METRICS | {"ranking", "data", "report"}
_METHODS = _REPORT | {"text", "encoders", "methods"}
_RETRIEVAL = _METHODS | {"retrieval"}
_TRAINING = _METHODS | {"training"}
_RUNS = _RETRIEVAL | _TRAINING | {"runs", "env_report"}
ALLOWED = {
    "reference": {"reference"},
    "ops": _KERNELS,
    "losses": _LOSSES_METRICS,
    "metrics": _LOSSES_METRICS,
    "ranking": _RANKING,
    "data": {"data"},
    "text": {"data", "text"},
    "encoders": _ENCODERS,
    "report": _REPORT,
    "methods": _METHODS,
    "retrieval": _RETRIEVAL,
    "training": _TRAINING,
    "runs": _RUNS,
    "env_report": _KERNELS,
    "cli": _RUNS | {"cli"},
}
# A method is known by its contract alone: only its own folder and the registry name it.
METHODS = {"dmwan", "cmaan", "clusterretri", "sbka", "distilled"}


def modules() -> list[Path]:
    return [p for p in sorted(PACKAGE.rglob("*.py")) if "bundled" not in p.parts[:-1]]


def layer_of(path: Path) -> str:
    top = path.relative_to(PACKAGE).parts[0]
    return top.removesuffix(".py")


def package_imports(path: Path) -> set[str]:
    """Names of zsbir_fast modules that a file imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module or "")
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.startswith("zsbir_fast.")}


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_run_one_way(path: Path) -> None:
    layer = layer_of(path)
    if layer == "__init__":
        return
    allowed = ALLOWED.get(layer)
    if layer.startswith("_"):  # a helper below all layers: imports nothing of the package
        allowed = set()
    assert allowed is not None, f"{layer} is not a layer of docs/design.md"
    for name in package_imports(path):
        target = name.split(".")[1]
        if target.startswith("_") or not (
            (PACKAGE / target).exists() or (PACKAGE / f"{target}.py").exists()
        ):
            continue
        assert target in allowed, f"{path.name} ({layer}) must not import {name}"


def test_the_table_of_the_layers_says_the_same() -> None:
    page = (REPO / "docs" / "design.md").read_text(encoding="utf-8")
    table = page.partition("| layer | stands on |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \|", table, re.M)
    below = {layer: {layer, *re.findall(r"`(\w+)`", names)} for layer, names in rows}
    for _ in below:  # a layer may import all that its layers stand on
        below = {layer: set().union(*map(below.get, names)) for layer, names in below.items()}
    assert below == {layer: {layer, *names} for layer, names in ALLOWED.items()}


def test_nothing_above_the_contract_knows_a_method() -> None:
    for path in modules():
        if layer_of(path) in ("methods", "__init__"):
            continue
        for name in package_imports(path):
            parts = name.split(".")
            assert parts[1] != "methods" or parts[2] not in METHODS, f"{path} imports {name}"


def test_only_the_loop_and_what_runs_it_import_lightning() -> None:
    for path in modules():
        if layer_of(path) not in ("training", "runs"):
            assert not re.search(r"^\s*(import|from) lightning", path.read_text(), re.M), path


def test_only_ops_touch_the_compiled_module() -> None:
    for path in modules():
        if layer_of(path) in ("ops", "_native", "env_report"):
            continue
        assert "_C" not in {name.split(".")[1] for name in package_imports(path)}, (
            f"{path} imports zsbir_fast._C"
        )


def test_core_knows_nothing_of_torch_or_python() -> None:
    for path in (REPO / "csrc").rglob("*"):
        if path.suffix in (".h", ".cpp", ".cu", ".cuh") and path.name != "bindings.cpp":
            text = path.read_text()
            for word in ("torch/", "ATen", "pybind11", "Python.h"):
                assert f"#include <{word}" not in text, f"{path} includes {word}"


def rooms() -> list[str]:
    return sorted(p.name for p in (REPO / "csrc").iterdir() if p.is_dir() and p.name != "common")


def demanded() -> tuple[list[str], list[str]]:
    """Of a room NAME: its files, and the files that list it, as docs/adding_an_op.md says."""
    page = (REPO / "docs" / "adding_an_op.md").read_text(encoding="utf-8")
    section = page.partition("## What a room must have\n")[2].partition("\n## ")[0]
    files = re.findall(r"^\| `([^`]+)` \|", section, re.MULTILINE)
    lists = section.partition("It also has its name in ")[2].partition("\n\n")[0]
    return files, re.findall(r"`([^`]+)`", lists)


def test_every_room_has_its_name_in_every_layer() -> None:
    files, lists = demanded()
    assert len(files) == 20
    assert len(lists) == 3
    lacking = [
        file.replace("NAME", room)
        for room in rooms()
        for file in files
        if not any(REPO.glob(file.replace("NAME", room)))
    ]
    assert not lacking, f"rooms lack {lacking}"
    named = {name: (REPO / name).read_text(encoding="utf-8") for name in lists}
    unnamed = [
        (name, room)
        for room in rooms()
        for name, text in named.items()
        if not re.search(rf"(?<![a-z]){room}(?![a-z])", text)
    ]
    assert not unnamed, f"lists that lack a room: {unnamed}"


def test_what_has_the_name_of_a_room_is_a_room() -> None:
    """No layer keeps a folder of a room that csrc/ does not have."""
    for layer in (PACKAGE / "ops", REPO / "tests" / "ops"):
        folders = {p.name for p in layer.iterdir() if p.is_dir() and p.name != "__pycache__"}
        assert folders == set(rooms())


def test_the_smallest_room_is_not_public() -> None:
    import zsbir_fast
    from zsbir_fast.cli import bench

    assert "null" not in zsbir_fast.__all__
    assert "null" not in bench._ROOMS
    for page in (REPO / "README.md", *(REPO / "docs").glob("*.md")):
        if page.name != "adding_an_op.md":
            assert "`null`" not in page.read_text(encoding="utf-8"), page.name


def test_every_public_name_exists() -> None:
    import zsbir_fast

    for name in zsbir_fast.__all__:
        assert getattr(zsbir_fast, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = zsbir_fast.nothing


def test_files_stay_readable() -> None:
    long = {
        str(path.relative_to(REPO)): lines
        for folder in ("zsbir_fast", "csrc", "benchmarks", "tests", "tools")
        for path in (REPO / folder).rglob("*")
        if path.suffix in (".py", ".cpp", ".h", ".cu", ".cuh")
        and (lines := len(path.read_text().splitlines())) > 450
    }
    assert not long, f"files over 450 lines: {long}"


def test_import_is_light() -> None:
    """`import zsbir_fast` must not pull in what only training, models or reports need."""
    heavy = "lightning timm open_clip peft transformers torchvision matplotlib jinja2 "
    heavy += "jsonargparse PIL torchmetrics"
    code = (
        "import sys, zsbir_fast; zsbir_fast.evaluate_retrieval\n"
        f"print([m for m in {heavy.split()!r} if m in sys.modules])"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPO.parent
    )
    assert out.stdout.strip() == "[]"


def test_bare_source_tree_says_what_to_do(tmp_path: Path) -> None:
    """Without the compiled module the import fails at once, with the command that helps."""
    target = tmp_path / "zsbir_fast"
    target.mkdir()
    for name in ("__init__.py", "_native.py"):
        (target / name).write_text((PACKAGE / name).read_text())
    code = (  # without the finder that an editable install puts first
        "import sys\n"
        "sys.meta_path = [f for f in sys.meta_path if 'editable' not in repr(f).lower()]\n"
        f"sys.path.insert(0, {str(tmp_path)!r})\n"
        "import zsbir_fast"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert out.returncode != 0
    assert "its compiled module zsbir_fast._C is not there" in out.stderr
    assert "pip install ." in out.stderr


def test_names_on_the_page_of_the_loop_are_those_of_the_code() -> None:
    text = (REPO / "docs" / "training_loop.md").read_text(encoding="utf-8")
    named = re.findall(
        r"`([A-Za-z_][\w.]*)(?:\([^`]*\))?`", re.sub(r"```.*?```", "", text, flags=re.S)
    )
    parts = {part for name in named for part in name.split(".")}
    written = {part for part in parts if re.search(r"_|[a-z][A-Z]", part)}
    code = "\n".join(path.read_text(encoding="utf-8") for path in modules())
    assert len(written) > 20
    assert written - set(re.findall(r"\w+", code)) == {"global_step"}  # Lightning's


def test_readme_lists_every_page() -> None:
    listed = re.findall(r"^\| \[docs/(\w+\.md)\]", (REPO / "README.md").read_text(), re.M)
    assert sorted(listed) == sorted(page.name for page in (REPO / "docs").glob("*.md"))


def test_what_documents_point_at_exists() -> None:
    """Paths of this repository in `backticks` (docs/reliability.md lives by them)."""
    pages = [REPO / "README.md", REPO / "CONTRIBUTING.md", *(REPO / "docs").glob("*.md")]
    path = re.compile(r"`((?:tests|docs|csrc|benchmarks|examples|tools|zsbir_fast)/[\w./]+)`")
    missing = {
        f"{page.name}: {name}"
        for page in pages
        for name in path.findall(page.read_text(encoding="utf-8"))
        if "NAME" not in name and not (REPO / name).exists()
    }
    assert not missing
