"""The training processes as the command sees them: what takes the place of a model in memory."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Final

from pipeline import guard, interpreter
from pipeline.arms.base import Climb, Ending
from pipeline.arms.memory import Fit
from pipeline.errors import InstrumentError, UserError
from pipeline.sharded import process
from pipeline.sharded.climbing import Ticket, Way, climb_here
from pipeline.sharded.messages import LOADED, Answer, Ask, Call, Done, Failed, Start, Told
from pipeline.subject.subject import Subject

GRACE_S: Final = 2.0  # in which all that fails with the first fault is heard, to tell the one that says most
TAIL_LINES: Final = 12
_FIRST: Final = {"memory": 0, "user": 1, "instrument": 2, "other": 3}  # of several faults: the first makes others fail

Answers = Mapping[str, Callable[..., Any]]


class Ranks:
    """Processes that hold the subject together; started when they are first needed, and again after a fault.

    Args:
        subject: the opened subject.
        device: cpu or cuda; on cuda each process has a device of its own, from the first on.
        processes: how many.
        threads: torch's threads in each, on a CPU; None: see `prepare_process`.
        logs: a folder for what they print.
    """

    def __init__(self, subject: Subject, device: str, processes: int, threads: int | None, logs: Path) -> None:
        self.start = Start(0, processes, "", subject, device, threads)
        self.logs = logs
        self._lines: list[Connection] = []
        self._processes: list[subprocess.Popen[bytes]] = []
        self._place: Path | None = None
        self._heard: Callable[[Told | Ask], None] = lambda _: None

    def open(self) -> None:
        """Start the processes, where they do not run, and wait until they hold the subject.

        Raises:
            UserError: what `Subject.load_model` tells, or that they do not hold the subject together.
            InstrumentError, RuntimeError: as `run`.
        """
        try:
            self._ensure()
        except BaseException:
            self.close()
            raise

    def run(self, function: Callable[..., Any], *arguments: Any, answers: Answers | None = None) -> Any:
        """Return what `function(model, *arguments)` returns in the first process; all of them call it.

        Args:
            function: of a module, so that the processes know it by name.
            answers: what is asked in the middle of it, and who answers. Where one raises, the call is broken off in all
                processes, which stay as they are for the next; the exception is then raised here.

        Raises:
            MemoryError: a device's or this machine's memory ended in one of them.
            UserError: one of them met something to mend.
            InstrumentError: one of them cannot do what is asked; or they are not at the same place.
            RuntimeError: one of them failed otherwise. In all these cases all of them are ended.
        """
        self.open()
        try:
            self._send(Call(function, arguments))
            result, stopped = self._results(answers or {})
        except BaseException:
            self.close()
            raise
        if stopped is not None:
            raise stopped  # the processes are well
        return result

    def climb(self, way: Way, work: Climb, fit: Fit) -> Ending:
        """Let the processes climb by `way`, `fit.examples` in the memory of all of them together."""
        attempt = work.allowance.attempt
        flops, tokens = 0.0, 0  # of this climb, as heard so far

        def heard(message: Told | Ask) -> None:
            nonlocal flops, tokens
            attempt.flops += message.flops - flops
            attempt.tokens += message.tokens - tokens
            flops, tokens = message.flops, message.tokens
            attempt.beat(force=isinstance(message, Told) and message.force)

        pause = work.pause
        answers: dict[str, Callable[..., Any]] = {
            "fits": work.allowance.fits,
            "emit": work.emit,
            "step": work.on_step,
            **({"asked": pause.asked, "park": pause.park} if pause else {}),
        }
        ticket = Ticket(
            task=work.task,
            base_sha256=work.base_sha256,
            device=work.device,
            examples=work.examples,
            devices=attempt.devices,
            budget=attempt.ledger.config,
            folder=work.folder,
            run_root=work.run_root,
            canaries=work.canaries,
            done=work.done,
            parked=pause.parked if pause else None,
            pauses=pause is not None,
        )
        before, self._heard = self._heard, heard
        try:
            ending: Ending = self.run(climb_here, way, ticket, fit, answers=answers)
        finally:
            self._heard = before
        return ending

    def close(self) -> None:
        """End all processes; they hold nothing that is not on the disk."""
        for line in self._lines:
            line.close()
        for each in self._processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(each.pid, signal.SIGKILL)  # of its own session: a compiler that it started, too
            assert each.stdin is not None
            each.stdin.close()
            each.wait()
        if self._place is not None:
            shutil.rmtree(self._place, ignore_errors=True)
        self._lines, self._processes, self._place = [], [], None

    def _ensure(self) -> None:
        if self._processes:
            return
        self.logs.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._place = Path(tempfile.mkdtemp(prefix="holdfast-train-"))
        for rank in range(self.start.processes):
            self._launch(rank, self._place)
        for rank in range(self.start.processes):
            self._tell(rank, replace(self.start, rank=rank, store=str(self._place / "store")))
        try:
            self._results({LOADED: lambda: None})
        except MemoryError as error:  # not of training: fewer examples at once would not help
            raise UserError(
                f"subject.fsdp: {self.start.processes} processes do not hold the subject together: {error}",
                "free the devices' memory, take more or larger ones (budget.training_devices), or a machine with "
                "more main memory, into which the first reads the subject as a whole",
            ) from None

    def _launch(self, rank: int, place: Path) -> None:
        ours, its = socket.socketpair()
        with its, self._log(rank).open("ab") as log:
            self._processes.append(
                subprocess.Popen(
                    interpreter.command(process.__file__, str(its.fileno()), str(place)),
                    pass_fds=[its.fileno()],
                    stdin=subprocess.PIPE,  # closed when this command ends: see `pipeline.sharded.member`
                    stdout=log,
                    stderr=log,
                    umask=0o077,
                    start_new_session=True,
                    preexec_fn=_leave_signals,  # noqa: PLW1509
                )
            )
        self._lines.append(Connection(ours.detach()))

    def _log(self, rank: int) -> Path:
        return self.logs / f"train-{rank}.log"

    def _send(self, message: Call | Answer) -> None:
        for rank in range(len(self._lines)):
            self._tell(rank, message)

    def _tell(self, rank: int, message: Start | Call | Answer) -> None:
        try:
            self._lines[rank].send(message)
        except OSError:
            raise self._fault(None, rank) from None

    def _results(self, answers: Answers) -> tuple[Any, Exception | None]:
        """Hear the processes until all are done, and answer what all of them ask.

        Returns:
            The first one's result, and the exception of an answer that broke the call off, None where none did.
        """
        stopped: Exception | None = None
        done: dict[int, Any] = {}
        asked: dict[int, Ask] = {}
        while len(done) < len(self._lines):
            for rank, message in self._messages():
                if isinstance(message, Failed | None):
                    raise self._fault(message, rank)
                if isinstance(message, Told | Ask) and rank == 0:
                    self._heard(message)
                if isinstance(message, Done):
                    done[rank] = message.result
                elif isinstance(message, Ask):
                    asked[rank] = message
            if asked and len(asked) + len(done) == len(self._lines):
                stopped = self._answer(asked, answers)
                asked = {}
        return done.get(0), stopped

    def _answer(self, asked: Mapping[int, Ask], answers: Answers) -> Exception | None:
        """Answer what all processes ask; return the exception that ends the call, None where it goes on."""
        questions = {ask.question for ask in asked.values()}
        if len(questions) > 1 or len(asked) < len(self._lines):
            raise InstrumentError(
                f"the training processes are not at the same place: {len(asked)} of {len(self._lines)} ask "
                f"{', '.join(sorted(questions))}"
            )
        try:
            value = answers[questions.pop()](*asked[0].payload)
        except Exception as error:
            self._send(Answer(stop=True))
            return error
        self._send(Answer(value))
        return None

    def _messages(self, but: Collection[int] = (), timeout_s: float | None = None) -> Iterator[tuple[int, Any]]:
        """Yield one message of each process that has any, with its number; None: it has gone. Wait for the first."""
        lines = {rank: line for rank, line in enumerate(self._lines) if rank not in but}
        ready = wait(list(lines.values()), timeout_s)
        for rank, line in lines.items():
            if line not in ready:
                continue
            try:
                yield rank, line.recv()
            except (EOFError, OSError):
                yield rank, None

    def _fault(self, message: Failed | None, rank: int) -> Exception:
        """Return what to raise where a process failed: of all that fail within a moment, what says most."""
        faults = [(rank, message)]
        until = time.monotonic() + GRACE_S
        heard = {rank}
        while len(heard) < len(self._lines) and (left := until - time.monotonic()) > 0:
            for other, said in self._messages(heard, left):
                if said is None or isinstance(said, Failed):
                    faults.append((other, said))
                    heard.add(other)
        rank, message = min(faults, key=lambda fault: -1 if fault[1] is None else _FIRST[fault[1].kind])
        if message is None:
            return self._gone(rank)
        if message.kind == "memory":
            return MemoryError(message.what)
        if message.kind == "user":
            return UserError(message.what, message.remedy)
        if message.kind == "instrument":
            return InstrumentError(message.what)
        return RuntimeError(f"training process {rank} failed: {message.what}; its log: {self._log(rank)}")

    def _gone(self, rank: int) -> Exception:
        code = self._processes[rank].wait()
        if code == -signal.SIGKILL:  # what the kernel does where main memory ends
            why = "killed (signal 9), as the kernel does where main memory ends"
        else:
            why = f"gone (exit code {code})"
        return RuntimeError(
            f"training process {rank} is {why}; its log ends:\n{guard.tail(self._log(rank), TAIL_LINES)}"
        )


def _leave_signals() -> None:
    """Ignore what ends a job, from the start on: Slurm tells every process of it, and the command saves first.

    Its processes have to do that. They end with it, whatever comes.
    """
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)


def on_model(model: Any, function: Callable[..., Any], *arguments: Any) -> Any:
    """Return `function(model, *arguments)`: here, or in the processes that hold the model together."""
    if isinstance(model, Ranks):
        return model.run(function, *arguments)
    return function(model, *arguments)
