"""Methods by name: those of the package, those of installed packages, and those of a program."""

from __future__ import annotations

import importlib
import inspect
from importlib.metadata import EntryPoint, entry_points

from zsbir_fast._words import did_you_mean, reason, shown
from zsbir_fast.methods.contract import Method

_SHIPPED = {
    "dmwan": "zsbir_fast.methods.dmwan.model:DMWAN",
    "cmaan": "zsbir_fast.methods.cmaan.model:CMAAN",
    "clusterretri": "zsbir_fast.methods.clusterretri:ClusterRetri",
    "sbka": "zsbir_fast.methods.sbka:SBKA",
}
ENTRY_POINTS = "zsbir_fast.methods"
"""Group of entry points by which an installed package offers methods of its own."""

_registered: dict[str, type[Method]] = {}


def register_method(name: str, method: type[Method]) -> None:
    """Give a method a name, under which this program can train, store and load it.

    A package that is installed does the same for every program by an entry point of the group
    ``zsbir_fast.methods``, ``name = "package.module:Class"``.

    Args:
        name: the name for ``--method`` and in the files of its models.
        method: the class.

    Raises:
        ValueError: another method has the name, the class lacks a member of the contract, or its
            constructor takes other arguments than the contract says.
        TypeError: it is no :class:`zsbir_fast.Method`.
    """
    _require_whole("register_method", name, method)
    if _registered.get(name, method) is not method or name in {*_SHIPPED, *_offered()}:
        raise ValueError(f"register_method: name must be new, got {name!r}, which is taken")
    _registered[name] = method


def method_names() -> list[str]:
    """Return the names of all methods, the package's own first."""
    return list(dict.fromkeys([*_SHIPPED, *sorted(_offered()), *_registered]))


def method_class(name: str) -> type[Method]:
    """Return the class of a method.

    Args:
        name: its name.

    Raises:
        ValueError: no method has the name, two have it, it cannot be loaded, or the class lacks a
            member of the contract.
        TypeError: the thing of this name is no method.
    """
    if name in _registered:
        return _registered[name]
    offered = _offered()
    points = offered.get(name, [])
    if len(points) + (name in _SHIPPED) > 1:
        owners = [*(["zsbir_fast"] * (name in _SHIPPED)), *(point.value for point in points)]
        raise ValueError(
            f"method_class: a method's name must be its own, got {name!r}, which "
            f"{' and '.join(owners)} have"
        )
    if name in _SHIPPED:
        module, _, attribute = _SHIPPED[name].partition(":")
        shipped: type[Method] = getattr(importlib.import_module(module), attribute)
        return shipped
    if points:
        return _load(name, points[0])
    names = method_names()
    raise ValueError(
        f"method_class: method must be one of {', '.join(names)}, got {shown(name)}"
        f"{did_you_mean(name, names)}"
    )


def _offered() -> dict[str, list[EntryPoint]]:
    found: dict[str, list[EntryPoint]] = {}
    for point in entry_points(group=ENTRY_POINTS):
        if point.value not in (other.value for other in found.get(point.name, [])):
            found.setdefault(point.name, []).append(point)
    return found


def _load(name: str, point: EntryPoint) -> type[Method]:
    try:
        method = point.load()
    except (Exception, SystemExit) as error:  # foreign code can raise anything
        raise ValueError(
            f"method_class: method {name!r} must be loadable from {point.value}, but "
            f"{reason(error)}"
        ) from error
    _require_whole("method_class", name, method)
    return method  # type: ignore[no-any-return]  # checked in the line above


def _require_whole(function: str, name: str, method: object) -> None:
    if not (inspect.isclass(method) and issubclass(method, Method)):
        raise TypeError(
            f"{function}: method {name!r} must be a class made from zsbir_fast.Method, got "
            f"{shown(method)}"
        )
    lacking = sorted(getattr(method, "__abstractmethods__", ()))
    if lacking:
        raise ValueError(
            f"{function}: method {name!r} must have the members {', '.join(lacking)}, which "
            f"{method.__module__}.{method.__qualname__} lacks"
        )
    parameters = inspect.signature(method).parameters.values()
    by_name = {inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY}
    names = [parameter.name for parameter in parameters]
    if names[:1] != ["classes"] or not {parameter.kind for parameter in parameters} <= by_name:
        raise ValueError(
            f"{function}: method {name!r} must be built as {method.__name__}(classes, **arguments) "
            f"with named arguments alone, got the constructor {inspect.signature(method)}"
        )
