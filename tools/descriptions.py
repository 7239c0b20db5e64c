"""Make the bundled descriptions of classes: ``python -m tools.descriptions``.

    python -m tools.descriptions --written new.json other.json

``written.json`` holds the sentences that were written for this package. It is edited by hand; files
of ``{class: {question: [sentence, ...]}}`` are taken into it by ``--written``. The tool brings it
into order and refuses sentences that break a rule of ``zsbir_fast.text.quality``.

``licensed.json`` holds those sentences of other projects, from ``tools/description_sources``, that
keep the rules. The others are left out, and the tool says how many.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zsbir_fast._files import write_text
from zsbir_fast.data import bundled
from zsbir_fast.data.names import listing, plain_name
from zsbir_fast.text.descriptions import read_entries
from zsbir_fast.text.prompts import QUESTIONS
from zsbir_fast.text.quality import (
    benchmark_classes,
    check_descriptions,
    find_faults,
    tidy_sentence,
)

FOLDER = bundled.path("descriptions")
SOURCES = Path(__file__).parent / "description_sources"
AUTHOR = {
    "source": "written for zsbir_fast with a language model",
    "licence": "Apache-2.0",
}
LICENCES = {"AWT": "Apache-2.0", "WaffleCLIP": "MIT"}
# A sentence with the name of a folder of the source, such as "Airplanes-101 have ...".
_FOLDER_NAME = re.compile(r"-\d{3}\b")


def written(paths: Sequence[Path] = ()) -> dict[str, dict[str, Any]]:
    """Collect the sentences of our own.

    Args:
        paths: files of new answers, ``{class: {question: [sentence, ...]}}``; they replace those
            of the same classes.

    Returns:
        Class -> author, licence and answers, of all classes in their order.

    Raises:
        ValueError: a class or an answer is missing or unknown, or a sentence breaks a rule.
    """
    current = FOLDER / "written.json"
    stored = read_entries(current, function="written") if current.exists() else {}
    found = {plain_name(name): (name, entry["answers"]) for name, entry in stored.items()}
    for path in paths:
        new = read_entries(path, function="written")
        found |= {plain_name(name): (name, answers) for name, answers in new.items()}
    wanted = {plain_name(name): name for name in benchmark_classes()}
    if set(found) != set(wanted):
        wrong = listing(sorted(set(found) ^ set(wanted)))
        raise ValueError(f"written: classes must be those of the benchmarks, {wrong} are not")
    entries = {}
    for plain, name in wanted.items():
        answers = found[plain][1]
        if list(answers) != list(QUESTIONS) or not all(answers.values()):
            raise ValueError(
                f"written: {name!r} must have answers to {list(QUESTIONS)}, got {answers}"
            )
        entries[name] = {**AUTHOR, "answers": answers}
    flat = {n: [s for a in e["answers"].values() for s in a] for n, e in entries.items()}
    check_descriptions("written", flat)
    return entries


def licensed() -> tuple[dict[str, dict[str, Any]], Counter[str]]:
    """Choose the sentences of others that keep the rules.

    Returns:
        Class -> source, licence and sentences, of the classes that have any; and how many
        sentences had which fault.
    """
    spelt = {plain_name(name): name for name in benchmark_classes()}
    gathered: dict[str, dict[str, str]] = {}
    for path in sorted(SOURCES.glob("*.json")):
        for name, entry in read_entries(path, function="licensed").items():
            sentences = gathered.setdefault(spelt[plain_name(name)], {})
            for sentence in map(tidy_sentence, entry["sentences"]):
                if sentence:
                    sentences.setdefault(sentence, f"{entry['source']}: {entry['source_name']}")
    sentences_of = {name: tuple(sentences) for name, sentences in gathered.items()}
    faults = {(fault.name, fault.sentence): fault.reason for fault in find_faults(sentences_of)}
    counts: Counter[str] = Counter(re.sub(r"\d+ words|'.*'", "...", r) for r in faults.values())
    entries = {}
    for name in benchmark_classes():
        kept = {
            sentence: source
            for sentence, source in gathered.get(name, {}).items()
            if (name, sentence) not in faults and not _FOLDER_NAME.search(sentence)
        }
        if kept:
            origins = sorted(set(kept.values()))
            licences = sorted({LICENCES[origin.partition("-")[0]] for origin in origins})
            entries[name] = {
                "source": "; ".join(origins),
                "licence": ", ".join(licences),
                "sentences": list(kept),
            }
    return entries, counts


def as_text(entries: dict[str, dict[str, Any]]) -> str:
    """Write entries as the shipped files have them."""
    return json.dumps(entries, indent=1, ensure_ascii=True) + "\n"


def main() -> None:
    """Write both files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--written", nargs="+", type=Path, default=[], help="files of new answers")
    own = written(parser.parse_args().written)
    others, faults = licensed()
    write_text(FOLDER / "written.json", as_text(own))
    write_text(FOLDER / "licensed.json", as_text(others))
    kept = sum(len(entry["sentences"]) for entry in others.values())
    print(f"written.json: {len(own)} classes")
    print(f"licensed.json: {len(others)} classes, {kept} sentences")
    for reason, count in faults.most_common():
        print(f"  {count:5} sentences left out: it {reason}")


if __name__ == "__main__":
    main()
