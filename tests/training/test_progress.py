from __future__ import annotations

import re
import sys

from zsbir_fast.training import progress


def test_without_progress_there_is_a_line_an_epoch(tmp_path, small_run, capsys):
    small_run(tmp_path)
    lines = capsys.readouterr().err.splitlines()
    number = r"\d+\.\d{3}"
    assert [bool(re.fullmatch(
        rf"zsbir: epoch {epoch}/3, step {4 * epoch}/12, loss {number}, validation mAP@all {value}",
        line,
    )) for epoch, value, line in zip((1, 2, 3), (r"-16\.000", r"-?0\.000", r"-16\.000"), lines,
                                    strict=True)] == [True] * 3  # fmt: skip


def test_a_pipe_gets_a_line_now_and_then(tmp_path, small_run, capsys, monkeypatch):
    clock = iter(range(0, 10_000, 4))  # four seconds a step
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(clock)))
    small_run(tmp_path, progress=True)
    text = capsys.readouterr().err
    assert "\r" not in text
    steps = [int(step) for step in re.findall(r"step (\d+)/12", text)]
    assert {4, 8, 12} <= set(steps)
    assert len(steps) > 3
    assert steps == sorted(steps)


def test_a_terminal_gets_one_bar_over_all_batches(tmp_path, small_run, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    small_run(tmp_path, progress=True, accumulate=2)
    captured = capsys.readouterr()
    text = captured.err + captured.out
    assert "24/24" in text
    assert "epoch 3/3" in text
    assert "loss=" in text
    assert "val_map=-16.000" in text
    assert "zsbir: epoch" not in text
