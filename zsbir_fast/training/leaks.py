"""Zero-shot means unseen: a model is not tested on classes that it was trained on, unless asked."""

from __future__ import annotations

from collections.abc import Sequence

from zsbir_fast.data.names import listing, shared_names

_ALL = 1000  # classes to spell out: a leak is named in full


def check_unseen(
    function: str, known: Sequence[str], unseen: Sequence[str], *, allow_seen: bool
) -> tuple[str, ...]:
    """Refuse a zero-shot test on classes that a model knows.

    Args:
        function: name for the message.
        known: classes that the model was trained on or chosen by.
        unseen: classes to test on.
        allow_seen: go on all the same.

    Returns:
        Those of ``unseen`` that the model knows, for :func:`leak_note`; empty in a zero-shot test.

    Raises:
        ValueError: there are such classes and ``allow_seen`` is False; the message names them.
    """
    seen = shared_names(unseen, known)
    if seen and not allow_seen:
        raise ValueError(
            f"{function}: unseen classes must be new to the model, got {len(seen)} of "
            f"{len(unseen)} that it was trained on or chosen by: "
            f"{listing(seen, limit=_ALL)}; allow_seen=True (--allow-seen) goes on and says so in "
            "every output"
        )
    return seen


def leak_note(seen: Sequence[str], classes: int) -> str:
    """Say that a result is no zero-shot result.

    Args:
        seen: classes of the test that the model knows.
        classes: number of classes of the test.

    Returns:
        A sentence for outputs; empty if there is nothing to say.
    """
    if not seen:
        return ""
    return (
        f"NOT ZERO-SHOT: the model was trained on or chosen by {len(seen)} of these {classes} "
        f"classes: {listing(seen, limit=_ALL)}."
    )
