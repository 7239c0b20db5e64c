"""Calls every operator of ``torch.ops.zsbir`` with arguments that are wrong in one way each.

Run as a program, in a process of its own: ``python operator_calls.py SKIP`` leaves out the first
SKIP cases. It writes a line when a case begins and one with what came of it, so that the case that
ends the process is known.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import torch

from zsbir_fast import ops as rooms
from zsbir_fast.ops.batched_map import GalleryClasses, relevant_items
from zsbir_fast.ops.row_products import pack_rows, packed_like
from zsbir_fast.reference.definitions import Definition

WRITES_TO_FIRST = ("pack_rows", "row_products", "rank_counts")
SKETCHES, PHOTOS, WIDTH, VALUES = 5, 7, 3, 4
for room in pkgutil.iter_modules(rooms.__path__):  # a room registers its operators on import
    importlib.import_module(f"{rooms.__name__}.{room.name}")
G = torch.Generator().manual_seed(0)


def rows(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=G)


def labels(count: int) -> torch.Tensor:
    return torch.arange(count) % 3


def base_calls() -> dict[str, list[tuple[Any, ...]]]:
    """Right arguments, in the order of each schema."""
    ops = torch.ops.zsbir
    a, b, cross = rows(SKETCHES, WIDTH), rows(PHOTOS, WIDTH), rows(SKETCHES, PHOTOS)
    of_sketches, of_photos = labels(SKETCHES), labels(PHOTOS)
    index = torch.arange(SKETCHES)
    quadruplet = (a, b, rows(4, WIDTH), index + 1, index, index % 4, index != 3)
    form = ([1.0, 0.5, 2.0, 1.0, 0.25], [0.3, 0.2, 0.1, 0.3, 3.0])
    hinges = (*quadruplet, *form, -1.0, 0)
    slopes = ops.quadruplet_hinges(*hinges)[1]
    weights = torch.ones(SKETCHES, dtype=torch.int32), torch.ones(PHOTOS, dtype=torch.int32)
    text, mask = rows(3, 2, WIDTH), torch.tensor([[True, True], [True, False], [True, True]])
    sides = (rows(SKETCHES, 6, WIDTH), rows(SKETCHES, 6, VALUES))
    sides += (rows(SKETCHES, 8, WIDTH), rows(SKETCHES, 8, VALUES))
    both = (text, mask, rows(3, 2), *sides, of_sketches, 0.5)
    kept = ops.token_weighting(*both, 2)[1:]
    grads = rows(SKETCHES), rows(*kept[0].shape), rows(*kept[1].shape)
    tokens = rows(SKETCHES, 6, WIDTH), rows(SKETCHES, 8, WIDTH)
    paired = ops.pairwise_token_score(*tokens, False)
    photos = tokens[0], rows(PHOTOS, 8, WIDTH)
    crossed = ops.pairwise_token_score(*photos, True)
    low = rows(SKETCHES)
    left, scale = rows(SKETCHES, WIDTH), rows(PHOTOS)
    into = torch.zeros(SKETCHES, PHOTOS)
    gallery = GalleryClasses.of(labels(PHOTOS), 3, torch.arange(PHOTOS, dtype=torch.int32))
    classes = (labels(SKETCHES).int(), gallery.of_column, gallery.index)
    columns = (gallery.offsets, gallery.columns)
    relevant = relevant_items(cross, classes[0], gallery, larger_is_closer=True)
    counts = torch.zeros(3, len(relevant[1]), dtype=torch.int32)
    codes = list(Definition().codes())
    return {
        "batched_map": [(cross, *classes, *columns, True, [1, 3], codes)],
        "rank_counts": [(counts, cross, *classes, *relevant, True)],
        "ranking_metrics": [(relevant[0], relevant[1], counts, [1, 3], codes)],
        "pack_rows": [(packed_like(PHOTOS, WIDTH, torch.float32, b.device), b)],
        "row_products": [
            (into, left, b, 0, scale, scale),
            (into, left, pack_rows(b), 0, scale, scale),
        ],
        "row_squares": [(b,)],
        "null": [(b,)],
        "pair_distances": [(a, b, 0)],
        "pair_distances_backward": [(rows(SKETCHES, PHOTOS), cross, a, b, 1)],
        "select_pairs": [(a, b, of_sketches, of_photos, 4, of_sketches, low, low + 1, 1, 15)],
        "quadruplet_hinges": [hinges],
        "quadruplet_hinges_backward": [(rows(SKETCHES), slopes, *quadruplet, 0, True, True, True)],
        "hinge_rows": [
            (cross, rows(SKETCHES, PHOTOS), of_sketches, of_photos, of_photos, *weights, 0.3, True)
        ],
        "union_counts": [
            (cross, rows(SKETCHES, 4), rows(PHOTOS, 4), of_sketches, of_photos, labels(4), 0.3, 0.1)
        ],
        "probe_sum": [(cross, of_sketches, of_photos, 0.3)],
        "count_probe_union": [(cross, rows(PHOTOS, PHOTOS), of_sketches, of_photos, 0.3, 0.2, 0.1)],
        "token_weighting": [(*both, 2)],
        "token_weighting_backward": [(*grads, *both, *kept)],
        "pairwise_token_score": [(*tokens, False)],
        "pairwise_token_score_backward": [
            (paired[0], *tokens, False, *paired[1:]),
            (crossed[0], *photos, True, *crossed[1:]),
        ],
    }


def wrong_tensors(x: torch.Tensor) -> Iterator[tuple[str, Any]]:
    yield "no tensor", [1, 2]
    yield "other dtype", x.float() if not x.is_floating_point() else x.long()
    if x.is_floating_point():
        yield "half", x.bfloat16()
    yield "meta", x.to("meta")
    yield "no dimension", x.flatten()[0]
    yield "one dimension more", x[None]
    yield "sparse", x.to_sparse()
    for dim, size in enumerate(x.shape):
        yield f"shorter in {dim}", x.narrow(dim, 0, size - 1)
        yield f"longer in {dim}", torch.cat([x, x.narrow(dim, 0, 1)], dim)
        yield f"empty in {dim}", x.narrow(dim, 0, 0)
        yield f"very long in {dim}", x.repeat_interleave(4000, dim)
    if x.dtype in (torch.int32, torch.int64):
        for value in (-1, 10**8, -(2**31), torch.iinfo(x.dtype).max):
            yield f"all {value}", torch.full_like(x, value)
    if x.is_floating_point():
        for number in (float("nan"), float("inf"), -float("inf"), 3e38):
            yield f"all {number}", torch.full_like(x, number)
    strided = torch.stack([x, x], -1)[..., 0]
    yield "strided", strided


def wrong_values(x: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(x, torch.Tensor):
        yield from wrong_tensors(x)
        yield "none", None
    elif isinstance(x, bool):
        yield "a tensor", torch.ones(3)
    elif isinstance(x, int):
        for value in (-1, 7, 16, 10**8, 2**31, 2**62, -(2**63), 2**64):
            yield f"{value}", value
    elif isinstance(x, float):
        for number in (0.0, -2.0, 1e-320, float("nan"), float("inf")):
            yield f"{number}", number
        yield "a word", "x"
    else:
        yield "too few", x[:-1]
        yield "too many", [*x, 1.0]
        yield "nan", [float("nan"), *x[1:]]
        yield "negative", [-1.0, *x[1:]]


def cases() -> Iterator[tuple[str, str, str, list[torch.Tensor], tuple[Any, ...]]]:
    """Operator, argument, what is wrong, the right results, wrong arguments."""
    for op, calls in base_calls().items():
        schema = getattr(torch.ops.zsbir, op).default._schema
        for right in calls:
            wanted = results(op, right)
            yield op, "-", "nothing", wanted, right
            for place, argument in enumerate(schema.arguments):
                for change, value in wrong_values(right[place]):
                    wrong = (*right[:place], value, *right[place + 1 :])
                    yield op, argument.name, change, wanted, wrong


def results(op: str, given: tuple[Any, ...]) -> list[torch.Tensor]:
    if op in WRITES_TO_FIRST and isinstance(given[0], torch.Tensor):
        out = given[0].clone() if op == "rank_counts" else given[0]  # what is added to
        getattr(torch.ops.zsbir, op)(out, *given[1:])
        return [out.clone()]
    result = getattr(torch.ops.zsbir, op)(*given)
    return [result] if isinstance(result, torch.Tensor) else list(result)


def outcome(op: str, wanted: list[torch.Tensor], wrong: tuple[Any, ...]) -> tuple[str, str]:
    try:
        values = results(op, wrong)
    except Exception as error:
        return type(error).__name__, str(error)
    same = all(
        x.shape == y.shape and x.device == y.device and torch.equal(x, y)
        for x, y in zip(values, wanted, strict=True)
    )
    return "same" if same else "returned", ""


def main() -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)  # calls are small
    skip = int(sys.argv[1])
    for number, (op, argument, change, wanted, wrong) in enumerate(cases()):
        if number < skip:
            continue
        print(json.dumps({"begins": number, "case": [op, argument, change]}), flush=True)
        kind, text = outcome(op, wanted, wrong)
        print(json.dumps({"case": [op, argument, change], "got": kind, "text": text}), flush=True)


if __name__ == "__main__":
    main()
