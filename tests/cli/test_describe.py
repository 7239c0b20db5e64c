"""``zsbir describe``: what is described, what is told, and that a kill loses nothing."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys

import pytest

from tests.text.chat_server import ChatServer, completion, good_answer
from zsbir_fast.cli.app import main
from zsbir_fast.data.splits import load_split
from zsbir_fast.text import chat_model
from zsbir_fast.text.descriptions import load_descriptions


@pytest.fixture(autouse=True)
def _surroundings(monkeypatch, tmp_path):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-x")
    monkeypatch.setattr(chat_model, "FIRST_WAIT", 0.0)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def server():
    with ChatServer(good_answer) as running:
        yield running


def describe(server, *arguments):
    given = ("--model", "m", "--base_url", server.url, "--prompts", "parts", "--out", "d.json")
    return main(["describe", *arguments, *given])


def test_names_are_described(server, capsys):
    assert describe(server, "zebra", "hot-air balloon", "--temperature", "0.2", "--seed", "3") == 0
    written = capsys.readouterr()
    assert written.out == "2 of 2 classes are described in d.json (2 requests, 200 tokens)\n"
    assert written.err == ""
    assert list(load_descriptions("d.json")) == ["zebra", "hot-air balloon"]
    assert (server.requests[0]["temperature"], server.requests[0]["seed"]) == (0.2, 3)


@pytest.mark.parametrize(("part", "count"), [("seen", 37), ("unseen", 10), ("all", 47)])
def test_a_part_of_a_split_is_described(server, part, count):
    assert describe(server, "qd_caltech", "--part", part, "--sentences", "1") == 0
    split = load_split("qd_caltech")
    classes = {"seen": split.seen, "unseen": split.unseen, "all": (*split.seen, *split.unseen)}
    assert tuple(load_descriptions("d.json")) == classes[part]
    assert len(server.requests) == count
    rules = server.requests[0]["messages"][0]["content"]
    assert all(name in rules for name in (split.seen[0], split.unseen[-1]))


@pytest.mark.parametrize("text", ["zebra\n\nhot dog \n", "hot dog 1\nzebra 0\n"])
def test_a_file_of_names_is_described(server, tmp_path, text):
    (tmp_path / "classes.txt").write_text(text)
    assert describe(server, "classes.txt") == 0
    assert list(load_descriptions("d.json")) == ["zebra", "hot dog"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["sketchy-52"], "CLASSES must be one of sketchy-25.* got 'sketchy-52' .did you mean"),
        (["none.txt"], "read_names: no such list file: none.txt"),
        (["empty.txt"], "read_names: empty.txt must have at least one name, got none"),
        (["zebra", "Zebra"], "classes must differ by more than case"),
        (["zebra", "--temperature", "3"], r"LanguageModel: temperature must be in \[0, 2\], got 3"),
        (
            ["zebra", "--sentences", "0"],
            r"describe_with_model: sentences must be in \[1, 20\], got",
        ),
        (["zebra", "--max_tokens", "0"], "describe_with_model: max_tokens must be at least 1"),
        (["zebra", "--attempts", "0"], "describe_with_model: attempts must be at least 1, got 0"),
        (["zebra", "--timeout", "0"], "LanguageModel: timeout must be positive and finite, got 0"),
    ],
)
def test_wrong_arguments_are_told_before_anything_is_asked(
    server, tmp_path, capsys, arguments, told
):
    (tmp_path / "empty.txt").write_text("\n")
    assert describe(server, *arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith("zsbir: error: ")
    assert re.search(told, error), error
    assert server.requests == []


def test_a_prompt_set_that_is_none_is_wrong_usage(server, capsys):
    arguments = ["describe", "zebra", "--model", "m", "--out", "d.json", "--prompts", "part"]
    assert main(arguments) == 2
    assert "did you mean 'parts'?" in capsys.readouterr().err


def test_classes_without_a_good_answer_are_in_the_exit_code(server, capsys):
    server.behaviour = lambda body, n: (
        completion("I cannot help.") if "owl" in str(body["messages"][1]) else good_answer(body, n)
    )
    assert describe(server, "zebra", "owl", "--attempts", "2") == 1
    written = capsys.readouterr()
    assert written.out == "1 of 2 classes are described in d.json (3 requests, 300 tokens)\n"
    assert written.err == (
        "zsbir: error: describe: every class must get a description, got no good answer for 1 of "
        "them: 'owl' (parts: 'I cannot help.' refuses to describe the class)\n"
    )


def test_a_reached_budget_is_in_the_exit_code(server, capsys):
    assert describe(server, "zebra", "owl", "cat", "--max_requests", "1") == 1
    error = capsys.readouterr().err
    assert "the budget of 1 request is reached, 2 are left: 'owl', 'cat'; the same" in error
    assert describe(server, "zebra", "owl", "cat") == 0
    assert len(load_descriptions("d.json")) == 3


def test_a_killed_run_goes_on(server, tmp_path, capsys):
    """SIGKILL while the fifth class is asked about: four are on the disk, and asked for no more."""

    def behaviour(body, number):
        if number == 4:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
        return good_answer(body, number)

    server.behaviour = behaviour
    names = ["zebra", "owl", "cat", "dog", "bee", "pear", "key"]
    arguments = ["--model", "m", "--base_url", server.url, "--prompts", "parts", "--out", "d.json"]
    process = subprocess.Popen(
        [sys.executable, "-m", "zsbir_fast.cli", "describe", *names, *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    process.wait(60)
    assert process.returncode == -signal.SIGKILL
    kept = json.loads((tmp_path / "d.json").read_text())
    assert list(kept) == names[:4]
    server.requests.clear()
    server.behaviour = lambda body, n: good_answer(body, n + 50)
    assert describe(server, *names) == 0
    assert len(server.requests) == 3
    assert capsys.readouterr().out.startswith("7 of 7 classes are described in d.json (3 requests")
    whole = json.loads((tmp_path / "d.json").read_text())
    assert list(whole) == names
    assert {name: whole[name] for name in kept} == kept
    assert [path.name for path in tmp_path.iterdir()] == ["d.json"]
