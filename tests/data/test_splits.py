from __future__ import annotations

import pytest

from zsbir_fast.data.names import check_classes, listing, plain_name, spoken_name
from zsbir_fast.data.splits import SPLIT_NAMES, SplitCounts, load_split


@pytest.mark.parametrize(
    ("name", "seen", "unseen", "counts"),
    [
        ("sketchy-25", 100, 25, SplitCounts(15229, 17101, 378, 800, 55252, 68401)),
        ("sketchy-21", 104, 21, SplitCounts(12694, 12553, 261, 850, 57587, 72949)),
        ("tuberlin-30", 220, 30, SplitCounts(2400, 27989, 401, 2922, 15400, None)),
        ("quickdraw-30", 80, 30, SplitCounts(92291, 54151, 1304, 2726, None, None)),
        ("qd_caltech", 37, 10, SplitCounts(233, 621, 43, 72, 928, 2161)),
    ],
)
def test_published_splits(name, seen, unseen, counts):
    split = load_split(name)
    assert (split.name, len(split.seen), len(split.unseen)) == (name, seen, unseen)
    assert split.counts == counts
    assert not set(map(plain_name, split.seen)) & set(map(plain_name, split.unseen))


def test_names_of_published_splits():
    assert load_split("sketchy-25").unseen[:3] == ("cup", "swan", "harp")
    assert load_split("sketchy-21").unseen[-1] == "window"
    assert "hot air balloon" in load_split("tuberlin-30").unseen
    assert set(load_split("sketchy-25").seen + load_split("sketchy-25").unseen) == set(
        load_split("sketchy-21").seen + load_split("sketchy-21").unseen
    )


def test_an_unknown_split_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"load_split: name must be one of .*, got 'sketchy'") as e:
        load_split("sketchy")
    for name in SPLIT_NAMES:
        assert name in str(e.value)


def test_class_lists_that_overlap_or_repeat_are_refused():
    with pytest.raises(ValueError, match=r"f: seen and unseen .* overlap, got 'Hot_dog' in both"):
        check_classes("f", ["cat", "hot dog"], ["Hot_dog"])
    with pytest.raises(ValueError, match=r"f: seen classes must differ .*, got 'cat' and 'CAT'"):
        check_classes("f", ["cat", "CAT"], ["dog"])
    with pytest.raises(ValueError, match=r"f: unseen classes must differ .* got 'a-b' and 'a b'"):
        check_classes("f", ["cat"], ["a-b", "a b"])
    with pytest.raises(ValueError, match="f: unseen classes must be at least one, got none"):
        check_classes("f", ["cat"], [])


def test_names():
    assert plain_name("Car_(Sedan)") == "car(sedan)"
    assert spoken_name("hot-air_balloon") == "hot-air balloon"
    assert listing(["a", 3]) == "'a', 3"
    assert listing(range(13), limit=2) == "0, 1 and 11 more"


@pytest.mark.parametrize("name", [None, 3, ["sketchy-25"]])
def test_a_name_that_is_no_text_is_a_type_error(name):
    with pytest.raises(TypeError, match="load_split: name must be text, got "):
        load_split(name)
