"""Every script in examples/ runs, and says what it should."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

FOLDER = Path(__file__).resolve().parents[2] / "examples"
LIMIT = 120  # seconds, on machines that do other things too; each takes less than 20 alone


# Script -> what it is called with, and what it must print. Others need nothing and print anything.
SMALL = ["--epochs=1", "--steps=1", "--image-size=32", "--classes-per-batch=2"]
CALLS = {
    "compare_definitions.py": (["--image-size=64", "--most=60", "--ks=10"], "torchmetrics"),
    "evaluate_embeddings.py": ([], "from disk\n mAP@all"),
    "train_on_your_data.py": (["data", "--unseen=c", "--unseen=d", *SMALL], "the model: "),
}


@pytest.fixture
def folder(tmp_path):
    """A folder with images of four classes in data/, as examples read them."""
    rng = np.random.default_rng(0)
    for modality in ("sketch", "photo"):
        for name in "abcd":
            place = tmp_path / "data" / modality / name
            place.mkdir(parents=True)
            for i in range(4):
                pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(place / f"{i}.png")
    return tmp_path


def run(command, folder):
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("script", sorted(FOLDER.glob("*.py")), ids=lambda p: p.name)
def test_example(script, folder):
    arguments, expected = CALLS.get(script.name, ([], ""))
    assert expected in run([sys.executable, str(script), *arguments], folder)


@pytest.mark.slow
def test_evaluate_embeddings_over_processes(tmp_path):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    out = run([*launcher, str(FOLDER / "evaluate_embeddings.py")], tmp_path)
    alone = run([sys.executable, str(FOLDER / "evaluate_embeddings.py")], tmp_path)
    line = next(line for line in out.splitlines() if "mAP@all" in line)
    assert line in alone
