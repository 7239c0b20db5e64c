"""Which model a checkpoint belongs to: the method and the arguments that built it."""

from __future__ import annotations

import importlib
import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from zsbir_fast._words import did_you_mean, reason, shortened, shown
from zsbir_fast.data.names import listing, same_names
from zsbir_fast.encoders.weight_files import misfits
from zsbir_fast.methods.allocation import AllocationLimit
from zsbir_fast.text.class_text import ClassText

METHODS: dict[str, str] = {"dmwan": "zsbir_fast.methods.dmwan.model:DMWAN"}
"""Method name -> class of its model."""

NOT_STORED = ("classes", "text")
"""Constructor arguments that are data, not settings."""

HOW_NOT_WHAT = ("impl",)
"""Arguments that change how a model is computed, not which model it is."""

FORMAT_VERSION = 1

_SPARE_BYTES = 512 << 20  # beside the weights that a file holds, for what only building needs


@dataclass(frozen=True)
class ModelIdentity:
    """Method, constructor arguments and classes of a model.

    Attributes:
        method: key of ``METHODS``.
        arguments: constructor arguments, plain values only.
        classes: names of the classes it was trained on.
        chosen_by: seen classes that were held out and chose its checkpoint.
        benchmark: name of the benchmark it was trained on; empty if unknown.
    """

    method: str
    arguments: Mapping[str, Any]
    classes: tuple[str, ...]
    chosen_by: tuple[str, ...] = ()
    benchmark: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, fit for JSON and for a checkpoint."""
        return {
            "format": FORMAT_VERSION,
            "method": self.method,
            "arguments": dict(self.arguments),
            "classes": list(self.classes),
            "chosen_by": list(self.chosen_by),
            "benchmark": self.benchmark,
        }

    @staticmethod
    def of(method: str, arguments: Mapping[str, Any], classes: Sequence[str]) -> ModelIdentity:
        """Make an identity from arguments as a config gives them.

        What the arguments leave out is stored with its default, and all are brought to the plain
        values that files can hold: the same model always has the same identity.

        Args:
            method: key of ``METHODS``.
            arguments: constructor arguments without ``classes``.
            classes: class names.

        Returns:
            The identity.

        Raises:
            ValueError: no such method.
        """
        parameters = inspect.signature(model_class(method)).parameters
        defaults = {
            name: parameter.default
            for name, parameter in parameters.items()
            if name not in NOT_STORED
        }
        plain = json.loads(json.dumps({**defaults, **arguments}))
        return ModelIdentity(method, plain, tuple(classes))

    @staticmethod
    def from_dict(stored: Any) -> ModelIdentity:
        """Read what ``to_dict`` wrote.

        Args:
            stored: what was found in a file, of any kind.

        Returns:
            The identity. Its method and the values of its arguments are not checked.

        Raises:
            ValueError: it is no description of a model, or written in another format.
        """
        if not isinstance(stored, Mapping):
            raise ValueError(
                f"ModelIdentity: description must be an object, got {type(stored).__name__}"
            )
        if stored.get("format") != FORMAT_VERSION:
            raise ValueError(
                f"ModelIdentity: format must be {FORMAT_VERSION}, got {shown(stored.get('format'))}"
            )
        method, arguments, classes = (stored.get(key) for key in ("method", "arguments", "classes"))
        if not isinstance(method, str):
            raise ValueError(f"ModelIdentity: method must be text, got {shown(method)}")
        if not isinstance(arguments, Mapping):
            raise ValueError(f"ModelIdentity: arguments must be an object, got {shown(arguments)}")
        for name, value in arguments.items():
            if not all(map(_is_plain, value if isinstance(value, (list, tuple)) else (value,))):
                raise ValueError(
                    f"ModelIdentity: argument {shown(name)} must be a plain value or a list of "
                    f"such, got a {type(value).__name__}"
                )
        if not isinstance(classes, (list, tuple)) or not classes or not all(map(_is_text, classes)):
            raise ValueError(
                f"ModelIdentity: classes must be a list of names, got {shown(classes)}"
            )
        chosen_by, benchmark = stored.get("chosen_by", ()), stored.get("benchmark", "")
        if not isinstance(chosen_by, (list, tuple)) or not all(map(_is_text, chosen_by)):
            raise ValueError(
                f"ModelIdentity: chosen_by must be a list of names, got {shown(chosen_by)}"
            )
        if not _is_text(benchmark):
            raise ValueError(f"ModelIdentity: benchmark must be text, got {shown(benchmark)}")
        return ModelIdentity(
            method=method,
            arguments=dict(arguments),
            classes=tuple(classes),
            chosen_by=tuple(chosen_by),
            benchmark=benchmark,
        )

    def require_same(self, stored: Mapping[str, Any] | None) -> None:
        """Refuse weights that belong to another model.

        Args:
            stored: what the checkpoint says of itself.

        Raises:
            ValueError: it was not written by zsbir, or its model differs from this one; the
                message names both.
        """
        if stored is None:
            raise ValueError("checkpoint must be one written by zsbir, got a file that is not")
        other = ModelIdentity.from_dict(stored)
        if other.method != self.method:
            raise ValueError(
                f"checkpoint must be of method {self.method!r}, "
                f"got one of method {shown(other.method)}"
            )
        keys = [*self.arguments, *(k for k in other.arguments if k not in self.arguments)]
        for key in keys:
            if key in HOW_NOT_WHAT:
                continue
            mine, its = self.arguments.get(key), other.arguments.get(key)
            if mine != its:
                raise ValueError(
                    f"checkpoint must "
                    f"be of a {self.method} model with {shortened(key)}={shown(mine)}, "
                    f"got one with {shortened(key)}={shown(its)}"
                )
        if not same_names(other.classes, self.classes):
            raise ValueError(
                f"checkpoint must be of a {self.method} model trained on the same "
                f"{len(self.classes)} classes, got one trained on {len(other.classes)} classes "
                f"({listing(other.classes, limit=3)})"
            )
        if "chosen_by" in stored and not same_names(other.chosen_by, self.chosen_by):
            raise ValueError(
                "checkpoint must be of a run that holds out the classes "
                f"{listing(self.chosen_by) or 'none'}, got one that holds out "
                f"{listing(other.chosen_by) or 'none'}"
            )


def model_class(method: str) -> type[nn.Module]:
    """Return the class of a method's model.

    Args:
        method: key of ``METHODS``.

    Returns:
        The class.

    Raises:
        ValueError: no such method.
    """
    if method not in METHODS:
        raise ValueError(
            f"model_class: method must be one of {', '.join(METHODS)}, got {shown(method)}"
            f"{did_you_mean(method, METHODS)}"
        )
    module, name = METHODS[method].split(":")
    found: type[nn.Module] = getattr(importlib.import_module(module), name)
    return found


def build_model(
    identity: ModelIdentity, *, stored: Mapping[str, Tensor] | None = None
) -> nn.Module:
    """Build the model that an identity describes.

    Args:
        identity: method, arguments and classes.
        stored: trained weights. With them the model is complete: neither pre-trained weights nor
            a text encoder are needed, so nothing is looked up or fetched.

    Returns:
        The model in training mode; with ``stored``, those weights are in it.

    Raises:
        ValueError: an argument is wrong, or ``stored`` does not fit.
    """
    make = model_class(identity.method)
    if stored is None:
        return make(identity.classes, **identity.arguments)
    arguments = {**identity.arguments, "weights": None}
    if "pair_weighting.tokens" in stored:
        arguments["text"] = _stored_text(identity.classes, stored)
    elif arguments.get("weighting", "text") == "text":  # or the text would be fetched
        raise ValueError("build_model: stored must hold pair_weighting.tokens, got none")
    held = sum(tensor.numel() * tensor.element_size() for tensor in stored.values())
    try:
        _require_known(make, identity.arguments)
        with AllocationLimit(4 * held + _SPARE_BYTES):
            model = make(identity.classes, **arguments)
    except Exception as error:  # arguments from elsewhere can raise anything
        raise ValueError(
            f"build_model: identity must describe the {identity.method} model whose weights are "
            f"stored, but {reason(error)}"
        ) from error
    problems = misfits(model, stored)
    if problems:
        raise ValueError(
            f"build_model: stored must be the weights of this {identity.method} model, got "
            f"{problems}"
        )
    model.load_state_dict(dict(stored))
    return model


def _stored_text(classes: Sequence[str], stored: Mapping[str, Tensor]) -> ClassText:
    names = [f"pair_weighting.{name}" for name in ("tokens", "mask", "text_global")]
    absent = [name for name in names if name not in stored]
    if absent:
        raise ValueError(f"build_model: stored must hold {', '.join(names)}, but lacks {absent[0]}")
    tokens, mask, global_ = (stored[name] for name in names)
    return ClassText.from_tensors(classes, tokens, mask=mask, global_=global_)


def _require_known(make: type[nn.Module], arguments: Mapping[str, Any]) -> None:
    known = inspect.signature(make).parameters.keys() - set(NOT_STORED)
    unknown = sorted(arguments.keys() - known)
    if unknown:
        raise ValueError(f"it has no argument {shown(unknown[0])}")


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, (bool, int, float, str))
