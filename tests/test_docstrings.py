"""Docstrings in one dialect: Google's sections, entries in lower case, results as sentences."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import zsbir_fast

PACKAGE = Path(zsbir_fast.__file__).parent
FOLDERS = ("data", "losses", "metrics", "ops", "reference", "text", ".")
SECTIONS = {"Args", "Attributes", "Example", "Raises", "Returns", "Warns", "Yields"}
ENTRIES = {"Args", "Attributes", "Raises", "Warns"}
# A word with a capital letter, but for names that are written so.
CAPITAL = re.compile(r"(?!None\b|True\b|False\b)([A-Z][a-z]+|A)\b")


def complaints(text: str) -> list[str]:
    """What a docstring has that the others have not."""
    found, section, first = [], "", False
    for line in text.splitlines():
        heading = re.fullmatch(r"([A-Z]\w+):", line)
        entry = re.match(r" {4}[\w*][\w*, .]*: (.+)", line)
        if heading:
            section, first = heading[1], True
            if section not in SECTIONS:
                found.append(f"there is no section {section}")
        elif line and not line.startswith(" "):
            section = ""
        elif section in ENTRIES and entry:
            if CAPITAL.match(entry[1]) or entry[1].startswith("if "):
                found.append(f"{section}: begin with a lower-case noun: {line.strip()}")
        elif section in ("Returns", "Yields") and first and line:
            first = False
            if line.strip()[0].islower():
                found.append(f"{section}: begin with a capital letter: {line.strip()}")
    return found


@pytest.mark.parametrize("folder", FOLDERS)
def test_docstrings_are_in_one_dialect(folder):
    files = (PACKAGE / folder).glob("*.py" if folder == "." else "**/*.py")
    found = []
    for file in sorted(files):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
                text = ast.get_docstring(node) or ""
                name = getattr(node, "name", "module")
                found += [f"{file.name}: {name}: {what}" for what in complaints(text)]
    assert not found, "\n".join(found)


def test_the_other_dialects_are_told_apart():
    text = """Sum.

Args:
    rows: None or a matrix.
    ks: Cut-offs.

Returns:
    the sum.

Raises:
    ValueError: If it is empty.
    TypeError: L2 is no number.

Parameters:
    none: here
"""
    assert complaints(text) == [
        "Args: begin with a lower-case noun: ks: Cut-offs.",
        "Returns: begin with a capital letter: the sum.",
        "Raises: begin with a lower-case noun: ValueError: If it is empty.",
        "there is no section Parameters",
    ]
