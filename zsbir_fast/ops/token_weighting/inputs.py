"""The checks of token weighting before any work starts."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from zsbir_fast._arguments import as_temperature
from zsbir_fast.ops._checks import (
    as_labels,
    check_dimensions,
    check_dtype,
    check_floating,
    check_has_values,
    check_labels_of_classes,
    check_one_device,
    check_shape,
    check_tensor,
)
from zsbir_fast.reference.token_weighting import accumulation_dtype

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


class Inputs(NamedTuple):
    """The inputs of the operator ``zsbir::token_weighting``, in its order."""

    text: Tensor
    text_mask: Tensor
    weights: Tensor | None
    sketch_keys: Tensor
    sketch_values: Tensor
    photo_keys: Tensor | None
    photo_values: Tensor | None
    labels: Tensor
    temperature: float


def check_token_weighting(
    text: Tensor,
    text_mask: Tensor,
    sketch: tuple[Tensor, Tensor],
    photo: tuple[Tensor, Tensor],
    labels: Any,
    *,
    all_pairs: bool,
) -> Tensor:
    """Raise unless keys and values of both sides, text and labels fit each other.

    Returns:
        The labels, int64 [B].
    """
    name = "token_weighting"
    tensors = {
        "text": text,
        "text_mask": text_mask,
        "sketch_keys": sketch[0],
        "sketch_values": sketch[1],
        "photo_keys": photo[0],
        "photo_values": photo[1],
    }
    for argument, tensor in tensors.items():
        check_tensor(name, argument, tensor)
    _check_text(text, text_mask)
    check_has_values(name, "text", text)
    pairs = sketch[0].shape[0] if sketch[0].ndim == 3 else 0
    if isinstance(labels, Tensor) and labels.ndim == 1:
        pairs = labels.shape[0]
    checked = as_labels(name, "labels", labels, pairs, "text", text)
    _check_patches("sketch", *sketch, pairs, text.shape[2])
    photos = len(photo[0]) if all_pairs and photo[0].ndim == 3 else pairs
    _check_patches("photo", *photo, photos, text.shape[2])
    if sketch[1].shape[2] != photo[1].shape[2]:
        raise ValueError(
            f"token_weighting: photo_values must be {sketch[1].shape[2]} wide like "
            f"sketch_values, got {photo[1].shape[2]}"
        )
    check_one_device(name, **tensors)
    check_dtypes(name, {k: v for k, v in tensors.items() if k != "text_mask"})
    # Where they are unseen, the kernels treat a label out of range as a class without words.
    check_labels_of_classes(name, "labels", checked, text.shape[0])
    return checked


def check_operator(op: str, given: Inputs) -> None:
    """Raise unless the operator can count on dimensions and devices; sizes are compared later."""
    photo = (given.photo_keys, given.photo_values)
    check_one_device(op, **{k: v for k, v in given._asdict().items() if k != "temperature"})
    check_dimensions(
        op,
        3,
        text=given.text,
        sketch_keys=given.sketch_keys,
        sketch_values=given.sketch_values,
        photo_keys=photo[0],
        photo_values=photo[1],
    )
    if given.text.dtype not in DTYPES:
        raise TypeError(f"{op}: text must be one of {_names(DTYPES)}, got {given.text.dtype}")
    together = {"photo_keys": photo[0], "photo_values": photo[1], "weights": given.weights}
    if len({x is None for x in together.values()}) > 1:
        missing = next(k for k, v in together.items() if v is None)
        raise ValueError(f"{op}: {missing} must be given with {_names(together)}, got None")
    for argument, keys in (("sketch_keys", given.sketch_keys), ("photo_keys", photo[0])):
        if keys is not None and keys.shape[1] == 0:
            raise ValueError(
                f"{op}: {argument} must be [B, N, D] with N >= 1, got {list(keys.shape)}"
            )
    if given.text.shape[2] == 0:
        raise ValueError(f"{op}: text must be at least 1 wide, got {list(given.text.shape)}")
    as_temperature(op, given.temperature)


def check_pairwise_saved(
    sketch_tokens: Tensor,
    photo_tokens: Tensor,
    all_pairs: bool,
    saved: dict[str, Tensor],
) -> None:
    """Raise unless the tensors of a forward pass and the gradient of its scores fit the tokens."""
    op = "pairwise_token_score_backward"
    check_pairwise(sketch_tokens, photo_tokens, all_pairs=all_pairs, function=op)
    check_one_device(op, sketch_tokens=sketch_tokens, **saved)
    (sketches, patches), photos = sketch_tokens.shape[:2], photo_tokens.shape[0]
    pairs = (sketches, photos) if all_pairs else (sketches,)
    wanted = {
        "grad_scores": pairs,
        "sketch_norms": (sketches, patches),
        "photo_norms": tuple(photo_tokens.shape[:2]),
        "cosine": (*pairs, patches),
        "best": (*pairs, patches),
    }
    for name, tensor in saved.items():
        dtype = torch.int32 if name == "best" else accumulation_dtype(sketch_tokens.dtype)
        check_dtype(op, name, tensor, dtype)
        check_shape(op, name, tensor, wanted[name])


def check_text_global(text: Tensor, text_global: Tensor | None) -> Tensor:
    """The feature that ``beta="text_attention"`` needs, or an error."""
    shape = (text.shape[0], text.shape[2])
    if text_global is not None:
        check_tensor("token_weighting", "text_global", text_global)
    if text_global is None or text_global.shape != shape:
        got = None if text_global is None else list(text_global.shape)
        raise ValueError(
            f"token_weighting: text_global must be {list(shape)} for beta='text_attention', "
            f"got {got}"
        )
    check_one_device("token_weighting", text=text, text_global=text_global)
    check_floating("token_weighting", "text_global", text_global)
    return text_global


def check_pairwise(
    sketch_tokens: Tensor,
    photo_tokens: Tensor,
    *,
    all_pairs: bool,
    function: str = "pairwise_token_score",
) -> None:
    """Raise unless the tokens of both sides fit each other."""
    tensors = {"sketch_tokens": sketch_tokens, "photo_tokens": photo_tokens}
    for name, tokens in tensors.items():
        check_tensor(function, name, tokens)
        if tokens.ndim != 3 or tokens.shape[1] == 0:
            raise ValueError(
                f"{function}: {name} must be [B, N, D] with N >= 1, got {list(tokens.shape)}"
            )
    batches_differ = not all_pairs and sketch_tokens.shape[0] != photo_tokens.shape[0]
    if batches_differ or sketch_tokens.shape[2] != photo_tokens.shape[2]:
        raise ValueError(
            f"{function}: photo_tokens must agree with sketch_tokens in "
            f"{'D' if all_pairs else 'B and D'}, got "
            f"{list(sketch_tokens.shape)} and {list(photo_tokens.shape)}"
        )
    check_one_device(function, **tensors)
    check_dtypes(function, tensors)


def check_dtypes(function: str, tensors: dict[str, Tensor]) -> None:
    """Raise unless all tensors have the dtype of the first, and kernels know it."""
    first, dtype = next((name, t.dtype) for name, t in tensors.items())
    if dtype not in DTYPES:
        raise TypeError(f"{function}: {first} must be one of {_names(DTYPES)}, got {dtype}")
    for name, tensor in tensors.items():
        if tensor.dtype != dtype:
            raise TypeError(f"{function}: {name} must be {dtype} like {first}, got {tensor.dtype}")


def _names(words: Any) -> str:
    return ", ".join(str(word).removeprefix("torch.") for word in words)


def _check_text(text: Tensor, text_mask: Tensor) -> None:
    if text.ndim != 3:
        raise ValueError(f"token_weighting: text must be [C, L, D], got {list(text.shape)}")
    if text.shape[2] == 0:
        raise ValueError(f"token_weighting: text must be at least 1 wide, got {list(text.shape)}")
    if text_mask.dtype != torch.bool:
        raise TypeError(f"token_weighting: text_mask must be bool, got {text_mask.dtype}")
    if text_mask.shape != text.shape[:2]:
        raise ValueError(
            f"token_weighting: text_mask must be {list(text.shape[:2])} like text, "
            f"got {list(text_mask.shape)}"
        )


def _check_patches(modality: str, keys: Tensor, values: Tensor, batch: int, width: int) -> None:
    if keys.ndim != 3 or keys.shape[0] != batch or keys.shape[1] == 0 or keys.shape[2] != width:
        raise ValueError(
            f"token_weighting: {modality}_keys must be [{batch}, N, {width}] with N >= 1, "
            f"got {list(keys.shape)}"
        )
    if values.ndim != 3 or values.shape[:2] != keys.shape[:2]:
        raise ValueError(
            f"token_weighting: {modality}_values must be [{batch}, {keys.shape[1]}, V], "
            f"got {list(values.shape)}"
        )
