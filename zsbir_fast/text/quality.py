"""What a sentence must be to describe a class: rules for all that is shipped or written by a model.

A model learns from such sentences which words go with which parts of a drawing and of a photo. A
sentence that names another class would tell about a class that must stay unseen, and one that says
nothing visible teaches nothing. The paper asks for "visual clues for each specific category" (Su et
al., CMAAN, arXiv 2407.00979); the rules are our reading of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache, lru_cache
from typing import NamedTuple

from zsbir_fast._words import shortened, shown
from zsbir_fast.data.names import plain_name
from zsbir_fast.data.splits import SPLIT_NAMES, load_split
from zsbir_fast.text.lexicon import english_share, find_visual_words

SHORTEST, LONGEST = 7, 24  # words of a sentence
LEAST_ENGLISH = 0.25  # share of words of the lexicon; other languages have up to 0.2
LEAST_VISUAL = 2  # words for colours, shapes, materials, sizes or parts
LEAST_WITH_PLACES = 3  # these, places and counts together

_REFUSAL = re.compile(
    r"\b(?:I|we)(?: am|'m| are|'re)?(?: really| very)? (?:cannot|can't|can not|won't|unable|sorry|"
    r"apologi[sz]e|do not|don't)\b|\bas an? (?:AI|artificial|(?:large )?language model|assistant)|"
    r"\b(?:cannot|can't|unable to) (?:assist|help|comply|fulfil|provide|describe|answer)\b",
    re.IGNORECASE,
)
_MARKUP = re.compile(r"[*_#<>`{}\[\]|\\~^=]|https?:|\(\s*\)")
_NUMBERING = re.compile(
    r"^\s*(?:[-*+>#]+\s+|\(?\d{1,2}[.):]\s*|\(?[a-z][.)]\s+|sentence \d+:\s*)+", re.I
)
_TYPOGRAPHIC = str.maketrans(
    {"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "\u2013": "-", "\u2014": "-"}
    | {"\u2011": "-", "\u00a0": " ", "\u202f": " ", "\u2026": "...", "\u2022": "-", "\u00d7": "x"}
)
# Names of one and the same thing, or of a thing and its part: each may occur in the other's text.
_TWINS = (
    {"motorbike", "motorcycle"},
    {"rollerblades", "roller skates"},
    {"crocodile", "crocodilian"},
    {"pickup truck", "truck"},
    {"skull", "human skeleton"},
)
_IRREGULAR = {"foot": "feet", "tooth": "teeth", "knife": "knives", "leaf": "leaves"}
_IRREGULAR |= {"mouse": "mice", "bookshelf": "bookshelves", "cactus": "cacti", "octopus": "octopi"}


class Fault(NamedTuple):
    """A sentence that breaks a rule.

    Attributes:
        name: the class that it describes.
        sentence: the sentence.
        reason: what is wrong with it, as the end of "It ...".
    """

    name: str
    sentence: str
    reason: str


@cache
def benchmark_classes() -> tuple[str, ...]:
    """List the classes of all published splits and of qd_caltech.

    Returns:
        300 names, each thing that is spelt in several ways once.
    """
    names: dict[str, str] = {}
    for split in map(load_split, SPLIT_NAMES):
        for name in (*split.seen, *split.unseen):
            names.setdefault(plain_name(name), name)
    return tuple(sorted(names.values(), key=plain_name))


def tidy_sentence(text: str) -> str:
    """Take from a sentence what is no part of it: numbering, emphasis, quotes around it.

    Args:
        text: a line of an answer.

    Returns:
        The sentence with single blanks, and with straight quotes and hyphens for typographic ones.
    """
    line = " ".join(text.translate(_TYPOGRAPHIC).split())
    line = re.sub(r"(\*\*|__|\*|`)(?=\S)(.+?)(?<=\S)\1", r"\2", line)
    line = _NUMBERING.sub("", line)
    quoted = re.fullmatch(r'(["\'])(.*)\1', line)
    return quoted[2].strip() if quoted else line.strip()


def find_fault(name: str, sentence: str, *, others: Iterable[str] | None = None) -> str | None:
    """Say what is wrong with a sentence that describes a class.

    It must be one plain English sentence of 7 to 24 words in ASCII, begin with a capital and end
    with a full stop, refuse nothing, have no markup, name no other class, and say something
    visible: at least two words for colours, shapes, materials, sizes or parts, and three with
    those for places and counts, where words of the class's own name do not count.

    Args:
        name: the class.
        sentence: its description.
        others: classes that must not be named; ``name`` and parts of it may be among them. None:
            those of all benchmarks. Plurals are found, and names within a compound with a hyphen
            ("fan-shaped") are allowed.

    Returns:
        The first fault, as the end of "It ..."; None where there is none.
    """
    words = sentence.split()
    if not words:
        return "is empty"
    if _REFUSAL.search(sentence):
        return "refuses to describe the class"
    if not sentence.isascii() or english_share(sentence) < LEAST_ENGLISH:
        return "is not plain English in ASCII letters"
    if _MARKUP.search(sentence) or _NUMBERING.match(sentence):
        return "has markup or numbering"
    if not sentence[0].isupper() or not sentence.endswith(".") or sentence.endswith(".."):
        return "does not begin with a capital letter and end with one full stop"
    if re.search(r"[.!?]\s+[A-Z]", sentence):
        return "is more than one sentence"
    if not SHORTEST <= len(words) <= LONGEST:
        return f"has {len(words)} words, not {SHORTEST} to {LONGEST}"
    known = benchmark_classes() if others is None else tuple(others)
    named = _other_class(name, sentence, known)
    if named is not None:
        return f"names another class, {named!r}"
    strong, weak = find_visual_words(sentence, besides=bare_name(name))
    if len(strong) < LEAST_VISUAL or len(strong | weak) < LEAST_WITH_PLACES:
        return "does not say enough that can be seen"
    return None


def find_faults(
    descriptions: Mapping[str, Sequence[str]], *, others: Iterable[str] | None = None
) -> list[Fault]:
    """Check the sentences of classes by :func:`find_fault`, and that no two are the same.

    Args:
        descriptions: sentences by class name.
        others: as for :func:`find_fault`.

    Returns:
        The faults in the order of the sentences. Sentences that differ by case, punctuation and
        the name of their class alone are the same; the later one is the fault.
    """
    known = None if others is None else tuple(others)
    met: dict[str, str] = {}
    faults = []
    for name, sentences in descriptions.items():
        for sentence in sentences:
            key = sentence_key(name, sentence)
            reason = find_fault(name, sentence, others=known)
            if reason is None and key in met:
                reason = repeats(met[key])
            if reason is not None:
                faults.append(Fault(name, sentence, reason))
            met.setdefault(key, name)
    return faults


def repeats(name: str) -> str:
    """Word the fault of a sentence that a class has already.

    Args:
        name: the class that has it.

    Returns:
        The end of "It ...".
    """
    return f"is the same as a sentence of {shown(name)}"


def check_descriptions(
    function: str, descriptions: Mapping[str, Sequence[str]], *, others: Iterable[str] | None = None
) -> None:
    """Refuse descriptions that break a rule.

    Args:
        function: name for the message.
        descriptions: sentences by class name.
        others: as for :func:`find_fault`.

    Raises:
        ValueError: a sentence has a fault; the message has the first one and counts the others.
    """
    faults = find_faults(descriptions, others=others)
    if faults:
        first = faults[0]
        more = f" ({len(faults) - 1:,} more are faulty)" if len(faults) > 1 else ""
        raise ValueError(
            f"{function}: descriptions must keep the rules of zsbir_fast.text.quality, got one of "
            f"{shown(first.name)} that {first.reason}: {shortened(first.sentence)}{more}"
        )


def sentence_key(name: str, sentence: str) -> str:
    """Bring a sentence to the form in which sentences are compared.

    Args:
        name: the class that it describes.
        sentence: the sentence.

    Returns:
        Its letters and digits, with a mark in place of the name of the class.
    """
    text = sentence.lower()
    if bare_name(name):
        own = "|".join(map(re.escape, sorted(_forms(bare_name(name)), key=len, reverse=True)))
        text = re.sub(rf"(?<!\w)(?:{own})(?!\w)", "@", text)
    return re.sub(r"[^\w@]", "", re.sub(r"\ban(?=\s+@)", "a", text))


def bare_name(name: str) -> str:
    """Write a class name as in a sentence, without what stands in brackets.

    Args:
        name: e.g. ``"car_(sedan)"`` or ``"jack-o-lantern"``.

    Returns:
        Lower case with single blanks, e.g. ``"car"`` or ``"jack o lantern"``.
    """
    return " ".join(re.sub(r"\(.*?\)|[_\-]", " ", name).lower().split())


class _Names(NamedTuple):
    """How the names of classes are found in a sentence: a pattern, and form -> bare names."""

    pattern: re.Pattern[str]
    forms: dict[str, set[str]]


def _other_class(name: str, sentence: str, others: tuple[str, ...]) -> str | None:
    """The first words that name a class other than ``name``, its parts and its twins."""
    own = bare_name(name)
    twins = {twin for group in _TWINS if own in group for twin in group}
    names = _names(others)
    for match in names.pattern.finditer(sentence.lower()):
        named = names.forms[match.group()] - twins
        if not any(re.search(rf"\b{re.escape(bare)}\b", own) for bare in named) and named:
            return match.group()
    return None


@lru_cache(maxsize=16)
def _names(others: tuple[str, ...]) -> _Names:
    forms: dict[str, set[str]] = {}
    for bare in {bare_name(other) for other in others} - {""}:
        for form in _forms(bare):
            forms.setdefault(form, set()).add(bare)
    either = "|".join(map(re.escape, sorted(forms, key=lambda form: (-len(form), form))))
    return _Names(re.compile(rf"(?<![\w-])(?:{either})(?![\w-])" if forms else r"(?!)"), forms)


def _forms(bare: str) -> set[str]:
    """The singular and plural of a name, its words apart, with hyphens or in one."""
    start, _, last = bare.rpartition(" ")
    forms = {last, f"{last}s", f"{last}es"}
    forms |= {f"{last[:-1]}ies"} if last.endswith("y") else set()
    forms |= {_IRREGULAR[last]} if last in _IRREGULAR else set()
    forms |= {last[:-1]} if last.endswith("s") and len(last) > 4 else set()
    names = {f"{start} {form}".strip() for form in forms}
    return {name.replace(" ", gap) for name in names for gap in (" ", "-", "")}
