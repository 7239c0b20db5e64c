"""Requests to a language model at an OpenAI-compatible endpoint: retries, waits and a budget."""

from __future__ import annotations

import email.utils
import math
import os
import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from zsbir_fast._arguments import as_integer, as_number
from zsbir_fast._words import reason, shown

if TYPE_CHECKING:
    import openai

FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0  # seconds before a retry, doubled from try to try
LONGEST_ASKED_WAIT = 600.0  # a server that asks for more is not waited for
_PASSING = (408, 409, 425, 429)  # statuses after which the same request may succeed, besides 5xx
_CHARACTERS_PER_TOKEN = 4  # for servers that do not say how many tokens they used

Message = dict[str, str]


@dataclass(frozen=True, kw_only=True)
class LanguageModel:
    """A language model that answers at an OpenAI-compatible endpoint, and how it is asked.

    Attributes:
        model: its name at the endpoint.
        base_url: the endpoint, e.g. ``"http://localhost:8000/v1"``; None: the variable
            ``OPENAI_BASE_URL``, else OpenAI's.
        key_variable: the environment variable that holds the key. It may be unset where
            ``base_url`` is given, as servers of one's own often need no key.
        temperature: of sampling, from 0 to 2; None leaves it to the endpoint, as some models take
            none.
        seed: of sampling, for endpoints that take one; None sends none.
        timeout: seconds that a try may take without a byte of answer.
        retries: how often a request is repeated that failed in passing (no connection, time-out,
            status 408, 409, 425, 429 or 5xx, or a reply that is no chat completion). The wait
            before a retry is what ``Retry-After`` asks for, else 1 s, doubled up to 60 s and
            shortened at random by up to half.

    Raises:
        TypeError: an attribute is of another type.
        ValueError: it is out of range or empty.
    """

    model: str
    base_url: str | None = None
    key_variable: str = "OPENAI_API_KEY"
    temperature: float | None = 0.7
    seed: int | None = 0
    timeout: float = 60.0
    retries: int = 6

    def __post_init__(self) -> None:
        for argument in ("model", "base_url", "key_variable"):
            value = getattr(self, argument)
            if argument == "base_url" and value is None:
                continue
            if not isinstance(value, str):
                raise TypeError(f"LanguageModel: {argument} must be text, got {shown(value)}")
            if not value.strip():
                raise ValueError(f"LanguageModel: {argument} must not be empty, got {value!r}")
        if self.base_url is not None and not self.base_url.startswith(("http://", "https://")):
            raise ValueError(
                "LanguageModel: base_url must begin with http:// or https://, got "
                f"{shown(self.base_url)}"
            )
        if self.temperature is not None:
            temperature = as_number("LanguageModel", "temperature", self.temperature)
            if not 0 <= temperature <= 2:
                raise ValueError(f"LanguageModel: temperature must be in [0, 2], got {temperature}")
        if self.seed is not None:
            as_integer("LanguageModel", "seed", self.seed, least=0)
        timeout = as_number("LanguageModel", "timeout", self.timeout)
        if not 0 < timeout < math.inf:
            raise ValueError(f"LanguageModel: timeout must be positive and finite, got {timeout}")
        as_integer("LanguageModel", "retries", self.retries, least=0)


class BudgetReached(Exception):
    """The next request would go beyond the budget; the text says which part of it."""


class _Malformed(Exception):
    """A reply that is no chat completion."""


