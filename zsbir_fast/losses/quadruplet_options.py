"""Which options of the weighted quadruplet loss go together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from zsbir_fast.ops.quadruplet_mining.inputs import five_numbers
from zsbir_fast.reference.quadruplet_mining import (
    PRESETS,
    Negative,
    Preset,
    Reduction,
    SketchNegative,
)

LossNegative = Literal[Negative, "all"]
Hinges = tuple[bool, bool, bool, bool, bool]


def hinges_of(function: str, preset: Preset, coefficients: Sequence[float] | None) -> Hinges:
    """Tell which of the hinges h1 to h5 take part.

    Args:
        function: named in errors.
        preset: the preset; ``"ramln"`` counts as h1 and h2, whose distances it compares with.
        coefficients: replace those of the preset.

    Returns:
        Whether h1, ..., h5 do.

    Raises:
        TypeError: the coefficients are no numbers.
        ValueError: they are not five, or one is negative or not finite.
    """
    default = PRESETS["domain_balanced" if preset == "ramln" else preset]
    h1, h2, h3, h4, h5 = five_numbers(function, "coefficients", coefficients, default)
    return h1 > 0, h2 > 0, h3 > 0, h4 > 0, h5 > 0


def sketch_negative_for(
    function: str,
    given: SketchNegative | None,
    preset: Preset,
    coefficients: Sequence[float] | None,
) -> SketchNegative:
    """Choose where the negative sketch is looked for, unless that is given.

    Args:
        function: named in errors.
        given: by the user.
        preset: the preset.
        coefficients: replace those of the preset.

    Returns:
        Near the anchor for h2 and h5, near the positive for h3 without h2, nowhere without them.

    Raises:
        ValueError: ``"none"`` was given where a hinge needs a negative sketch.
    """
    _, h2, h3, _, h5 = hinges_of(function, preset, coefficients)
    if given == "none" and (h2 or h3 or h5):
        by = f"preset={preset!r}" if coefficients is None else f"coefficients={coefficients}"
        raise ValueError(
            f"{function}: sketch_negative must be 'anchor', 'positive' or 'random' for {by}, "
            "got 'none'"
        )
    if given is not None:
        return given
    if h3 and not h2:
        return "positive"
    return "anchor" if h2 or h5 else "none"


def check_reduction(
    function: str,
    reduction: Reduction,
    *,
    negative: LossNegative,
    symmetric: bool,
    preset: Preset,
    coefficients: Sequence[float] | None,
) -> None:
    """Refuse options that have no loss together.

    Args:
        function: named in errors.
        reduction: of the loss.
        negative: ``"all"``: all quadruplets count.
        symmetric: whether photos are anchors, too.
        preset: the preset.
        coefficients: replace those of the preset.

    Raises:
        ValueError: ``"all"`` has no such preset or mean, or there is no one loss of each sketch.
    """
    every = negative == "all"
    if every and preset == "ramln" and coefficients is None:
        raise ValueError(f"{function}: preset must not be 'ramln' for negative='all'")
    if reduction == "none" and (every or symmetric):
        other = "symmetric=True" if symmetric else "negative='all'"
        raise ValueError(
            f"{function}: reduction must be 'mean', 'mean_nonzero' or 'sum' for {other}, got 'none'"
        )
    _, h2, h3, _, h5 = hinges_of(function, preset, coefficients)
    if every and reduction == "mean_nonzero" and h5 and (h2 or h3):
        raise ValueError(
            f"{function}: reduction must be 'mean' or 'sum' for negative='all' where h5 meets h2 "
            "or h3, got 'mean_nonzero'"
        )
