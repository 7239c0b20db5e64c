from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

import pytest

import zsbir_fast as zf
from zsbir_fast.methods.plain_types import described, fits


@pytest.mark.parametrize(
    ("annotation", "good", "bad"),
    [
        (bool, [True, False], [0, 1, None, "yes", []]),
        (int, [0, -3, 10**40], [True, 1.0, "1", None, [1]]),
        (float, [0.5, 1, float("inf")], [True, "1", None, [1.0], {}]),
        (str, ["", "x"], [1, None, ["x"]]),
        (Literal["a", "b"], ["a"], ["c", 1, None, ["a"]]),
        (str | None, ["x", None], [1, []]),
        (float | Sequence[float] | None, [1, None, [], [1, 2.0], (1,)], ["x", ["x"], [[1]], {}]),
        (list[str], [[], ["a"]], ["a", [1], None]),
        (dict[str, int], [{}, "anything"], []),
        (tuple[int, str], [(1, "x")], []),
    ],
)
def test_values_of_annotations(annotation, good, bad):
    assert all(fits(value, annotation) for value in good)
    assert not any(fits(value, annotation) for value in bad)


def test_annotations_in_words():
    assert described(Literal["a", "b"]) == "one of 'a', 'b'"
    assert described(float | Sequence[float] | None) == "float or a list of float or None"


@pytest.mark.parametrize(
    ("group", "key", "value", "text"),
    [
        ("terms", "align", "x", "'terms.align' of method dmwan must be float, got 'x'"),
        ("loss", "memory", [1], "'loss.memory' of method dmwan must be int, got [1]"),
        (
            "weighting",
            "form",
            "softmx",
            "'weighting.form' of method dmwan must be one of 'soft",
        ),
        ("weighting", "detach", "no", "'weighting.detach' of method dmwan must be bool, got 'no'"),
        ("encoder", "weights", 3, "'encoder.weights' of method dmwan must be str or None, got 3"),
    ],
)
def test_settings_of_another_type_are_named(group, key, value, text):
    with pytest.raises(ValueError, match=f"argument {re.escape(text)}"):
        zf.ModelIdentity.of("dmwan", {group: {key: value}}, ["cat", "dog"])
