"""A server that stands for a language model, and an environment in which it is found."""

from __future__ import annotations

import pytest

from tests.text.chat_server import KEY, ChatServer, good_answer
from zsbir_fast.text import chat_model


@pytest.fixture
def surroundings(monkeypatch):
    for name in ("OPENAI_BASE_URL", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr(chat_model, "FIRST_WAIT", 0.0)


@pytest.fixture
def server(surroundings):
    with ChatServer(good_answer) as running:
        yield running
