"""Class names as people write them: compared without case, spaces, underscores and hyphens."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def plain_name(name: str) -> str:
    """Reduce a class name to its letters and digits, in lower case.

    Args:
        name: e.g. ``"hot-air_balloon"`` or ``"Hot air balloon"``.

    Returns:
        e.g. ``"hotairballoon"``.
    """
    return "".join(c for c in name.lower() if c.isalnum())


def spoken_name(name: str) -> str:
    """Write a class name as in a sentence.

    Args:
        name: e.g. ``"car_(sedan)"``.

    Returns:
        Words with single spaces, e.g. ``"car (sedan)"``; hyphens stay.
    """
    return " ".join(name.replace("_", " ").split())


def check_classes(function: str, seen: Sequence[str], unseen: Sequence[str]) -> None:
    """Refuse class lists that would make a zero-shot result meaningless.

    Args:
        function: name for the message.
        seen: classes to train on.
        unseen: classes to retrieve.

    Raises:
        ValueError: a class is listed twice, is both seen and unseen, or ``unseen`` is empty. Names
            that differ only in case or separators count as the same.
    """
    for what, names in (("seen", seen), ("unseen", unseen)):
        twice = _repeated(names)
        if twice:
            raise ValueError(
                f"{function}: {what} classes must differ from each other, got {listing(twice)} "
                "more than once"
            )
    if not unseen:
        raise ValueError(f"{function}: unseen classes must be at least one, got none")
    known = {plain_name(name) for name in seen}
    both = [name for name in unseen if plain_name(name) in known]
    if both:
        raise ValueError(
            f"{function}: seen and unseen classes must not overlap, got {listing(both)} in both"
        )


def listing(items: Iterable[object], *, limit: int = 10) -> str:
    """Write items for a message; the rest beyond ``limit`` is counted.

    Args:
        items: what to list.
        limit: how many to spell out.

    Returns:
        e.g. ``"'cat', 'dog' and 3 more"``.
    """
    found = [str(item) if isinstance(item, int) else repr(str(item)) for item in items]
    rest = len(found) - limit
    return ", ".join(found[:limit]) + (f" and {rest} more" if rest > 0 else "")


def _repeated(names: Sequence[str]) -> list[str]:
    met: set[str] = set()
    twice = []
    for name in names:
        plain = plain_name(name)
        if plain in met:
            twice.append(name)
        met.add(plain)
    return twice
