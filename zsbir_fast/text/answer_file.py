"""The file of answers that a language model gave: a cache that is whole after every class."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zsbir_fast._files import write_text
from zsbir_fast._words import shown
from zsbir_fast.data.names import plain_name
from zsbir_fast.text.descriptions import read_entries
from zsbir_fast.text.quality import find_fault, repeats, sentence_key


class AnswerFile:
    """Answers by class and question, in a JSON file that ``load_descriptions`` reads.

    Every answer that is added, and every one that is read from the file, keeps the rules of
    ``zsbir_fast.text.quality``; others are as if they were not there.

    Args:
        path: the file; one that is there is gone on with.
        source: what is written down for each class, e.g. the name of the model.
        others: names that no sentence may have.
        function: name for messages.

    Raises:
        ValueError: the file is damaged, of another form, or was written with another ``source``.
        OSError: it cannot be read.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        source: dict[str, Any],
        others: Sequence[str],
        function: str,
    ) -> None:
        self.path = Path(os.path.expanduser(path))
        self._source, self._others = source, tuple(others)
        self._entries: dict[str, dict[str, Any]] = {}
        self._spelt: dict[str, str] = {}
        self._owners: dict[str, str] = {}  # sentence in its plain form -> class
        self._saved = True
        _check_place(self.path, function)
        if self.path.exists():
            for name, entry in read_entries(self.path, function=function).items():
                self._take(name, entry, function)

    def answer(self, name: str, question: str) -> tuple[str, ...]:
        """Return the sentences of a class that answer a question; none if there are none."""
        entry = self._entries.get(self._spelt.get(plain_name(name), name), {})
        return tuple(entry.get("answers", {}).get(question, ()))

    def fault(self, name: str, sentence: str) -> str | None:
        """Say what is wrong with a sentence, as the end of "It ..."; also one that is there."""
        found = find_fault(name, sentence, others=self._others)
        owner = self._owners.get(sentence_key(name, sentence))
        return repeats(owner) if found is None and owner is not None else found

    def add(self, name: str, question: str, sentences: Sequence[str]) -> None:
        """Take an answer whose sentences have no fault; it is on the disk after :meth:`save`.

        Args:
            name: the class.
            question: the name of the question.
            sentences: the answer; it replaces one that is there.
        """
        spelt = self._spelt.setdefault(plain_name(name), name)
        entry = self._entries.setdefault(spelt, {"source": self._source, "answers": {}})
        entry["answers"][question] = list(sentences)
        for sentence in sentences:
            self._owners.setdefault(sentence_key(name, sentence), name)
        self._saved = False

    def save(self) -> None:
        """Write the file in one step, if something was added."""
        if not self._saved:
            write_text(self.path, json.dumps(self._entries, indent=1) + "\n")
            self._saved = True

    def _take(self, name: str, entry: Any, function: str) -> None:
        answers = entry.get("answers") if isinstance(entry, dict) else None
        if not isinstance(answers, dict) or not all(map(_is_answer, answers.values())):
            raise ValueError(
                f"{function}: {self.path} must be a file of answers, as this command writes it, "
                f"got {shown(entry)} for {shown(name)}"
            )
        if entry.get("source") != self._source:
            raise ValueError(
                f"{function}: {self.path} must have answers of {_in_words(self._source)}, got "
                f"{shown(name)} of {_in_words(entry.get('source'))}; give another file"
            )
        for question, sentences in answers.items():
            if len({sentence_key(name, s) for s in sentences}) == len(sentences) and not any(
                self.fault(name, sentence) for sentence in sentences
            ):
                self.add(name, question, sentences)
        self._saved = True


def _check_place(path: Path, function: str) -> None:
    """Refuse a place that cannot be written to, before answers are paid for."""
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise ValueError(f"{function}: path must be in a folder that can be written to, got {path}")


def _is_answer(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(sentence, str) for sentence in value)


def _in_words(source: Any) -> str:
    if not isinstance(source, dict):
        return shown(source)
    return ", ".join(f"{key} {value}" for key, value in source.items())
