"""A minute of fuzzing with a fixed seed; ``python tests/fuzz`` is the longer run."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import pytest

FUZZ = Path(__file__).parent


@pytest.mark.slow
@pytest.mark.parametrize(
    ("group", "cases", "seconds"), [("api", "6000", "40"), ("files", "900", "20")]
)
def test_nothing_is_found(group, cases, seconds):
    """As many cases as fit into the time, the same ones on every machine."""
    options = {"--only": group, "--cases": cases, "--seconds": seconds, "--seed": "1"}
    done = subprocess.run(
        [sys.executable, str(FUZZ), *itertools.chain(*options.items())],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout or done.stderr
    assert ": 0 findings" in done.stdout
