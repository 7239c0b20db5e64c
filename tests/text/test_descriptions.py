from __future__ import annotations

import json

import pytest

from zsbir_fast.data.names import plain_name
from zsbir_fast.data.splits import load_split
from zsbir_fast.text.descriptions import (
    bundled_descriptions,
    describe_classes,
    load_descriptions,
)


def test_both_forms_are_read(tmp_path):
    stored = {"cat": ["It purrs. ", " "], "hot dog": {"source": "x", "sentences": ["A bun."]}}
    (tmp_path / "d.json").write_text(json.dumps(stored))
    found = load_descriptions(tmp_path / "d.json")
    assert found == {"cat": ("It purrs.",), "hot dog": ("A bun.",)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"d\.json must be JSON, got"),
        ("[1]", "must hold an object of classes, got a list"),
        ('{"cat": "It purrs."}', "class 'cat' of .* must have a list of sentences, got 'It pu"),
        ('{"cat": {"text": []}}', "class 'cat' of .* must have a list of sentences, got None"),
        ('{"cat": ["a"], "cat": ["b"]}', r"must be JSON, got: 'cat' more than once in one object"),
        ('{"cat": ["a", 1]}', "class 'cat' of .* must have a list of sentences"),
    ],
)
def test_malformed_files_are_named(tmp_path, text, message):
    (tmp_path / "d.json").write_text(text)
    with pytest.raises(ValueError, match=f"load_descriptions: .*{message}"):
        load_descriptions(tmp_path / "d.json")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"load_descriptions: no such file: .*none\.json"):
        load_descriptions(tmp_path / "none.json")


def test_the_bundled_benchmark_is_described():
    split = load_split("qd_caltech")
    described = bundled_descriptions()
    counts = {name: len(described[name]) for name in (*split.seen, *split.unseen)}
    # Empty sentences of the source are dropped.
    assert {n: k for n, k in counts.items() if k != 16} == {
        "dog": 15,
        "rhinoceros": 10,
        "saxophone": 15,
    }


def test_every_class_gets_a_sentence():
    described = describe_classes(["Hot_Dog", "yeti"], {"hot dog": ("A bun.",), "cat": ()})
    assert described == {
        "Hot_Dog": ("A bun.",),
        "yeti": ("a photo of a yeti", "a sketch of a yeti"),
    }
    assert describe_classes(["piano"])["piano"] == bundled_descriptions()["piano"]
    assert describe_classes(["yeti"], fallback=["{}!"]) == {"yeti": ("yeti!",)}


def test_without_a_fallback_every_class_must_be_described():
    with pytest.raises(ValueError, match="must cover every class, got none for 'yeti', 'cat'"):
        describe_classes(["yeti", "piano", "cat"], {"piano": ("x",), "cat": ()}, fallback=())


def test_classes_that_are_spelt_alike_are_refused(tmp_path):
    (tmp_path / "d.json").write_text(json.dumps({"hot dog": ["A."], "Hot_Dog": ["B."]}))
    with pytest.raises(ValueError, match=r"classes of .*d\.json must .* got 'hot dog' and 'Hot_D"):
        load_descriptions(tmp_path / "d.json")
    with pytest.raises(ValueError, match="describe_classes: classes of descriptions must differ"):
        describe_classes(["x"], {"hot dog": ("A.",), "Hot_Dog": ("B.",)})
    plain = [plain_name(name) for name in bundled_descriptions()]
    assert len(set(plain)) == len(plain)


def test_folders_deep_json_and_long_values_are_one_short_line(tmp_path):
    with pytest.raises(IsADirectoryError, match=r"load_descriptions: .* must be a readable file"):
        load_descriptions(tmp_path)
    path = tmp_path / "d.json"
    path.write_text("[" * 100_000)
    with pytest.raises(ValueError, match=r"load_descriptions: .*d\.json must be JSON, got: "):
        load_descriptions(path)
    path.write_text(json.dumps({"x" * 100_000: "y" * 100_000}))
    with pytest.raises(ValueError, match="must have a list of sentences") as caught:
        load_descriptions(path)
    assert str(caught.value).count("(100,000 characters)") == 2
    assert len(str(caught.value)) < 800
