"""The rules that descriptions keep, and that everything shipped keeps them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zsbir_fast.data import bundled
from zsbir_fast.data.names import plain_name
from zsbir_fast.text.descriptions import bundled_descriptions
from zsbir_fast.text.lexicon import english_share, find_visual_words
from zsbir_fast.text.quality import (
    Fault,
    bare_name,
    benchmark_classes,
    check_descriptions,
    find_fault,
    find_faults,
    sentence_key,
    tidy_sentence,
)

GOOD = "A zebra has a stocky body with black and white stripes and four thin legs."


@pytest.mark.parametrize("prompts", ["all", "licensed"])
def test_everything_shipped_keeps_the_rules(prompts):
    assert find_faults(bundled_descriptions(prompts)) == []


def test_the_classes_are_those_of_the_lists():
    """The lists of all classes are files of their own, beside those of the splits."""
    names = set()
    for file in ("sketchy_all125", "tuberlin_all250", "quickdraw_all110"):
        lines = (bundled.path("splits") / f"{file}.txt").read_text().splitlines()
        assert len(lines) == int(file[-3:])
        names |= {plain_name(line) for line in lines}
    table = (bundled.path("qd_caltech") / "classes.csv").read_text().splitlines()[1:]
    names |= {plain_name(line.partition(",")[0]) for line in table}
    assert {plain_name(name) for name in benchmark_classes()} == names
    assert len(benchmark_classes()) == len(names) == 300


def test_a_good_sentence():
    assert find_fault("zebra", GOOD) is None


@pytest.mark.parametrize(
    ("sentence", "reason"),
    [
        ("", "is empty"),
        ("   ", "is empty"),
        ("I'm sorry, but I can't help with that request about the zebra.", "refuses"),
        ("I cannot describe a zebra with black and white stripes on its body.", "refuses"),
        ("As an AI language model, it has black and white stripes on its body.", "refuses"),
        ("We are unable to see the black and white stripes of its body.", "refuses"),
        ("Ein Zebra hat einen Körper mit schwarzen und weißen Streifen.", "is not plain English"),
        ("Ein Zebra hat vier lange Beine und ein kurzes gestreiftes Fell.", "is not plain English"),
        ("Le zebre a quatre pattes et un corps blanc avec des bandes noires.", "is not plain Eng"),
        ("Zebra memiliki tubuh besar dengan garis hitam dan putih di seluruh.", "is not plain Eng"),
        ("It has a round body with black stripes and a naïve look.", "is not plain English"),
        ("1. It has a round body with black and white stripes.", "has markup or numbering"),
        ("- It has a round body with black and white stripes.", "has markup or numbering"),
        ("It has a **round** body with black and white stripes.", "has markup or numbering"),
        ("It has a round body <b>with</b> black and white stripes.", "has markup or numbering"),
        ("it has a round body with black and white stripes.", "does not begin with a capital"),
        ("It has a round body with black and white stripes", "does not begin with a capital"),
        ("It has a round body with black and white stripes...", "does not begin with a capital"),
        ("It has a round body. It has black and white stripes.", "is more than one sentence"),
        ("It has black and white stripes.", "has 6 words, not 7 to 24"),
        ("It has " + "long and thin " * 8 + "legs.", "has 27 words, not 7 to 24"),
        ("It has a round body like a horse with black and white stripes.", "class, 'horse'"),
        ("It has flat white teeth and a round body with black stripes.", "class, 'teeth'"),
        ("It has a round body, as mice do, with black and white stripes.", "class, 'mice'"),
        ("Its stripes are black and white like the leaves of a thin plant.", "class, 'leaves'"),
        ("It has a round body with black stripes beside two hotdogs.", "class, 'hotdogs'"),
        ("It stands with a round striped body behind a fire-hydrant.", "class, 'fire-hydrant'"),
        ("It has a round striped body and wears one brown sock.", "class, 'sock'"),
        ("It has a round striped body under blue cherries and skyscrapers.", "'skyscrapers'"),
    ],
)
def test_faults(sentence, reason):
    assert reason in str(find_fault("zebra", sentence))


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("dog", "Dogs are loyal companions of people."),
        ("dog", "Dogs are the loyal companions of people."),
        ("guitar", "A guitar is played in bands all over the world."),
        ("cat", "Cats love milk and sleep for most of the day."),
        ("car", "It is a popular means of transport around the world."),
        ("airplane", "Airplanes carry passengers and cargo across long distances."),
        ("pen", "It is often used in schools and offices to write notes."),
        ("elephant", "Elephants are intelligent animals that live in family groups."),
        ("bell", "A bell rings to call people to prayer on Sundays."),
        ("bread", "It is eaten with butter at breakfast in many countries."),
        ("piano", "The piano was invented in Italy around the year 1700."),
        ("bee", "Bees make honey and pollinate plants in gardens and fields."),
        ("knife", "A knife is a useful tool for cutting food in the kitchen."),
        ("axe", "It can be dangerous when children handle it without care."),
        ("penguin", "Penguins swim very fast and eat squid and krill at night."),
        ("violin", "The violin has a beautiful sound that many listeners enjoy."),
        ("owl", "Owls hunt small animals at night with their keen hearing."),
        ("crown", "It was a symbol of power and wealth for many kings."),
        ("helicopter", "A helicopter can land almost anywhere and rescue people from danger."),
        ("arm", "An arm is an arm and the arms of armed people are arms."),
    ],
)
def test_what_cannot_be_seen_is_no_description(name, sentence):
    short = len(sentence.split()) < 7
    assert find_fault(name, sentence) == (
        "has 6 words, not 7 to 24" if short else "does not say enough that can be seen"
    )


def test_parts_of_the_own_name_and_twins_may_be_named():
    flying = "It is a bird with broad wings and a short fanned tail behind."
    assert find_fault("flying bird", flying) is None
    assert find_fault("cat", flying) == "names another class, 'bird'"
    truck = "It is a {} with a tall square front and a long flat bed."
    assert find_fault("truck", truck.format("pickup truck").replace("bed", "bay")) is None
    assert "'truck'" in find_fault("car", truck.format("truck"))
    assert find_fault("motorbike", "A motorcycle has a narrow metal frame and a long seat.") is None
    assert find_fault(
        "mouse (animal)", "A mouse has round ears upon grey fur and a long tail."
    ) == ("names another class, 'ears'")
    assert (
        find_fault("mouse (animal)", "Mice have grey fur, a pointed snout and a long tail.") is None
    )
    assert find_fault("bat", "It has dark leathery wings like a baseball bat.") == (
        "names another class, 'baseball bat'"
    )
    assert find_fault("dog", "It is a fan-shaped, key-like outline with long thin lines.") is None


def test_other_names_can_be_chosen():
    sentence = "A yeti has white shaggy fur and long arms like an ogre."
    assert "'arms'" in find_fault("yeti", sentence)
    assert find_fault("yeti", sentence, others=["yeti", "zebra"]) is None
    assert "'ogre'" in find_fault("yeti", sentence, others=["yeti", "ogre"])
    assert find_fault("yeti", sentence, others=()) is None


def test_sentences_are_the_same_without_case_marks_and_own_name():
    zebra, horse = "A zebra has four thin legs.", "a Horse has four thin, legs"
    assert sentence_key("zebra", zebra) == sentence_key("horse", horse)
    assert sentence_key("apple", "An apple is round.") == sentence_key("pear", "A pear is round.")
    assert sentence_key("cat", "Cats are round.") == sentence_key("dog", "Dogs are round.")
    assert sentence_key("cat", "A cat is round.") != sentence_key("cat", "A cat is square.")
    described = {"zebra": (GOOD, GOOD), "tiger": (GOOD.replace("zebra", "tiger"),)}
    reason = "is the same as a sentence of 'zebra'"
    assert find_faults(described) == [
        Fault("zebra", GOOD, reason),
        Fault("tiger", described["tiger"][0], reason),
    ]


def test_faults_are_one_error():
    check_descriptions("f", {"zebra": (GOOD,)})
    text = (
        r"^f: descriptions must keep the rules of zsbir_fast\.text\.quality, got one of 'dog' that "
        r"has 4 words, not 7 to 24: Dogs are so loyal\. \(1 more are faulty\)$"
    )
    with pytest.raises(ValueError, match=text):
        check_descriptions("f", {"zebra": (GOOD,), "dog": ("Dogs are so loyal.", "Dogs bark.")})


@pytest.mark.parametrize(
    ("text", "tidy"),
    [
        ("1. It is round.", "It is round."),
        (" 12) It is  round. ", "It is round."),
        ("- It is round.", "It is round."),
        ("* **It** is `round`.", "It is round."),
        ("\u2022 It is round.", "It is round."),
        ('"It is round."', "It is round."),
        ("\u201cIt\u2019s round \u2013 and red.\u201d", "It's round - and red."),
        ("Sentence 3: It is round.", "It is round."),
        ("a) It is round.", "It is round."),
        ("A zebra is round.", "A zebra is round."),
        ("It is 3. It is round.", "It is 3. It is round."),
        ("", ""),
    ],
)
def test_what_is_no_part_of_a_sentence_is_taken_off(text, tidy):
    assert tidy_sentence(text) == tidy


def test_words_of_the_lexicon():
    seen, places = find_visual_words("Its two zebra-like stripes lie below a curled red tail.")
    assert seen == {"stripe", "curl", "red", "tail"}
    assert places == {"two", "below"}
    seen, _ = find_visual_words("The wheels of a wheel are wheels.", besides="wheel")
    assert seen == set()
    assert english_share("") == 0
    assert english_share("The red one is xyzzy.") == 4 / 5


@pytest.mark.parametrize(
    ("name", "bare"),
    [("car_(sedan)", "car"), ("jack-o-lantern", "jack o lantern"), ("T-shirt", "t shirt")],
)
def test_bare_names(name, bare):
    assert bare_name(name) == bare


@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    st.text(max_size=12),
    st.one_of(
        st.text(max_size=200),
        st.lists(st.sampled_from(["Red", "legs", "a", "thin", "tail.", "owl", "-", "1."])).map(
            " ".join
        ),
    ),
)
def test_any_text_has_a_verdict(name, text):
    tidy = tidy_sentence(text)
    verdict = find_fault(name, tidy)
    if verdict is None:
        assert tidy.isascii()
        assert tidy[-1] == "."
        assert 7 <= len(tidy.split()) <= 24
        assert "owl" not in tidy
    sentence_key(name, text)
