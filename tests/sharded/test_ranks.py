"""The command's side of training in several processes; the other side is threads here, which say what is scripted."""

import errno
import threading
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pipeline.arms.memory import out_of_memory
from pipeline.errors import InstrumentError, UserError, boundary
from pipeline.ledger import Allowance
from pipeline.sharded import ranks as module
from pipeline.sharded.member import _failed
from pipeline.sharded.messages import LOADED, Answer, Ask, Call, Done, Failed, Told
from pipeline.sharded.ranks import Ranks

Script = Callable[[Connection, int], None]


class Process:
    """A process that only ends when it is ended; its pid is nobody's."""

    pid = 2**22 + 1
    stdin = SimpleNamespace(close=lambda: None)

    def wait(self) -> int:
        return 7


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[[Script], Ranks]]:
    """Return ranks of three processes, each of which does as a script says."""
    monkeypatch.setattr(module, "GRACE_S", 0.3)
    threads: list[threading.Thread] = []
    all_made: list[Ranks] = []

    def made(script: Script) -> Ranks:
        three = Ranks(cast(Any, None), "cpu", 3, None, tmp_path)
        all_made.append(three)
        for rank in range(3):
            ours, its = Pipe()
            three._lines.append(ours)
            three._processes.append(cast(Any, Process()))
            threads.append(threading.Thread(target=_quietly, args=(script, its, rank), daemon=True))
            threads[-1].start()
        return three

    yield made
    for each in all_made:
        each.close()
    for thread in threads:
        thread.join(5)
    assert not any(thread.is_alive() for thread in threads), "whoever is left waits for a message that never comes"


def _quietly(script: Script, line: Connection, rank: int) -> None:
    try:
        assert isinstance(line.recv(), Call)
        script(line, rank)
        line.recv()  # until it is closed
    except (EOFError, OSError):
        pass
    finally:
        line.close()


def asked(line: Connection, rank: int, question: str, *payload: Any) -> Any:
    line.send(Ask(question, payload if rank == 0 else (), 10.0, 2))
    answer = line.recv()
    assert isinstance(answer, Answer)
    return answer


def test_the_first_ones_result_counts_and_its_questions_are_answered_to_all(scripted: Any) -> None:
    heard: list[Any] = []

    def script(line: Connection, rank: int) -> None:
        answer = asked(line, rank, "double", 21)
        heard.append(answer.value)
        line.send(Done(rank + 100 if answer.value == 42 else None))

    assert scripted(script).run(print, answers={"double": lambda value: 2 * value}) == 100
    assert heard == [42, 42, 42]


def test_an_answer_that_raises_breaks_the_call_off_and_leaves_the_processes(scripted: Any) -> None:
    stops: list[bool] = []

    def script(line: Connection, rank: int) -> None:
        stops.append(asked(line, rank, "emit").stop)
        line.send(Done())
        assert isinstance(line.recv(), Call)
        line.send(Done("again"))

    def emit() -> None:
        raise UserError("no room")

    three = scripted(script)
    with pytest.raises(UserError, match="no room"):
        three.run(print, answers={"emit": emit})
    assert stops == [True, True, True]
    assert three.run(print) == "again"


def test_a_call_in_the_middle_of_another_is_done_before_its_answer(scripted: Any) -> None:
    def script(line: Connection, rank: int) -> None:
        line.send(Ask("emit", (), 0.0, 0))
        assert isinstance(line.recv(), Call)
        line.send(Done("dev replies"))
        assert line.recv() == Answer("measured")
        line.send(Done("climbed"))

    three = scripted(script)
    inner: list[str] = []

    def emit() -> str:
        inner.append(three.run(print))
        return "measured"

    assert three.run(print, answers={"emit": emit}) == "climbed"
    assert inner == ["dev replies"]


@pytest.mark.parametrize(
    ("faults", "error", "says"),
    [
        ((Failed("other", "broken"), None, None), RuntimeError, "training process 0 failed: broken; its log"),
        ((Failed("other", "connection reset"), Failed("memory", "out of it"), None), MemoryError, "out of it"),
        ((Failed("user", "no such thing", "name another"), Failed("other", "x"), None), UserError, "name another"),
        ((None, Failed("other", "connection reset"), "gone"), RuntimeError, "training process 2 is gone .exit code 7"),
    ],
    ids=["a fault", "memory", "user", "gone"],
)
def test_of_several_faults_the_one_that_says_most_is_told(
    scripted: Any, faults: Sequence[Any], error: type[Exception], says: str
) -> None:
    def script(line: Connection, rank: int) -> None:
        if faults[rank] == "gone":
            line.close()
        elif faults[rank] is not None:
            line.send(faults[rank])

    three = scripted(script)
    with pytest.raises(error, match=says):
        three.run(print)
    assert three._lines == [], "they are ended, and the next call starts new ones"


