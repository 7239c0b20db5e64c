"""``zsbir describe``."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from zsbir_fast._words import did_you_mean, shown
from zsbir_fast.cli.parsing import Parser

_EXAMPLES = """\
  zsbir describe sketchy-25 --model gpt-4o-mini --out sketchy.json
  zsbir describe classes.txt --model gpt-4o-mini --prompts parts --max_tokens 9000 --out parts.json
  zsbir describe zebra "hot dog" --model llama3 --base_url http://localhost:8000/v1 --out two.json

CLASSES: a published split, a text file with a name in each line, or names. The key of the endpoint
is read from the environment variable OPENAI_API_KEY. The same command goes on where it stopped."""


def build_parser() -> Parser:
    """Build the parser.

    Returns:
        The parser.
    """
    from zsbir_fast.text.chat_model import LanguageModel
    from zsbir_fast.text.prompts import PROMPT_SETS

    default = LanguageModel(model="any")
    parser = Parser(
        "describe",
        description="Describe classes with a language model at any OpenAI-compatible endpoint. "
        "Answers that\nbreak a rule (say nothing visible, name another class, ...) are asked for "
        "again and never kept.",
        examples=_EXAMPLES,
    )
    parser.add_argument("classes", nargs="+", metavar="CLASSES", help="what to describe, see below")
    parser.add_argument("--out", type=str, required=True, help="JSON file of the answers")
    parser.add_argument("--model", type=str, required=True, help="name of the model")
    parser.add_argument(
        "--part",
        choices=["seen", "unseen", "all"],
        default="seen",
        help="classes of a split; only seen ones should be described to a model that is trained",
    )
    parser.add_argument("--prompts", choices=list(PROMPT_SETS), default="all", help="questions")
    parser.add_argument("--sentences", type=int, default=2, help="sentences for each question")
    parser.add_argument("--base_url", type=str | None, help="endpoint; unset: OpenAI's")
    parser.add_argument(
        "--key_variable",
        type=str,
        default=default.key_variable,
        help="environment variable that holds the key",
    )
    parser.add_argument("--temperature", type=float | None, default=default.temperature)
    parser.add_argument("--seed", type=int | None, default=default.seed)
    parser.add_argument(
        "--timeout", type=float, default=default.timeout, help="seconds without an answer"
    )
    parser.add_argument(
        "--retries", type=int, default=default.retries, help="of a request that failed in passing"
    )
    parser.add_argument(
        "--attempts", type=int, default=3, help="of a question whose answers break a rule"
    )
    parser.add_argument("--max_requests", type=int | None, help="budget; unset: no limit")
    parser.add_argument("--max_tokens", type=int | None, help="budget; unset: no limit")
    return parser


def main(argv: Sequence[str]) -> None:
    """Run the command.

    Args:
        argv: arguments after ``describe``.

    Raises:
        ValueError: an argument, the list of classes or the file of answers is wrong.
        FileNotFoundError: the list of classes is missing.
        RuntimeError: the endpoint failed, the budget is reached, or classes got no good answer.
    """
    arguments = build_parser().parse(argv)

    from zsbir_fast.text.chat_model import LanguageModel
    from zsbir_fast.text.describe import describe_with_model

    classes, others = _classes(list(arguments.classes), arguments.part)
    model = {key: arguments[key] for key in LanguageModel.__dataclass_fields__}
    result = describe_with_model(
        classes,
        arguments.out,
        model=LanguageModel(**model),
        prompts=arguments.prompts,
        sentences=arguments.sentences,
        others=others,
        attempts=arguments.attempts,
        max_requests=arguments.max_requests,
        max_tokens=arguments.max_tokens,
        progress=True,
    )
    sys.stdout.write(
        f"{len(result.descriptions):,} of {len(classes):,} classes are described in "
        f"{arguments.out} ({result.requests:,} requests, {result.tokens:,} tokens)\n"
    )
    if result.problem is not None:
        sys.stdout.flush()
        raise RuntimeError(f"describe: every class must get a description, got {result.problem}")


def _classes(given: list[str], part: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The classes to describe, and the other names that no sentence may have."""
    from zsbir_fast.data.filelists import read_names
    from zsbir_fast.data.splits import SPLIT_NAMES, load_split

    if len(given) > 1:
        return tuple(given), ()
    (word,) = given
    if word in SPLIT_NAMES:
        split = load_split(word)
        every = (*split.seen, *split.unseen)
        return {"seen": split.seen, "unseen": split.unseen, "all": every}[part], every
    if os.path.exists(os.path.expanduser(word)) or word.endswith(".txt") or os.sep in word:
        return read_names(word), ()
    near = did_you_mean(word, SPLIT_NAMES, cutoff=0.75)
    if near:
        raise ValueError(
            f"describe: CLASSES must be one of {', '.join(SPLIT_NAMES)}, a text file or names, got "
            f"{shown(word)}{near}"
        )
    return (word,), ()
