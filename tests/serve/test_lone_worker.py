"""One worker of an older vLLM opens torch's store at every address of the machine: a file takes its place."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

from pipeline.serve.lone_worker import ADDRESS, EXECUTOR, OWN, install


def test_an_older_vllm_is_given_a_file_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType(EXECUTOR)
    setattr(module, ADDRESS, lambda ip, port: f"tcp://{ip}:{port}")
    monkeypatch.setitem(sys.modules, EXECUTOR, module)
    assert install()
    first, second = (getattr(module, ADDRESS)("127.0.0.1", 1) for _ in range(2))
    assert first.startswith("file:///")
    assert first != second


def test_a_newer_vllm_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType(EXECUTOR)
    setattr(module, ADDRESS, len)
    setattr(module, OWN, len)
    monkeypatch.setitem(sys.modules, EXECUTOR, module)
    assert not install()
    assert getattr(module, ADDRESS) is len
