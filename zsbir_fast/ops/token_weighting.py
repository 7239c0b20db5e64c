"""Cross-modal token weighting: how well the patches of a sketch and a photo fit the same words."""

from __future__ import annotations

from typing import Literal, get_args, overload

import torch
from torch import Tensor

from zsbir_fast.ops._quadruplet_inputs import Impl
from zsbir_fast.reference import token_weighting as reference
from zsbir_fast.reference.token_weighting import Beta, TokenWeighting, WeightForm

__all__ = ["TokenWeighting", "alignment_weights", "pairwise_token_score", "token_weighting"]


@overload
def token_weighting(
    text: Tensor,
    text_mask: Tensor,
    sketch_keys: Tensor,
    sketch_values: Tensor,
    photo_keys: Tensor,
    photo_values: Tensor,
    labels: Tensor,
    *,
    text_global: Tensor | None = ...,
    temperature: float = ...,
    beta: Beta = ...,
    return_pooled: Literal[False] = ...,
    return_attention: Literal[False] = ...,
    impl: Impl = ...,
) -> Tensor: ...


@overload
def token_weighting(
    text: Tensor,
    text_mask: Tensor,
    sketch_keys: Tensor,
    sketch_values: Tensor,
    photo_keys: Tensor,
    photo_values: Tensor,
    labels: Tensor,
    *,
    text_global: Tensor | None = ...,
    temperature: float = ...,
    beta: Beta = ...,
    return_pooled: bool = ...,
    return_attention: bool = ...,
    impl: Impl = ...,
) -> Tensor | TokenWeighting: ...


def token_weighting(
    text: Tensor,
    text_mask: Tensor,
    sketch_keys: Tensor,
    sketch_values: Tensor,
    photo_keys: Tensor,
    photo_values: Tensor,
    labels: Tensor,
    *,
    text_global: Tensor | None = None,
    temperature: float = 1.0,
    beta: Beta = "uniform",
    return_pooled: bool = False,
    return_attention: bool = False,
    impl: Impl = "fused",
) -> Tensor | TokenWeighting:
    """Score sketch-photo pairs by the words of their class.

    Every text token of the pair's class attends over the patches of the sketch and, apart, of the
    photo; the two pooled rows of one word are compared by cosine; the score is the weighted mean
    over the words. The global aggregation block is the case L = 1 with the whole text's feature.

    A pair whose class has no valid text token scores 0 and passes no gradient; so does a word
    whose pooled row is zero. Finite inputs give finite results as long as the products of text
    and keys fit the floating-point range. float16 and bfloat16 are accumulated in float32.

    Args:
        text: [C, L, D] float, token features of each class's text, as queries.
        text_mask: [C, L] bool, True where the token is valid.
        sketch_keys: [B, N_s, D] float, patch features of the sketches.
        sketch_values: [B, N_s, V] float, what is pooled.
        photo_keys: [B, N_i, D] float, patch features of the photos.
        photo_values: [B, N_i, V] float, what is pooled.
        labels: [B] int64, class of each pair, an index into ``text``.
        text_global: [C, D] float, the whole text's feature; needed by ``beta="text_attention"``.
        temperature: softmax temperature of the attention, on top of sqrt(D).
        beta: weights of the words: ``"uniform"`` over the valid ones, or ``"text_attention"``,
            their softmax similarity to ``text_global``.
        return_pooled: return a :class:`TokenWeighting` with the pooled rows.
        return_attention: return a :class:`TokenWeighting` with pooled rows and attention maps.
        impl: ``"fused"`` or ``"reference"``.

    Returns:
        Scores [B] in [-1, 1], or a :class:`TokenWeighting`.

    Raises:
        ValueError: shapes do not fit, a temperature is not positive, or ``text_global`` is missing.
        TypeError: a tensor has the wrong dtype.

    Source: DM-WAN, arXiv 2511.00925, names the module (local and global aggregation block); the
    equations (1) to (5) in ``docs/methods.md`` are our reading.
    """
    _check_choice("token_weighting", "impl", impl, Impl)
    _check_text(text, text_mask, labels)
    shapes = {"sketch": (sketch_keys, sketch_values), "photo": (photo_keys, photo_values)}
    for modality, (keys, values) in shapes.items():
        _check_patches(modality, keys, values, len(labels), text.shape[2])
    if sketch_values.shape[2] != photo_values.shape[2]:
        raise ValueError(
            f"token_weighting: photo_values must be {sketch_values.shape[2]} wide like "
            f"sketch_values, got {photo_values.shape[2]}"
        )
    _check_positive("token_weighting", temperature)
    _check_choice("token_weighting", "beta", beta, Beta)
    if beta == "text_attention" and (
        text_global is None or text_global.shape != (text.shape[0], text.shape[2])
    ):
        got = None if text_global is None else tuple(text_global.shape)
        raise ValueError(
            "token_weighting: text_global must be "
            f"[{text.shape[0]}, {text.shape[2]}] for beta='text_attention', got {got}"
        )
    result = reference.token_weighting(
        text,
        text_mask,
        sketch_keys,
        sketch_values,
        photo_keys,
        photo_values,
        labels,
        text_global=text_global,
        temperature=temperature,
        beta=beta,
    )
    if return_attention:
        return result
    if return_pooled:
        return result._replace(sketch_attention=None, photo_attention=None)
    return result.scores


