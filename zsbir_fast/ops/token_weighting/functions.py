"""Cross-modal token weighting: how well the patches of a sketch and a photo fit the same words."""

from __future__ import annotations

from typing import Any, Literal, overload

import torch
from torch import Tensor

from zsbir_fast._arguments import as_share, as_temperature, check_choice
from zsbir_fast._types import Integers
from zsbir_fast.ops._checks import (
    Impl,
    check_finite,
    check_floating,
    check_has_values,
    check_one_device,
    check_tensor,
)
from zsbir_fast.ops._library import refuse_transforms
from zsbir_fast.ops.token_weighting import pairwise_operators  # noqa: F401  # registers them
from zsbir_fast.ops.token_weighting.inputs import (
    check_pairwise,
    check_text_global,
    check_token_weighting,
)
from zsbir_fast.ops.token_weighting.pairs import score_all_pairs, score_pairs
from zsbir_fast.reference import token_weighting as reference
from zsbir_fast.reference.token_weighting import Beta, Combine, TokenWeighting, WeightForm

__all__ = ["TokenWeighting", "alignment_weights", "pairwise_token_score", "token_weighting"]


@overload
def token_weighting(
    text: Tensor,
    text_mask: Tensor,
    sketch_keys: Tensor,
    sketch_values: Tensor,
    photo_keys: Tensor,
    photo_values: Tensor,
    labels: Integers,
    *,
    text_global: Tensor | None = ...,
    temperature: float = ...,
    beta: Beta = ...,
    return_pooled: Literal[False] = ...,
    return_attention: Literal[False] = ...,
    all_pairs: bool = ...,
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
    labels: Integers,
    *,
    text_global: Tensor | None = ...,
    temperature: float = ...,
    beta: Beta = ...,
    return_pooled: bool = ...,
    return_attention: bool = ...,
    all_pairs: bool = ...,
    impl: Impl = ...,
) -> Tensor | TokenWeighting: ...


