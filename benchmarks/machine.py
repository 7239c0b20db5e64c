"""The machine under the benchmark: clock, peak memory, load of other processes, facts."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import os
import platform
import subprocess
import time
from collections.abc import Callable, Iterable
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any


class Clock:
    """Seconds of one call: wall clock on the CPU, events after an L2 flush on a CUDA device."""

    def __init__(self, device: str) -> None:
        self.torch: Any = None
        if device == "cuda":
            self.torch = importlib.import_module("torch")
            size = 2 * self.torch.cuda.get_device_properties(0).L2_cache_size
            self.flush = self.torch.empty(size, dtype=self.torch.uint8, device="cuda")

    def time(self, call: Callable[[int], object], n: int) -> float:
        """Seconds of ``call(n)``."""
        if self.torch is None:
            start = time.perf_counter()
            call(n)
            return time.perf_counter() - start
        self.flush.zero_()
        begin, end = (self.torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        call(n)
        end.record()
        end.synchronize()
        return float(begin.elapsed_time(end)) / 1e3


class PeakMemory:
    """Bytes above those in use at the start: resident set, or the CUDA allocator's."""

    def __init__(self, device: str) -> None:
        self.cuda = importlib.import_module("torch").cuda if device == "cuda" else None
        gc.collect()
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)  # glibc: free memory that is kept would hide a peak
        if self.cuda is not None:
            self.cuda.synchronize()
            self.cuda.reset_peak_memory_stats()
            self.before = self.cuda.memory_allocated()
        else:
            with contextlib.suppress(OSError):
                Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM
            self.before = _status_bytes("VmRSS")

    def peak(self) -> int:
        """The largest rise since the object was made."""
        now = self.cuda.max_memory_allocated() if self.cuda else _status_bytes("VmHWM")
        return max(0, int(now) - int(self.before))


def _status_bytes(key: str) -> int:
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(f"{key}:"):
                return int(line.split()[1]) * 1024
    return 0


def busy_core_seconds() -> float:
    """Core-seconds that all processes of this machine have used since it started."""
    try:
        ticks = [int(x) for x in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    except OSError:
        return 0.0
    idle = ticks[3] + ticks[4]
    return (sum(ticks[:8]) - idle) / os.sysconf("SC_CLK_TCK")


def machine_facts(device: str, packages: Iterable[str]) -> dict[str, Any]:
    """Hardware and versions, so that a row can be judged elsewhere."""
    torch = importlib.import_module("torch")
    facts: dict[str, Any] = {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": os.environ.get("ZSBIR_COMMIT")  # of a copy without a history
        or _first_line(["git", "rev-parse", "--short", "HEAD"]),
        "cpu": _cpu_field("model name") or platform.processor(),
        "cpu_family_model": f"{_cpu_field('cpu family')}/{_cpu_field('model')}",
        "cores": os.cpu_count(),
        "simd": [x for x in ("avx2", "avx512f", "amx_tile") if x in _cpu_field("flags").split()],
        "memory_GiB": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
        "environment": {k: v for k, v in os.environ.items() if k.endswith("_NUM_THREADS")},
    }
    if device == "cuda":
        gpu = torch.cuda.get_device_properties(0)
        facts |= {"gpu": gpu.name, "gpu_GiB": round(gpu.total_memory / 2**30, 1)}
        facts |= {"cuda": torch.version.cuda, "sms": gpu.multi_processor_count}
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        facts["driver"] = _first_line(query).partition("\n")[0]
        facts["clocks"] = _first_line(
            ["nvidia-smi", "--query-gpu=clocks.max.sm,clocks.max.mem,power.limit", "--format=csv"]
        )
    versions = {}
    for package in ("zsbir-fast", "torch", "numpy", *packages):
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return facts | {"versions": versions}


def _cpu_field(name: str) -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == name:
                return value.strip()
    return ""


def _first_line(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip()


def wait_for_idle_cores(patience_s: float) -> None:
    """Return once others use less than 0.1 core, or after ``patience_s`` seconds."""
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        before = busy_core_seconds()
        time.sleep(0.5)
        if (busy_core_seconds() - before) / 0.5 < 0.1:
            return
