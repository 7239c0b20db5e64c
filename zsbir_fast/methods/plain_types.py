"""Whether a plain value from a file is of the type that an annotation says."""

from __future__ import annotations

import types
import typing
from collections.abc import Sequence
from typing import Any, Literal, Union

_KINDS: dict[Any, tuple[type, ...]] = {
    bool: (bool,),
    int: (int,),
    float: (int, float),
    str: (str,),
    type(None): (type(None),),
}


def fits(value: object, annotation: Any) -> bool:
    """Compare a plain value with an annotation of plain types, their lists, unions and choices.

    Args:
        value: the value.
        annotation: the annotation, resolved; of other kinds than these anything fits.

    Returns:
        Whether it fits. Whole numbers are floats, truth values are no numbers.
    """
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (Union, types.UnionType):
        return any(fits(value, part) for part in parts)
    if origin is Literal:
        return any(type(value) is type(part) and value == part for part in parts)
    if origin in (list, Sequence) and parts:
        return isinstance(value, (list, tuple)) and all(fits(each, parts[0]) for each in value)
    kinds = _KINDS.get(annotation)
    if kinds is None:
        return True
    return isinstance(value, kinds) and (annotation is bool or not isinstance(value, bool))


def described(annotation: Any) -> str:
    """Write an annotation for a message.

    Args:
        annotation: the annotation, resolved.

    Returns:
        E.g. ``"one of 'text', 'pairwise'"`` or ``"float or None"``.
    """
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (Union, types.UnionType):
        return " or ".join(map(described, parts))
    if origin is Literal:
        return f"one of {', '.join(map(repr, parts))}"
    if origin in (list, Sequence) and parts:
        return f"a list of {described(parts[0])}"
    return "None" if annotation is type(None) else getattr(annotation, "__name__", str(annotation))
