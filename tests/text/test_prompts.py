from __future__ import annotations

import pytest

from zsbir_fast.text.prompts import (
    PHOTO,
    PROMPT_SETS,
    QUESTIONS,
    SKETCH,
    fill_prompt,
    fill_prompts,
    questions_of,
)


def test_names_are_spoken():
    assert fill_prompt(PHOTO, "hot-air_balloon") == "a photo of a hot-air balloon"
    assert fill_prompt(SKETCH, "car_(sedan)") == "a sketch of a car (sedan)"
    assert fill_prompt("{} {{x}}".replace("{{x}}", "x"), "cat") == "cat x"


def test_questions():
    questions = fill_prompts(list(QUESTIONS.values()), "cat")
    assert len(set(questions)) == len(QUESTIONS) == 5
    assert questions[0] == "What does a cat look like?"
    assert all(q.endswith("?") and "cat" in q for q in questions)


def test_prompt_sets_are_sets_of_questions():
    assert set(PROMPT_SETS) == {*QUESTIONS, "drawing", "all"}
    assert questions_of("parts") == ("parts",)
    assert questions_of("drawing") == ("shape", "parts", "sketch")
    assert questions_of("all") == ("appearance", "shape", "parts", "surface", "sketch")
    with pytest.raises(ValueError, match=r"^f: prompts must be one of .*got 'part' \(did you mean"):
        questions_of("part", function="f")


@pytest.mark.parametrize("template", ["a photo", "a {} of a {}"])
def test_templates_have_one_place(template):
    with pytest.raises(ValueError, match=r"template must have {} exactly once, got"):
        fill_prompt(template, "cat")


def test_names_are_not_empty():
    with pytest.raises(ValueError, match="name must not be empty, got '_ '"):
        fill_prompt(PHOTO, "_ ")


@pytest.mark.parametrize(("template", "name"), [(None, "cat"), ("a {}", 3)])
def test_what_is_no_text_is_a_type_error(template, name):
    with pytest.raises(TypeError, match=r"fill_prompt: (template|name) must be text, got "):
        fill_prompt(template, name)
