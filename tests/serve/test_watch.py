"""A server that hangs is told from one that is busy by what its process group uses."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest
from tiny import TinySubject

from pipeline.errors import InstrumentError
from pipeline.schema import ServeConfig
from pipeline.serve import server as serve
from pipeline.serve import watch
from pipeline.serve.server import Server
from pipeline.serve.watch import Used, Watch, answer, first_of, used_by

BUSY = "while True: pass"
IDLE = "import time; print(flush=True); time.sleep(60)"
# A group's leader that waits for a child, as the guard does for the server.
FAMILY = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])"


@pytest.fixture(autouse=True)
def _short_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "LOOK_S", 0.3)
    monkeypatch.setattr(serve, "LOOK_S", 0.3)


@pytest.fixture
def group(request: pytest.FixtureRequest) -> Iterator[int]:
    words = [sys.executable, "-c", FAMILY, request.param]
    with subprocess.Popen(words, start_new_session=True, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        if request.param == IDLE:
            process.stdout.readline()  # its imports are over
        yield process.pid
        os.killpg(process.pid, signal.SIGKILL)


class Serving:
    """A server as `first_of` sees it: ending it ends what was asked of it."""

    def __init__(self, group: int | None) -> None:
        self.group = group
        self.request: Future[str] = Future()
        self.stopped = 0

    def stop(self) -> None:
        self.stopped += 1
        self.request.set_exception(ConnectionError())


def looks(group: int | None, after_s: float, most: int) -> int | None:
    """Return at which look a group is called hung, or None."""
    seen = Watch(group, after_s)
    for number in range(most):
        if seen.hangs():
            return number
        time.sleep(watch.LOOK_S)
    return None


@pytest.mark.parametrize("group", [IDLE], indirect=True)
def test_one_that_does_nothing_hangs_after_as_many_seconds_as_are_granted(group: int):
    assert looks(group, 0.8, 8) == 3  # the first look has nothing to hold itself against


@pytest.mark.parametrize("group", [BUSY], indirect=True)
def test_one_that_computes_never_hangs_and_hangs_once_it_is_stopped(group: int):
    assert looks(group, 0.3, 5) is None
    os.killpg(group, signal.SIGSTOP)
    assert looks(group, 0.3, 5) == 1


def test_one_that_is_not_ours_or_is_gone_never_hangs():
    assert looks(None, 0.3, 4) is None
    assert used_by(2**22 + 1) is None  # beyond the largest number of a process
    assert used_by(1, Path("/nowhere")) is None


def test_time_and_reads_of_all_in_the_group_count_and_of_no_other(tmp_path: Path):
    def process(number: int, group: int, reads: int, user: int, system: int) -> None:
        rest = f"S 1 {group} 7 0 -1 4194304 11 12 {reads} 13 {user} {system} 98 99 20 0 1 0 5 6 7"
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "stat").write_text(f"{number} (a (bad) name 1 2) {rest}\n")
        lines = [f"rchar: {1000 * reads}", "wchar: 9", f"read_bytes: {100_000 * reads}", "write_bytes: 9"]
        (tmp_path / str(number) / "io").write_text("\n".join([*lines, "cancelled_write_bytes: 9", ""]))

    process(40, 40, 1, 100, 20)
    process(41, 40, 2, 3, 4)
    process(42, 42, 500, 500, 500)
    (tmp_path / "43").mkdir()  # ended meanwhile
    (tmp_path / "self").mkdir()
    pages = 3 * os.sysconf("SC_PAGE_SIZE")
    assert used_by(40, tmp_path) == Used(127 / os.sysconf("SC_CLK_TCK"), 3000 + 300_000 + pages)


def test_one_that_reads_its_weights_from_a_slow_disk_does_not_hang(monkeypatch: pytest.MonkeyPatch):
    read = iter(range(0, 100 << 20, 1 << 20))
    monkeypatch.setattr(watch, "used_by", lambda group: Used(1.0, next(read)))
    seen = Watch(40, 0.3)
    assert not any(seen.hangs() for _ in range(20))
    read = iter(range(100))  # an event loop's
    assert any(seen.hangs() for _ in range(20))


@pytest.mark.parametrize("group", [IDLE], indirect=True)
def test_who_waits_for_one_that_hangs_is_told_and_nothing_waits_on(group: int):
    server = Serving(group)
    with pytest.raises(InstrumentError, match=r"hung.*hung_after_s=0\.6 while 1 request waited") as error:
        first_of([server.request], server, 0.6)
    assert server.stopped == 1
    assert isinstance(server.request.exception(), ConnectionError)
    assert "the same command goes on" in str(error.value)


class Sleeps(Server):
    """A server that never comes up."""

    def _command(self) -> list[str]:
        return [sys.executable, "-c", IDLE]


def test_one_that_hangs_while_starting_is_told_and_ended(tmp_path: Path, tiny_subject: TinySubject):
    config = ServeConfig(device="cpu", hung_after_s=0.9)
    beats: list[float] = []
    log = tmp_path / "server.log"
    up = Sleeps(tiny_subject.subject, {}, [], config, log, beat=lambda: beats.append(time.monotonic()))
    with pytest.raises(InstrumentError, match=r"hung.*hung_after_s=0\.9 while starting \(its log: .*server\.log\)"), up:
        pass
    assert up.group is None
    assert len(beats) > 3
    assert beats[-1] - beats[0] > 0.8, "the wait was accounted for to its end"


@pytest.mark.parametrize("group", [IDLE], indirect=True)
def test_an_answer_is_passed_on_however_long_the_server_had_rested(group: int):
    server = Serving(group)
    beats: list[str] = []
    assert answer(lambda: time.sleep(0.7) or "said", server, 5.0, lambda: beats.append("")) == "said"
    assert len(beats) >= watch.BEATS
    with pytest.raises(ZeroDivisionError):
        answer(lambda: 1 / 0, server, 5.0)
    assert server.stopped == 0