def pairwise_token_score(
    sketch_tokens: Tensor, photo_tokens: Tensor, *, impl: Impl = "fused"
) -> Tensor:
    """Score sketch-photo pairs without text: each sketch patch against its best photo patch.

    The mean over sketch tokens of the largest cosine with any photo token. Zero rows have cosine
    0. The gradient flows through the photo token of the lowest index among equals.

    Args:
        sketch_tokens: [B, N_s, D] float.
        photo_tokens: [B, N_i, D] float.
        impl: ``"fused"`` or ``"reference"``.

    Returns:
        Scores [B] in [-1, 1].

    Raises:
        ValueError: the shapes do not fit or there are no tokens.

    Source: the late interaction of FILIP (arXiv 2111.07783); using it as DM-WAN's weight is the
    second of our two readings (``docs/methods.md``).
    """
    _check_choice("pairwise_token_score", "impl", impl, Impl)
    for name, tokens in (("sketch_tokens", sketch_tokens), ("photo_tokens", photo_tokens)):
        if tokens.ndim != 3 or tokens.shape[1] == 0:
            raise ValueError(
                f"pairwise_token_score: {name} must be [B, N, D] with N >= 1, "
                f"got {tuple(tokens.shape)}"
            )
    if (
        sketch_tokens.shape[0] != photo_tokens.shape[0]
        or sketch_tokens.shape[2] != photo_tokens.shape[2]
    ):
        raise ValueError(
            "pairwise_token_score: photo_tokens must agree with sketch_tokens in B and D, got "
            f"{tuple(sketch_tokens.shape)} and {tuple(photo_tokens.shape)}"
        )
    return reference.pairwise_token_score(sketch_tokens, photo_tokens)


def alignment_weights(
    local: Tensor,
    global_: Tensor,
    *,
    mix: float = 0.5,
    temperature: float = 0.5,
    form: WeightForm = "softmax",
) -> Tensor:
    """Alignment weight list: better aligned pairs of the batch count more.

    The quality of a pair is ``r = mix * local + (1 - mix) * global_``.

    Args:
        local: [B] float, local scores in [-1, 1].
        global_: [B] float, global scores in [-1, 1].
        mix: share of the local score, 0 to 1.
        temperature: of ``"softmax"`` and ``"sigmoid"``; small values favour the best pairs.
        form: ``"softmax"``: B softmax(r / temperature). ``"sigmoid"``: sigmoid(r / temperature)
            over its mean. ``"mean"``: (1 + r) / 2 over its mean (rescaled, so that no weight is
            negative). ``"raw"``: r itself, whose mean is not 1.

    Returns:
        Weights [B], mean 1 and not negative except with ``"raw"``; all 1 where the mean would be 0.

    Raises:
        ValueError: the shapes differ, ``mix`` is outside [0, 1], ``temperature`` is not positive,
            or ``form`` is unknown.

    Source: DM-WAN, arXiv 2511.00925, names the alignment weight list; equations (6) and (7) in
    ``docs/methods.md`` are our reading.
    """
    if local.ndim != 1 or local.shape != global_.shape:
        raise ValueError(
            "alignment_weights: local and global_ must both be [B], got "
            f"{tuple(local.shape)} and {tuple(global_.shape)}"
        )
    if not 0 <= mix <= 1:
        raise ValueError(f"alignment_weights: mix must be in [0, 1], got {mix}")
    _check_positive("alignment_weights", temperature)
    _check_choice("alignment_weights", "form", form, WeightForm)
    return reference.alignment_weights(local, global_, mix=mix, temperature=temperature, form=form)


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


def _check_positive(function: str, temperature: float) -> None:
    if not temperature > 0:
        raise ValueError(f"{function}: temperature must be positive, got {temperature}")


def _check_choice(function: str, argument: str, value: str, choices: object) -> None:
    known = get_args(choices)
    if value not in known:
        raise ValueError(f"{function}: {argument} must be one of {', '.join(known)}, got {value!r}")
