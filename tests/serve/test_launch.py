"""A server's process that is started ahead of time: the real guard, and a script instead of vLLM."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from rich.console import Console

from pipeline import guard
from pipeline.generate import ahead as generate_ahead
from pipeline.schema import ServeConfig
from pipeline.serve import launch, vllm_server
from pipeline.serve.launch import Ahead
from pipeline.serve.server import Server

SCRIPT = """
import json, os, sys, time
from pathlib import Path
from pipeline.serve import keyed, vllm_server
time.sleep(float(os.environ.get("SLOW", "0")))
told = vllm_server._told(Path(os.environ.pop(vllm_server.AHEAD)))
Path("told").write_text(json.dumps([told, bool(os.environ[keyed.KEY])]))
time.sleep(60)
"""


@pytest.fixture
def ahead(tmp_path: Path, tiny_subject: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ahead]:
    monkeypatch.setattr(launch, "command", lambda options=(): [sys.executable, "-c", SCRIPT, *options])
    monkeypatch.setenv("PYTHONPATH", str(Path(launch.__file__).parents[2]))
    made = Ahead(tiny_subject.subject, ServeConfig(device="cpu"), "cpu", tmp_path / "logs" / "server.log")
    yield made
    made.end()


def awaited(path: Path, seconds: float = 30.0) -> str:
    deadline = time.monotonic() + seconds
    while not (path.exists() and path.read_text()):
        assert time.monotonic() < deadline, f"{path} is not written"
        time.sleep(0.02)
    return path.read_text()


def test_it_imports_waits_and_does_what_it_is_told(ahead: Ahead, tmp_path: Path) -> None:
    ahead.start()
    ahead.wait()
    assert not (tmp_path / "logs" / "told").exists()
    assert all(path.is_file() for path in (tmp_path / "logs" / "ahead").iterdir()), "a copy of the folder must not hang"
    long = ["--lora-modules", *(f"rung-{number}" * 20 for number in range(2000))]
    process = ahead.take(long)
    assert process is not None
    assert json.loads(awaited(tmp_path / "logs" / "told")) == [long, True]
    ahead.end()
    assert process.poll() is None, "it is the server's now"
    guard.end(process)
    assert not (tmp_path / "logs" / "ahead").exists()


def test_what_is_told_before_it_has_imported_is_done_then(
    ahead: Ahead, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLOW", "1")
    ahead.start()
    process = ahead.take(["--port", "1"])
    assert process is not None
    assert json.loads(awaited(tmp_path / "logs" / "told"))[0] == ["--port", "1"]
    assert ahead.take(["--port", "2"]) is None, "there was one"
    guard.end(process)


def test_one_that_died_leaves_the_start_to_the_server(ahead: Ahead) -> None:
    ahead.start()
    assert ahead._process is not None
    os.killpg(ahead._process.pid, signal.SIGKILL)
    ahead._process.wait()
    ahead.wait()  # for nothing, and not long
    assert ahead.take([]) is None


def test_one_that_was_never_needed_is_ended(ahead: Ahead, tmp_path: Path) -> None:
    ahead.start()
    ahead.wait()
    assert ahead._process is not None
    leader = psutil.Process(ahead._process.pid)
    (child,) = leader.children()
    ahead.end()
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE
    assert not (tmp_path / "logs" / "ahead").exists()
    ahead.end()  # again: nothing


def test_it_ends_with_a_command_that_is_killed(tmp_path: Path) -> None:
    """As by SIGKILL in the middle of training: its pipe is the guard's, and the guard ends it."""
    script = f"""
import sys, time
from pathlib import Path
from types import SimpleNamespace
from pipeline.schema import ServeConfig
from pipeline.serve import launch, vllm_server
launch.command = lambda options=(): [sys.executable, "-c", {SCRIPT!r}]
launch.environment = lambda *_: {{}}
ahead = launch.Ahead(None, ServeConfig(), "cpu", Path("logs/server.log").absolute())
ahead.start(); ahead.wait()
print(ahead._process.pid, flush=True)
time.sleep(60)
"""
    env = {**os.environ, "PYTHONPATH": str(Path(launch.__file__).parents[2])}
    command = subprocess.Popen([sys.executable, "-c", script], cwd=tmp_path, env=env, stdout=subprocess.PIPE)
    assert command.stdout is not None
    group = int(command.stdout.readline())
    members = [process for process in psutil.process_iter() if os.getpgid(process.pid) == group]
    assert len(members) == 2, "the guard and what it started"
    command.kill()
    command.wait()
    _, alive = psutil.wait_procs(members, timeout=20)
    assert not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.parametrize("lacks", ["pathlib.Path.mkdir", "pipeline.serve.launch.launch"])
def test_where_no_process_can_be_started_ahead_there_is_none(
    lacks: str, ahead: Ahead, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(lacks, refuse)
    ahead.start()
    ahead.wait()
    assert ahead.take([]) is None


def test_the_server_takes_it_over_with_its_key(ahead: Ahead, tmp_path: Path, tiny_subject: Any) -> None:
    ahead.start()
    up = Server(tiny_subject.subject, {}, [], ServeConfig(device="cpu"), tmp_path / "logs" / "server.log", ahead=ahead)
    assert up.key != ahead.key
    up._process = up._taken_over()
    assert up.key == ahead.key
    assert json.loads(awaited(tmp_path / "logs" / "told"))[0] == up._options()
    up.stop()
    assert not up.alive()


@pytest.mark.parametrize(
    ("stages", "job", "may"),
    [
        (["train", "generate"], None, True),
        (["generate"], None, False),
        (["train"], None, False),
        (["train", "generate"], "train", False),
    ],
)
def test_only_a_command_that_trains_and_then_serves_starts_it(
    stages: list[str], job: str | None, may: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Any] = []
    monkeypatch.setattr(Ahead, "start", lambda _: started.append(True))
    config = SimpleNamespace(stages=stages, cluster=SimpleNamespace(job=job), serve=ServeConfig())
    folder = SimpleNamespace(logs=tmp_path)
    work: Any = SimpleNamespace(
        config=config, subject=None, device="cpu", folder=folder, ahead=None, console=Console(quiet=True)
    )
    generate_ahead.start(work)
    assert not started, "nobody would end it"
    with generate_ahead.may_start(work):
        assert not started, "not before training begins"
        generate_ahead.start(work)
        generate_ahead.settle(work)
    assert bool(started) is may
    assert work.ahead is None


def test_what_is_imported_ahead_is_there() -> None:
    """A name that a newer vLLM has moved would only cost time, and nobody would see it."""
    (root,) = find_spec("vllm").submodule_search_locations  # type: ignore[union-attr,misc]
    for name in (*vllm_server._ENGINE, *vllm_server._CPU_WORKER):
        place = Path(root, *name.split(".")[1:])
        assert place.is_dir() or place.with_suffix(".py").exists(), name
