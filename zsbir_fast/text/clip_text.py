"""Token features of open_clip text encoders."""

from __future__ import annotations

import os
import pickle
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from zsbir_fast._hub import open_clip_source, require_own_activation
from zsbir_fast._words import reason, shown


class ClipTokens(NamedTuple):
    """The features that a text encoder computes from some sentences.

    Attributes:
        tokens: float32 [C, L, D], zero where ``mask`` is False.
        mask: bool [C, L], True for the words, left-aligned.
        global_: float32 [C, D], the pooled feature (end of text).
        words: the piece of text behind each token.
    """

    tokens: Tensor
    mask: Tensor
    global_: Tensor
    words: list[list[str]]


def encode_sentences(
    sentences: Sequence[str], model: str, weights: str | None, *, batch_size: int = 64
) -> ClipTokens:
    """Encode sentences with the text tower of an open_clip model.

    Args:
        sentences: any number of them.
        model: open_clip model name, e.g. ``"ViT-B-32"``.
        weights: a tag of open_clip, a local weight file, or None for random weights.
        batch_size: sentences per forward pass.

    Returns:
        Features after the tower's projection, in the space that it shares with images. Begin and
        end of the text are no tokens: the first sees nothing, the second is ``global_``.

    Raises:
        ValueError: an unknown model or tag, a model without open_clip's own text tower and
            tokenizer, or a sentence beyond the context length.
        RuntimeError: the weights could not be fetched.
    """
    import open_clip
    from open_clip.tokenizer import SimpleTokenizer

    network = _load(model, weights)
    tower = getattr(network, "text", network)
    tokenizer = open_clip.get_tokenizer(model)
    if not hasattr(tower, "ln_final") or not isinstance(tokenizer, SimpleTokenizer):
        raise ValueError(
            "ClassText: source must be an open_clip model with open_clip's own text tower and "
            f"tokenizer, got {shown(f'open_clip:{model}')}"
        )
    _require_short(sentences, tokenizer, model)
    hidden: list[Tensor] = []
    hook = tower.ln_final.register_forward_hook(lambda _m, _in, out: hidden.append(out))
    pooled: list[Tensor] = []
    ids = tokenizer(list(sentences))
    try:
        with torch.inference_mode():
            for batch in ids.split(batch_size):
                pooled.append(network.encode_text(batch).float())
            features = _project(torch.cat(hidden), tower.text_projection).float()
    finally:
        hook.remove()
    ends = (ids == tokenizer.eot_token_id).int().argmax(1).tolist()  # words are 1..end - 1
    longest = max(ends) - 1
    tokens = torch.zeros(len(ids), longest, features.shape[2])
    mask = torch.zeros(len(ids), longest, dtype=torch.bool)
    words = []
    for row, end in enumerate(ends):
        tokens[row, : end - 1] = features[row, 1:end]
        mask[row, : end - 1] = True
        pieces = (tokenizer.decoder[i] for i in ids[row, 1:end].tolist())
        words.append([piece.removesuffix("</w>") for piece in pieces])
    return ClipTokens(tokens, mask, torch.cat(pooled).clone(), words)


def _require_short(sentences: Sequence[str], tokenizer: Any, model: str) -> None:
    """Refuse a sentence whose end the tower would not see."""
    most = tokenizer.context_length - 2  # beside the marks of begin and end
    for sentence in sentences:
        count = len(tokenizer.encode(sentence))
        if count > most:
            raise ValueError(
                f"ClassText: every sentence must have at most {most} tokens for open_clip:{model}, "
                f"got {count} in {shown(sentence)}"
            )


def _load(model: str, weights: str | None) -> Any:
    import open_clip

    if model not in open_clip.list_models():  # not get_model_config, which asks hubs
        raise ValueError(
            f"ClassText: source must name a model that open_clip knows, "
            f"got {shown(f'open_clip:{model}')}"
        )
    tags = open_clip.list_pretrained_tags_by_model(model)
    if weights is not None and weights not in tags and not os.path.isfile(weights):
        raise ValueError(
            f"ClassText: weights must be an existing file or one of {', '.join(tags) or 'no tag'} "
            f"for open_clip:{model}, got {shown(weights)}"
        )
    if weights is not None and weights in tags:
        require_own_activation("ClassText", "source", model, weights)
    source = None if weights is None else open_clip_source("ClassText", model, weights)
    try:
        network = open_clip.create_model(model, pretrained=source)
    except Exception as error:  # damaged files raise many kinds
        told = reason(error)
        if isinstance(error, pickle.UnpicklingError):  # its text recommends weights_only=False
            told = "the file is damaged or holds objects that would run code"
        raise RuntimeError(
            f"ClassText: weights {shown(weights)} of open_clip:{model} could not be loaded: {told}"
        ) from error
    return network.eval()


def _project(hidden: Tensor, projection: Any) -> Tensor:
    if projection is None:
        return hidden
    projected: Tensor = (
        projection(hidden) if isinstance(projection, torch.nn.Module) else hidden @ projection
    )
    return projected
