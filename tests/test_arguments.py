"""The checks of words and numbers that all layers share."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch

import zsbir_fast as zf
from zsbir_fast import _arguments
from zsbir_fast._arguments import as_integer, as_number, check_choice, check_flag
from zsbir_fast.data.image_spec import check_modality
from zsbir_fast.reference.definitions import Definition

SKETCHES = torch.zeros(2, 3)
LABELS = torch.arange(2)
PACKAGE = Path(_arguments.__file__).parent


def test_a_choice_is_one_of_a_literal_or_of_words() -> None:
    check_choice("f", "side", "left", Literal["left", "right"])
    check_choice("f", "side", "right", {"left": 1, "right": 2})


@pytest.mark.parametrize("value", [None, 3, ["left"], torch.zeros(2), "x" * 10**6])
def test_what_is_no_choice_is_shown_in_short(value: Any) -> None:
    with pytest.raises(ValueError, match="f: side must be one of left, right, got ") as error:
        check_choice("f", "side", value, ("left", "right"))
    assert len(str(error.value)) < 300


@pytest.mark.parametrize(
    ("call", "meant"),
    [
        (
            lambda: zf.mine_quadruplets(SKETCHES, SKETCHES, LABELS, LABELS, distance="cosin"),
            "cosine",
        ),
        (lambda: zf.evaluate_retrieval(*[SKETCHES, LABELS] * 2, metric="cosin"), "cosine"),
        (lambda: zf.BatchAllTripletLoss(distance="euclid"), "euclidean"),
        (lambda: zf.WeightedQuadrupletLoss(distance="Cosine"), "cosine"),
        (lambda: zf.alignment_weights(torch.ones(2), torch.ones(2), form="soft_max"), "softmax"),
        (lambda: zf.load_split("sketchy25"), "sketchy-25"),
        (lambda: zf.Protocol("mine", empty="skipped"), "skip"),
        (lambda: Definition(ap="standart"), "standard"),
        (lambda: check_modality("f", "sketches"), "sketch"),
    ],
)
def test_every_layer_names_the_choice_that_was_meant(call: Any, meant: str) -> None:
    with pytest.raises(ValueError, match=rf"must be one of .*\(did you mean '{meant}'\?\)$"):
        call()


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (True, TypeError, "must be an integer, got True"),
        (2.5, TypeError, "must be an integer, got 2.5"),
        ("3", TypeError, "must be an integer, got '3'"),
        (0, ValueError, "must be in [1, 9], got 0"),
        (10, ValueError, "must be in [1, 9], got 10"),
        (2**100, ValueError, "must be in [1, 9], got an integer of 101 bits"),
    ],
)
def test_integers_are_of_a_range(value: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=re.escape(f"f: count {text}")):
        as_integer("f", "count", value, least=1, most=9)


def test_numbers_of_numpy_are_numbers() -> None:
    assert as_integer("f", "count", np.int8(3), least=1) == 3
    assert as_number("f", "size", np.float32(0.5)) == 0.5
    with pytest.raises(ValueError, match="f: count must be at least 1, got 0"):
        as_integer("f", "count", np.uint8(0), least=1)


def test_a_flag_is_a_bool() -> None:
    check_flag("f", "exclude", False)
    with pytest.raises(TypeError, match="f: exclude must be True or False, got 1"):
        check_flag("f", "exclude", 1)


def test_a_shared_check_exists_once() -> None:
    def functions(path: Path) -> set[str]:
        return {x.name for x in ast.parse(path.read_text()).body if isinstance(x, ast.FunctionDef)}

    shared = functions(PACKAGE / "_arguments.py")
    again = {
        f"{path.relative_to(PACKAGE)}: {name}"
        for path in PACKAGE.rglob("*.py")
        if path.name != "_arguments.py"
        for name in shared & functions(path)
    }
    assert not again
