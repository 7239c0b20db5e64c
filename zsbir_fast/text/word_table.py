"""Vectors for the words of sentences: the bundled table, and stand-ins for other words."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from zsbir_fast.data import bundled
from zsbir_fast.data.names import plain_name
from zsbir_fast.data.npz_files import read_npz

WIDTH = 100
SHORTEST_PREFIX = 3
"""Letters that an unknown word must share with known ones to be taken for their relative."""

_STOP_WORDS = """
a about actually all almost also although am an and another any anything are as at be became
because become becomes been being both but by called can could did do does doing done each
either else even ever every for from get gets give given gives go goes got had has have having
he her here hers him his how however i if in is it its itself just kind least less let like
made make makes many may maybe me might mine more most much must my neither no nor not of off
often on once only or other others our ours own per perhaps quite rather really said same say
see seem seems seen shall she should since so some something sometimes somewhat somewhere sort
such than that the their theirs them themselves then there these they this those though thus to
together too type typical typically us use used usually very was we were what when where which
while who whom whose why will with within without would you your yours
"""
#: Words that say nothing visible. Words of place ("above", "behind") and numbers are none of them:
#: they say how parts are arranged.
STOP_WORDS = frozenset(_STOP_WORDS.split())


class SentenceTokens(NamedTuple):
    """The vectors that stand for one class.

    Attributes:
        words: the different content words, those that occur most often first.
        tokens: float32 [len(words), 100], a vector of length 1 for each.
        sentences: float32 [100], the mean of the sentences, of length 1; a sentence is the mean of
            its content words.
        unknown: words without a vector of their own, of ``words`` and of those cut off, each once.
    """

    words: list[str]
    tokens: Tensor
    sentences: Tensor
    unknown: list[str]


class NameWords(NamedTuple):
    """The vector of a class name.

    Attributes:
        vector: float32 [100], the mean of its words, of length 1.
        unknown: its words without a vector of their own.
    """

    vector: Tensor
    unknown: list[str]


class WordTable:
    """Vectors of words, with a stand-in for every other word.

    Args:
        words: known words in alphabetical order.
        vectors: float [W, D], brought to length 1.

    Attributes:
        words: the known words.
        vectors: float32 [W, D], of length 1.
    """

    def __init__(self, words: Sequence[str], vectors: Tensor) -> None:
        self.words = tuple(words)
        self.vectors = F.normalize(vectors.float())
        self._rows = {word: row for row, word in enumerate(self.words)}

    def __contains__(self, word: object) -> bool:
        """Whether a word has a vector of its own."""
        return word in self._rows

    def look_up(self, word: str) -> Tensor:
        """Give the vector of a word.

        An unknown word gets the mean of all known words that share the longest beginning with it,
        of at least three letters ("tailplane": those in "tail..."). Where no word shares as much,
        it gets a direction drawn from its hash, which means nothing but is always the same.

        Args:
            word: lower case.

        Returns:
            float32 [D], of length 1.
        """
        row = self._rows.get(word)
        if row is not None:
            return self.vectors[row]
        place = bisect_left(self.words, word)
        shared = max(
            (_shared(word, self.words[i]) for i in (place - 1, place) if 0 <= i < len(self.words)),
            default=0,
        )
        if shared >= SHORTEST_PREFIX:
            start = bisect_left(self.words, word[:shared])
            end = bisect_left(self.words, word[:shared] + chr(0x10FFFF))
            return F.normalize(self.vectors[start:end].mean(0), dim=0)
        seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:8], "big")
        noise = np.random.default_rng(seed).standard_normal(self.vectors.shape[1], np.float32)
        return F.normalize(torch.from_numpy(noise), dim=0)

    def mean(self, words: Sequence[str]) -> Tensor:
        """Average the vectors of words; not brought to length 1."""
        return torch.stack([self.look_up(word) for word in words]).mean(0)


@cache
def bundled_table() -> WordTable:
    """Read the bundled table: 20,000 English words, 100-d GloVe.

    Returns:
        The table.

    Raises:
        ValueError: the file is damaged.

    Source: Pennington et al., "GloVe", EMNLP 2014; ``SOURCES.md`` beside the file says more.
    """
    stored = read_npz(
        bundled.path("word_vectors") / "glove6b100.npz",
        ("words", "rows", "scales"),
        expected="bundled_table: the file must be the word table of the installation",
    )
    rows = torch.from_numpy(stored["rows"]).float()
    scales = torch.from_numpy(stored["scales"]).float()
    return WordTable(stored["words"].tobytes().decode().split("\n"), rows * scales[:, None])


def split_words(text: str) -> list[str]:
    """Split a text into words.

    Args:
        text: any text.

    Returns:
        Words of at least two letters in lower case, without accents; compounds with a hyphen are
        split, and the ends ``'s`` and ``n't`` are cut off.
    """
    plain = unicodedata.normalize("NFKD", text.lower().replace("\u2019", "'"))
    plain = "".join(c for c in plain if not unicodedata.combining(c))
    words: list[str] = re.findall(r"[^\W\d_]{2,}", re.sub(r"(?:'s|n't)\b", " ", plain))
    return words


def content_words(text: str) -> list[str]:
    """Split a text into words, without stop words.

    Args:
        text: any text.

    Returns:
        The words in their order, repeated ones as well.
    """
    return [word for word in split_words(text) if word not in STOP_WORDS]


def name_words(name: str) -> NameWords:
    """Give the mean of the words of a class name.

    Args:
        name: class name.

    Returns:
        Its vector, and the words that are unknown; a name without words of two letters counts as
        one word, which is unknown.
    """
    table = bundled_table()
    words = content_words(name) or split_words(name) or [plain_name(name)]
    vector = F.normalize(table.mean(words), dim=0)
    return NameWords(vector, [word for word in words if word not in table])


def sentence_tokens(sentences: Sequence[str], *, max_tokens: int) -> SentenceTokens:
    """Make tokens of the words of sentences.

    There is one token for a word, however often it occurs: the local score is a mean over the
    tokens, in which a repeated word would drown the others.

    Args:
        sentences: at least one with a content word.
        max_tokens: most tokens; the words that occur most often are kept, among equals those that
            come first.

    Returns:
        The tokens.
    """
    table = bundled_table()
    split = [words for words in map(content_words, sentences) if words]
    counts = Counter(word for words in split for word in words)
    words = sorted(counts, key=lambda word: -counts[word])[:max_tokens]  # stable: first come first
    whole = torch.stack([table.mean(those) for those in split]).mean(0)
    return SentenceTokens(
        words,
        torch.stack([table.look_up(word) for word in words]),
        F.normalize(whole, dim=0),
        [word for word in counts if word not in table],
    )


def _shared(word: str, other: str) -> int:
    """Letters that two words share at their beginning."""
    count = 0
    for a, b in zip(word, other, strict=False):
        if a != b:
            break
        count += 1
    return count
