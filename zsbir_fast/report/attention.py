"""Pictures of a model's attention: weights of sketch-photo pairs, and patches that answer words."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from zsbir_fast.data.images import ImageSet
from zsbir_fast.report.content import WeightedPair, WordMap
from zsbir_fast.report.explanation import PairExplanation
from zsbir_fast.report.pictures import read_thumbnail

# Pale to strong, for light to dark shares; multiplied onto the image, so that strokes stay visible.
_PALETTE = np.array([(255, 255, 255), (255, 221, 130), (247, 140, 60), (205, 35, 45)], np.float64)

_MOST_WORDS = 8


def weighted_pairs(
    explanation: PairExplanation, sketches: ImageSet, photos: ImageSet, *, per_group: int = 4
) -> list[WeightedPair]:
    """Show the pairs of a batch that count most and those that count least.

    Args:
        explanation: ``weights``, ``local`` and ``global_`` [B] of the pairs.
        sketches: B sketches.
        photos: B photos, with the same ``classes``.
        per_group: pairs per group; fewer where the batch is small.

    Returns:
        Pairs in the groups "Largest weights", falling, and "Smallest weights", rising.

    Raises:
        ValueError: lengths do not fit together.
    """
    _check("weighted_pairs", explanation, sketches, photos)
    order = torch.argsort(explanation.weights, descending=True, stable=True).tolist()
    count = min(per_group, len(order) // 2)
    groups = {"Largest weights": order[:count], "Smallest weights": order[::-1][:count]}
    return [
        _pair(group, index, explanation, sketches, photos)
        for group, chosen in groups.items()
        for index in chosen
    ]


def attention_pairs(
    explanation: PairExplanation, sketches: ImageSet, photos: ImageSet, *, count: int = 4
) -> list[WeightedPair]:
    """Show for some pairs which patches answer which word.

    The pairs, ordered by weight, are cut into ``count`` equal parts, and each part shows the pair
    with most words. Colours are comparable within a pair: pale is the smallest attention of any of
    its patches to any of its words, strong the largest.

    Args:
        explanation: as for :func:`weighted_pairs`, with ``answers``.
        sketches: B sketches.
        photos: B photos, with the same ``classes``.
        count: pairs to show.

    Returns:
        Pairs with up to eight ``words``; none where the patches form no square grid.

    Raises:
        ValueError: lengths do not fit together.
    """
    _check("attention_pairs", explanation, sketches, photos)
    answers = explanation.answers
    if not (_is_square(answers.sketch.shape[2]) and _is_square(answers.photo.shape[2])):
        return []
    order = torch.argsort(explanation.weights, descending=True, stable=True).tolist()
    with_words = [index for index in order if answers.words[index]]
    cuts = np.linspace(0, len(with_words), min(count, len(with_words)) + 1).round().astype(int)
    parts = [with_words[start:stop] for start, stop in itertools.pairwise(cuts)]
    chosen = [max(part, key=lambda index: len(answers.words[index])) for part in parts]
    return [_answered(index, explanation, sketches, photos) for index in chosen]


def heat_map(
    image: NDArray[np.uint8], shares: Tensor, *, low: float, high: float
) -> NDArray[np.uint8]:
    """Colour an image by the attention that its patches get.

    Args:
        image: uint8 [H, W, 3].
        shares: [N] attention of the patches, row by row of a square grid that covers the image.
        low: attention drawn white.
        high: attention drawn in the strongest colour.

    Returns:
        uint8 [H, W, 3]: the image in pale grey under the colours.

    Raises:
        ValueError: the patches form no square grid.
    """
    if not _is_square(len(shares)):
        raise ValueError(f"heat_map: shares must form a square grid, got {len(shares)}")
    side = math.isqrt(len(shares))
    grid = shares.float().view(1, 1, side, side)
    smooth = F.interpolate(grid, image.shape[:2], mode="bilinear", align_corners=False)[0, 0]
    strength = ((smooth - low) / max(high - low, 1e-12)).clamp(0, 1).double().numpy()
    grey = image.astype(np.float64).mean(2, keepdims=True)
    pale = 255 - 0.55 * (255 - grey)
    colours = _colours(strength)
    mixed: NDArray[np.uint8] = (pale * colours / 255).round().astype(np.uint8)
    return mixed


def legend_colours() -> list[str]:
    """Give the colours from pale to strong, as CSS colours, for the legend."""
    return [f"rgb({r:.0f},{g:.0f},{b:.0f})" for r, g, b in _PALETTE]


def _colours(strength: NDArray[np.float64]) -> NDArray[np.float64]:
    stops = np.linspace(0, 1, len(_PALETTE))
    return np.stack([np.interp(strength, stops, channel) for channel in _PALETTE.T], axis=-1)


def _answered(
    index: int, explanation: PairExplanation, sketches: ImageSet, photos: ImageSet
) -> WeightedPair:
    answers = explanation.answers
    words: Sequence[str] = answers.words[index][:_MOST_WORDS]
    maps = [attention[index, : len(words)] for attention in (answers.sketch, answers.photo)]
    lifts = [shares * shares.shape[1] for shares in maps]  # 1: an equal share
    low = min(float(lift.min()) for lift in lifts)
    high = max(float(lift.max()) for lift in lifts)
    grids = (math.isqrt(maps[0].shape[1]), math.isqrt(maps[1].shape[1]))
    pair = _pair("", index, explanation, sketches, photos)
    drawn = [
        WordMap(
            word,
            heat_map(pair.sketch, lifts[0][row], low=low, high=high),
            heat_map(pair.photo, lifts[1][row], low=low, high=high),
        )
        for row, word in enumerate(words)
    ]
    return replace(pair, words=drawn, low=low, high=high, grids=grids)


def _pair(
    group: str, index: int, explanation: PairExplanation, sketches: ImageSet, photos: ImageSet
) -> WeightedPair:
    return WeightedPair(
        group=group,
        label=sketches.classes[int(sketches.labels[index])],
        sketch=read_thumbnail(sketches.paths[index]),
        photo=read_thumbnail(photos.paths[index]),
        weight=float(explanation.weights[index]),
        local=float(explanation.local[index]),
        global_=float(explanation.global_[index]),
    )


def _is_square(count: int) -> bool:
    return count > 0 and math.isqrt(count) ** 2 == count


def _check(
    function: str, explanation: PairExplanation, sketches: ImageSet, photos: ImageSet
) -> None:
    if not len(explanation.weights) == len(sketches) == len(photos):
        raise ValueError(
            f"{function}: explanation, sketches and photos must agree in length, got "
            f"{len(explanation.weights)}, {len(sketches)} and {len(photos)}"
        )
