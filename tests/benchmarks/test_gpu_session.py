"""The logic of gpu_session.sh, with stand-ins for everything that it runs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tarfile

import pytest

pytestmark = pytest.mark.skipif(
    not all(map(shutil.which, ("bash", "timeout", "tar"))), reason="needs bash, timeout and tar"
)
STUBS = {
    "nvidia-smi": 'case "$*" in *,*) echo "GPU X, 9.0";; *mode*) echo Default;; *) echo 9.0;; esac',
    "nvcc": 'for a in "$@"; do if [ "$p" = -o ]; then printf "#!/bin/sh\\necho 7 cases" >"$a"; '
    'chmod +x "$a"; fi; p=$a; done; echo "release 13.0"',
    "compute-sanitizer": 'echo "========= ERROR SUMMARY: 0 errors"',
    "ncu": 'for a in "$@"; do if [ "$p" = --export ]; then touch "$a.ncu-rep"; fi; p=$a; done',
    "python": """
        machine="CPU X; 2026-01-01, commit abc; torch 2.6"
        for a in "$@"; do if [ "$p" = --out ]; then echo "{}" >"$a.json"; fi; p=$a; done
        case "$*" in
          *gpu_tests*) echo "3 passed" ;;
          *--show*kernels.csv) echo "kernel us"; echo "select_kernel 12" ;;
          *bench_*) echo "a warning"; echo "$machine"; echo "table of $2"; echo "one row again" ;;
          *ceilings*) echo "$machine"; echo "current_stream 0.5 us/call" ;;
        esac""",
}
ROOMS = ("batched_map", "null", "quadruplet_mining", "row_products", "token_weighting")
TIMED = ("batched_map", "quadruplet_mining", "row_products", "token_weighting")
TOOLS = ("memcheck", "racecheck", "initcheck", "synccheck")


@pytest.fixture
def session(tmp_path, repository):
    """Runs the script; ``changes`` replace stand-ins. The exit code and what it printed."""

    def run(budget: int = 100, **changes: str) -> tuple[int, str]:
        stubs = STUBS | {name.replace("_", "-"): text for name, text in changes.items()}
        place = tmp_path / "bin"
        place.mkdir()
        for name, text in stubs.items():
            (place / name).write_text(f"#!/usr/bin/env bash\n{text}\n")
            (place / name).chmod(0o755)
        done = subprocess.run(
            ["bash", str(repository / "benchmarks/gpu_session.sh")],
            env={
                "PATH": f"{place}:{os.environ['PATH']}",
                "PYTHON": str(place / "python"),
                "OUT": str(tmp_path / "out"),
                "BUDGET": str(budget),
                "TMPDIR": str(tmp_path),
            },
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.stderr == ""
        return done.returncode, done.stdout

    return run


def stages(printed: str) -> dict[str, str]:
    found = re.findall(r"^(\w+) +(ok|FAILED \([^)]*\)) +\d+ s$", printed, re.MULTILINE)
    return dict(found)


def test_a_run_without_a_failure(session, tmp_path):
    code, printed = session()
    assert code == 0, printed
    verdicts = stages(printed)
    assert set(verdicts.values()) == {"ok"}
    names = list(verdicts)
    assert names[:11] == [
        "build",
        *(f"{stage}_{x}" for stage in ("build", "native") for x in ROOMS),
    ]
    assert {"test_batched_map_gpu", "test_metrics_gpu", "test_cuda_runtime_gpu"} < set(names)
    assert {f"{tool}_{room}" for tool in TOOLS for room in ROOMS} < set(names)
    assert names[-7:] == [
        "ceilings",
        "batched_map",
        "quadruplet_mining",
        "token_weighting",
        "row_products",
        "kernels",
        "training_step",
    ]
    for text in ("table of benchmarks.bench_token_weighting", "us/call", "select_kernel 12"):
        assert printed.index(text) > printed.index("training_step  ")
    assert "a warning" not in printed
    assert f"{len(names)} stages, 0 failed" in printed.splitlines()[-1]
    files = {path.name for path in (tmp_path / "out").iterdir()}
    records = {f"{name}.json" for name in (*TIMED, "training_step", "ceilings")}
    assert files == {"summary.txt", "kernels.csv", "gpu_session.tar.gz", *records}
    with tarfile.open(tmp_path / "out/gpu_session.tar.gz") as archive:
        packed = {name.removeprefix("gpu_session/") for name in archive.getnames()}
    assert {f"{name}.log" for name in names} | {"summary.txt", "packages.txt"} < packed
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("tmp")] == []


def test_a_stage_that_fails_is_named_and_stops_nothing(session):
    broken = (
        'echo "a hazard"; case "$*" in *racecheck*token*) exit 9;; *initcheck*) sleep 30;; esac'
    )
    code, printed = session(budget=6, compute_sanitizer=broken)
    assert code == 1
    verdicts = stages(printed)
    assert verdicts["racecheck_token_weighting"] == "FAILED (exit code 9)"
    assert verdicts["initcheck_batched_map"] == "FAILED (out of time)"
    assert verdicts["training_step"] == "FAILED (no time left)"
    assert {name for name, verdict in verdicts.items() if verdict == "ok"} >= {
        "build",
        "test_metrics_gpu",
        "racecheck_batched_map",
    }
    assert "    a hazard" in printed
    assert "FAILED: racecheck_token_weighting\n" in printed
    assert "training_step: no record" in printed


def test_metrics_that_ncu_does_not_know_are_left_out(session, tmp_path):
    picky = 'case "$*" in *--metrics*) echo "no such metric"; exit 1;; esac\n' + STUBS["ncu"]
    python = STUBS["python"].replace("esac", '  *--metrics) echo "a.sum,b.sum" ;;\nesac')
    code, printed = session(ncu=picky, python=python)
    assert code == 0, printed
    assert "select_kernel 12" in printed


def test_without_a_gpu_it_says_so(session):
    code, printed = session(nvidia_smi="exit 9")
    assert code == 1
    assert printed == "gpu_session: no GPU (nvidia-smi failed)\n"
