"""Words for messages. Standard library only."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable

_CLOSE = 0.5
_LONGEST = 200  # characters; ten of them still make a message that can be read


def shortened(text: object, *, limit: int = _LONGEST) -> str:
    """Cut a text that a message passes on: a path, or the words of another library.

    Args:
        text: the text, or a value that is written by its ``str``.
        limit: most characters of it.

    Returns:
        The text on one line; characters that were cut are counted.
    """
    line = " ".join(str(text).split())
    return line if len(line) <= limit else f"{line[:limit]}... ({len(line):,} characters)"


def shown(value: object, *, limit: int = _LONGEST) -> str:
    """Quote a value that a user gave.

    Args:
        value: anything.
        limit: most characters of it.

    Returns:
        Its ``repr``, cut to the limit; characters that were cut are counted.
    """
    if isinstance(value, str):
        rest = f" ({len(value):,} characters)" if len(value) > limit else ""
        return f"{value[:limit]!r}{'...' if rest else ''}{rest}"
    try:
        return shortened(repr(value), limit=limit)
    except Exception:  # a number of more digits than Python writes, or a foreign repr
        return f"a {type(value).__name__}"


def reason(error: BaseException) -> str:
    """Pass on why another library failed.

    Args:
        error: the error that it raised.

    Returns:
        Its text on one line, cut; the name of its type where it has none.
    """
    return shortened(error) or type(error).__name__


def options_of(thing: object) -> str:
    """Write the options of an object as its constructor takes them, for a ``repr``.

    Args:
        thing: an object that keeps its keyword-only arguments as attributes of the same names.

    Returns:
        E.g. ``"margin=0.2, distance='cosine'"``; options that are None, or are not kept, are left
        out.
    """
    parameters = inspect.signature(type(thing)).parameters.values()
    kept = {p.name: getattr(thing, p.name, None) for p in parameters if p.kind is p.KEYWORD_ONLY}
    return ", ".join(f"{name}={shown(value)}" for name, value in kept.items() if value is not None)


def did_you_mean(word: object, choices: Iterable[str], *, cutoff: float = _CLOSE) -> str:
    """Name the choice that a misspelt word is nearest to.

    Args:
        word: the given word.
        choices: the valid words.
        cutoff: how alike they must be, from 0 to 1.

    Returns:
        ``" (did you mean 'sketchy-25'?)"``, to be put behind the word in a message; empty if
        the word is one of them or nothing is near.
    """
    if not isinstance(word, str) or word in (choices := tuple(choices)):
        return ""
    by_lower = {choice.lower(): choice for choice in choices}
    near = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=cutoff)
    return f" (did you mean {by_lower[near[0]]!r}?)" if near else ""
