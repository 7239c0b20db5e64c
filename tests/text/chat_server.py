"""A stand-in for an OpenAI-compatible endpoint that answers as told and remembers the requests."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import zsbir_fast as zf

KEY = "sk-very-secret"
# What a server does with a request: status, headers, body. It gets the request and its number.
Behaviour = Callable[[dict[str, Any], int], tuple[int, dict[str, str], bytes]]


class ChatServer:
    """A server at 127.0.0.1 in a thread; ``with ChatServer(behaviour) as server``.

    Attributes:
        behaviour: replaced at will.
        requests: the bodies of all requests, in order.
        headers: their headers.
        times: when they came, seconds of ``time.monotonic``.
    """

    def __init__(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.times: list[float] = []
        lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                with lock:
                    number = len(outer.requests)
                    outer.requests.append({"path": self.path, **body})
                    outer.headers.append({k.lower(): v for k, v in self.headers.items()})
                    outer.times.append(time.monotonic())
                status, headers, content = outer.behaviour(body, number)
                try:
                    self.send_response(status)
                    for name, value in headers.items():
                        self.send_header(name, value)
                    self.send_header("content-length", str(len(content)))
                    self.end_headers()
                    self.wfile.write(content)
                except OSError:
                    pass  # the client has gone

            def log_message(self, *arguments: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def __enter__(self) -> ChatServer:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def asked(self) -> list[str]:
        """The last message of every request."""
        return [request["messages"][-1]["content"] for request in self.requests]


def completion(text: str | None, **message: Any) -> tuple[int, dict[str, str], bytes]:
    """A chat completion with this text, of 100 tokens."""
    choice = {"index": 0, "finish_reason": "stop"}
    choice["message"] = {"role": "assistant", "content": text, **message}
    body = {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
    body["usage"] = {"prompt_tokens": 60, "completion_tokens": 40, "total_tokens": 100}
    return as_json(body)


def as_json(body: Any, status: int = 200, **headers: str) -> tuple[int, dict[str, str], bytes]:
    """A reply in JSON."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return status, {"content-type": "application/json", **named}, json.dumps(body).encode()


def failure(status: int, message: str = "no", code: str | None = None, **headers: str):
    """An error as OpenAI words it."""
    return as_json({"error": {"message": message, "code": code}}, status, **headers)


def good_answer(body: dict[str, Any], number: int) -> tuple[int, dict[str, str], bytes]:
    """Sentences that keep the rules and are never the same: every request has its own numbers."""
    colours = ("red", "green", "brown", "white", "black")
    return completion(
        "\n".join(
            f"It has {number * 10 + i} long thin {colours[i % 5]} strips along its flat upper side."
            for i in range(5)
        )
    )


def describe(server, path, classes=("zebra",), **options):
    """Two sentences on the parts of each class, unless told otherwise."""
    given = {"model": "m", "base_url": server.url, "timeout": 5.0, "retries": 2}
    given |= {
        key: options.pop(key)
        for key in tuple(options)
        if key in zf.LanguageModel.__dataclass_fields__
    }
    options = {"prompts": "parts", **options}
    return zf.describe_with_model(list(classes), path, model=zf.LanguageModel(**given), **options)


def in_turn(*replies):
    """The first reply to the first request and so on; good answers after the last."""
    return lambda body, n: replies[n] if n < len(replies) else good_answer(body, n)
