"""The emulated CUDA kernels as libraries for Python."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pybind11
import pytest

HERE = Path(__file__).resolve().parent


@pytest.fixture(scope="session")
def build_emulated(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Builds the emulated kernels of a room (``<room>/library.cpp``) afresh; the library's path."""
    path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")])
    environment = os.environ | {"PATH": path}
    cmake = shutil.which("cmake", path=path)
    assert cmake, "cmake must be there: pip install '.[test]'"
    build = tmp_path_factory.mktemp("emulated_kernels")

    def run(*command: str) -> None:
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stdout + done.stderr

    def load(room: str) -> Path:
        if not any(build.iterdir()):
            python = f"-DPython_EXECUTABLE={sys.executable}"
            pybind11_cmake = f"-Dpybind11_DIR={pybind11.get_cmake_dir()}"
            run(cmake, "-S", str(HERE), "-B", str(build), python, pybind11_cmake)
        run(cmake, "--build", str(build), "--target", f"emulated_{room}")
        (library,) = build.glob(f"*emulated_{room}*.so")
        return library

    return load


@pytest.fixture(scope="session")
def emulated_library(build_emulated: Callable[[str], Path]) -> Callable[[str], ctypes.CDLL]:
    """The emulated kernels of a room as C functions."""
    return lambda room: ctypes.CDLL(str(build_emulated(room)))


@pytest.fixture(scope="session")
def emulated_module(build_emulated: Callable[[str], Path]) -> Callable[[str], ModuleType]:
    """The emulated kernels of a room as a Python module, where its library is one."""

    def load(room: str) -> ModuleType:
        name = f"emulated_{room}"
        spec = importlib.util.spec_from_file_location(name, build_emulated(room))
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load
