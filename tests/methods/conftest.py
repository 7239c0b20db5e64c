from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch

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


@pytest.fixture(scope="module")
def outputs_of(tmp_path_factory):
    """Runs a worker alone and as two processes: (world size, rank) -> what the process got."""

    def run(worker):
        folder = tmp_path_factory.mktemp("processes")
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        with ExitStack() as stack:
            running = {}
            for size, rank in ((1, 0), (2, 0), (2, 1)):
                log = stack.enter_context((folder / f"{size}_{rank}.log").open("w"))
                path = Path(__file__).with_name(worker)
                command = [sys.executable, path, str(rank), str(size), folder]
                process = subprocess.Popen(command, env=environment, stderr=log)
                stack.callback(process.wait)
                stack.callback(process.kill)
                running[size, rank] = process
            for (size, rank), process in running.items():
                code = process.wait(timeout=240)
                assert code == 0, (folder / f"{size}_{rank}.log").read_text()
        return {key: torch.load(folder / f"{key[0]}_{key[1]}.pt") for key in running}

    return run
