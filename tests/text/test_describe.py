"""Classes are described by a language model, here a server that does what such servers do."""

from __future__ import annotations

import email.utils
import json
import threading
import time
from types import SimpleNamespace

import pytest

from tests.text.chat_server import (
    KEY,
    ChatServer,
    as_json,
    completion,
    describe,
    failure,
    good_answer,
    in_turn,
)
from zsbir_fast.text import chat_model
from zsbir_fast.text.descriptions import load_descriptions

ZEBRA = "A zebra has a stocky body with black and white stripes and four thin legs."
OTHER = "Its long striped neck carries a short upright mane above a dark muzzle."
REFUSAL = "I'm sorry, but I can't help with that."


@pytest.fixture
def waits(monkeypatch):
    """The seconds that the client asked to wait; the test does not wait."""
    waited = []
    clock = SimpleNamespace(sleep=waited.append, time=time.time)
    monkeypatch.setattr(chat_model, "time", clock)
    return waited


def test_classes_are_described(server, tmp_path):
    path = tmp_path / "d.json"
    result = describe(server, path, ["zebra", "hot-air_balloon"], prompts="drawing", seed=7)
    assert result.problem is None
    assert (result.requests, result.tokens, result.left, result.faulty) == (6, 600, (), {})
    assert load_descriptions(path) == result.descriptions
    assert load_descriptions(path, prompts="shape")["zebra"] == result.descriptions["zebra"][:2]
    assert [len(v) for v in result.descriptions.values()] == [6, 6]
    stored = json.loads(path.read_text())
    assert list(stored) == ["zebra", "hot-air_balloon"]
    assert stored["zebra"]["source"] == {"model": "m", "temperature": 0.7, "seed": 7}
    assert list(stored["zebra"]["answers"]) == ["shape", "parts", "sketch"]
    assert server.asked()[:2] == [
        "How would you describe the outline of a zebra? Answer in 2 sentences.",
        "What are the parts of a zebra, and how are they arranged? Answer in 2 sentences.",
    ]
    first = server.requests[0]
    assert first["path"] == "/v1/chat/completions"
    assert (first["model"], first["temperature"], first["seed"]) == ("m", 0.7, 7)
    assert "zebra, hot-air balloon" in first["messages"][0]["content"]
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"
    assert repr(result).startswith("ModelDescriptions(2 classes described, 0 faulty, 0 left, 6 req")


def test_what_is_there_is_not_asked_for_again(server, tmp_path, monkeypatch):
    path = tmp_path / "d.json"
    describe(server, path)
    content = path.read_text()
    monkeypatch.delenv("OPENAI_API_KEY")  # nothing is left to ask for: no key is needed
    again = describe(server, path, ["Zebra"], base_url=None)
    assert (again.requests, len(again.descriptions["Zebra"])) == (0, 2)
    assert path.read_text() == content
    more = describe(server, path, sentences=3)
    assert more.descriptions["zebra"][:2] == again.descriptions["Zebra"]
    assert server.asked()[1].endswith("Answer in one sentence.")
    assert load_descriptions(path) == more.descriptions


def test_temperature_and_seed_can_be_left_to_the_endpoint(server, tmp_path):
    describe(server, tmp_path / "d.json", temperature=None, seed=None)
    assert not {"temperature", "seed"} & set(server.requests[0])


def test_numbering_markup_and_one_line_are_put_right(server, tmp_path):
    server.behaviour = in_turn(
        completion(f"1. **{ZEBRA}**\n\n2) {OTHER}"), completion(f"{ZEBRA} {OTHER}")
    )
    for name in ("a.json", "b.json"):
        assert describe(server, tmp_path / name).descriptions == {"zebra": (ZEBRA, OTHER)}
    assert len(server.requests) == 2


