"""Zero-shot means unseen: a model is not tested on classes that it knows, unless asked to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from zsbir_fast.data.names import listing, shared_names

_ALL = 1000  # classes to spell out: a leak is named in full


@dataclass(frozen=True)
class Leak:
    """Classes of a test that a model knows; none in a zero-shot test.

    Attributes:
        trained: classes that it was trained on.
        chosen_by: classes that were held out of training and chose its checkpoint.
        classes: number of classes of the test.
    """

    trained: tuple[str, ...] = ()
    chosen_by: tuple[str, ...] = ()
    classes: int = 0

    @property
    def names(self) -> tuple[str, ...]:
        """All of these classes."""
        return (*self.trained, *self.chosen_by)

    def __str__(self) -> str:
        """Write them out; empty if there are none."""
        kinds = (
            (self.trained, "that it was trained on"),
            (self.chosen_by, "that its checkpoint was chosen by"),
        )
        return " and ".join(
            f"{len(names)} of {self.classes} {what} ({listing(names, limit=_ALL)})"
            for names, what in kinds
            if names
        )

    @property
    def note(self) -> str:
        """Say that a result is no zero-shot result; empty if it is one."""
        return f"NOT ZERO-SHOT: the model was tested on {self}." if self.names else ""


NO_LEAK = Leak()


def check_unseen(
    function: str,
    unseen: Sequence[str],
    *,
    trained: Sequence[str],
    chosen_by: Sequence[str] = (),
    allow_seen: bool,
) -> Leak:
    """Refuse a zero-shot test on classes that a model knows.

    Args:
        function: name for the message.
        unseen: classes to test on.
        trained: classes that the model was trained on.
        chosen_by: classes that were held out of training and chose its checkpoint.
        allow_seen: go on all the same.

    Returns:
        Those of ``unseen`` that the model knows.

    Raises:
        ValueError: there are such classes and ``allow_seen`` is False; the message names them.
    """
    leak = Leak(shared_names(unseen, trained), shared_names(unseen, chosen_by), len(unseen))
    if leak.names and not allow_seen:
        raise ValueError(
            f"{function}: unseen classes must be new to the model, got {leak}; allow_seen=True "
            "(--allow-seen) goes on and says so in every output"
        )
    return leak
