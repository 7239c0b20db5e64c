from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path

import pytest

from zsbir_fast.data import bundled

CLASSES = ("bird", "brain", "car", "piano", "crab", "cup")


@pytest.fixture(scope="session")
def toy():
    """The module of the toy method, as a program of its own would import it."""
    path = Path(__file__).with_name("toy.py")
    spec = importlib.util.spec_from_file_location("toy_of_a_program", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def offer(tmp_path, monkeypatch):
    """Install a package that offers methods by entry points; returns its folder."""

    def install(name="toys", **points):
        folder = tmp_path / name
        info = folder / f"{name}-1.0.dist-info"
        info.mkdir(parents=True)
        shutil.copy(Path(__file__).with_name("toy.py"), folder / f"{name}_toy.py")
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        lines = [f"{key} = {name}_toy:{value}" for key, value in points.items()]
        text = "\n".join(["[zsbir_fast.methods]", *lines]) + "\n"
        (info / "entry_points.txt").write_text(text)
        monkeypatch.syspath_prepend(str(folder))
        return folder

    return install


@pytest.fixture(scope="session")
def few_classes(tmp_path_factory):
    """A benchmark in folders: six classes of four sketches and four photos."""
    root = tmp_path_factory.mktemp("few")
    for modality in ("sketch", "photo"):
        for name in CLASSES:
            target = root / modality / name
            target.mkdir(parents=True)
            for file in sorted((bundled.path("qd_caltech") / modality / name).iterdir())[:4]:
                shutil.copy(file, target)
    return root
