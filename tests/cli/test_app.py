from __future__ import annotations

import json
import subprocess
import sys

import pytest

from zsbir_fast import __version__
from zsbir_fast.cli import app, env
from zsbir_fast.cli.app import COMMANDS, main


def test_help_names_every_command(capsys):
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    for command, (_, does) in COMMANDS.items():
        assert f"  {command}" in out
        assert does in out
    assert "exit codes" in out


def test_help_loads_nothing_heavy():
    code = (
        "import sys; from zsbir_fast.cli import main; main(['--help']); "
        "print(sorted({'torch', 'lightning', 'jsonargparse', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_help_of_every_command_has_examples(command, capsys):
    assert main([command, "--help"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"usage: zsbir {command} ")
    assert "examples:\n  zsbir " in out


def test_no_command_prints_the_help(capsys):
    assert main([]) == 2
    assert "usage: zsbir COMMAND" in capsys.readouterr().out


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"zsbir {__version__}\n"


def test_unknown_command_names_the_nearest(capsys):
    assert main(["trian"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("zsbir: error: command must be one of quickstart, train, zoo")
    assert "got 'trian' (did you mean 'train'?)" in err


@pytest.mark.parametrize("error", [ValueError, FileNotFoundError, RuntimeError])
def test_failure_is_one_line_and_exit_code_1(error, monkeypatch, capsys):
    def fail(argv):
        raise error("the reason")

    monkeypatch.setattr(env, "main", fail)
    assert main(["env"]) == 1
    assert capsys.readouterr().err == "zsbir: error: the reason\n"
    monkeypatch.setenv("ZSBIR_DEBUG", "1")
    with pytest.raises(error, match="the reason"):
        main(["env"])


def test_interruption(monkeypatch, capsys):
    def interrupt(argv):
        raise KeyboardInterrupt

    monkeypatch.setattr(env, "main", interrupt)
    assert app.main(["env"]) == 130
    assert capsys.readouterr().err == "zsbir: error: interrupted\n"


def test_env_as_text_and_json(capsys):
    assert main(["env"]) == 0
    text = capsys.readouterr().out
    assert main(["env", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["zsbir_fast"]["version"] == __version__
    assert facts["torch"]["version"] in text
    assert "unknown (" not in text  # no probe failed
    assert facts["zsbir_fast"]["CUDA kernels"].startswith(("built", "not built: "))


def test_env_wrong_option(capsys):
    assert main(["env", "--jsn"]) == 2
    assert "zsbir env: error: unrecognized arguments: --jsn" in capsys.readouterr().err


def test_bench_prints_a_comparison(capsys):
    argv = ["bench", "--queries", "6", "--gallery", "300", "--classes", "5", "--repeats", "1"]
    assert main(argv) == 0
    out = capsys.readouterr().out
    for name in ("zsbir_fast kernel", "zsbir_fast reference", "torch.argsort"):
        assert name in out
    assert "all agree" in out


def test_bench_wrong_number(capsys):
    assert main(["bench", "--repeats", "0"]) == 2
    assert "zsbir bench: error: --repeats must be at least 1, got 0" in capsys.readouterr().err
