"""A real vLLM whose engine stands still is found by what it does not do, while its web server would go on for ever."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from pipeline.errors import InstrumentError
from pipeline.schema import ServeConfig
from pipeline.serve import launch as serve
from pipeline.serve import watch
from pipeline.serve.server import BASE_NAME, Server, served_logprobs
from pipeline.serve.watch import answer, first_of
from tests.standins import ForkedServers

AFTER_S = 3.0
CONFIG = ServeConfig(device="cpu", max_model_len=64, max_num_seqs=64, enforce_eager=True, hung_after_s=AFTER_S)


def test_an_engine_that_stands_still_is_ended_and_told(
    tiny_subject: Any, tmp_path: Path, warm: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(serve, "subprocess", ForkedServers(warm("server")))
    monkeypatch.setattr(watch, "LOOK_S", 1.0)
    with Server(tiny_subject.subject, {}, [], CONFIG, tmp_path / "server.log") as up, up.client() as client:
        asked = partial(served_logprobs, client, BASE_NAME, [tiny_subject.subject.prompt_ids("say a word")])
        assert len(answer(asked, up, AFTER_S)) == 1
        assert up.group is not None
        (web,) = psutil.Process(up.group).children()
        (engine,) = web.children()
        os.kill(engine.pid, signal.SIGSTOP)
        assert up.answers(), "its web server still does"
        began = time.monotonic()
        with ThreadPoolExecutor(2) as pool, pytest.raises(InstrumentError, match="hung: it used no processor time"):
            first_of([pool.submit(asked), pool.submit(asked)], up, AFTER_S)
        assert time.monotonic() - began < CONFIG.request_timeout_s / 10
        assert not up.alive()
        assert not engine.is_running() or engine.status() == psutil.STATUS_ZOMBIE
