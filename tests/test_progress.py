from __future__ import annotations

import sys

from zsbir_fast import _progress


def test_a_pipe_gets_a_line_now_and_then_and_no_bar(monkeypatch, capsys):
    clock = iter(range(0, 1000, 4))
    monkeypatch.setattr(_progress.time, "monotonic", lambda: float(next(clock)))
    assert list(_progress.with_progress("abcdef", 6, "spelling", unit="letters")) == list("abcdef")
    assert capsys.readouterr().err == (
        "zsbir: spelling: 2 of 6 letters (12 s)\nzsbir: spelling: 5 of 6 letters (24 s)\n"
    )


def test_a_terminal_gets_a_bar(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert list(_progress.with_progress("abc", 3, "spelling", unit="letters")) == list("abc")
    assert "spelling" in capsys.readouterr().err


def test_a_single_item_gets_nothing(capsys):
    assert list(_progress.with_progress("a", 1, "spelling", unit="letters")) == ["a"]
    assert capsys.readouterr().err == ""