RUBBISH = {
    "loyal": ("Zebras are the loyal companions of all people.", "does not say enough that can be"),
    "german": ("Ein Zebra hat vier lange Beine und ein gestreiftes Fell.", "is not plain English"),
    "refusal": (REFUSAL, "refuses to describe the class"),
    "other class": ("It has a striped body like a horse with thin legs.", "names another class"),
    "noise": ("asdf qwer zxcv asdf qwer zxcv asdf", "is not plain English"),
    "nothing": ("", "There were too few"),
}


@pytest.mark.parametrize("what", RUBBISH)
def test_bad_answers_are_asked_for_again_with_the_reason(server, tmp_path, what):
    text, reason = RUBBISH[what]
    server.behaviour = in_turn(completion(f"{ZEBRA}\n{text}"), completion(OTHER))
    result = describe(server, tmp_path / "d.json", others=["horse"])
    assert result.descriptions == {"zebra": (ZEBRA, OTHER)}
    again = server.requests[1]["messages"]
    assert [m["role"] for m in again] == ["system", "user", "assistant", "user"]
    assert again[2]["content"].strip() == f"{ZEBRA}\n{text}".strip()
    assert reason in again[3]["content"]
    assert "Write another one" in again[3]["content"]
    assert text[:50] in again[3]["content"]


@pytest.mark.parametrize("what", RUBBISH)
def test_a_class_without_a_good_answer_is_told_and_not_kept(server, tmp_path, what):
    text, reason = RUBBISH[what]
    server.behaviour = lambda body, n: (
        completion(text) if "zebra" in body["messages"][1]["content"] else good_answer(body, n)
    )
    path = tmp_path / "d.json"
    result = describe(server, path, ["zebra", "owl"], others=["horse"])
    assert result.requests == 4  # three attempts and the owl
    assert list(result.descriptions) == ["owl"]
    assert result.faulty["zebra"].startswith("parts: ")
    assert ("0 of 2 sentences" if what == "nothing" else reason) in result.faulty["zebra"]
    assert result.problem.startswith("no good answer for 1 of them: 'zebra' (parts: ")
    assert list(json.loads(path.read_text())) == ["owl"]


def test_a_refusal_of_its_own_field(server, tmp_path):
    server.behaviour = lambda body, n: completion(None, refusal=REFUSAL)
    result = describe(server, tmp_path / "d.json", attempts=1)
    assert "refuses to describe the class" in result.faulty["zebra"]
    assert not (tmp_path / "d.json").exists()


def test_two_classes_with_one_description(server, tmp_path):
    """The motorbike's sentences are no answer for the motorcycle, with another name in them."""
    text = "A {} has a thick round seat and a low metal frame.\nIts {} body is long, red and flat."
    server.behaviour = lambda body, n: completion(
        text.replace("{}", "motorcycle" if "motorcycle" in str(body) and n else "motorbike")
    )
    result = describe(server, tmp_path / "d.json", ["motorbike", "motorcycle"], attempts=2)
    assert list(result.descriptions) == ["motorbike"]
    assert "is the same as a sentence of 'motorbike'" in result.faulty["motorcycle"]
    assert len(load_descriptions(tmp_path / "d.json")) == 1


def test_one_sentence_twice_is_not_two(server, tmp_path):
    server.behaviour = in_turn(completion(f"{ZEBRA}\n{ZEBRA}"), completion(OTHER))
    assert describe(server, tmp_path / "d.json").descriptions == {"zebra": (ZEBRA, OTHER)}
    assert "is there already" in server.asked()[1]


def test_a_model_that_gives_no_good_answers_is_given_up(server, tmp_path):
    server.behaviour = lambda body, n: completion(REFUSAL)
    names = [f"thing {word}" for word in ("one", "two", "three", "four", "five", "six")]
    with pytest.raises(RuntimeError, match=r"^describe_with_model: the model must give") as caught:
        describe(server, tmp_path / "d.json", names, prompts="drawing", attempts=1)
    assert "none to 10 questions in a row" in str(caught.value)
    assert "refuses to describe the class; 0 of 6 classes are in" in str(caught.value)
    assert len(server.requests) == 10


