"""Facts about this installation: versions, the parts that were built, reasons for missing ones.

Standard library first and every probe guarded: this must work where nothing else does.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

_PACKAGES = (
    "torch",
    "numpy",
    "lightning",
    "jsonargparse",
    "timm",
    "open_clip_torch",
    "peft",
    "safetensors",
    "pillow",
    "jinja2",
    "matplotlib",
    "tqdm",
    "rich",
)
_OPTIONAL = {
    "torchvision": "",
    "tensorboard": "pip install 'zsbir-fast[tensorboard]'",
    "torchmetrics": "pip install 'zsbir-fast[torchmetrics]'",
}
_SWITCHES = ("ZSBIR_STRICT", "ZSBIR_DEBUG", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")


def collect() -> dict[str, dict[str, str]]:
    """Collect the facts.

    Returns:
        Section -> key -> text. A probe that fails says so in its value; nothing is raised.
    """
    return {
        "system": _section(
            {
                "platform": platform.platform,
                "python": lambda: f"{platform.python_version()} ({sys.executable})",
                "processor": _processor,
                "usable cores": lambda: str(_cores()),
            }
        ),
        "zsbir_fast": _section(
            {
                "version": lambda: importlib.metadata.version("zsbir-fast"),
                "folder": lambda: str(Path(__file__).resolve().parent),
                "compiled module": _compiled_module,
                "compiler": lambda: str(_native().cxx_compiler),
                "SIMD level here": lambda: str(_native().simd_level()),
                "OpenMP": lambda: (
                    f"yes, {_native().max_threads()} threads"
                    if _native().openmp
                    else "no: built by a compiler without it, kernels use one thread"
                ),
                "CUDA kernels": _cuda_kernels,
            }
        ),
        "torch": _section(
            {
                "version": lambda: str(_torch().__version__),
                "built for CUDA": lambda: str(_torch().version.cuda or "no (CPU build)"),
                "GPUs": _gpus,
                "threads": lambda: str(_torch().get_num_threads()),
            }
        ),
        "packages": {name: _version(name) for name in _PACKAGES},
        "optional packages": {name: _version(name, hint) for name, hint in _OPTIONAL.items()},
        "environment": {name: os.environ.get(name, "not set") for name in _SWITCHES},
    }


def as_text(facts: dict[str, dict[str, str]]) -> str:
    """Lay the facts out for reading.

    Args:
        facts: what ``collect`` returned.

    Returns:
        Several lines, sections under headings.
    """
    width = max(len(key) for section in facts.values() for key in section)
    lines: list[str] = []
    for name, section in facts.items():
        lines += [name, *(f"  {key:<{width}}  {value}" for key, value in section.items()), ""]
    return "\n".join(lines).rstrip()


def _section(probes: dict[str, Callable[[], str]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for key, probe in probes.items():
        try:
            found[key] = probe()
        except Exception as error:  # a report of broken parts must not break itself
            found[key] = f"unknown ({type(error).__name__}: {error})"
    return found


def _version(package: str, hint: str = "") -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return f"not installed{f' ({hint})' if hint else ''}"


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _cores() -> int:
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _torch() -> Any:
    return importlib.import_module("torch")


def _native() -> Any:
    return importlib.import_module("zsbir_fast._C")


def _compiled_module() -> str:
    spec = importlib.util.find_spec("zsbir_fast._C")
    if spec is None or spec.origin is None:
        return "missing: build it with  pip install ."
    return spec.origin


def _cuda_kernels() -> str:
    native = _native()
    if not native.built_with_cuda:
        return "not built: no nvcc was found, or ZSBIR_CUDA=OFF (rebuild with ZSBIR_CUDA=ON)"
    driver = native.cuda_driver_version()  # 0: none
    found = f"driver for CUDA {driver // 1000}.{driver % 1000 // 10}" if driver else "no driver"
    built = f"nvcc {native.cuda_compiler}, architectures {native.cuda_architectures}; {found}"
    if not _torch().cuda.is_available():
        return f"built ({built}), but torch sees no GPU here: the CPU kernels are used"
    return f"built and usable ({built})"


def _gpus() -> str:
    cuda = _torch().cuda
    if not cuda.is_available():
        return "none visible to torch"
    names = [
        f"{cuda.get_device_name(i)} (sm_{''.join(map(str, cuda.get_device_capability(i)))})"
        for i in range(cuda.device_count())
    ]
    return ", ".join(names)
