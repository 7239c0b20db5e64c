"""Checks of words and numbers that users give, for every layer: one clear error before any work."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from zsbir_fast._words import did_you_mean, shown

# Below it cosines and logits that are divided by a temperature leave the range of float32.
SMALLEST_TEMPERATURE = 1e-30


def check_choice(function: str, argument: str, value: Any, choices: Any) -> None:
    """Raise unless the value is one of the known words.

    Args:
        function: named in the error.
        argument: likewise.
        value: what was given.
        choices: a ``Literal`` of words, or the words.

    Raises:
        ValueError: it is none of them; the one that it is nearest to is named.
    """
    # Not typing.get_args: torch 2.6 cannot compile it.
    known = tuple(getattr(choices, "__args__", choices))
    if not isinstance(value, str) or value not in known:
        raise ValueError(
            f"{function}: {argument} must be one of {', '.join(known)}, "
            f"got {shown(value)}{did_you_mean(value, known)}"
        )


def check_flag(function: str, argument: str, value: Any) -> None:
    """Raise TypeError unless the value is True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"{function}: {argument} must be True or False, got {shown(value)}")


def as_number(function: str, argument: str, value: Any) -> float:
    """The value as a float.

    Raises:
        TypeError: it is no real number.
        ValueError: it is an integer beyond the range of floats.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{function}: {argument} must be a number, got {shown(value)}")
    try:
        return float(value)
    except OverflowError:
        raise ValueError(
            f"{function}: {argument} must be in the range of floats, got {_in_short(value)}"
        ) from None


def as_integer(
    function: str, argument: str, value: Any, *, least: int, most: int | None = None
) -> int:
    """The value as an integer of a range.

    Raises:
        TypeError: it is no integer.
        ValueError: it is out of range.
    """
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{function}: {argument} must be an integer, got {shown(value)}")
    if value < least or (most is not None and value > most):
        wanted = f"at least {least}" if most is None else f"in [{least}, {most}]"
        raise ValueError(f"{function}: {argument} must be {wanted}, got {_in_short(value)}")
    return int(value)


def as_margin(function: str, value: Any) -> float:
    """A margin as a float.

    Raises:
        TypeError: it is no real number.
        ValueError: it is negative or not finite.
    """
    margin = as_number(function, "margin", value)
    if not 0 <= margin < math.inf:
        raise ValueError(f"{function}: margin must be finite and not negative, got {margin}")
    return margin


def as_share(function: str, argument: str, value: Any) -> float:
    """A number in [0, 1] as a float."""
    share = as_number(function, argument, value)
    if not 0 <= share <= 1:
        raise ValueError(f"{function}: {argument} must be in [0, 1], got {share}")
    return share


def as_temperature(function: str, value: Any, argument: str = "temperature") -> float:
    """A temperature as a float.

    Raises:
        TypeError: it is no real number.
        ValueError: it is not positive, infinite, or so small that what it divides overflows.
    """
    temperature = as_number(function, argument, value)
    if not temperature > 0:
        raise ValueError(f"{function}: {argument} must be positive, got {temperature}")
    if not SMALLEST_TEMPERATURE <= temperature < math.inf:
        raise ValueError(
            f"{function}: {argument} must be finite and at least {SMALLEST_TEMPERATURE}, "
            f"got {temperature}"
        )
    return temperature


def _in_short(value: Any) -> str:
    """An integer in digits; one of more than 63 bits by their number."""
    bits = int(value).bit_length()
    return str(value) if bits < 64 else f"an integer of {bits} bits"
