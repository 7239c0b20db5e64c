"""No operator crashes, reads beyond a tensor or returns something for arguments that do not fit."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.ops.operator_calls import base_calls

PROGRAM = Path(__file__).with_name("operator_calls.py")
ROWS = {f"{change} in 0" for change in ("shorter", "longer", "empty", "very long")}
TOKENS = {f"{change} in 1" for change in ("shorter", "longer", "very long")}
# What is no mistake, by operator and argument: other numbers of rows that nothing else depends on,
# numbers within their range, arguments that may be left out.
ANY_SIZE = {f"{c} in {d}" for c in ("shorter", "longer", "empty", "very long") for d in (0, 1)}
ALLOWED: dict[tuple[str, str], set[str]] = {
    ("batched_map", "class_offsets"): {"very long in 0"},  # classes without a column
    ("batched_map", "ks"): {"too few"},
    ("ranking_metrics", "offsets"): {"very long in 0"},  # queries without a relevant item
    ("ranking_metrics", "ks"): {"too few"},
    ("pack_rows", "rows"): {"shorter in 0", "longer in 0"},  # as many panels
    ("row_products", "right"): {"longer in 0", "very long in 0"},
    ("row_products", "scale"): {"none"},
    ("row_products", "offset"): {"none"},
    ("row_products", "first"): {"7", "16"},  # other rows of the panels
    ("row_squares", "rows"): ANY_SIZE | {"meta"},
    ("null", "rows"): ANY_SIZE | {"meta"},
    ("pair_distances", "a"): ROWS,
    ("pair_distances", "b"): ROWS | {"none"},
    ("select_pairs", "same_limit"): {"7", "16", str(10**8), str(2**31), str(2**62)},
    ("select_pairs", "forbidden"): {"none"},
    ("select_pairs", "low"): {"none"},
    ("select_pairs", "high"): {"none"},
    ("select_pairs", "wanted"): {"7"},
    ("quadruplet_hinges", "photos"): {"longer in 0", "very long in 0"},
    ("quadruplet_hinges", "references"): {"longer in 0", "very long in 0"},
    ("quadruplet_hinges", "cross_modal_share"): {"0.0", "1e-320"},
    ("quadruplet_hinges_backward", "photos"): ROWS,
    ("quadruplet_hinges_backward", "references"): ROWS,
    ("hinge_rows", "values"): {"none"},
    ("hinge_rows", "margin"): {"0.0", "-2.0", "1e-320"},
    ("union_counts", "first_margin"): {"0.0", "-2.0", "1e-320"},
    ("union_counts", "second_margin"): {"0.0", "-2.0", "1e-320"},
    ("probe_sum", "margin"): {"0.0", "-2.0", "1e-320"},
    ("count_probe_union", "margin"): {"0.0", "-2.0", "1e-320"},
    ("count_probe_union", "h1_margin"): {"0.0", "-2.0", "1e-320"},
    ("count_probe_union", "h4_margin"): {"0.0", "-2.0", "1e-320"},
    ("token_weighting_backward", "grad_scores"): {"none"},
    ("token_weighting_backward", "grad_sketch"): {"none"},
    ("token_weighting_backward", "grad_photo"): {"none"},
    ("pairwise_token_score", "sketch_tokens"): TOKENS,
    ("pairwise_token_score", "photo_tokens"): TOKENS,
}
# Memory that is written to, which must be side by side.
WRITTEN = {("pack_rows", "out"), ("row_products", "out")}
# Values that name rows of another argument.
ROW_NUMBERS = {
    "quadruplet_hinges": ("positive", "photo_negative", "sketch_negative"),
    "quadruplet_hinges_backward": ("positive", "photo_negative", "sketch_negative"),
    "pairwise_token_score_backward": ("best",),
}


@pytest.fixture(scope="module")
def outcomes() -> list[tuple[str, str, str, str, str]]:
    """Operator, argument, change, what came of it, and the error's text; "crash" if the process."""
    found, begun = [], -1
    for _ in range(20):
        command = [sys.executable, str(PROGRAM), str(begun + 1)]
        run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        lines = [json.loads(line) for line in run.stdout.splitlines()]
        found += [(*line["case"], line["got"], line["text"]) for line in lines if "got" in line]
        if run.returncode == 0:
            return found
        assert lines, run.stderr
        begun = lines[-1]["begins"]
        found.append((*lines[-1]["case"], "crash", str(run.returncode)))
    return found


