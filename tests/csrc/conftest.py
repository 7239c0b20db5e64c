"""The emulated CUDA kernels as libraries for ctypes."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent


@pytest.fixture(scope="session")
def emulated_library(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str], ctypes.CDLL]:
    """Builds the emulated kernels of a room (``<room>/library.cpp``) afresh and loads them."""
    path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")])
    environment = os.environ | {"PATH": path}
    cmake = shutil.which("cmake", path=path)
    assert cmake, "cmake must be there: pip install '.[test]'"
    build = tmp_path_factory.mktemp("emulated_kernels")

    def run(*command: str) -> None:
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stdout + done.stderr

    def load(room: str) -> ctypes.CDLL:
        if not any(build.iterdir()):
            run(cmake, "-S", str(HERE), "-B", str(build))
        run(cmake, "--build", str(build), "--target", f"emulated_{room}")
        return ctypes.CDLL(str(build / f"libemulated_{room}.so"))

    return load
