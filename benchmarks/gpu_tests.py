"""Runs tests that need a GPU: ``python -m benchmarks.gpu_tests FILE ...`` from the repository.

Unlike ``python -m pytest`` it finds an installed package before bare sources (see ``__init__``),
and it fails if no test ran, as tests that were all skipped say nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import pytest


class Counter:
    """A plugin of pytest that counts the tests that passed."""

    def __init__(self) -> None:
        self.passed = 0

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Called by pytest for every phase of a test."""
        self.passed += report.when == "call" and report.passed


def main(arguments: Sequence[str]) -> int:
    """The exit code of pytest; 1 if all was skipped."""
    counter = Counter()
    options = ["-m", "gpu", "-q", "-p", "no:cacheprovider", "--durations=5"]
    code = int(pytest.main([*options, *arguments], plugins=[counter]))
    if code == 0 and counter.passed == 0:
        print("gpu_tests: no test ran")
        return 1
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
