"""What the token weighting refuses, before any work starts."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from zsbir_fast.ops._library import check_one_device

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def check_token_weighting(
    text: Tensor,
    text_mask: Tensor,
    sketch: tuple[Tensor, Tensor],
    photo: tuple[Tensor, Tensor],
    labels: Tensor,
    *,
    all_pairs: bool,
) -> None:
    """Raise unless keys and values of both sides, text and labels fit each other."""
    _check_text(text, text_mask, labels)
    _check_patches("sketch", *sketch, len(labels), text.shape[2])
    photos = len(photo[0]) if all_pairs and photo[0].ndim == 3 else len(labels)
    _check_patches("photo", *photo, photos, text.shape[2])
    if sketch[1].shape[2] != photo[1].shape[2]:
        raise ValueError(
            f"token_weighting: photo_values must be {sketch[1].shape[2]} wide like "
            f"sketch_values, got {photo[1].shape[2]}"
        )
    tensors = {
        "text": text,
        "text_mask": text_mask,
        "sketch_keys": sketch[0],
        "sketch_values": sketch[1],
        "photo_keys": photo[0],
        "photo_values": photo[1],
        "labels": labels,
    }
    check_one_device("token_weighting", **tensors)
    floats = {k: v for k, v in tensors.items() if k not in ("text_mask", "labels")}
    check_dtypes("token_weighting", floats)
    _check_label_values(labels, text.shape[0])


def check_text_global(text: Tensor, text_global: Tensor | None) -> Tensor:
    """The feature that ``beta="text_attention"`` needs, or an error."""
    shape = (text.shape[0], text.shape[2])
    if text_global is None or text_global.shape != shape:
        got = None if text_global is None else tuple(text_global.shape)
        raise ValueError(
            f"token_weighting: text_global must be {list(shape)} for beta='text_attention', "
            f"got {got}"
        )
    return text_global


def check_pairwise(sketch_tokens: Tensor, photo_tokens: Tensor, *, all_pairs: bool) -> None:
    """Raise unless the tokens of both sides fit each other."""
    tensors = {"sketch_tokens": sketch_tokens, "photo_tokens": photo_tokens}
    for name, tokens in tensors.items():
        if tokens.ndim != 3 or tokens.shape[1] == 0:
            raise ValueError(
                f"pairwise_token_score: {name} must be [B, N, D] with N >= 1, "
                f"got {tuple(tokens.shape)}"
            )
    batches_differ = not all_pairs and sketch_tokens.shape[0] != photo_tokens.shape[0]
    if batches_differ or sketch_tokens.shape[2] != photo_tokens.shape[2]:
        raise ValueError(
            f"pairwise_token_score: photo_tokens must agree with sketch_tokens in "
            f"{'D' if all_pairs else 'B and D'}, got "
            f"{tuple(sketch_tokens.shape)} and {tuple(photo_tokens.shape)}"
        )
    check_one_device("pairwise_token_score", **tensors)
    check_dtypes("pairwise_token_score", tensors)


def check_dtypes(function: str, tensors: dict[str, Tensor]) -> None:
    """Raise unless all tensors have the dtype of the first, and kernels know it."""
    first, dtype = next((name, t.dtype) for name, t in tensors.items())
    if dtype not in DTYPES:
        known = ", ".join(str(d).removeprefix("torch.") for d in DTYPES)
        raise TypeError(f"{function}: {first} must be one of {known}, got {dtype}")
    for name, tensor in tensors.items():
        if tensor.dtype != dtype:
            raise TypeError(f"{function}: {name} must be {dtype} like {first}, got {tensor.dtype}")


def _check_label_values(labels: Tensor, classes: int) -> None:
    # Elsewhere looking would wait for the device or break the graph: the kernels treat such a
    # label as a class without words.
    unseen = torch.compiler.is_compiling() or labels.device.type != "cpu"
    if unseen or labels.numel() == 0 or torch._C._functorch.is_functorch_wrapped_tensor(labels):
        return
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise ValueError(
            f"token_weighting: labels must be in [0, {classes}), got {low if low < 0 else high}"
        )


def _check_text(text: Tensor, text_mask: Tensor, labels: Tensor) -> None:
    if text.ndim != 3:
        raise ValueError(f"token_weighting: text must be [C, L, D], got {tuple(text.shape)}")
    if text_mask.dtype != torch.bool:
        raise TypeError(f"token_weighting: text_mask must be bool, got {text_mask.dtype}")
    if text_mask.shape != text.shape[:2]:
        raise ValueError(
            f"token_weighting: text_mask must be {tuple(text.shape[:2])} like text, "
            f"got {tuple(text_mask.shape)}"
        )
    if labels.dtype != torch.int64:
        raise TypeError(f"token_weighting: labels must be int64, got {labels.dtype}")
    if labels.ndim != 1:
        raise ValueError(f"token_weighting: labels must be [B], got {tuple(labels.shape)}")


def _check_patches(modality: str, keys: Tensor, values: Tensor, batch: int, width: int) -> None:
    if keys.ndim != 3 or keys.shape[0] != batch or keys.shape[1] == 0 or keys.shape[2] != width:
        raise ValueError(
            f"token_weighting: {modality}_keys must be [{batch}, N, {width}] with N >= 1, "
            f"got {tuple(keys.shape)}"
        )
    if values.ndim != 3 or values.shape[:2] != keys.shape[:2]:
        raise ValueError(
            f"token_weighting: {modality}_values must be [{batch}, {keys.shape[1]}, V], "
            f"got {tuple(values.shape)}"
        )


def check_positive(function: str, temperature: float) -> None:
    """Raise unless a temperature is positive."""
    if not temperature > 0:
        raise ValueError(f"{function}: temperature must be positive, got {temperature}")


def check_choice(function: str, argument: str, value: str, choices: Any) -> None:
    """Raise unless the value is one of a ``Literal``."""
    known = choices.__args__  # typing.get_args: torch 2.6 cannot compile it
    if value not in known:
        raise ValueError(f"{function}: {argument} must be one of {', '.join(known)}, got {value!r}")