def test_retry_after_is_honoured(server, tmp_path, waits):
    date = email.utils.formatdate(time.time() + 30, usegmt=True)
    server.behaviour = in_turn(
        failure(429, retry_after="7"), failure(429, retry_after=date), failure(503)
    )
    result = describe(server, tmp_path / "d.json", retries=3)
    assert (len(result.descriptions), result.requests) == (1, 4)
    assert waits[0] == 7
    assert 25 < waits[1] <= 30
    assert waits[2] == 0  # FIRST_WAIT is 0 here


def test_waits_double_up_to_a_minute_and_are_shortened_at_random(
    server, tmp_path, waits, monkeypatch
):
    monkeypatch.setattr(chat_model, "FIRST_WAIT", 1.0)
    server.behaviour = lambda body, n: failure(500, "boom")
    with pytest.raises(RuntimeError, match=r"got after 9 tries: status 500: .*boom"):
        describe(server, tmp_path / "d.json", retries=8)
    longest = [1, 2, 4, 8, 16, 32, 60, 60]
    assert len(waits) == 8
    assert all(most / 2 <= wait <= most for wait, most in zip(waits, longest, strict=True))
    assert len({wait / most for wait, most in zip(waits, longest, strict=True)}) > 1


PASSING = {
    "500": failure(500),
    "429": failure(429, "slow down"),
    "malformed": (200, {"content-type": "application/json"}, b'{"choices": [{"mess'),
    "html": (200, {"content-type": "text/html"}, b"<html>gateway</html>"),
    "empty choices": as_json({"choices": []}),
    "no choices": as_json({"error": "overloaded"}),
    "no message": as_json({"choices": [{"index": 0}]}),
    "list": as_json([1]),
    "parts of content": completion(["x"]),
}


@pytest.mark.parametrize("what", PASSING)
def test_what_may_pass_is_tried_again(server, tmp_path, what):
    server.behaviour = in_turn(PASSING[what])
    result = describe(server, tmp_path / "d.json")
    assert (len(result.descriptions), result.requests) == (1, 2)


LASTING = {
    "500": (failure(500, "boom"), "status 500: .*boom"),
    "malformed": (PASSING["malformed"], "a reply that is no JSON: "),
    "empty choices": (PASSING["empty choices"], "a reply without choices: "),
    "parts of content": (PASSING["parts of content"], "a choice without text: "),
}


@pytest.mark.parametrize("what", LASTING)
def test_what_does_not_pass_is_one_error(server, tmp_path, what):
    reply, told = LASTING[what]
    server.behaviour = lambda body, n: good_answer(body, n) if n == 0 else reply
    path = tmp_path / "d.json"
    start = rf"^describe_with_model: the endpoint {server.url}/ must answer chat completions of 'm'"
    with pytest.raises(RuntimeError, match=rf"{start}, got after 3 tries: {told}") as caught:
        describe(server, path, ["zebra", "owl"])
    assert str(caught.value).endswith(
        f"; 1 of 2 classes are in {path}, and the same call goes on with it"
    )
    assert list(load_descriptions(path)) == ["zebra"]


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        (
            failure(401, f"Incorrect API key provided: {KEY}"),
            r"got: status 401: .*provided: \*\*\*",
        ),
        (failure(404, "The model m does not exist"), "got: status 404: .*does not exist"),
        (failure(400, "temperature is not supported"), "got: status 400: .*not supported"),
        (failure(429, "no credit", "insufficient_quota"), "got: status 429: .*no credit"),
        (failure(429, "wait", retry_after="86400"), "got, and asks to wait 86400 s: status 429"),
    ],
    ids=["401", "404", "400", "quota", "long wait"],
)
def test_what_cannot_pass_is_not_tried_again(server, tmp_path, reply, told):
    server.behaviour = lambda body, n: reply
    with pytest.raises(RuntimeError, match=told) as caught:
        describe(server, tmp_path / "d.json")
    assert KEY not in str(caught.value)
    assert len(server.requests) == 1


