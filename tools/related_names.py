"""List which class names occur in the descriptions of which class, for ``source="glove"``.

    python -m tools.related_names

Reads ``tools/description_sources/`` whole: sentences of other projects, of which the package ships
those alone that keep our rules. A class has the sentences of the first file that describes it.
"""

from __future__ import annotations

import json
from pathlib import Path

from zsbir_fast._files import write_text
from zsbir_fast.data.names import plain_name
from zsbir_fast.text.descriptions import load_descriptions
from zsbir_fast.text.word_vectors import RELATED, names_in

SOURCES = Path(__file__).with_name("description_sources")
FILES = ("qd_caltech47", "sketchy125_partial", "tuberlin250_partial", "quickdraw110_partial")


def related_names() -> dict[str, list[str]]:
    """Find the class names in the sentences of every described class.

    Returns:
        Plain name -> plain names, the most frequent first.
    """
    found: dict[str, list[str]] = {}
    for file in FILES:
        for name, sentences in load_descriptions(SOURCES / f"{file}.json").items():
            found.setdefault(plain_name(name), names_in(sentences, besides=name))
    return found


def main() -> None:
    """Write the list, a line for each class."""
    lines = [f"{json.dumps(k)}: {json.dumps(v)}" for k, v in sorted(related_names().items())]
    write_text(RELATED, "{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
