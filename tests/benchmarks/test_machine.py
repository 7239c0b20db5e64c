"""What is measured on a GPU, with a stand-in for torch.cuda."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from benchmarks.machine import Clock, PeakMemory, machine_facts

MIB = 2**20


@pytest.fixture
def log(monkeypatch):
    """What was done to the device, in order."""
    done: list[str] = []

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            done.append("event")

        def synchronize(self):
            done.append("wait")

        def elapsed_time(self, end):
            return 12.0  # milliseconds

    class Memory:
        def zero_(self):
            done.append("flush")

    def empty(size, *, dtype, device):
        done.append(f"{size * dtype.itemsize / MIB:.0f} MiB on {device}")
        return Memory()

    properties = SimpleNamespace(
        L2_cache_size=50 * MIB, name="GPU X", total_memory=2**37, multi_processor_count=132
    )
    device = {
        "Event": Event,
        "get_device_properties": lambda index: properties,
        "synchronize": lambda: done.append("wait"),
        "reset_peak_memory_stats": lambda: done.append("reset"),
        "memory_allocated": lambda: 7 * MIB,
        "max_memory_allocated": lambda: 10 * MIB,
    }
    for name, function in device.items():
        monkeypatch.setattr(torch.cuda, name, function)
    monkeypatch.setattr(torch, "empty", empty)
    return done


def test_a_call_is_timed_by_events_after_the_l2_cache_was_flushed(log):
    clock = Clock("cuda")
    assert log == ["100 MiB on cuda"]  # twice the cache
    for n in (3, 4):
        log.clear()
        assert clock.time(lambda n: log.append(f"call {n}"), n) == 0.012
        assert log == ["flush", "event", f"call {n}", "event", "wait"]


def test_peak_memory_is_that_of_the_allocator_above_what_was_there(log):
    memory = PeakMemory("cuda")
    assert log == ["wait", "reset"]
    assert memory.peak() == 3 * MIB


def test_facts_name_the_gpu_its_driver_and_cuda(log, monkeypatch, tmp_path):
    stand_in = tmp_path / "nvidia-smi"
    stand_in.write_text(
        '#!/bin/sh\ncase "$*" in *driver*) echo 580.1; echo 580.1;; *) echo c;; esac'
    )
    stand_in.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    facts = machine_facts("cuda", [])
    assert (facts["gpu"], facts["gpu_GiB"], facts["sms"]) == ("GPU X", 128.0, 132)
    assert (facts["driver"], facts["clocks"], facts["cuda"]) == ("580.1", "c", torch.version.cuda)
    assert facts["date"].startswith("20")
    assert facts["versions"]["torch"]
