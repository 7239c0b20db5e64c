"""The fuzzer finds what it is there to find, and goes on behind it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

FUZZ = Path(__file__).parent

SEEN = {
    "good": "None",
    "refused": "None",
    "crash": "crash: SIGSEGV",
    "after the crash": "None",
    "exit": "crash: exit 3",
    "hang": "hang",
    "foreign": "error that is not ours: IndexError: 'list index out of range'",
    "unnamed": "error that is not ours: ValueError: 'must be finite'",
    "refused good": "refused good arguments: ValueError: f: x must be finite, got nan",
    "took bad": "took bad arguments, result 1.0",
    "wrong": "wrong value: x[] is 2, right is 1",
    "nan": "NaN: x from finite input",
    "input": "changed its input",
    "memory": "error that is not ours: MemoryError: ''",
    "warning": "warning of others: UserWarning: not ours",
    "state": "changed the process: default dtype torch.float32 -> torch.float64",
}


def test_every_fault_is_seen():
    done = subprocess.run(
        [sys.executable, str(FUZZ / "faults.py")], capture_output=True, text=True, check=True
    )
    assert dict(line.split(": ", 1) for line in done.stdout.splitlines()) == SEEN
