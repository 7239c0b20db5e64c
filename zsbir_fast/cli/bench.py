"""``zsbir bench``: are the installed kernels the fast ones? A minute, no files."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

from zsbir_fast._words import did_you_mean
from zsbir_fast.cli import bench_rooms
from zsbir_fast.cli.parsing import Parser

# The sizes that each room needs, in the order of its function's arguments.
_ROOMS: dict[str, tuple[Callable[..., str], tuple[str, ...]]] = {
    "batched_map": (bench_rooms.batched_map, ("queries", "gallery", "classes", "repeats")),
    "quadruplet_mining": (bench_rooms.quadruplet_mining, ("batch", "repeats")),
    "token_weighting": (bench_rooms.token_weighting, ("pairs", "repeats")),
}
_SIZES = {
    "queries": (200, "queries Q of batched_map"),
    "gallery": (10_000, "gallery items G of batched_map"),
    "classes": (30, "classes C of batched_map"),
    "batch": (256, "sketches and photos B of quadruplet_mining"),
    "pairs": (32, "pairs B of token_weighting"),
    "repeats": (5, "timed repeats; the median counts"),
}
_EXAMPLES = """\
  zsbir bench
  zsbir bench token_weighting
  zsbir bench batched_map --queries 1000 --gallery 20000 --repeats 3
  OMP_NUM_THREADS=1 zsbir bench"""


def main(argv: Sequence[str]) -> None:
    """Run the command.

    Args:
        argv: arguments after ``bench``.

    Raises:
        RuntimeError: a kernel and its reference disagree on the result.
    """
    parser = Parser(
        "bench",
        description="Time this installation's kernels against their PyTorch references on this\n"
        "machine's CPU: mAP of a score matrix, mining and losses, token weighting. Results must\n"
        "agree first.",
        examples=_EXAMPLES,
    )
    parser.add_argument("room", nargs="?", default="all", help=f"{', '.join(_ROOMS)} or all")
    for name, (default, meaning) in _SIZES.items():
        parser.add_argument(f"--{name}", type=int, default=default, help=meaning)
    arguments = parser.parse(argv)
    chosen = list(_ROOMS) if arguments["room"] == "all" else [arguments["room"]]
    if chosen[0] not in _ROOMS:
        parser.error(
            f"room must be one of {', '.join(_ROOMS)}, all, got {chosen[0]!r}"
            f"{did_you_mean(chosen[0], [*_ROOMS, 'all'])}"
        )
    for name in _SIZES:
        if arguments[name] < 1:
            parser.error(f"--{name} must be at least 1, got {arguments[name]}")
    for place, room in enumerate(chosen):
        sys.stdout.write("\n" * bool(place) + _run(room, arguments) + "\n")
        sys.stdout.flush()


def _run(room: str, arguments: Any) -> str:
    measure, sizes = _ROOMS[room]
    return measure(*(arguments[name] for name in sizes))
