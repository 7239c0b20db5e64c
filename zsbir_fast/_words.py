"""Words for messages. Standard library only."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_CLOSE = 0.5


def did_you_mean(word: object, choices: Iterable[str], *, cutoff: float = _CLOSE) -> str:
    """Name the choice that a misspelt word is nearest to.

    Args:
        word: what was given.
        choices: what is valid.
        cutoff: how alike they must be, from 0 to 1.

    Returns:
        ``" (did you mean 'sketchy-25'?)"``, to be put behind the word in a message; empty if
        the word is one of them or nothing is near.
    """
    if word in (choices := tuple(choices)):
        return ""
    by_lower = {choice.lower(): choice for choice in choices}
    near = difflib.get_close_matches(str(word).lower(), by_lower, n=1, cutoff=cutoff)
    return f" (did you mean {by_lower[near[0]]!r}?)" if near else ""
