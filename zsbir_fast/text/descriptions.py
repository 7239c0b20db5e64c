"""Sentences that describe classes: from a file, bundled, or made from the class name."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from zsbir_fast._files import reading
from zsbir_fast._words import reason, shown
from zsbir_fast.data import bundled
from zsbir_fast.data.filelists import read_text
from zsbir_fast.data.names import by_plain_name, listing, plain_name
from zsbir_fast.text.prompts import PHOTO, SKETCH, fill_prompts

Descriptions = dict[str, tuple[str, ...]]
# The first file that describes a class wins.
_BUNDLED = ("qd_caltech47", "sketchy125_partial", "tuberlin250_partial", "quickdraw110_partial")


def load_descriptions(path: str | Path) -> Descriptions:
    """Read descriptions of classes from a JSON file.

    Args:
        path: ``{"class": ["sentence", ...], ...}``, or the form of the bundled files,
            ``{"class": {"sentences": ["sentence", ...], ...}, ...}``.

    Returns:
        Sentences by class name.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is no JSON of this form, or two classes are spelt alike; the message
            names the class.
    """
    try:
        with reading("load_descriptions", path, "file"):
            text = read_text(path)
        stored = json.loads(text, object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError) as error:  # also text that is not UTF-8
        raise ValueError(f"load_descriptions: {path} must be JSON, got: {reason(error)}") from error
    if not isinstance(stored, dict):
        raise ValueError(
            f"load_descriptions: {path} must hold an object of classes, got a "
            f"{type(stored).__name__}"
        )
    by_plain_name("load_descriptions", f"classes of {path}", stored.items())
    return {name: _sentences(path, name, entry) for name, entry in stored.items()}


@cache
def bundled_descriptions() -> Descriptions:
    """Return the descriptions that ship with the package.

    Returns:
        Sentences by class name, of part of the classes of every published split and of all
        classes of qd_caltech. Written by language models: some details are invented.
    """
    found: dict[str, tuple[str, tuple[str, ...]]] = {}
    for file in _BUNDLED:
        stored = load_descriptions(bundled.path("descriptions") / f"{file}.json")
        for name, sentences in stored.items():
            found.setdefault(plain_name(name), (name, sentences))
    return dict(found.values())


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


def _sentences(path: str | Path, name: str, entry: Any) -> tuple[str, ...]:
    sentences = entry.get("sentences") if isinstance(entry, dict) else entry
    if not isinstance(sentences, list) or not all(isinstance(s, str) for s in sentences):
        raise ValueError(
            f"load_descriptions: class {shown(name)} of {path} must have a list of sentences, got "
            f"{shown(sentences)}"
        )
    return tuple(s.strip() for s in sentences if s.strip())
