"""The bundled word vectors and their stand-ins, against the numbers in the file."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from zsbir_fast.data import bundled
from zsbir_fast.text.word_table import (
    STOP_WORDS,
    WordTable,
    bundled_table,
    content_words,
    name_words,
    sentence_tokens,
    split_words,
)


@pytest.fixture(scope="module")
def stored():
    with np.load(bundled.path("word_vectors") / "glove6b100.npz", allow_pickle=False) as file:
        words = file["words"].tobytes().decode().split("\n")
        vectors = file["rows"].astype(np.float64) * file["scales"].astype(np.float64)[:, None]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return dict(zip(words, vectors, strict=True))


def close(vector, expected, *, tolerance=1e-5):
    expected = expected / np.linalg.norm(expected)
    np.testing.assert_allclose(vector.numpy(), expected, atol=tolerance)


def test_the_table_is_whole(stored):
    assert len(stored) == 20_000
    assert list(stored) == sorted(stored)
    assert all(word.isascii() and word.isalpha() and word.islower() for word in stored)
    assert not STOP_WORDS & set(stored)
    assert bundled_table().vectors.shape == (20_000, 100)


def test_vectors_are_those_of_glove(stored):
    # The first numbers of "cat" and "dog" in glove.6B.100d.txt.
    cat, dog = np.array([0.23088, 0.28283, 0.6318]), np.array([0.30817, 0.30938, 0.52803])
    with np.load(bundled.path("word_vectors") / "glove6b100.npz", allow_pickle=False) as file:
        names = file["words"].tobytes().decode().split("\n")
        for word, numbers in (("cat", cat), ("dog", dog)):
            row = names.index(word)
            scale = float(file["scales"][row])
            np.testing.assert_allclose(file["rows"][row, :3] * scale, numbers, atol=scale / 2)
    assert stored["cat"] @ stored["dog"] > 0.85  # 0.8798 in GloVe
    assert abs(stored["cat"] @ stored["dog"] - 0.8798) < 1e-3


def test_a_known_word_has_its_own_vector(stored):
    table = bundled_table()
    assert "zebra" in table
    close(table.look_up("zebra"), stored["zebra"])


def test_an_unknown_word_takes_after_those_with_the_longest_common_beginning(stored):
    table = bundled_table()
    assert "trianglefish" not in table
    relatives = [word for word in stored if word.startswith("triangle")]
    assert {"triangle", "triangles"} <= set(relatives)
    close(table.look_up("trianglefish"), np.mean([stored[w] for w in relatives], axis=0))
    small = WordTable(["car", "cart", "cat", "dog"], torch.eye(4))
    mean = np.array([1.0, 1.0, 0, 0])
    close(small.look_up("carz"), mean)  # "car" and "cart" share three letters
    close(small.look_up("carts"), np.array([0, 1.0, 0, 0]))
    close(small.look_up("ca" * 9), small.look_up("ca" * 9).numpy())


def test_a_word_without_relatives_has_a_direction_of_its_own():
    table = bundled_table()
    a, b = table.look_up("qqqa"), table.look_up("\u732b")
    torch.testing.assert_close(table.look_up("qqqa"), a)
    assert float(a.norm()) == pytest.approx(1)
    assert abs(float(a @ b)) < 0.4
    assert float((table.vectors @ a).max()) < 0.9
    small = WordTable(["car"], torch.ones(1, 4))
    assert float(small.look_up("cab") @ small.look_up("car")) < 0.99  # two letters are too few


def test_words_of_a_text():
    text = "It's a half-round T-shirt; the CAF\u00c9 won't show 3 legs, above x."
    assert split_words(text) == [
        "it", "half", "round", "shirt", "the", "cafe", "wo", "show", "legs", "above",
    ]  # fmt: skip
    assert content_words(text) == ["half", "round", "shirt", "cafe", "wo", "show", "legs", "above"]
    assert split_words("12 ! a") == []


def test_tokens_are_the_different_words_of_the_sentences(stored):
    sentences = ["A cat has soft fur.", "The fur of its legs is soft, and the fur is long.", "It."]
    found = sentence_tokens(sentences, max_tokens=9)
    assert found.words == ["fur", "soft", "cat", "legs", "long"]  # three times, twice, once
    for row, word in zip(found.tokens, found.words, strict=True):
        close(row, stored[word])
    first = np.mean([stored[w] for w in ("cat", "soft", "fur")], axis=0)
    second = np.mean([stored[w] for w in ("fur", "legs", "soft", "fur", "long")], axis=0)
    close(found.sentences, (first + second) / 2)
    assert found.unknown == []
    cut = sentence_tokens(sentences, max_tokens=2)
    assert cut.words == ["fur", "soft"]
    torch.testing.assert_close(cut.sentences, found.sentences)


def test_unknown_words_are_counted_also_where_they_are_cut_off():
    found = sentence_tokens(["Red red wugs and zzzzs."], max_tokens=1)
    assert found.words == ["red"]
    assert found.unknown == ["wugs", "zzzzs"]


def test_names_are_the_mean_of_their_words(stored):
    found = name_words("hot-air_balloon")
    close(found.vector, np.mean([stored[w] for w in ("hot", "air", "balloon")], axis=0))
    assert found.unknown == []
    assert name_words("the").unknown == ["the"]  # a name of stop words is taken as it is
    nameless = name_words("7")
    assert nameless.unknown == ["7"]
    assert float(nameless.vector.norm()) == pytest.approx(1)