def test_processes_that_are_at_different_places_are_an_instruments_fault(scripted: Any) -> None:
    def apart(line: Connection, rank: int) -> None:
        line.send(Ask("fits" if rank else "emit", (), 0.0, 0))

    with pytest.raises(InstrumentError, match="3 of 3 ask emit, fits"):
        scripted(apart).run(print, answers={})

    def alone(line: Connection, rank: int) -> None:
        line.send(Done() if rank else Ask("emit", (), 0.0, 0))

    with pytest.raises(InstrumentError, match="1 of 3 ask emit"):
        scripted(alone).run(print, answers={})


def test_what_a_climb_uses_is_in_the_ledger_before_it_is_asked_whether_more_fits(scripted: Any) -> None:
    """The first process's figures alone, and once: they are sums over all."""

    def script(line: Connection, rank: int) -> None:
        if rank == 0:
            line.send(Told(True, 4.0, 1))
        for flops in (10.0, 20.0):
            line.send(Ask("fits", (0.5, 1.0) if rank == 0 else (), flops + rank, 3))
            assert line.recv() == Answer(True)
        line.send(Done("max_steps"))

    beats: list[bool] = []
    seen: list[float] = []
    attempt = SimpleNamespace(
        flops=100.0,  # a search measured before
        tokens=7,
        devices=3,
        ledger=SimpleNamespace(config=None),
        beat=lambda *, force: beats.append(force),
    )

    def fits(seconds: float, flops: float) -> bool:
        seen.append(attempt.flops)
        return True

    work = SimpleNamespace(
        allowance=cast(Allowance, SimpleNamespace(attempt=attempt, fits=fits)),
        pause=None,
        **dict.fromkeys(
            ("emit", "on_step", "task", "base_sha256", "device", "examples", "folder", "run_root", "canaries", "done")
        ),
    )
    assert scripted(script).climb(cast(Any, print), cast(Any, work), 2) == "max_steps"
    assert seen == [110.0, 120.0]
    assert (attempt.flops, attempt.tokens) == (120.0, 10)
    assert beats == [True, False, False]


def test_a_process_tells_what_kind_of_fault_it_met() -> None:
    assert _failed(MemoryError("no more")).kind == "memory"
    assert _failed(RuntimeError("CUDA error: out of memory")).kind == "memory"
    assert _failed(UserError("what", "remedy")) == Failed("user", "what", "remedy")
    assert _failed(InstrumentError("no layers")) == Failed("instrument", "no layers")
    assert _failed(ValueError("odd")) == Failed("other", "ValueError: odd")


def test_a_full_disk_is_told_as_such_wherever_it_is_met(scripted: Any, capsys: pytest.CaptureFixture[str]) -> None:
    full = _failed(OSError(errno.ENOSPC, "No space left on device"))
    three = scripted(lambda line, rank: line.send(full if rank == 0 else Done()))
    with pytest.raises(SystemExit), boundary():
        three.run(print)
    assert "holdfast: no space left on the disk" in capsys.readouterr().err


def started(monkeypatch: pytest.MonkeyPatch, logs: Path, begin: Callable[[Ranks, Connection, int], None]) -> Ranks:
    """Return ranks of two processes, which begin as they are told instead of starting."""
    two = Ranks(cast(Any, None), "cpu", 2, None, logs)

    def launch(rank: int, place: Path) -> None:
        ours, its = Pipe()
        two._lines.append(ours)
        two._processes.append(cast(Any, Process()))
        begin(two, its, rank)

    monkeypatch.setattr(module, "GRACE_S", 0.1)
    monkeypatch.setattr(two, "_launch", launch)
    return two


def test_a_process_that_ends_before_it_hears_who_it_is_has_its_log_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def end(two: Ranks, its: Connection, rank: int) -> None:
        two._log(rank).write_text("No module named torch")
        its.close()

    two = started(monkeypatch, tmp_path, end)
    with pytest.raises(
        RuntimeError, match=r"training process \d is gone .exit code 7.; its log ends:\n +No module named"
    ):
        two.run(print)


def test_a_subject_that_the_devices_do_not_hold_is_not_tried_with_fewer_examples(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(_: Ranks, its: Connection, rank: int) -> None:
        its.send(Failed("memory", "CUDA out of memory") if rank == 0 else Ask(LOADED, (), 0.0, 0))
        waiting.append(its)

    waiting: list[Connection] = []
    two = started(monkeypatch, tmp_path, fail)
    with pytest.raises(UserError, match="2 processes do not hold the subject together: CUDA out of memory") as told:
        two.run(print)
    assert not out_of_memory(told.value)
    assert two._lines == []