def test_an_endpoint_that_is_down(surroundings, tmp_path):
    with ChatServer(good_answer) as server:
        pass
    with pytest.raises(RuntimeError, match=r"got after 3 tries: Connection error.*; 0 of 1 class"):
        describe(server, tmp_path / "d.json")
    assert not (tmp_path / "d.json").exists()


def test_a_slow_endpoint_is_tried_again_and_told(server, tmp_path):
    over = threading.Event()

    def slow(body, number):
        over.wait(5)
        return good_answer(body, number)

    server.behaviour = slow
    with pytest.raises(RuntimeError, match=r"got after 2 tries: no answer within 0\.2 s"):
        describe(server, tmp_path / "d.json", timeout=0.2, retries=1)
    assert len(server.requests) == 2
    over.set()


@pytest.mark.parametrize(
    ("limit", "told"),
    [
        ({"max_requests": 3}, "3 requests"),
        ({"max_tokens": 250}, "250 tokens (300 are used)"),
    ],
)
def test_the_budget_stops_and_the_rest_is_done_later(server, tmp_path, limit, told):
    path = tmp_path / "d.json"
    names = ["zebra", "owl", "cat"]
    result = describe(server, path, names, prompts="all", **limit)
    assert (result.requests, result.tokens) == (3, 300)
    assert result.left == ("zebra", "owl", "cat")  # the zebra has three answers of five
    assert result.problem == (
        f"the budget of {told} is reached, 3 are left: 'zebra', 'owl', 'cat'; the same call goes on"
    )
    assert list(json.loads(path.read_text())["zebra"]["answers"]) == [
        "appearance",
        "shape",
        "parts",
    ]
    rest = describe(server, path, names, prompts="all")
    assert (rest.requests, rest.problem, len(rest.descriptions)) == (12, None, 3)


def test_retries_count_and_missing_usage_is_estimated(server, tmp_path):
    body = json.loads(completion(f"{ZEBRA}\n{OTHER}")[2])
    del body["usage"]
    server.behaviour = in_turn(failure(500), as_json(body))
    result = describe(server, tmp_path / "d.json", max_requests=2)
    assert (result.requests, result.problem) == (2, None)
    sent = sum(len(m["content"]) for m in server.requests[1]["messages"])
    assert result.tokens == -(-(sent + len(ZEBRA) + len(OTHER) + 1) // 4)


def test_a_file_that_was_tampered_with_keeps_its_good_answers_only(server, tmp_path):
    path = tmp_path / "d.json"
    names = ["zebra", "owl"]
    describe(server, path, names, prompts="drawing")
    stored = json.loads(path.read_text())
    stored["zebra"]["answers"]["parts"][0] = "Zebras are the loyal companions of all people."
    stored["owl"]["answers"]["sketch"] = stored["owl"]["answers"]["shape"]
    path.write_text(json.dumps(stored))
    server.requests.clear()
    server.behaviour = lambda body, n: good_answer(body, n + 100)
    result = describe(server, path, names, prompts="drawing")
    assert [text.partition("?")[0] for text in server.asked()] == [
        "What are the parts of a zebra, and how are they arranged",
        "Which lines would a person draw to show an owl",
    ]
    assert result.problem is None
    assert "loyal" not in path.read_text()


def test_ctrl_c_keeps_what_is_there(server, tmp_path, monkeypatch):
    path = tmp_path / "d.json"
    ask = chat_model.Chat.ask

    def interrupted(chat, messages):
        if chat.requests == 3:
            raise KeyboardInterrupt
        return ask(chat, messages)

    monkeypatch.setattr(chat_model.Chat, "ask", interrupted)
    with pytest.raises(
        KeyboardInterrupt, match=r"^; 1 of 2 classes are in .*d\.json, and the same"
    ):
        describe(server, path, ["zebra", "owl"], prompts="drawing", sentences=1)
    assert list(json.loads(path.read_text())) == ["zebra"]
