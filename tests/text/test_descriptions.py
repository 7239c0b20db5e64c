from __future__ import annotations

import json

import pytest

from zsbir_fast.data.names import plain_name
from zsbir_fast.data.splits import SPLIT_NAMES, load_split
from zsbir_fast.text.descriptions import (
    bundled_descriptions,
    describe_classes,
    load_descriptions,
)
from zsbir_fast.text.prompts import PROMPT_SETS
from zsbir_fast.text.quality import benchmark_classes


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


ANSWERS = {"shape": ["It is round."], "parts": ["It has legs.", "It has ears. "]}


def test_answers_are_chosen_by_prompt_set(tmp_path):
    stored = {"cat": {"source": "x", "answers": ANSWERS}, "dog": {"answers": {"shape": ["Long."]}}}
    path = tmp_path / "d.json"
    path.write_text(json.dumps(stored))
    both = ("It is round.", "It has legs.", "It has ears.")
    assert load_descriptions(path) == {"cat": both, "dog": ("Long.",)}
    shapes = {"cat": ("It is round.",), "dog": ("Long.",)}
    assert load_descriptions(path, prompts="shape") == shapes
    lacking = r"class 'dog' of .*d\.json must have answers to 'parts', got none to 'parts'"
    with pytest.raises(ValueError, match=f"^load_descriptions: {lacking}"):
        load_descriptions(path, prompts="parts")
    with pytest.raises(ValueError, match=r"^load_descriptions: prompts must be one of .*'part'"):
        load_descriptions(path, prompts="part")
    path.write_text(json.dumps({"cat": ["It is round."]}))
    with pytest.raises(
        ValueError, match=r"prompts must be None for .*, whose class 'cat' has sent"
    ):
        load_descriptions(path, prompts="parts")


@pytest.mark.parametrize("name", SPLIT_NAMES)
def test_every_class_of_every_benchmark_is_described(name):
    split = load_split(name)
    classes = (*split.seen, *split.unseen)
    for prompts, count in {"all": 7, "parts": 2, "sketch": 1, "drawing": 4}.items():
        described = describe_classes(classes, bundled_descriptions(prompts), fallback=())
        assert {len(sentences) for sentences in described.values()} == {count}


def test_two_names_for_one_thing_and_one_name_for_two_are_all_there():
    described = bundled_descriptions()
    assert len(described) == len(benchmark_classes()) == 300
    for name in ("motorbike", "motorcycle", "crocodile", "crocodilian", "mouse", "mouse (animal)"):
        assert len(described[name]) == 7
    assert described["mouse"] != described["mouse (animal)"]


def test_a_prompt_set_is_a_part_of_all():
    whole = bundled_descriptions("all")
    for prompts, questions in PROMPT_SETS.items():
        for name, sentences in bundled_descriptions(prompts).items():
            assert [s for s in whole[name] if s in sentences] == list(sentences)
            assert len(sentences) == sum({"appearance": 2, "parts": 2}.get(q, 1) for q in questions)
    assert bundled_descriptions() is bundled_descriptions()
    with pytest.raises(ValueError, match=r"^bundled_descriptions: prompts must be .*'licenced'"):
        bundled_descriptions("licenced")


def test_sentences_of_others_are_a_set_of_their_own():
    others, own = bundled_descriptions("licensed"), bundled_descriptions()
    assert set(others) < set(own)
    assert (len(others), sum(map(len, others.values()))) == (143, 822)  # as docs/data.md says
    assert not {s for v in others.values() for s in v} & {s for v in own.values() for s in v}


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
