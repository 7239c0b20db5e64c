from __future__ import annotations

import runpy
import shutil
import sys
from pathlib import Path

from zsbir_fast.data import bundled

EXAMPLE = Path(__file__).parents[2] / "examples" / "train_on_your_data.py"


def test_train_on_your_data(tmp_path, monkeypatch, capsys):
    for modality in ("sketch", "photo"):
        for name in ("bird", "brain", "car", "piano"):
            target = tmp_path / "data" / modality / name
            target.mkdir(parents=True)
            files = sorted((bundled.path("qd_caltech") / modality / name).iterdir())[:4]
            for file in files:
                shutil.copy(file, target)
    argv = [str(tmp_path / "data"), "--unseen", "car", "--unseen", "piano", "--epochs", "1"]
    argv += ["--steps", "1", "--image-size", "32", "--classes-per-batch", "2"]
    monkeypatch.setattr(sys, "argv", [str(EXAMPLE), *argv, "--out", str(tmp_path / "run")])
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    out = capsys.readouterr().out
    assert "mAP@all" in out
    assert "piano" in out
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()
