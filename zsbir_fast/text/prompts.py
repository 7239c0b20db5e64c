"""Sentences around a class name: prompts for text encoders and questions for language models."""

from __future__ import annotations

from collections.abc import Sequence

from zsbir_fast._arguments import check_choice
from zsbir_fast._words import shown
from zsbir_fast.data.names import spoken_name

PHOTO = "a photo of a {}"
SKETCH = "a sketch of a {}"
#: Questions by name, whose answers describe a class. The wording is our reading of "interrogative
#: sentences" in Su et al., CMAAN, arXiv 2407.00979, which does not print them.
QUESTIONS = {
    "appearance": "What does a {} look like?",
    "shape": "How would you describe the outline of a {}?",
    "parts": "What are the parts of a {}, and how are they arranged?",
    "surface": "What colours, materials and textures does a {} have?",
    "sketch": "Which lines would a person draw to show a {}?",
}
#: Named sets of questions: every question alone, those whose answers hold for a line drawing, all.
PROMPT_SETS = {
    **{name: (name,) for name in QUESTIONS},
    "drawing": ("shape", "parts", "sketch"),
    "all": tuple(QUESTIONS),
}


def questions_of(prompts: str, *, function: str = "questions_of") -> tuple[str, ...]:
    """Look up the questions of a prompt set.

    Args:
        prompts: name of the set, a key of ``PROMPT_SETS``.
        function: name for the message.

    Returns:
        Names of questions, keys of ``QUESTIONS``.

    Raises:
        ValueError: an unknown set.
    """
    check_choice(function, "prompts", prompts, PROMPT_SETS)
    return PROMPT_SETS[prompts]


def fill_prompt(template: str, name: str) -> str:
    """Put a class name into a template.

    Args:
        template: text with ``{}`` exactly once.
        name: class name; underscores become spaces.

    Returns:
        The sentence, e.g. ``"a photo of a hot-air balloon"``.

    Raises:
        TypeError: one of them is no text.
        ValueError: the template does not have ``{}`` exactly once, or the name is empty.
    """
    for what, given in (("template", template), ("name", name)):
        if not isinstance(given, str):
            raise TypeError(f"fill_prompt: {what} must be text, got {shown(given)}")
    if template.count("{}") != 1:
        raise ValueError(
            f"fill_prompt: template must have {{}} exactly once, got {shown(template)}"
        )
    if not spoken_name(name):
        raise ValueError(f"fill_prompt: name must not be empty, got {shown(name)}")
    return template.replace("{}", spoken_name(name))


def fill_prompts(templates: Sequence[str], name: str) -> tuple[str, ...]:
    """Put a class name into several templates.

    Args:
        templates: texts with ``{}`` exactly once, e.g. ``(PHOTO, SKETCH)``.
        name: class name.

    Returns:
        One sentence per template.

    Raises:
        ValueError: as for :func:`fill_prompt`.
    """
    return tuple(fill_prompt(template, name) for template in templates)
