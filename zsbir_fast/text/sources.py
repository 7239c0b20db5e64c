"""Where class text comes from: vectors of names, words of sentences, or a CLIP text tower."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from zsbir_fast._words import shown
from zsbir_fast.data.names import by_plain_name, listing, plain_name
from zsbir_fast.text.prompts import fill_prompt
from zsbir_fast.text.word_table import content_words, name_words, sentence_tokens
from zsbir_fast.text.word_vectors import name_tokens, names_in, related_names

Whole = Literal["name", "sentences"]
Sentences = Mapping[str, Sequence[str]]


class TextFeatures(NamedTuple):
    """Text features of C classes; the fields are the attributes of :class:`ClassText`."""

    tokens: Tensor
    mask: Tensor
    global_: Tensor
    words: list[list[str]]
    origins: list[str]
    unknown: list[list[str]]


def from_names(
    classes: Sequence[str], described: Sentences | None, *, max_tokens: int
) -> TextFeatures:
    """Take the bundled vectors of class names: ``source="glove"``."""
    if described is None:
        related = related_names()
    else:
        known = by_plain_name("ClassText", "classes of descriptions", described.items())
        related = {
            plain_name(name): names_in(known.get(plain_name(name), ()), besides=name)
            for name in classes
        }
    found = [
        name_tokens(name, related.get(plain_name(name), ()), max_tokens=max_tokens)
        for name in classes
    ]
    tokens, mask = padded([item.tokens for item in found])
    return TextFeatures(
        tokens,
        mask,
        torch.stack([item.vector for item in found]),
        [item.words for item in found],
        [item.origin for item in found],
        [[] if item.origin == "vector" else [item.words[0]] for item in found],
    )


def from_words(
    classes: Sequence[str], described: Sentences, *, whole: Whole, max_tokens: int
) -> TextFeatures:
    """Take the words of descriptions by the bundled word table: ``source="glove:sentences"``."""
    sentences = sentences_of(classes, described)
    for name, those in zip(classes, sentences, strict=True):
        different = {word for sentence in those for word in content_words(sentence)}
        if len(different) < 2:  # else the one token would be the whole
            raise ValueError(
                "ClassText: descriptions must have at least two different words beside stop words "
                f"for every class, got {shown(list(those))} for {shown(name)}"
            )
    found = [sentence_tokens(those, max_tokens=max_tokens) for those in sentences]
    tokens, mask = padded([item.tokens for item in found])
    unknown = [list(item.unknown) for item in found]
    if whole == "name":
        names = [name_words(name) for name in classes]
        vectors = [item.vector for item in names]
        for item, words in zip(names, unknown, strict=True):
            words += [word for word in item.unknown if word not in words]
    else:
        vectors = [item.sentences for item in found]
    of_tokens = [item.words for item in found]
    origins: list[str] = [whole] * len(found)
    return TextFeatures(tokens, mask, torch.stack(vectors), of_tokens, origins, unknown)


def from_clip_prompts(
    classes: Sequence[str], model: str, weights: str | None, prompt: str
) -> TextFeatures:
    """Encode one sentence a class, the filled template, with a CLIP text tower."""
    from zsbir_fast.text.clip_text import encode_sentences

    found = encode_sentences([fill_prompt(prompt, name) for name in classes], model, weights)
    count = len(classes)
    return TextFeatures(*found, ["open_clip"] * count, [[] for _ in classes])


def from_clip_sentences(
    classes: Sequence[str],
    described: Sentences,
    model: str,
    weights: str | None,
    prompt: str,
    *,
    whole: Whole,
    max_tokens: int,
) -> TextFeatures:
    """Encode the sentences of every class with a CLIP text tower.

    A class gets the tokens of its sentences one after the other, those beyond ``max_tokens`` cut
    off, and as a whole the mean of its sentences' features, each and the mean of length 1, or the
    feature of its prompt.
    """
    from zsbir_fast.text.clip_text import encode_sentences

    sentences = sentences_of(classes, described)
    prompts = [fill_prompt(prompt, name) for name in classes] if whole == "name" else []
    flat = [sentence for those in sentences for sentence in those]
    found = encode_sentences([*flat, *prompts], model, weights)
    tokens, words, wholes, start = [], [], [], 0
    for those in sentences:
        rows = range(start, start + len(those))
        start = rows.stop
        tokens.append(torch.cat([found.tokens[row][found.mask[row]] for row in rows])[:max_tokens])
        words.append([word for row in rows for word in found.words[row]][:max_tokens])
        features = F.normalize(found.global_[rows.start : rows.stop], dim=1)
        wholes.append(F.normalize(features.mean(0), dim=0))
    joined, mask = padded(tokens)
    global_ = found.global_[len(flat) :] if whole == "name" else torch.stack(wholes)
    count = len(classes)
    return TextFeatures(joined, mask, global_, words, ["open_clip"] * count, [[] for _ in classes])


def sentences_of(classes: Sequence[str], described: Sentences) -> list[tuple[str, ...]]:
    """Look up the sentences of every class.

    Args:
        classes: class names.
        described: sentences by class name, in any spelling.

    Returns:
        The sentences that are not blank, at least one for every class.

    Raises:
        ValueError: a class has none, or two have the same ones.
    """
    known = by_plain_name("ClassText", "classes of descriptions", described.items())
    found = [tuple(s for s in known.get(plain_name(c), ()) if s.strip()) for c in classes]
    missing = [name for name, those in zip(classes, found, strict=True) if not those]
    if missing:
        raise ValueError(
            f"ClassText: descriptions must cover every class, got none for {listing(missing)}; "
            "zsbir_fast.text.descriptions.describe_classes puts templates in their place"
        )
    met: dict[frozenset[str], str] = {}
    for name, those in zip(classes, found, strict=True):
        other = met.setdefault(frozenset(those), name)
        if other != name:
            raise ValueError(
                "ClassText: descriptions must differ between classes, got the same for "
                f"{shown(other)} and {shown(name)}"
            )
    return found


def padded(rows: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Put tokens [L_c, D] of every class into [C, L, D] with a mask [C, L]."""
    longest = max(len(item) for item in rows)
    tokens = torch.zeros(len(rows), longest, rows[0].shape[1])
    mask = torch.zeros(len(rows), longest, dtype=torch.bool)
    for row, item in enumerate(rows):
        tokens[row, : len(item)] = item
        mask[row, : len(item)] = True
    return tokens, mask