def token_weighting(
    text: Tensor,
    text_mask: Tensor,
    sketch_keys: Tensor,
    sketch_values: Tensor,
    photo_keys: Tensor,
    photo_values: Tensor,
    labels: Integers,
    *,
    text_global: Tensor | None = None,
    temperature: float = 1.0,
    beta: Beta = "uniform",
    return_pooled: bool = False,
    return_attention: bool = False,
    all_pairs: bool = False,
    impl: Impl = "fused",
) -> Tensor | TokenWeighting:
    """Score sketch-photo pairs by the words of their class.

    Every text token of the pair's class attends over the patches of the sketch and, separately, of
    the photo; the two pooled rows of one word are compared by cosine; the score is the weighted
    mean over the words. The global aggregation block is the case L = 1 with the whole text's
    feature.

    Values that are not finite are not looked for: the pair's score is NaN. A pair whose class has
    no valid text token scores 0 and passes no gradient; so does a word whose pooled row is zero (no
    entry of at least 1e-30). Finite inputs give finite results as long as the products of text and
    keys fit the floating-point range. float16 and bfloat16 are accumulated in float32, which is
    also the dtype of the results; gradients have the dtypes of the inputs. Under autocast all
    float32 and half inputs are first cast to the autocast dtype, as for
    ``torch.nn.functional.scaled_dot_product_attention``.

    Scores, pooled rows and attention maps are differentiable once, by text, ``text_global``, keys
    and values. Results do not depend on the number of threads. Padding costs nothing, and the
    fused kernel stores no tensor [B, L, N]. Higher derivatives, forward mode and ``torch.func``
    transforms need ``impl="reference"``.

    Args:
        text: [C, L, D] float, token features of each class's text, as queries.
        text_mask: [C, L] bool, True where the token is valid.
        sketch_keys: [B, N_s, D] float, patch features of the sketches.
        sketch_values: [B, N_s, V] float, the rows that are pooled.
        photo_keys: [B, N_i, D] float, patch features of the photos.
        photo_values: [B, N_i, V] float, the rows that are pooled.
        labels: [B] integers, class of each pair, an index into ``text``. On CUDA and in
            ``torch.compile`` the values are not checked: one out of range is a class without words.
        text_global: [C, D] float, the whole text's feature; needed by ``beta="text_attention"``.
        temperature: softmax temperature of the attention, on top of sqrt(D); at least 1e-30.
        beta: weights of the words: ``"uniform"`` over the valid ones, or ``"text_attention"``,
            their softmax similarity to ``text_global``.
        return_pooled: return a :class:`TokenWeighting` with the pooled rows.
        return_attention: return a :class:`TokenWeighting` with pooled rows and attention maps,
            [B, L, N] tensors that PyTorch computes apart.
        all_pairs: score every sketch with every photo, under the text of the sketch's class:
            ``labels`` are [B_s], the photos may be more or fewer, scores are [B_s, B_i]. Scores
            only. Photos are pooled for some sketches at a time, again in the backward pass: a few
            tensors of 64 MiB, or of one [B_i, L, V], are in memory.
        impl: ``"fused"``, or ``"reference"``: the same in plain PyTorch.

    Returns:
        Scores [B] in [-1, 1] ([B_s, B_i] with ``all_pairs``), or a :class:`TokenWeighting`.

    Raises:
        ValueError: shapes or devices do not fit, labels are out of range, a temperature is out of
            range, ``text_global`` is missing, or ``all_pairs`` is to give more than scores.
        TypeError: something is no dense tensor or has the wrong dtype, or floating-point ones
            differ.
        NotImplementedError: a derivative that the fused kernel does not have is asked for.

    Source: DM-WAN, arXiv 2511.00925, names the module (local and global aggregation block); the
    equations (1) to (5) in ``docs/methods.md`` are our reading.
    """
    given = {"text": text, "sketch_keys": sketch_keys, "sketch_values": sketch_values}
    given |= {"photo_keys": photo_keys, "photo_values": photo_values}
    text, sketch_keys, sketch_values, photo_keys, photo_values = _autocast(
        "token_weighting", **given
    )
    sketch, photo = (sketch_keys, sketch_values), (photo_keys, photo_values)
    labels = check_token_weighting(text, text_mask, sketch, photo, labels, all_pairs=all_pairs)
    temperature = as_temperature("token_weighting", temperature)
    check_choice("token_weighting", "beta", beta, Beta)
    check_choice("token_weighting", "impl", impl, Impl)
    if beta == "text_attention":
        check_text_global(text, text_global)
    if all_pairs and (return_pooled or return_attention):
        raise ValueError(
            "token_weighting: return_pooled and return_attention must be False with all_pairs, "
            f"got {return_pooled} and {return_attention}"
        )
    keep = return_pooled or return_attention
    with torch.autocast(text.device.type, enabled=False):
        result: Tensor | TokenWeighting
        if impl == "reference":
            options = {"text_global": text_global, "temperature": temperature, "beta": beta}
            result = _reference(text, text_mask, *sketch, *photo, labels, options, all_pairs)
        else:
            refuse_transforms("token_weighting", text, *sketch, *photo)
            weights = reference.word_weights(text, text_mask, text_global, beta)
            fused = score_all_pairs if all_pairs else score_pairs
            result = fused(text, text_mask, weights, sketch, photo, labels, temperature, keep)
        if isinstance(result, Tensor):
            return result
        if return_attention and result.sketch_attention is None:
            result = result._replace(
                sketch_attention=reference.attention(
                    text, text_mask, sketch_keys, labels, temperature
                ),
                photo_attention=reference.attention(
                    text, text_mask, photo_keys, labels, temperature
                ),
            )
    if not keep:
        return result.scores
    if not return_attention:
        return TokenWeighting(result.scores, result.sketch_pooled, result.photo_pooled, None, None)
    return result


def pairwise_token_score(
    sketch_tokens: Tensor,
    photo_tokens: Tensor,
    *,
    all_pairs: bool = False,
    impl: Impl = "fused",
) -> Tensor:
    """Score sketch-photo pairs without text: each sketch patch against its best photo patch.

    The mean over sketch tokens of the largest cosine with any photo token. Zero rows have cosine
    0. The gradient flows through the photo token of the lowest index among equals. The matrix of
    cosines, [N_s, N_i] of a pair, is never stored; dtypes, autocast, determinism and derivatives as
    in :func:`token_weighting`.

    Args:
        sketch_tokens: [B, N_s, D] float.
        photo_tokens: [B, N_i, D] float.
        all_pairs: score every sketch with every photo; their numbers may differ. For a backward
            pass a cosine and an index of each [B_s, B_i, N_s] are kept.
        impl: ``"fused"``, or ``"reference"``: the same in plain PyTorch.

    Returns:
        Scores [B] in [-1, 1]; [B_s, B_i] with ``all_pairs``.

    Raises:
        ValueError: the shapes or devices do not fit, or there are no tokens.
        TypeError: the dtypes differ or are not floating-point.
        NotImplementedError: a derivative that the fused kernel does not have is asked for.

    Source: the late interaction of FILIP (arXiv 2111.07783); using it as DM-WAN's weight is the
    second of our two readings (``docs/methods.md``).
    """
    sketch_tokens, photo_tokens = _autocast(
        "pairwise_token_score", sketch_tokens=sketch_tokens, photo_tokens=photo_tokens
    )
    check_has_values("pairwise_token_score", "sketch_tokens", sketch_tokens)
    check_choice("pairwise_token_score", "impl", impl, Impl)
    with torch.autocast(sketch_tokens.device.type, enabled=False):
        if impl == "reference":
            check_pairwise(sketch_tokens, photo_tokens, all_pairs=all_pairs)  # operators do it
            return reference.pairwise_token_score(sketch_tokens, photo_tokens, all_pairs=all_pairs)
        refuse_transforms("pairwise_token_score", sketch_tokens, photo_tokens)
        scores: Tensor
        scores, *_ = torch.ops.zsbir.pairwise_token_score(sketch_tokens, photo_tokens, all_pairs)
        return scores


