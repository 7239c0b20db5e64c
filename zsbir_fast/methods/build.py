"""Build the model that a description names, new or from stored weights."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from zsbir_fast._words import reason, shown
from zsbir_fast.data.image_spec import ImageSpec
from zsbir_fast.encoders.weight_files import misfits
from zsbir_fast.methods.allocation import AllocationLimit
from zsbir_fast.methods.arguments import typed_arguments
from zsbir_fast.methods.contract import Method
from zsbir_fast.methods.identity import ModelIdentity
from zsbir_fast.methods.registry import method_class

_SPARE_BYTES = 512 << 20  # beside the weights in a file, for tensors that only building needs


def build_model(identity: ModelIdentity, *, stored: Mapping[str, Tensor] | None = None) -> Method:
    """Build the model that an identity describes.

    Args:
        identity: method, arguments and classes.
        stored: trained weights. With them the model is complete: nothing that they replace is
            looked up or fetched.

    Returns:
        The model in training mode; with ``stored``, those weights are in it.

    Raises:
        ValueError: the method is unknown, an argument is wrong, or ``stored`` does not fit.
        TypeError: the model lacks its classes or says no image size.
    """
    make = method_class(identity.method)
    if stored is None:
        arguments = typed_arguments(identity.method, make, identity.arguments)
        return _sound(make(identity.classes, **arguments), identity)
    held = sum(tensor.numel() * tensor.element_size() for tensor in stored.values())
    try:
        arguments = typed_arguments(identity.method, make, identity.arguments)
        arguments = make.complete(identity.classes, arguments, stored)
        with AllocationLimit(4 * held + _SPARE_BYTES):
            model = _sound(make(identity.classes, **arguments), identity)
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


def _sound(model: Method, identity: ModelIdentity) -> Method:
    """Refuse a model that forgot what the contract asks of it, before it is trained."""
    classes = getattr(model, "classes", None)
    if classes != identity.classes:
        raise TypeError(
            f"{type(model).__name__}.classes must be a tuple of the given "
            f"{len(identity.classes)} classes, got {shown(classes)}"
        )
    spec = model.image_spec()
    if not isinstance(spec, ImageSpec):
        raise TypeError(
            f"{type(model).__name__}.image_spec must give a zsbir_fast.ImageSpec, got {shown(spec)}"
        )
    return model
