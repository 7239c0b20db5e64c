"""Which class names are the same, and which are not."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zsbir_fast._words import did_you_mean
from zsbir_fast.data.images import ImageSet
from zsbir_fast.data.names import (
    check_distinct,
    plain_name,
    same_names,
    shared_names,
    with_nearest,
)

DECOMPOSED, COMPOSED = "pin\u0303ata", "pi\u00f1ata"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Hot-Air_Balloon", "hot air balloon"),
        ("t\u2011shirt", "T-Shirt"),  # a hyphen that does not break
        ("no\u00a0break", "no break"),
        (DECOMPOSED, COMPOSED),
        (DECOMPOSED.upper(), COMPOSED),
        ("STRASSE", "stra\u00dfe"),
        ("\u03a3\u039f\u03a3", "\u03c3\u03bf\u03c2"),  # two small sigmas
    ],
)
def test_the_same_class(one, other):
    assert plain_name(one) == plain_name(other)
    assert shared_names([one], [other]) == (one,)
    assert same_names([one, "x"], [other, "X"])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("\u092c\u0947\u0932", "\u092c\u093e\u0932"),  # differ in a vowel sign
        ("c++", "c#"),
        ("c", "c++"),
        ("\U0001f431", "\U0001f436"),
        ("car (sedan)", "car [sedan]"),
        ("\u0e01\u0e34", "\u0e01\u0e35"),  # Thai vowels
        ("\u5d10", "\u5d11"),
        ("resume", "r\u00e9sum\u00e9"),
        ("-", "_"),
        ("m2", "m\u00b2"),
    ],
)
def test_other_classes(one, other):
    assert plain_name(one) != plain_name(other)
    assert shared_names([one], [other]) == ()
    check_distinct("f", "classes", [one, other])
    assert ImageSet(["a.png"], [1], [one, other], "photo").classes == (one, other)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.text(max_size=12))
def test_the_plain_form_is_the_same_for_every_composition(name):
    plain = plain_name(name)
    assert plain_name(plain) == plain
    for form in ("NFC", "NFD"):
        assert plain_name(unicodedata.normalize(form, name)) == plain
    assert bool(plain) == bool(name)


def test_names_that_are_taken_for_one_another_are_both_named():
    with pytest.raises(ValueError, match=r"f: classes must differ .*, got 'T-Shirt' and 't shirt'"):
        check_distinct("f", "classes", ["T-Shirt", "cat", "t shirt"])
    with pytest.raises(ValueError, match=r"ImageSet: .*'pi\\xf1ata' and 'pin\\u0303ata'"):
        ImageSet(["a.png"], [0], [COMPOSED, DECOMPOSED], "photo")


def test_what_is_no_name_is_refused():
    with pytest.raises(TypeError, match="unseen classes must be a list of names, got the text 'z"):
        check_distinct("f", "unseen classes", "zebra")
    with pytest.raises(TypeError, match="classes must be text, got 3"):
        check_distinct("f", "classes", ["a", 3])
    with pytest.raises(ValueError, match="classes must have a name, got ' '"):
        check_distinct("f", "classes", ["a", " "])


def test_images_are_chosen_by_any_spelling():
    images = ImageSet(["a", "b", "c"], [0, 1, 0], ["hot dog", COMPOSED], "photo")
    chosen = images.of_classes([DECOMPOSED, "Hot_Dog"])
    assert chosen.labels.tolist() == [1, 0, 1]
    assert chosen.classes == (DECOMPOSED, "Hot_Dog")
    with pytest.raises(ValueError, match=r"among the 2 classes, got 'hotdgo' \(did you mean 'hot"):
        images.of_classes(["hotdgo"])
    with pytest.raises(ValueError, match=r"names must differ .* got 'hot dog' and 'hot_dog'"):
        images.of_classes(["hot dog", "hot_dog"])


def test_the_nearest_word():
    assert did_you_mean("Sketchy25", ["sketchy-21", "sketchy-25"]) == (
        " (did you mean 'sketchy-25'?)"
    )
    assert did_you_mean("zebra", ["sketchy-25"]) == ""
    assert with_nearest(["zebbra"], ["zebra"]) == "'zebbra' (did you mean 'zebra'?)"
    assert with_nearest(["a", "b"], ["a"]) == "'a', 'b'"