def test_the_table_holds_every_operator() -> None:
    names = torch._C._dispatch_get_all_op_names()
    ours = {name.removeprefix("zsbir::") for name in names if name.startswith("zsbir::")}
    assert ours == set(base_calls())


def test_no_call_ends_the_process(outcomes) -> None:
    assert [o for o in outcomes if o[3] == "crash"] == []
    assert len(outcomes) > 1500


def test_right_arguments_and_strided_ones_give_the_same(outcomes) -> None:
    right = [o for o in outcomes if o[2] in ("nothing", "strided")]
    assert len(right) > 60
    assert [o for o in right if o[3] != "same" and o[:2] not in WRITTEN] == []


def test_what_does_not_fit_is_refused(outcomes) -> None:
    for op, argument, change, got, _ in outcomes:
        if got not in ("returned", "same") or change in ("nothing", "strided"):
            continue
        if change.startswith("all "):  # labels and features may be any number
            assert argument not in ROW_NUMBERS.get(op, ()), (op, argument, change)
        elif got == "returned":
            assert change in ALLOWED.get((op, argument), set()), (op, argument, change)


def test_errors_are_ours_and_name_the_argument(outcomes) -> None:
    for op, argument, change, got, text in outcomes:
        if got in ("returned", "same"):
            continue
        # What is no tensor or number at all, or sparse, torch refuses itself.
        by_torch = text.startswith(f"zsbir::{op}()") or got == "NotImplementedError"
        if not by_torch:
            assert got in ("ValueError", "TypeError"), (op, argument, change, got, text)
            assert text.startswith(f"{op}: "), (op, argument, change, text)
            assert " must " in text, (op, argument, change, text)


@pytest.mark.parametrize(
    ("op", "argument", "change", "message"),
    [
        (
            "pairwise_token_score",
            "sketch_tokens",
            "very long in 0",
            "photo_tokens must agree with sketch_tokens in B and D, got [20000, 6, 3] and [5, 8, 3",
        ),
        (
            "pairwise_token_score_backward",
            "photo_tokens",
            "very long in 0",
            "photo_tokens must agree with sketch_tokens in B and D, got [5, 6, 3] and [20000, 8, 3",
        ),
        ("pairwise_token_score_backward", "best", "all 100000000", "best must be in [0, 8), got 1"),
        (
            "quadruplet_hinges",
            "positive",
            "all 100000000",
            "quadruplets must name rows that exist where they are valid, anchor 0 got (100000000, ",
        ),
        ("token_weighting", "keep", "7", "keep must be in [0, 3), got 7"),
        ("token_weighting", "weights", "none", "weights must be given with photo_keys, photo_val"),
        ("token_weighting", "photo_keys", "empty in 1", "photo_keys must be [B, N, D] with N >= 1"),
        ("token_weighting", "temperature", "1e-320", "temperature must be finite and at least 1e"),
        ("select_pairs", "reference_labels", "none", "reference_labels must be a tensor, got None"),
        ("select_pairs", "distance", "7", "distance must be in [0, 3), got 7"),
        ("quadruplet_hinges", "margins", "too few", "margins must be five finite numbers, none n"),
        ("pair_distances", "b", "meta", "b must be on cpu like a, got meta"),
        ("count_probe_union", "photos", "none", "photos must be given with h4_margin, got None"),
    ],
)
def test_errors_say_what_was_wrong(outcomes, op, argument, change, message) -> None:
    texts = {o[4] for o in outcomes if o[:3] == (op, argument, change)}
    assert any(text.startswith(f"{op}: {message}") for text in texts), texts
