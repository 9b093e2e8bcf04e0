"""What every test of a judge behind an endpoint has: a server that answers by the reply, and a cache of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from asked_judge import by_reply
from chat_server import Judges


@pytest.fixture
def server() -> Iterator[Judges]:
    up = Judges(by_reply)
    yield up
    up.stop()


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"
