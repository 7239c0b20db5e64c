"""Sentences that describe classes: from a file, bundled, or made from the class name."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from zsbir_fast._arguments import check_choice
from zsbir_fast._files import reading
from zsbir_fast._words import reason, shown
from zsbir_fast.data import bundled
from zsbir_fast.data.filelists import read_text
from zsbir_fast.data.names import by_plain_name, listing, plain_name
from zsbir_fast.text.prompts import PHOTO, PROMPT_SETS, SKETCH, fill_prompts, questions_of

Descriptions = dict[str, tuple[str, ...]]
LICENSED = "licensed"  # the sentences of others, which answer no question of ours
BUNDLED_SETS = (*PROMPT_SETS, LICENSED)


def load_descriptions(path: str | Path, *, prompts: str | None = None) -> Descriptions:
    """Read descriptions of classes from a JSON file.

    Args:
        path: ``{"class": ["sentence", ...], ...}``, or the form of ``zsbir describe``,
            ``{"class": {"answers": {"parts": ["sentence", ...], ...}, ...}, ...}``, or with
            ``"sentences": ["sentence", ...]`` in place of the answers.
        prompts: the answers to this prompt set only, e.g. ``"parts"``; None: all sentences.

    Returns:
        Sentences by class name.

    Raises:
        FileNotFoundError: no such file.
        ValueError: an unknown prompt set, the file is no JSON of this form, two classes are spelt
            alike, or a class lacks an answer to a question of the set; the message names the class.
    """
    questions = None if prompts is None else questions_of(prompts, function="load_descriptions")
    return {
        name: _sentences(path, name, entry, questions) for name, entry in read_entries(path).items()
    }


def read_entries(path: str | Path, *, function: str = "load_descriptions") -> dict[str, Any]:
    """Read what a JSON file of descriptions has on each class.

    Args:
        path: the file.
        function: name for the message.

    Returns:
        Class name -> a list of sentences, or an object; what is in them is not checked.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is no JSON object, or two classes are spelt alike.
    """
    try:
        with reading(function, path, "file"):
            text = read_text(path)
        stored = json.loads(text, object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError) as error:  # also text that is not UTF-8
        raise ValueError(f"{function}: {path} must be JSON, got: {reason(error)}") from error
    if not isinstance(stored, dict):
        raise ValueError(
            f"{function}: {path} must hold an object of classes, got a {type(stored).__name__}"
        )
    by_plain_name(function, f"classes of {path}", stored.items())
    return stored


@cache
def bundled_descriptions(prompts: str = "all") -> Descriptions:
    """Return the descriptions that ship with the package.

    Args:
        prompts: which sentences. The names of ``PROMPT_SETS`` in ``zsbir_fast.text.prompts`` are
            sets of questions: ``"appearance"``, ``"shape"``, ``"parts"``, ``"surface"``,
            ``"sketch"``, ``"drawing"`` (shape, parts and sketch) and ``"all"``, seven sentences a
            class. ``"licensed"``: sentences of other projects, of part of the classes.

    Returns:
        Sentences by class name, of all 300 classes of the published splits and of qd_caltech
        (``"licensed"``: of fewer). They were written by language models and keep the rules of
        ``zsbir_fast.text.quality``. ``SOURCES.md`` beside the files says who made which.

    Raises:
        ValueError: an unknown set.
    """
    check_choice("bundled_descriptions", "prompts", prompts, BUNDLED_SETS)
    folder = bundled.path("descriptions")
    if prompts == LICENSED:
        return load_descriptions(folder / "licensed.json")
    return load_descriptions(folder / "written.json", prompts=prompts)


def describe_classes(
    classes: Sequence[str],
    descriptions: Descriptions | None = None,
    *,
    fallback: Sequence[str] = (PHOTO, SKETCH),
) -> Descriptions:
    """Describe every class, with templates where there are no sentences.

    Args:
        classes: class names; compared without case, blanks, underscores and hyphens.
        descriptions: sentences by class name; None takes the bundled ones.
        fallback: templates for classes without sentences; empty refuses them.

    Returns:
        At least one sentence for every class.

    Raises:
        ValueError: a class has no sentences and there is no fallback.
    """
    known = bundled_descriptions() if descriptions is None else descriptions
    described = by_plain_name(
        "describe_classes",
        "classes of descriptions",
        ((name, sentences) for name, sentences in known.items() if sentences),
    )
    missing = [name for name in classes if plain_name(name) not in described]
    if missing and not fallback:
        raise ValueError(
            f"describe_classes: descriptions must cover every class, got none for "
            f"{listing(missing)}"
        )
    return {
        name: described.get(plain_name(name)) or fill_prompts(fallback, name) for name in classes
    }


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object of JSON; of two keys that are the same one would vanish."""
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = sorted(key for key in found if keys.count(key) > 1)
        raise ValueError(f"{listing(twice)} more than once in one object")
    return found


def _sentences(
    path: str | Path, name: str, entry: Any, questions: Sequence[str] | None
) -> tuple[str, ...]:
    answers = entry.get("answers") if isinstance(entry, dict) else None
    if isinstance(answers, dict):
        chosen = answers if questions is None else questions
        lists = [answers.get(question) for question in chosen]
        missing = [q for q, found in zip(chosen, lists, strict=True) if not found]
        if missing:
            raise ValueError(
                f"load_descriptions: class {shown(name)} of {path} must have answers to "
                f"{listing(chosen)}, got none to {listing(missing)}"
            )
    else:
        if questions is not None:
            raise ValueError(
                f"load_descriptions: prompts must be None for {path}, whose class {shown(name)} "
                "has sentences that answer no question"
            )
        lists = [entry.get("sentences") if isinstance(entry, dict) else entry]
    for sentences in lists:
        if not isinstance(sentences, list) or not all(isinstance(s, str) for s in sentences):
            raise ValueError(
                f"load_descriptions: class {shown(name)} of {path} must have a list of sentences, "
                f"got {shown(sentences)}"
            )
    return tuple(s.strip() for sentences in lists for s in sentences or () if s.strip())
