"""Configs from strangers."""

from __future__ import annotations

import pytest

from zsbir_fast.cli.app import main
from zsbir_fast.runs.settings import read_settings

_BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10)
)
_MERGED = "a0: &a0 {x: 1}\n" + "".join(
    f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}\n" for n in range(1, 9)
)
CASES = {
    "bomb": (f"{_BOMB}data: {{unseen: *a9}}\n", "must stand for at most 10,000 values, got more"),
    "merged bomb": (f"{_MERGED}data: *a8\n", "must stand for at most 10,000 values, got more"),
    "itself": ("data: &a {unseen: [*a]}\n", "must not contain itself, got the alias *a"),
    "deep": ("data: " + "[" * 50_000, "must be nested at most 32 deep, got more"),
    "long": ("# " + "x" * (300 << 10), "at most 262,144"),
    "no text": (b"run: \xff\xfe\n", "can't decode byte 0xff"),
    "no YAML": ("data: {unseen: [", "while parsing a flow"),
    "unknown alias": ("data: *nobody\n", "config must define what *nobody stands for"),
}  # fmt: skip


@pytest.fixture(params=CASES)
def case(request, tmp_path):
    content, text = CASES[request.param]
    path = tmp_path / "c.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path, text


def test_the_command_line_refuses_in_one_line(case, capsys):
    path, text = case
    assert main(["train", "--config", str(path)]) == 2
    err = capsys.readouterr().err
    assert err.startswith("zsbir train: error: --config must be a ")
    assert str(path) in err
    assert text in err
    assert err.count("\n") == 1


def test_python_refuses_in_one_line(case):
    path, text = case
    with pytest.raises(ValueError, match=r"^read_settings: path must be a YAML") as told:
        read_settings(path)
    assert text in str(told.value)
    assert "\n" not in str(told.value)


def test_parts_that_are_given_as_files_are_bounded_too(case, capsys):
    path, _ = case
    assert main(["train", "--data", str(path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "config must be a mapping, got None in"),
        ("null", "config must be a mapping, got None in"),
        ("- a", r"config must be a mapping, got \['a'\] in"),
        ("run: 3", "run must be a mapping, got 3 in"),
        ("model: [1]", r"model must be a mapping, got \[1\] in"),
        (
            "modle: {}",
            "keys of config must be among data, method, .*, rerank, run, got 'modle'",
        ),
        ("optim: {lr: 1}", "keys of optim must be among .*lr_backbone, .*, got 'lr' in"),
        ("1: {}", "keys of config must be among .*, got 1 in"),
    ],
)
def test_settings_of_another_form(tmp_path, text, message):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ValueError, match=f"^read_settings: {message}"):
        read_settings(tmp_path / "c.yaml")


def test_aliases_in_reason_are_fine(tmp_path):
    (tmp_path / "c.yaml").write_text("optim: {lr_head: &r 0.25, lr_backbone: *r}\n")
    assert read_settings(tmp_path / "c.yaml").optim.lr_backbone == 0.25
