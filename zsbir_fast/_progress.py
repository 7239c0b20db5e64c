"""Progress that people read: a bar on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")
SECONDS_BETWEEN_LINES = 10.0


def with_progress(items: Iterable[T], total: int, what: str, *, unit: str) -> Iterable[T]:
    """Pass items on and show on standard error how far they are.

    Args:
        items: what is worked through.
        total: how many there are.
        what: what is done with them.
        unit: what one of them is called.

    Returns:
        The same items. A terminal shows a bar, which vanishes at the end. A file or a pipe, where a
        bar would be written again and again, gets a line every ten seconds.
    """
    if total < 2:
        return items
    if sys.stderr.isatty():
        from tqdm.auto import tqdm

        bar: Iterable[T] = tqdm(items, total=total, desc=what, unit=unit, leave=False)
        return bar
    return _with_lines(items, total, what, unit)


def _with_lines(items: Iterable[T], total: int, what: str, unit: str) -> Iterator[T]:
    start = said = time.monotonic()
    for done, item in enumerate(items):
        now = time.monotonic()
        if now - said >= SECONDS_BETWEEN_LINES:
            said = now
            sys.stderr.write(f"zsbir: {what}: {done} of {total} {unit} ({now - start:.0f} s)\n")
        yield item
