"""Comments of the C++ and CUDA sources are whole: clang-format only indents them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

REPO = Path(__file__).parents[2]
SOURCES = sorted(
    path
    for folder in (REPO / "csrc", REPO / "tests" / "csrc")
    for path in folder.rglob("*")
    if path.suffix in (".h", ".cpp", ".cu", ".cuh", ".inl")
)
# The lines that open a part of a header, such as "// Algorithm    The R relevant keys are ...".
PART = re.compile(r"// ([A-Z][a-z]+|In / out|[a-z]+) {2,}(?=\S)")
WIDTH = 100


def blocks(text: str) -> list[tuple[int, list[str]]]:
    """Runs of lines that hold nothing but a comment, with the number of their first line."""
    found: list[tuple[int, list[str]]] = []
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if not stripped.startswith("//"):
            continue
        if found and found[-1][0] + len(found[-1][1]) == number:
            found[-1][1].append(stripped)
        else:
            found.append((number, [stripped]))
    return found


def broken(lines: list[str]) -> list[str]:
    """Lines that a reflow left: short ones within a sentence, parts that lost their place."""
    out = []
    hang = None
    for line, following in zip(lines, [*lines[1:], "//"], strict=True):
        part = PART.match(line)
        hang = part.end() if part else hang
        if line == "//":
            hang = None
        outside = hang is not None and not part and not line.startswith("//" + " " * (hang - 2))
        joined = re.search(r"\S (In / out|[A-Z][a-z]+) {4,}\S", line.removeprefix("// "))
        goes_on = following not in ("//", "") and not PART.match(following)
        short = goes_on and len(line) < 40 and re.search(r"[\w,]$", line)
        same = len(following) - len(following[2:].lstrip()) == len(line) - len(line[2:].lstrip())
        listed = hang is None and line.startswith("//  ")
        if outside or joined or (short and same and not listed):
            out.append(line)
    return out


def test_clang_format_does_not_reflow_comments() -> None:
    assert "ReflowComments: IndentOnly\n" in (REPO / ".clang-format").read_text()


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(REPO)))
def test_comments_are_whole(path: Path) -> None:
    text = path.read_text()
    assert [line for line in text.splitlines() if len(line) > WIDTH] == []
    for number, lines in blocks(text):
        assert broken(lines) == [], f"{path.name}:{number}"


@pytest.mark.parametrize(
    "lines",
    [
        [
            "// Algorithm    every column looks up its place among the R sorted",
            "// keys",
            "//              (a table of 2 x capacity buckets)",
        ],
        ["// Determinism  bitwise: sums in rank order, in one thread Limits       R < 2^31"],
        ["// A warp calls; `count` >= 1", "// patches are there, and the others repeat the last."],
    ],
)
def test_broken_comments_are_found(lines: list[str]) -> None:
    assert broken(lines) != []
