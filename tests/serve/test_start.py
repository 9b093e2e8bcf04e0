"""How a server is believed to be up: it is ours, it wants the key, and only then is the key sent."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.errors import InstrumentError, UserError
from pipeline.schema import ServeConfig
from pipeline.serve import port
from pipeline.serve.device import INTERFACE, environment
from pipeline.serve.server import Server

CONFIG = ServeConfig(device="cpu", start_timeout_s=30.0)
# Answers /health with the first word without the key, with the second where one came; writes down the keys that came.
STAND_IN = """
import http.server, sys
class Up(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        key = self.headers.get("Authorization")
        if key: open(sys.argv[4], "a").write(key)
        self.send_response(int(sys.argv[2 if key is None else 3])); self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Up).serve_forever()
"""


class StandIn(Server):
    """A server that answers at once, and as it is told."""

    statuses: Sequence[int] = (401, 200)

    @property
    def came(self) -> Path:
        """Where it writes down which keys came."""
        return self.log.with_name("keys")

    def _command(self) -> list[str]:
        words = [self.port, *self.statuses, self.came]
        return [sys.executable, "-c", STAND_IN, *map(str, words)]


@pytest.fixture
def server(tiny_subject: Any, tmp_path: Path) -> StandIn:
    return StandIn(tiny_subject.subject, {}, [], CONFIG, tmp_path / "server.log")


def test_it_is_up_once_it_refuses_strangers_and_answers_the_key(server: StandIn) -> None:
    with server as up:
        assert up.alive()
        assert up.answers()
        assert server.came.read_text().startswith(f"Bearer {up.key}")
    assert not server.alive()


def test_one_that_answers_without_the_key_is_ended_and_never_sent_it(server: StandIn) -> None:
    server.statuses = (200, 200)
    with pytest.raises(InstrumentError, match=r"answers without its key .*any user of this machine"), server:
        pass
    assert server.group is None
    assert not server.came.exists()


def test_another_users_server_at_our_port_is_never_sent_the_key(
    server: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    me = os.geteuid()
    monkeypatch.setattr(port, "os", SimpleNamespace(geteuid=lambda: me + 1))  # so that it is another's
    with pytest.raises(UserError, match="was taken by another user"), server:
        pass
    assert server.group is None
    assert not server.came.exists()


def test_the_key_is_asked_for_by_a_class_of_ours_and_stands_in_no_command(tiny_subject: Any, tmp_path: Path) -> None:
    plain = Server(tiny_subject.subject, {}, [], CONFIG, tmp_path / "log")
    words = plain._command()
    assert words[words.index("--middleware") + 1] == "pipeline.serve.keyed.Keyed"
    assert plain.key not in " ".join(words)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_engines_processes_meet_on_loopback_unless_the_user_says_otherwise(
    device: str, tiny_subject: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(INTERFACE, raising=False)
    assert environment(tiny_subject.subject, ServeConfig(), device)[INTERFACE] == "lo"
    nodes = ServeConfig(extra_args=["--nnodes=2"])
    assert INTERFACE not in environment(tiny_subject.subject, nodes, device)
    monkeypatch.setenv(INTERFACE, "eth0")
    assert environment(tiny_subject.subject, ServeConfig(), device)[INTERFACE] == "eth0"
