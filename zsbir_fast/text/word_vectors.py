"""The bundled GloVe vectors of class names, and the stand-ins for names that have none."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from functools import cache
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from zsbir_fast.data import bundled
from zsbir_fast.data.names import plain_name, spoken_name

WIDTH = 300
Origin = Literal["vector", "words", "description", "hash"]
RELATED = bundled.path("class_vectors") / "related_names.json"
"""Class names that occur in the descriptions of a class; ``tools/related_names.py`` makes it."""
# Class names that sentences mostly use as a verb or an adjective.
_NOT_AS_NOUN = frozenset({"lighter", "present", "ray", "saw", "seal"})


class Word(NamedTuple):
    """A class name of the bundled vectors.

    Attributes:
        text: as in a sentence, lower case.
        vector: float32 [300], of length 1.
    """

    text: str
    vector: Tensor


class NameTokens(NamedTuple):
    """The vectors that stand for one class.

    Attributes:
        vector: float32 [300], the class as a whole, of length 1.
        origin: where it comes from.
        words: class name, then words of its description.
        tokens: float32 [len(words), 300], the first row is ``vector``.
    """

    vector: Tensor
    origin: Origin
    words: list[str]
    tokens: Tensor


@cache
def bundled_words() -> dict[str, Word]:
    """Return the bundled GloVe vectors of class names.

    Returns:
        Words by plain name (300 class names of all published splits and qd_caltech), each vector
        scaled to length 1.
    """
    words: dict[str, Word] = {}
    for path in sorted(bundled.path("class_vectors").glob("*.npz")):
        with np.load(path, allow_pickle=False) as stored:
            names, vectors = stored["names"].tolist(), stored["vectors"].astype(np.float32)
        for name, vector in zip(names, F.normalize(torch.from_numpy(vectors)), strict=True):
            words.setdefault(plain_name(name), Word(spoken_name(name).lower(), vector))
    return words


@cache
def related_names() -> dict[str, list[str]]:
    """Read which class names occur in descriptions.

    Returns:
        Plain name of a class -> plain names of others, the most frequent in its description first.
    """
    found: dict[str, list[str]] = json.loads(RELATED.read_text(encoding="utf-8"))
    return found


def name_tokens(name: str, related: Sequence[str], *, max_tokens: int) -> NameTokens:
    """Find vectors for a class name and for other class names.

    Args:
        name: class name.
        related: plain names of bundled words, from :func:`names_in` or :func:`related_names`.
        max_tokens: the largest number of rows; the first names are kept.

    Returns:
        The vectors.
    """
    known = bundled_words()
    found = [known[plain] for plain in related]
    vector, origin = _class_vector(name, found)
    if origin == "description":
        found = [word for word in found if not torch.equal(word.vector, vector)]
    chosen = found[: max_tokens - 1]
    own = known.get(plain_name(name))
    return NameTokens(
        vector,
        origin,
        [own.text if own else spoken_name(name).lower(), *(word.text for word in chosen)],
        torch.stack([vector, *(word.vector for word in chosen)]),
    )


def _class_vector(name: str, described: Sequence[Word]) -> tuple[Tensor, Origin]:
    """The name's own vector, else a mean of related ones, else an arbitrary fixed direction."""
    known = bundled_words()
    own = known.get(plain_name(name))
    if own is not None:
        return own.vector, "vector"
    parts = [known[plain_name(p)] for p in re.split(r"[\s_\-()]+", name) if plain_name(p) in known]
    if parts:
        return _mean(parts), "words"
    if described:
        return _mean(described), "description"
    seed = int.from_bytes(hashlib.sha256(plain_name(name).encode()).digest()[:8], "big")
    noise = np.random.default_rng(seed).standard_normal(WIDTH, dtype=np.float32)
    return F.normalize(torch.from_numpy(noise), dim=0), "hash"


def _mean(words: Sequence[Word]) -> Tensor:
    return F.normalize(torch.stack([word.vector for word in words]).mean(0), dim=0)


def names_in(sentences: Sequence[str], *, besides: str) -> list[str]:
    """Find known class names in sentences, singular or plural.

    Args:
        sentences: a description.
        besides: the class that it describes.

    Returns:
        Plain names, the most frequent first.
    """
    text = " ".join(sentences).lower()
    counts: dict[str, int] = {}
    for plain, word in bundled_words().items():
        if plain == plain_name(besides) or word.text in _NOT_AS_NOUN:
            continue
        hits = len(re.findall(rf"\b{re.escape(word.text)}(?:s|es)?\b", text))
        if hits:
            counts[plain] = hits
    return sorted(counts, key=lambda plain: (-counts[plain], plain))
