"""``python tests/fuzz``: thousands of random calls and damaged files, each in a child process."""

from __future__ import annotations

import argparse
import os
import sys


def without_threads() -> None:
    """Keep this process free of threads, as only such a one may fork, and idle ones from spinning.

    What reads these variables must not be imported before.
    """
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = "1"
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"


def main() -> int:
    """Parse the command line, run, report.

    Returns:
        0 without a finding, 1 with one.
    """
    parser = argparse.ArgumentParser(prog="python tests/fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=20_000, help="how many (default: 20000)")
    parser.add_argument("--seconds", type=float, help="stop after so long")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", help="groups (api, files) or entrances")
    parser.add_argument(
        "--case", nargs="+", metavar="ENTRANCE:NUMBER", help="these alone, or ENTRANCE:FROM-TO"
    )
    parser.add_argument("--workers", type=int, default=min(4, os.cpu_count() or 1))
    parser.add_argument("--report", help="write all findings to this file, too")
    arguments = parser.parse_args()
    without_threads()
    from session import Session, ids_of, interleaved, load_entrances

    entrances = load_entrances(arguments.only)
    if arguments.case:
        ids = ids_of(arguments.case, arguments.seed, entrances)
    else:
        ids = interleaved(entrances, arguments.seed, arguments.cases)
    session = Session(entrances, workers=arguments.workers, seconds=arguments.seconds)
    return session.run(ids, arguments.report)


if __name__ == "__main__":
    sys.exit(main())
