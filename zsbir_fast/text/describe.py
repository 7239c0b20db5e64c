"""Describe classes with a language model, and keep those answers only that say what can be seen."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from zsbir_fast._arguments import as_integer, check_flag
from zsbir_fast._progress import with_progress
from zsbir_fast._words import shortened, shown
from zsbir_fast.data.names import check_distinct, listing, spoken_name
from zsbir_fast.text.answer_file import AnswerFile
from zsbir_fast.text.chat_model import BudgetReached, Chat, LanguageModel, Message
from zsbir_fast.text.descriptions import Descriptions
from zsbir_fast.text.prompts import QUESTIONS, fill_prompt, questions_of
from zsbir_fast.text.quality import LONGEST, SHORTEST, sentence_key, tidy_sentence

_FUNCTION = "describe_with_model"
_PATIENCE = 10  # questions in a row without a good answer, then the model is given up
_RULES = f"""\
You describe classes of objects for a system that matches drawings with photos. Say only what can \
be seen in most pictures of the class: outline, parts and where they are, proportions, materials, \
textures, colours. Say nothing about use, history, behaviour or sound. Write plain English \
sentences of {SHORTEST} to {LONGEST} words. Each begins with a capital letter, ends with a full \
stop and stands alone: it names the class or says "It" or "Its". Write one sentence a line and \
nothing else, without numbering or markup."""


@dataclass(frozen=True)
class ModelDescriptions:
    """What a language model wrote about classes.

    Attributes:
        descriptions: sentences by class name, of the classes whose questions are all answered.
        faulty: class name -> which question got no good answer, and why.
        left: classes that were not asked about, as the budget was reached.
        budget: the part of the budget that was reached; None if none was.
        requests: requests made, retries included.
        tokens: tokens used, of questions and answers.
    """

    descriptions: Descriptions
    faulty: dict[str, str]
    left: tuple[str, ...]
    budget: str | None
    requests: int
    tokens: int

    @property
    def problem(self) -> str | None:
        """Which classes have no description and why; None where every class has one."""
        parts = []
        if self.faulty:
            kinds = [f"{shown(name)} ({why})" for name, why in self.faulty.items()]
            more = f" and {len(kinds) - 5} more" if len(kinds) > 5 else ""
            parts.append(f"no good answer for {len(kinds)} of them: {', '.join(kinds[:5])}{more}")
        if self.budget is not None:
            parts.append(
                f"the budget of {self.budget} is reached, {len(self.left)} are left: "
                f"{listing(self.left)}; the same call goes on"
            )
        return "; ".join(parts) or None

    def __repr__(self) -> str:
        return (
            f"ModelDescriptions({len(self.descriptions):,} classes described, "
            f"{len(self.faulty):,} faulty, {len(self.left):,} left, {self.requests:,} requests, "
            f"{self.tokens:,} tokens)"
        )


def describe_with_model(
    classes: Sequence[str],
    path: str | Path,
    *,
    model: LanguageModel,
    prompts: str = "all",
    sentences: int = 2,
    others: Sequence[str] = (),
    attempts: int = 3,
    max_requests: int | None = None,
    max_tokens: int | None = None,
    progress: bool = False,
) -> ModelDescriptions:
    """Let a language model describe classes, and keep its answers in a file.

    Every answer is checked by the rules of ``zsbir_fast.text.quality``. Sentences that break one
    are asked for again with the reason, and none is ever stored. The file is written in one step
    after every class, so that a call that was stopped or killed loses one class at most; the next
    call with the same file asks for what is missing only. ``load_descriptions`` reads the file.

    Args:
        classes: class names. Only seen classes should be described to a model that is trained.
        path: the JSON file of answers; it is made, or gone on with.
        model: the language model and how it is asked.
        prompts: name of a prompt set, see ``zsbir_fast.text.prompts``; one conversation for each
            of its questions.
        sentences: how many sentences answer a question.
        others: names besides ``classes`` that no sentence may have, such as the unseen classes.
        attempts: how often a question is asked before the class counts as faulty.
        max_requests: requests at most, retries included; None: any number.
        max_tokens: the call stops before the next request when this many tokens have been used;
            None: it may use any number.
        progress: show a progress bar.

    Returns:
        Descriptions, and the classes without.

    Raises:
        TypeError: an argument is of another type.
        ValueError: no classes, two that are spelt alike, an unknown prompt set, a number out of
            range, no key, or ``path`` is no file of answers of this model.
        ImportError: the library ``openai`` is not installed (``zsbir-fast[describe]``).
        RuntimeError: the endpoint does not answer or refuses the request, or ten questions in a
            row got no good answer. What was answered before is in the file.

    Source: the description generation of Su et al., CMAAN, arXiv 2407.00979; rules and repeated
    questions are ours.
    """
    _check(classes, model, others, progress)
    questions = questions_of(prompts, function=_FUNCTION)
    as_integer(_FUNCTION, "sentences", sentences, least=1, most=20)
    as_integer(_FUNCTION, "attempts", attempts, least=1)
    for argument, limit in (("max_requests", max_requests), ("max_tokens", max_tokens)):
        if limit is not None:
            as_integer(_FUNCTION, argument, limit, least=1)
    names = tuple(dict.fromkeys((*classes, *others)))
    source = {"model": model.model, "temperature": model.temperature, "seed": model.seed}
    file = AnswerFile(path, source=source, others=names, function=_FUNCTION)
    task = _Task(tuple(classes), questions, sentences, file)
    todo = task.todo()
    if not todo:
        return ModelDescriptions(task.whole(), {}, (), None, 0, 0)
    chat = Chat(model, function=_FUNCTION, max_requests=max_requests, max_tokens=max_tokens)
    interview = _Interview(task, chat, names, attempts=attempts)
    steps = with_progress(todo, len(todo), "describing", unit="classes") if progress else todo
    faulty, budget = interview.describe_all(steps)
    whole = task.whole()
    left = tuple(name for name in todo if name not in whole and name not in faulty)
    return ModelDescriptions(whole, faulty, left, budget, chat.requests, chat.tokens)


class _Task(NamedTuple):
    """What is to be described, and where the answers are."""

    classes: tuple[str, ...]
    questions: tuple[str, ...]
    sentences: int
    file: AnswerFile

    def missing(self, name: str) -> list[str]:
        """The questions about a class that lack sentences."""
        return [q for q in self.questions if len(self.file.answer(name, q)) < self.sentences]

    def todo(self) -> list[str]:
        return [name for name in self.classes if self.missing(name)]

    def whole(self) -> Descriptions:
        """Sentences of the classes that lack none."""
        return {
            name: tuple(s for question in self.questions for s in self.file.answer(name, question))
            for name in self.classes
            if not self.missing(name)
        }

    def kept(self) -> str:
        """Say what a call that stops here leaves."""
        count = len(self.classes)
        return (
            f"{count - len(self.todo())} of {count} classes are in {self.file.path}, and the same "
            "call goes on with it"
        )


class _Interview:
    """Asks questions about classes, and sorts good sentences from bad ones."""

    def __init__(self, task: _Task, chat: Chat, names: Sequence[str], *, attempts: int) -> None:
        self._task, self._chat, self._attempts = task, chat, attempts
        self._failed_in_a_row = 0
        listed = ", ".join(spoken_name(name) for name in names)
        self._system = (
            f"{_RULES} Use none of these words, not even for a part, except the name of the class "
            f"itself: {listed}."
        )

    def describe_all(self, classes: Iterable[str]) -> tuple[dict[str, str], str | None]:
        """Describe classes; returns the faulty ones with the reason, and the budget if reached."""
        faulty: dict[str, str] = {}
        try:
            for name in classes:
                fault = self._describe(name)
                if fault is not None:
                    faulty[name] = fault
        except BudgetReached as reached:
            return faulty, str(reached)
        except KeyboardInterrupt as stop:
            raise KeyboardInterrupt(f"; {self._task.kept()}") from stop
        except RuntimeError as error:
            raise RuntimeError(f"{error}; {self._task.kept()}") from error
        return faulty, None

    def _describe(self, name: str) -> str | None:
        """Ask what is missing about a class and save it; returns the last fault, if any."""
        fault = None
        try:
            for question in self._task.missing(name):
                answer, why = self._ask(name, question)
                if why is None:
                    self._task.file.add(name, question, answer)
                    self._failed_in_a_row = 0
                    continue
                fault = f"{question}: {why}"
                self._failed_in_a_row += 1
                if self._failed_in_a_row == _PATIENCE:
                    raise RuntimeError(
                        f"{_FUNCTION}: the model must give answers that keep the rules of "
                        f"zsbir_fast.text.quality, got none to {_PATIENCE} questions in a row, "
                        f"the last one about {shown(name)}, {fault}"
                    )
        finally:
            self._task.file.save()
        return fault

    def _ask(self, name: str, question: str) -> tuple[list[str], str | None]:
        """Ask until there are enough good sentences; returns them, and the first fault else."""
        good = list(self._task.file.answer(name, question))
        lacking = self._task.sentences - len(good)
        asked = f"{_question(question, name)} {_how_many(lacking)}"
        messages: list[Message] = [
            {"role": "system", "content": self._system},
            {"role": "user", "content": asked},
        ]
        why = None
        for _ in range(self._attempts):
            text = self._chat.ask(messages)
            faults = self._sort(name, text, good)
            lacking = self._task.sentences - len(good)
            if not lacking:
                return good, None
            why = faults[0] if faults else f"{len(good)} of {self._task.sentences} sentences"
            messages += [
                {"role": "assistant", "content": text or "(nothing)"},
                {"role": "user", "content": _complaint(faults, lacking)},
            ]
        return good, why

    def _sort(self, name: str, text: str, good: list[str]) -> list[str]:
        """Add the good sentences of an answer to ``good``; returns what is wrong with others."""
        faults = []
        for sentence in _sentences_of(text):
            if len(good) == self._task.sentences:
                break
            fault = self._task.file.fault(name, sentence)
            if sentence_key(name, sentence) in {sentence_key(name, s) for s in good}:
                fault = "is there already"
            if fault is None:
                good.append(sentence)
            else:
                faults.append(f"{shown(sentence, limit=120)} {fault}")
        return faults


def _check(classes: object, model: object, others: object, progress: object) -> None:
    for argument, names in (("classes", classes), ("others", others)):
        check_distinct(_FUNCTION, argument, names)  # type: ignore[arg-type]
        for name in names:  # type: ignore[attr-defined]
            if not spoken_name(name):
                raise ValueError(f"{_FUNCTION}: {argument} must have a name, got {shown(name)}")
    if not classes:
        raise ValueError(f"{_FUNCTION}: classes must be at least one, got none")
    if not isinstance(model, LanguageModel):
        raise TypeError(f"{_FUNCTION}: model must be a LanguageModel, got {shown(model)}")
    check_flag(_FUNCTION, "progress", progress)


def _sentences_of(text: str) -> list[str]:
    """One sentence a line was asked for; some models write them behind one another."""
    lines = [tidy_sentence(line) for line in text.splitlines()]
    return [s for line in lines for s in re.split(r"(?<=[a-z]{2}\.)\s+(?=[A-Z])", line) if s]


def _question(question: str, name: str) -> str:
    template = QUESTIONS[question]
    if spoken_name(name)[0].lower() in "aeiou":
        template = template.replace(" a {}", " an {}")
    return fill_prompt(template, name)


def _how_many(count: int) -> str:
    return f"Answer in {count} sentences." if count > 1 else "Answer in one sentence."


def _complaint(faults: Sequence[str], count: int) -> str:
    told = "".join(f"\n{shortened(fault)}." for fault in faults) or "\nThere were too few."
    again = f"Write {count} others, " if count > 1 else "Write another one, "
    return f"These sentences cannot be used:{told}\n{again}in the form that was asked for."
