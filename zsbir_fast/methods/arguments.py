"""Constructor arguments of a method: as files hold them, and as its constructor takes them.

A constructor argument may be a group of settings, a frozen dataclass whose instance is the default,
and a setting of it may be such a group again. Files and configs hold a group as an object.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import typing
from collections.abc import Mapping
from typing import Any

from zsbir_fast._words import did_you_mean, shown
from zsbir_fast.methods.contract import Method
from zsbir_fast.methods.plain_types import described, fits

_REQUIRED = inspect.Parameter.empty


def plain_arguments(
    name: str, method: type[Method], arguments: Mapping[str, Any]
) -> dict[str, Any]:
    """Bring arguments to the form of files: every argument is there, with plain values.

    Args:
        name: name of the method, for messages.
        method: its class.
        arguments: those that differ from the defaults; groups as objects or dataclasses.

    Returns:
        Argument -> plain value, or an object of plain values for a group.

    Raises:
        ValueError: an argument is unknown or missing, a group is no object, or a value is not
            plain.
    """
    defaults = _defaults(method)
    _require_known(name, "", arguments, defaults)
    found = {}
    for key, default in defaults.items():
        value = arguments.get(key, default)
        if value is _REQUIRED:
            raise ValueError(f"method {name} needs the argument {key!r}, got none")
        if _is_group(default):
            value = _whole_group(name, key, default, value)
        found[key] = _plain(name, key, value)
    return found


def typed_arguments(
    name: str, method: type[Method], arguments: Mapping[str, Any]
) -> dict[str, Any]:
    """Bring arguments from a file to the types that the constructor takes.

    Args:
        name: name of the method, for messages.
        method: its class.
        arguments: argument -> plain value, or an object for a group.

    Returns:
        Keyword arguments, with dataclasses in place of objects.

    Raises:
        ValueError: an argument is unknown, a group is no object, or a value in it is of another
            type.
    """
    defaults = _defaults(method)
    _require_known(name, "", arguments, defaults)
    found = dict(arguments)
    for key, value in arguments.items():
        default = defaults[key]
        if _is_group(default):
            found[key] = _typed(default, _whole_group(name, key, default, value))
    return found


def argument_names(method: type[Method]) -> list[str]:
    """Return the dotted names of all arguments of a method, and the names of its groups.

    Args:
        method: its class.
    """
    names = []
    for key, default in _defaults(method).items():
        names.append(key)
        if _is_group(default):
            names += _group_names(f"{key}.", default)
    return names


def flat_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments by their dotted names, as on the command line.

    Args:
        arguments: plain arguments; groups as objects.
    """
    found: dict[str, Any] = {}
    for key, value in arguments.items():
        if isinstance(value, Mapping):
            inner = flat_arguments(value)
            found.update({f"{key}.{name}": held for name, held in inner.items()})
        else:
            found[key] = value
    return found


def _defaults(method: type[Method]) -> dict[str, Any]:
    left_out = {"classes", *method.data_arguments}
    parameters = inspect.signature(method).parameters
    return {key: each.default for key, each in parameters.items() if key not in left_out}


def _plain(name: str, key: str, value: Any) -> Any:
    try:
        return json.loads(json.dumps(value))
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(
            f"argument {key!r} of method {name} must be a plain value (a number, text, None) or a "
            f"list or group of such, got {shown(value)}"
        ) from error


def _is_group(default: Any) -> bool:
    return dataclasses.is_dataclass(default) and not isinstance(default, type)


def _whole_group(name: str, key: str, default: Any, value: Any) -> dict[str, Any]:
    if _is_group(value):
        value = dataclasses.asdict(value)
    if not isinstance(value, Mapping):
        raise ValueError(
            f"argument {key!r} of method {name} must be an object of settings, got {shown(value)}"
        )
    defaults = {field.name: getattr(default, field.name) for field in dataclasses.fields(default)}
    _require_known(name, f"{key}.", value, defaults)
    annotations = _annotations(type(default))
    for inner, held in value.items():
        if not fits(held, annotations.get(inner, Any)):
            raise ValueError(
                f"argument '{key}.{inner}' of method {name} must be "
                f"{described(annotations[inner])}, got {shown(held)}"
            )
    return {
        inner: _whole_group(name, f"{key}.{inner}", held, value.get(inner, held))
        if _is_group(held)
        else value.get(inner, held)
        for inner, held in defaults.items()
    }


def _typed(default: Any, values: Mapping[str, Any]) -> Any:
    """Make a group of the kind of ``default`` from a whole object."""
    inner = {key: getattr(default, key) for key in values}
    return type(default)(
        **{
            key: _typed(inner[key], value) if _is_group(inner[key]) else value
            for key, value in values.items()
        }
    )


def _group_names(prefix: str, group: Any) -> list[str]:
    names = []
    for field in dataclasses.fields(group):
        names.append(f"{prefix}{field.name}")
        inner = getattr(group, field.name)
        if _is_group(inner):
            names += _group_names(f"{prefix}{field.name}.", inner)
    return names


def _annotations(group: type) -> dict[str, Any]:
    try:
        return typing.get_type_hints(group)
    except (NameError, TypeError):  # a name that only type checkers know: nothing is checked
        return {}


def _require_known(
    name: str, prefix: str, given: Mapping[str, Any], known: Mapping[str, Any]
) -> None:
    for key in given:
        if key not in known:
            raise ValueError(
                f"method {name} has no argument {shown(f'{prefix}{key}')}{did_you_mean(key, known)}"
            )
