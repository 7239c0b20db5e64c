"""``ClassText`` from the words of sentences."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from zsbir_fast.data.splits import SPLIT_NAMES, load_split
from zsbir_fast.text.class_text import ClassText
from zsbir_fast.text.descriptions import bundled_descriptions
from zsbir_fast.text.word_table import bundled_table

DESCRIBED = {
    "cat": ("It has soft fur.", "Its soft fur covers a wugged tail."),
    "Hot_Dog": ("A long bun.",),
}


@pytest.mark.parametrize("name", SPLIT_NAMES)
def test_parts_and_whole_differ_for_every_class_of_every_split(name):
    split = load_split(name)
    text = ClassText([*split.seen, *split.unseen], source="glove:sentences")
    counts = text.mask.sum(1)
    assert int(counts.min()) >= 20
    assert int(counts.max()) <= 128
    norms = text.tokens.norm(dim=2)
    torch.testing.assert_close(norms, text.mask.float(), atol=1e-5, rtol=0)
    cosines = torch.einsum("cld,cd->cl", text.tokens, text.global_)
    assert float(cosines.masked_fill(~text.mask, 1).min()) < 0.7
    assert bool((cosines.masked_fill(~text.mask, 1) < 0.9).any(1).all())
    assert [len(words) for words in text.words] == counts.tolist()
    assert all(len(set(words)) == len(words) for words in text.words)
    similarity = text.global_ @ text.global_.T - torch.eye(len(counts))
    assert float(similarity.max()) < 0.99


def test_tokens_words_and_unknown_ones():
    text = ClassText(["cat", "hot dog"], source="glove:sentences", descriptions=DESCRIBED)
    assert text.words == [["soft", "fur", "covers", "wugged", "tail"], ["long", "bun"]]
    assert text.unknown == [["wugged"], []]
    assert text.mask.tolist() == [[True] * 5, [True, True, False, False, False]]
    assert not text.tokens[1, 2:].any()
    table = bundled_table()
    torch.testing.assert_close(text.tokens[1, 1], table.look_up("bun"))
    both = (table.look_up("hot") + table.look_up("dog")).numpy()
    np.testing.assert_allclose(text.global_[1], both / np.linalg.norm(both), atol=1e-6)
    assert text.origins == ["name", "name"]
    assert text.summary == (
        "text of 2 classes from glove:sentences: 2 / 3.5 / 5 tokens a class (least / median / "
        "most); 1 words unknown: 'wugged'"
    )


def test_the_whole_may_be_the_mean_of_the_sentences():
    options = {"source": "glove:sentences", "descriptions": DESCRIBED}
    text = ClassText(["hot dog", "cat"], **options, whole="sentences")
    table = bundled_table()
    mean = ((table.look_up("long") + table.look_up("bun")) / 2).numpy()
    np.testing.assert_allclose(text.global_[0], mean / np.linalg.norm(mean), atol=1e-6)
    assert text.origins == ["sentences"] * 2
    torch.testing.assert_close(text.tokens, ClassText(["hot dog", "cat"], **options).tokens)


def test_prompt_sets_choose_sentences():
    parts = ClassText(["piano"], source="glove:sentences", prompts="parts")
    known = {"piano": bundled_descriptions("parts")["piano"]}
    again = ClassText(["piano"], source="glove:sentences", descriptions=known)
    assert parts.words == again.words
    every = ClassText(["piano"], source="glove:sentences")
    assert set(parts.words[0]) < set(every.words[0])
    assert "no word unknown" in every.summary


def test_the_number_of_tokens_is_limited():
    text = ClassText(["cat"], source="glove:sentences", descriptions=DESCRIBED, max_tokens=2)
    assert text.words == [["soft", "fur"]]
    assert text.unknown == [["wugged"]]


def test_words_of_a_name_count_as_unknown_where_it_is_the_whole():
    described = {"wug": ("A soft wug.",), "zzzz cat": ("Long fur.",)}
    options = {"source": "glove:sentences", "descriptions": described}
    assert ClassText(["wug", "zzzz cat"], **options).unknown == [["wug"], ["zzzz"]]
    text = ClassText(["wug", "zzzz cat"], **options, whole="sentences")
    assert text.unknown == [["wug"], []]


@pytest.mark.parametrize("source", ["glove:sentences", "open_clip:ViT-B-32"])
@pytest.mark.parametrize(
    ("described", "message"),
    [
        ({"cat": ("Soft fur.",)}, "descriptions must cover every class, got none for 'dog'; "),
        ({"cat": ("Soft fur.",), "dog": (" ",)}, "must cover every class, got none for 'dog'"),
        ({}, "must cover every class, got none for 'cat', 'dog'"),
        (
            {"cat": ("Soft fur.", "A tail."), "dog": ("A tail.", "Soft fur.")},
            "descriptions must differ between classes, got the same for 'cat' and 'dog'",
        ),
    ],
)
def test_descriptions_that_do_not_do_are_refused(source, described, message):
    with pytest.raises(ValueError, match=f"^ClassText: .*{message}"):
        ClassText(["cat", "dog"], source=source, descriptions=described)


def test_a_class_of_one_word_is_refused():
    described = {"cat": ("It is a cat.", "Cat!"), "dog": ("Soft fur.",)}
    message = r"at least two different words beside stop words for every class, got .* for 'cat'"
    with pytest.raises(ValueError, match=message):
        ClassText(["dog", "cat"], source="glove:sentences", descriptions=described)


def test_a_whole_of_the_same_words_is_named():
    described = {"cat (a)": ("Soft fur.",), "cat (b)": ("Long legs.",)}
    with pytest.warns(UserWarning, match="2 classes have one and the same vector"):
        ClassText(["cat (a)", "cat (b)"], source="glove:sentences", descriptions=described)


def test_names_of_other_sources_say_what_they_are():
    assert ClassText(["cat", "yeti"], descriptions={}).summary == (
        "text of 2 classes from glove: 1 / 1 / 1 tokens a class (least / median / most); "
        "1 names unknown: 'yeti'"
    )
    given = ClassText.from_tensors(["a"], torch.ones(1, 2, 3))
    assert given.summary == (
        "text of 1 classes from given: 2 / 2 / 2 tokens a class (least / median / most)"
    )