class Chat:
    """A connection to a language model that counts what it spends.

    Args:
        model: the model.
        function: name for messages.
        max_requests: requests at most, retries included; None: any number.
        max_tokens: no request is made once so many tokens were used, so that the sum goes beyond
            it by less than one request; None: any number.

    Attributes:
        requests: requests made.
        tokens: tokens used, of questions and answers, as the endpoint counts them; a quarter of
            the characters where it does not say.

    Raises:
        ImportError: the library ``openai`` is not installed.
        ValueError: there is no key.
    """

    def __init__(
        self,
        model: LanguageModel,
        *,
        function: str,
        max_requests: int | None = None,
        max_tokens: int | None = None,
    ) -> None:
        self.requests = 0
        self.tokens = 0
        self._model, self._function = model, function
        self._limits = max_requests, max_tokens
        self._random = random.Random()
        self._key = os.environ.get(model.key_variable, "")
        self._client = self._connect()

    def ask(self, messages: list[Message]) -> str:
        """Send a conversation and return the answer, after retries where they can help.

        Args:
            messages: ``role`` and ``content`` of each message.

        Returns:
            The text of the answer. A refusal is returned as text.

        Raises:
            BudgetReached: the request would go beyond the budget.
            RuntimeError: the endpoint does not answer, or refuses the request.
        """
        for attempt in range(self._model.retries + 1):
            self._spend_request()
            try:
                return self._send(messages)
            except Exception as error:
                wait = self._wait_after(error, attempt)
                if attempt == self._model.retries:
                    tries = f"{attempt + 1} {'tries' if attempt else 'try'}"
                    raise self._failure(error, f" after {tries}") from error
            time.sleep(wait)
        raise AssertionError("not reached")

    def _connect(self) -> openai.OpenAI:
        try:
            import openai
        except ImportError as error:
            raise ImportError(
                f"{self._function}: the library openai must be installed, got: {reason(error)}; "
                "pip install 'zsbir-fast[describe]'"
            ) from error
        if not self._key and self._model.base_url is None:
            raise ValueError(
                f"{self._function}: the environment variable {self._model.key_variable} must hold "
                "the key of the endpoint, it is not set"
            )
        return openai.OpenAI(
            api_key=self._key or "none",
            base_url=self._model.base_url,
            timeout=self._model.timeout,
            max_retries=0,  # they are counted and waited for here
        )

    def _spend_request(self) -> None:
        most, most_tokens = self._limits
        if most is not None and self.requests >= most:
            raise BudgetReached(f"{most:,} {'request' if most == 1 else 'requests'}")
        if most_tokens is not None and self.tokens >= most_tokens:
            raise BudgetReached(f"{most_tokens:,} tokens ({self.tokens:,} are used)")
        self.requests += 1

    def _send(self, messages: list[Message]) -> str:
        given = {"temperature": self._model.temperature, "seed": self._model.seed}
        options: Any = {key: value for key, value in given.items() if value is not None}
        sent: Any = messages
        reply: Any = self._client.chat.completions.create(
            model=self._model.model, messages=sent, **options
        )
        text = _text_of(reply)
        used = getattr(getattr(reply, "usage", None), "total_tokens", None)
        if not isinstance(used, int):
            characters = len(text) + sum(len(message["content"]) for message in messages)
            used = math.ceil(characters / _CHARACTERS_PER_TOKEN)
        self.tokens += used
        return text

    def _wait_after(self, error: Exception, attempt: int) -> float:
        """Seconds to wait before the next try; raises where another try cannot help."""
        import openai

        wait = min(FIRST_WAIT * 2.0**attempt, LONGEST_WAIT) * self._random.uniform(0.5, 1)
        if isinstance(error, openai.APIStatusError):
            status = error.status_code
            if (status not in _PASSING and status < 500) or error.code == "insufficient_quota":
                raise self._failure(error, "") from error
            asked = _retry_after(error.response.headers)
            if asked is not None and asked > LONGEST_ASKED_WAIT:
                raise self._failure(error, f", and asks to wait {asked:.0f} s") from error
            return wait if asked is None else asked
        # A reply that is no JSON raises json's own ValueError.
        if not isinstance(error, (openai.APIError, _Malformed, ValueError)):
            raise error
        return wait

    def _failure(self, error: Exception, how: str) -> RuntimeError:
        import openai

        told = reason(error)
        if isinstance(error, openai.APITimeoutError):
            told = f"no answer within {self._model.timeout:g} s"
        elif isinstance(error, openai.APIStatusError):
            told = f"status {error.status_code}: {told}"
        elif not isinstance(error, (openai.APIError, _Malformed)):
            told = f"a reply that is no JSON: {told}"
        if self._key:  # some servers repeat it
            told = told.replace(self._key, "***")
        return RuntimeError(
            f"{self._function}: the endpoint {self._client.base_url} must answer chat completions "
            f"of {shown(self._model.model)}, got{how}: {told}"
        )


def _text_of(reply: Any) -> str:
    """The text of the first choice; the library passes replies of any form through."""
    choices = getattr(reply, "choices", None)
    if not isinstance(choices, list) or not choices:
        raise _Malformed(f"a reply without choices: {shown(reply)}")
    message = getattr(choices[0], "message", None)
    text = getattr(message, "content", None) or getattr(message, "refusal", None) or ""
    if message is None or not isinstance(text, str):
        raise _Malformed(f"a choice without text: {shown(choices[0])}")
    return text


def _retry_after(headers: Any) -> float | None:
    """Seconds that a server asks to wait: a number or a date."""
    value = headers.get("retry-after")
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except ValueError:
            return None
    return max(seconds, 0.0) if math.isfinite(seconds) else None