def alignment_weights(
    local: Tensor,
    global_: Tensor,
    *,
    mix: float = 0.5,
    combine: Combine = "sum",
    temperature: float = 0.5,
    form: WeightForm = "softmax",
) -> Tensor:
    """Alignment weight list: better aligned pairs of the batch count more.

    The quality of a pair is ``r = mix * local + (1 - mix) * global_``, or with
    ``combine="product"`` the product ``r = (1 + local) / 2 * (1 + global_) / 2``.

    Args:
        local: [B] float, local scores in [-1, 1].
        global_: [B] float, global scores in [-1, 1].
        mix: share of the local score, 0 to 1; of ``"sum"`` alone.
        combine: ``"sum"`` or ``"product"``.
        temperature: of ``"softmax"`` and ``"sigmoid"``; small values favour the best pairs.
        form: ``"softmax"``: B softmax(r / temperature). ``"sigmoid"``: sigmoid(r / temperature)
            over its mean. ``"mean"``: (1 + r) / 2 over its mean (rescaled, so that no weight is
            negative; of a product, r over its mean). ``"raw"``: r itself, whose mean is not 1.

    Returns:
        Weights [B], mean 1 and not negative except with ``"raw"``; all 1 where the mean would be 0.

    Raises:
        ValueError: the shapes differ, ``mix`` is outside [0, 1], ``temperature`` below 1e-30,
            ``form`` or ``combine`` unknown, or a score not finite (on CUDA and in compiled code,
            which look at no values, all weights are NaN then, of ``"raw"`` that one).
        TypeError: scores are no dense floating-point tensors.

    Source: DM-WAN, arXiv 2511.00925, names the alignment weight list; equations (6) and (7) in
    ``docs/methods.md`` are our reading.
    """
    name = "alignment_weights"
    for argument, scores in (("local", local), ("global_", global_)):
        check_tensor(name, argument, scores)
        check_has_values(name, argument, scores)
        check_floating(name, argument, scores)
    if local.ndim != 1 or local.shape != global_.shape:
        raise ValueError(
            "alignment_weights: local and global_ must both be [B], got "
            f"{list(local.shape)} and {list(global_.shape)}"
        )
    check_one_device(name, local=local, global_=global_)
    check_finite(name, "local", local)
    check_finite(name, "global_", global_)
    mix = as_share(name, "mix", mix)
    temperature = as_temperature(name, temperature)
    check_choice(name, "form", form, WeightForm)
    check_choice(name, "combine", combine, Combine)
    return reference.alignment_weights(
        local, global_, mix=mix, combine=combine, temperature=temperature, form=form
    )


def _autocast(function: str, **tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors in the autocast dtype, where autocast is on; float64 stays."""
    for argument, tensor in tensors.items():
        check_tensor(function, argument, tensor)
    device = next(iter(tensors.values())).device.type
    if device == "meta" or not torch.is_autocast_enabled(device):
        return tuple(tensors.values())
    dtype = torch.get_autocast_dtype(device)
    return tuple(
        t.to(dtype) if t.is_floating_point() and t.dtype != torch.float64 else t
        for t in tensors.values()
    )


def _reference(
    text: Tensor,
    text_mask: Tensor,
    sketch_keys: Tensor,
    sketch_values: Tensor,
    photo_keys: Tensor,
    photo_values: Tensor,
    labels: Tensor,
    options: Any,
    all_pairs: bool,
) -> Tensor | TokenWeighting:
    function: Any = reference.token_weighting
    if all_pairs:
        function = reference.token_weighting_all_pairs
    result: Tensor | TokenWeighting = function(
        text, text_mask, sketch_keys, sketch_values, photo_keys, photo_values, labels, **options
    )
    return result
