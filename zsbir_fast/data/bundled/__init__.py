"""Files that ship with the package; each folder has a ``SOURCES.md`` with origin and licence."""

from __future__ import annotations

from pathlib import Path

from zsbir_fast._arguments import check_choice

_ROOT = Path(__file__).parent
NAMES = (
    "qd_caltech",
    "weights",
    "class_vectors",
    "word_vectors",
    "descriptions",
    "semantics",
    "splits",
)


def path(name: str) -> Path:
    """Return the folder of a bundled part.

    Args:
        name: one of ``NAMES``.

    Returns:
        The folder.

    Raises:
        ValueError: an unknown name.
        FileNotFoundError: the installed package lacks the folder.
    """
    check_choice("bundled.path", "name", name, NAMES)
    folder = _ROOT / name
    if not folder.is_dir():
        raise FileNotFoundError(
            f"bundled.path: {folder} must be part of the installation, but is missing; "
            "install the package again"
        )
    return folder
