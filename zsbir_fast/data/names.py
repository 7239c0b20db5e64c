"""Class names as people write them: compared without case, separators and Unicode composition."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from zsbir_fast._words import did_you_mean, shown

T = TypeVar("T")


def plain_name(name: str) -> str:
    """Bring a class name to the form in which class names are compared.

    Case, blanks, underscores and hyphens of any kind are taken out, and composed and decomposed
    Unicode become the same. Everything else counts: vowel signs, accents, ``+``, ``#``, brackets
    and emoji tell classes apart.

    Args:
        name: e.g. ``"hot-air_balloon"`` or ``"Hot air balloon"``.

    Returns:
        E.g. ``"hotairballoon"``. A name of nothing but separators keeps them.
    """
    # Folding can undo the normalisation and the other way round, hence twice.
    folded = unicodedata.normalize("NFC", unicodedata.normalize("NFD", name).casefold())
    return "".join(c for c in folded if not _separates(c)) or folded


def spoken_name(name: str) -> str:
    """Write a class name as in a sentence.

    Args:
        name: e.g. ``"car_(sedan)"``.

    Returns:
        Words with single spaces, e.g. ``"car (sedan)"``; hyphens stay.
    """
    return " ".join(name.replace("_", " ").split())


def by_plain_name(function: str, what: str, items: Iterable[tuple[str, T]]) -> dict[str, T]:
    """Key items by the plain form of their names.

    Args:
        function: name for the message.
        what: owner of the names, for the message, e.g. ``"seen classes"``.
        items: pairs of a name and anything.

    Returns:
        Plain name -> the item, in the order given.

    Raises:
        ValueError: two names have the same plain form; the message has both.
    """
    spelt: dict[str, str] = {}
    found: dict[str, T] = {}
    for name, item in items:
        plain = plain_name(name)
        if plain in found:
            composed = {unicodedata.normalize("NFC", n) for n in (spelt[plain], name)}
            same = len(composed) == 1  # they look the same on the screen
            first, second = (ascii(n) if same else shown(n) for n in (spelt[plain], name))
            raise ValueError(
                f"{function}: {what} must differ by more than case, separators and Unicode "
                f"composition, got {first} and {second}"
            )
        spelt[plain], found[plain] = name, item
    return found


def check_distinct(function: str, what: str, names: Sequence[str]) -> None:
    """Refuse class names that cannot be written or are taken for one another.

    Args:
        function: name for the message.
        what: their kind, for the message, e.g. ``"seen classes"``.
        names: class names.

    Raises:
        TypeError: ``names`` is a single text, has no order, or holds something else than text.
        ValueError: a name is empty or holds bytes that are no text, as a folder's name in an old
            encoding does, or two are the same by :func:`plain_name`.
    """
    if isinstance(names, str):
        raise TypeError(f"{function}: {what} must be a list of names, got the text {shown(names)}")
    if not hasattr(names, "__getitem__") or isinstance(names, Mapping):
        # The order is that of the labels: a set has another one at every start.
        raise TypeError(f"{function}: {what} must be a list of names, got {type(names).__name__}")
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"{function}: {what} must be text, got {shown(name)}")
        if not name.strip():
            raise ValueError(f"{function}: {what} must have a name, got {shown(name)}")
        if name.encode("utf-8", "replace").decode() != name:
            raise ValueError(
                f"{function}: {what} must be Unicode text, "
                f"got {shown(name)}; rename the folder if its "
                "name is in another encoding"
            )
    by_plain_name(function, what, ((name, None) for name in names))


def check_classes(function: str, seen: Sequence[str], unseen: Sequence[str]) -> None:
    """Refuse class lists that would make a zero-shot result meaningless.

    Args:
        function: name for the message.
        seen: classes to train on.
        unseen: classes to retrieve.

    Raises:
        TypeError: a list is a text, or holds something else than text.
        ValueError: a class is nameless or listed twice, is both seen and unseen, or ``unseen`` is
            empty. Names are compared by :func:`plain_name`.
    """
    check_distinct(function, "seen classes", seen)
    check_distinct(function, "unseen classes", unseen)
    if not unseen:
        raise ValueError(f"{function}: unseen classes must be at least one, got none")
    both = shared_names(unseen, seen)
    if both:
        raise ValueError(
            f"{function}: seen and unseen classes must not overlap, got {listing(both)} in both"
        )


def shared_names(names: Iterable[str], others: Iterable[str]) -> tuple[str, ...]:
    """Find the class names that two lists share.

    Args:
        names: class names.
        others: class names, maybe in another spelling.

    Returns:
        Those of ``names`` that are among ``others``.
    """
    known = {plain_name(name) for name in others}
    return tuple(name for name in names if plain_name(name) in known)


def same_names(names: Sequence[str], others: Sequence[str]) -> bool:
    """Tell whether two lists name the same classes in the same order.

    Args:
        names: class names.
        others: class names, maybe in another spelling.

    Returns:
        Whether they do.
    """
    return [plain_name(name) for name in names] == [plain_name(name) for name in others]


def with_nearest(names: Sequence[str], choices: Iterable[str]) -> str:
    """List names that were not found; a single one with the choice nearest to it.

    Args:
        names: the names that were not found.
        choices: the names that exist.

    Returns:
        E.g. ``"'zebbra' (did you mean 'zebra'?)"``.
    """
    if len(names) != 1:
        return listing(names)
    return f"{shown(names[0])}{did_you_mean(names[0], choices, cutoff=0.75)}"


def listing(items: Iterable[object], *, limit: int = 10) -> str:
    """Write items for a message; the rest beyond ``limit`` is counted.

    Args:
        items: the items.
        limit: how many to spell out.

    Returns:
        E.g. ``"'cat', 'dog' and 3 more"``.
    """
    found = [str(item) if isinstance(item, int) else shown(str(item)) for item in items]
    rest = len(found) - limit
    return ", ".join(found[:limit]) + (f" and {rest} more" if rest > 0 else "")


def _separates(character: str) -> bool:
    return character == "_" or character.isspace() or unicodedata.category(character) == "Pd"
