"""The door of the server: nobody is answered without the key, whatever the path, the method or the protocol."""

from __future__ import annotations

import asyncio
import importlib
import inspect
from typing import Any

import pytest

from pipeline.serve import keyed
from pipeline.serve.keyed import Keyed, Message

RIGHT = (b"authorization", b"Bearer s3cret")


def asked(*headers: tuple[bytes, bytes], kind: str = "http", method: str = "POST", path: str = "/invocations") -> Any:
    """Return what was sent for a request, and what reached the server behind the door."""
    sent: list[Message] = []
    reached: list[Message] = []

    async def app(scope: Message, receive: Any, send: Any) -> None:
        reached.append(scope)

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        raise AssertionError("nothing of what a stranger sends is read")

    scope = {"type": kind, "method": method, "path": path, "headers": list(headers)}
    asyncio.run(Keyed(app)(scope, receive, send))
    return sent, reached


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(keyed.KEY, "s3cret")


@pytest.mark.parametrize("path", ["/v1/completions", "/invocations", "/tokenize", "/health", "//v1", "/", ""])
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS", "HEAD"])
def test_no_path_and_no_method_is_answered_without_the_key(method: str, path: str) -> None:
    sent, reached = asked(method=method, path=path)
    assert sent[0]["status"] == 401
    assert not reached
    sent, reached = asked(RIGHT, method=method, path=path)
    assert not sent
    assert len(reached) == 1


@pytest.mark.parametrize(
    "headers",
    [
        [(b"authorization", b"Bearer s3cre")],
        [(b"authorization", b"Bearer s3cret ")],
        [(b"authorization", b"s3cret")],
        [(b"authorization", b"")],
        [(b"authorization", "Bearer s3cr\u00eat".encode())],
        [(b"x-authorization", b"Bearer s3cret")],
        [RIGHT, (b"authorization", b"Bearer other")],  # whose would count?
    ],
)
def test_nothing_but_the_key_itself_is_the_key(headers: list[tuple[bytes, bytes]]) -> None:
    sent, reached = asked(*headers)
    assert sent[0]["status"] == 401
    assert not reached


def test_no_websocket_is_opened_without_it() -> None:
    sent, reached = asked(kind="websocket")
    assert [message["type"] for message in sent] == ["websocket.close"]
    assert not reached
    assert asked(RIGHT, kind="websocket")[1]


def test_the_servers_own_start_passes_and_what_nobody_knows_does_not() -> None:
    assert asked(kind="lifespan")[1]
    assert not asked(kind="quic")[1]


def test_without_a_key_there_is_no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(keyed.KEY)
    with pytest.raises(KeyError):
        asked()


def test_vllm_does_not_know_the_key_and_wants_no_other() -> None:
    """0.26 writes the values of its own variables into a file beside what it compiled, and names that after them.

    The caller's shell may hold a key for another server of vLLM's.
    """
    told = keyed.environment("s3cret")
    assert {name: value for name, value in told.items() if name.startswith("VLLM_")} == {"VLLM_API_KEY": ""}
    assert told[keyed.KEY] == "s3cret"


def test_vllm_finds_it_under_its_name_and_takes_it_for_a_class() -> None:
    module, _, name = keyed.CLASS.rpartition(".")
    assert inspect.isclass(getattr(importlib.import_module(module), name))
