"""What ``describe_with_model`` refuses before it asks anything."""

from __future__ import annotations

import subprocess
import sys

import pytest

import zsbir_fast as zf
from tests.text.chat_server import describe


@pytest.mark.parametrize(
    ("classes", "options", "error", "told"),
    [
        ("zebra", {}, TypeError, "classes must be a list of names, got the text 'zebra'"),
        ([], {}, ValueError, "classes must be at least one, got none"),
        (["zebra", "_"], {}, ValueError, "classes must have a name, got '_'"),
        (["zebra"], {"others": ["-", "_"]}, ValueError, "others must"),
        (["zebra"], {"others": "owl"}, TypeError, "others must be a list of names"),
        (["zebra"], {"model": "m"}, TypeError, "model must be a LanguageModel, got 'm'"),
        (["zebra"], {"prompts": "licensed"}, ValueError, "prompts must be one of"),
        (["zebra"], {"sentences": 21}, ValueError, r"sentences must be in \[1, 20\], got 21"),
        (["zebra"], {"attempts": 0}, ValueError, "attempts must be at least 1, got 0"),
        (["zebra"], {"max_requests": 1.5}, TypeError, "max_requests must be an integer, got 1.5"),
        (["zebra"], {"max_tokens": 0}, ValueError, "max_tokens must be at least 1, got 0"),
        (["zebra"], {"progress": 1}, TypeError, "progress must be True or False, got 1"),
    ],
)
def test_wrong_arguments(tmp_path, classes, options, error, told):
    given = {"model": zf.LanguageModel(model="m"), **options}
    with pytest.raises(error, match=rf"^describe_with_model: {told}"):
        zf.describe_with_model(classes, tmp_path / "d.json", **given)


@pytest.mark.parametrize(
    ("options", "error", "told"),
    [
        ({"model": ""}, ValueError, "model must not be empty, got ''"),
        ({"model": None}, TypeError, "model must be text, got None"),
        ({"base_url": "localhost:80"}, ValueError, "base_url must begin with http:// or https://"),
        ({"base_url": 3}, TypeError, "base_url must be text, got 3"),
        ({"key_variable": " "}, ValueError, "key_variable must not be empty"),
        ({"temperature": 2.1}, ValueError, r"temperature must be in \[0, 2\], got 2.1"),
        ({"temperature": float("nan")}, ValueError, r"temperature must be in \[0, 2\], got nan"),
        ({"seed": -1}, ValueError, "seed must be at least 0, got -1"),
        ({"timeout": float("inf")}, ValueError, "timeout must be positive and finite, got inf"),
        ({"retries": 1.0}, TypeError, "retries must be an integer, got 1.0"),
    ],
)
def test_wrong_attributes_of_a_model(options, error, told):
    with pytest.raises(error, match=f"^LanguageModel: {told}"):
        zf.LanguageModel(**{"model": "m", **options})


def test_a_key_is_needed_where_the_endpoint_is_not_ones_own(server, tmp_path, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    text = "the environment variable MY_KEY must hold the key of the endpoint, it is not set"
    with pytest.raises(ValueError, match=f"^describe_with_model: {text}"):
        describe(server, tmp_path / "d.json", base_url=None, key_variable="MY_KEY")
    assert describe(server, tmp_path / "d.json").problem is None
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    monkeypatch.setenv("MY_KEY", "k")
    describe(server, tmp_path / "e.json", base_url=None, key_variable="MY_KEY")
    assert server.headers[-1]["authorization"] == "Bearer k"


def test_without_the_library_it_is_told_what_to_install(server, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(ImportError, match=r"^describe_with_model: the library openai must be inst"):
        describe(server, tmp_path / "d.json")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", r"d\.json must be JSON, got"),
        ('{"zebra": ["It is striped."]}', r"d\.json must be a file of answers, as this .* got \["),
        ('{"zebra": {"answers": {"parts": "x"}}}', "must be a file of answers, as this command"),
        ('{"zebra": {"answers": {}}, "Zebra": {"answers": {}}}', "classes of .* must differ by"),
        (
            '{"owl": {"source": {"model": "n", "seed": 1}, "answers": {}}}',
            "must have answers of model m, temperature 0.7, seed 0, got 'owl' of model n, seed 1; "
            "give another file",
        ),
    ],
)
def test_files_that_cannot_be_gone_on_with(server, tmp_path, content, told):
    path = tmp_path / "d.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=f"^describe_with_model: .*{told}"):
        describe(server, path)
    assert path.read_text() == content
    assert server.requests == []


def test_places_that_cannot_be_written_to_are_told_before_anything_is_asked(server, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        ValueError, match=r"^describe_with_model: path must be in a folder that can"
    ):
        describe(server, tmp_path / "file" / "d.json")
    with pytest.raises(
        IsADirectoryError, match=r"^describe_with_model: .* must be a readable file"
    ):
        describe(server, tmp_path)
    assert server.requests == []
    assert describe(server, tmp_path / "new" / "folder" / "d.json").problem is None


def test_the_client_is_not_loaded_before_it_is_needed():
    code = (
        "import sys, zsbir_fast as zf; zf.describe_with_model, zf.LanguageModel(model='m')\n"
        "print('openai' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout == "False\n"
