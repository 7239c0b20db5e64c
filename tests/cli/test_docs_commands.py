"""Every command of docs/training.md is parsed as it stands there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from zsbir_fast.cli.app import COMMANDS
from zsbir_fast.cli.evaluate import build_parser as eval_parser
from zsbir_fast.cli.train import build_parser as train_parser
from zsbir_fast.cli.train import parse_settings
from zsbir_fast.training.config import write_settings

DOCS = Path(__file__).parents[2] / "docs" / "training.md"


def _blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)


def _commands():
    lines = [line for block in _blocks("bash") for line in block.splitlines() if line.strip()]
    return [shlex.split(line, comments=True) for line in lines]


@pytest.fixture
def a_run(tmp_path, monkeypatch):
    """A folder in which the documented run has been."""
    monkeypatch.chdir(tmp_path)
    settings, _ = parse_settings(["--config", "dmwan-qd_caltech"])
    write_settings(tmp_path / "runs" / "mine" / "config.yaml", settings)


@pytest.mark.parametrize("words", _commands(), ids=" ".join)
def test_documented_command(words, a_run):
    if words[0] == "torchrun":
        words = ["zsbir", *words[words.index("zsbir_fast.cli") + 1 :]]
    program, command, *arguments = words
    assert program == "zsbir"
    assert command in COMMANDS
    if command == "train" and not {"--help", "--print_config"} & set(arguments):
        settings, _ = parse_settings(arguments)
        assert settings.method == "dmwan"
    elif command == "train":
        with pytest.raises(SystemExit) as stop:
            train_parser().parse(arguments)
        assert stop.value.code == 0
    elif command == "eval":
        eval_parser().parse(arguments)
    else:
        assert (command, arguments) == ("quickstart", [])


def test_documented_config_is_one(tmp_path):
    (text,) = _blocks("yaml")
    (tmp_path / "c.yaml").write_text(text, encoding="utf-8")
    settings, _ = parse_settings(["--config", str(tmp_path / "c.yaml")])
    assert settings.data.validation_classes == 7
    assert settings.optim.lr_head == 1e-3


def test_documented_imports_exist():
    (code,) = _blocks("python")
    exec(compile(code, str(DOCS), "exec"), {})
