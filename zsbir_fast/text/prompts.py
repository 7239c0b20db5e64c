"""Sentences around a class name: prompts for text encoders and questions for language models."""

from __future__ import annotations

from collections.abc import Sequence

from zsbir_fast._words import shown
from zsbir_fast.data.names import spoken_name

PHOTO = "a photo of a {}"
SKETCH = "a sketch of a {}"
#: Questions whose answers describe a class; the wording is our reading of "interrogative
#: sentences" in Su et al., CMAAN, arXiv 2407.00979.
QUESTIONS = (
    "What does a {} look like?",
    "What are the visual features of a {}?",
    "How would you describe the shape of a {}?",
    "What are the parts of a {}?",
)


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
        templates: texts with ``{}`` exactly once, e.g. ``QUESTIONS``.
        name: class name.

    Returns:
        One sentence per template.

    Raises:
        ValueError: as for :func:`fill_prompt`.
    """
    return tuple(fill_prompt(template, name) for template in templates)
