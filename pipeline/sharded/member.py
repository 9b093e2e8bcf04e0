"""One of the training processes: joins the others, loads its share of the subject, and does what it is told."""

from __future__ import annotations

import os
import shutil
import sys
import threading
import traceback
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from pipeline.arms.memory import out_of_memory
from pipeline.errors import InstrumentError, UserError
from pipeline.sharded.messages import LOADED, Answer, Ask, Call, Done, Failed, Start, Told, Used

CODE_LEFT = 143  # of a process whose command has gone


class BrokenOffError(Exception):
    """The command broke a call off where it was asked something."""


class _CommandGoneError(Exception):
    """Nobody is at the other end of the line. What is called meets errors of the system, too: those are faults."""


class Member:
    """This process among the others, and its line to the command."""

    def __init__(self, line: Connection) -> None:
        self.line = line
        self.start: Start = line.recv()
        self.model: Any = None
        self.used = Used()  # by what is being done

    @property
    def leads(self) -> bool:
        """Whether this process speaks and writes for all of them."""
        return self.start.rank == 0

    def ask(self, question: str, *payload: Any) -> Any:
        """Ask the command something, together with all other processes; do what it wants done before it answers.

        Raises:
            BrokenOffError: the answer is to end what is being done.
        """
        self._send(Ask(question, payload if self.leads else (), self.used.flops, self.used.tokens))
        while True:
            message = self._received()
            if isinstance(message, Answer):
                if message.stop:
                    raise BrokenOffError
                return message.value
            self._do(message)

    def tell(self, *, force: bool) -> None:
        """Let the command know that work goes on, and what it has used so far."""
        if self.leads:
            self._send(Told(force, self.used.flops, self.used.tokens))

    def serve(self) -> None:
        """Say that all is loaded; then do what the command says until it has gone or ends this process."""
        self._send(Done())
        while True:
            self._do(self._received())

    def _do(self, call: Call) -> None:
        try:
            result = call.function(self.model, *call.arguments)
        except BrokenOffError:
            result = None
        self._send(Done(result if self.leads else None))

    def _send(self, message: Ask | Told | Done) -> None:
        try:
            self.line.send(message)
        except OSError:
            raise _CommandGoneError from None

    def _received(self) -> Any:
        try:
            return self.line.recv()
        except (EOFError, OSError):
            raise _CommandGoneError from None


_member: list[Member] = []


def this() -> Member | None:
    """Return the member that this process is; None in the command, where nothing is sharded."""
    return _member[0] if _member else None


def writes() -> bool:
    """Say whether this process writes files: of several training processes the first does alone."""
    return not _member or _member[0].leads


def main(line: int, place: Path) -> None:
    """Be a training process whose line to the command is file descriptor `line`.

    Args:
        line: a socket's file descriptor.
        place: the folder in which the processes meet; it goes with the command.
    """
    threading.Thread(target=_leave_with_the_command, args=(place,), daemon=True).start()
    try:
        member = Member(Connection(line))
    except (EOFError, OSError):
        raise SystemExit(CODE_LEFT) from None
    try:
        _member.append(member)
        _join(member.start)
        member.model = _share_of_the_subject(member)
        member.serve()
    except _CommandGoneError:
        raise SystemExit(CODE_LEFT) from None
    except BaseException as error:
        traceback.print_exc()  # into this process's log
        member.line.send(_failed(error))
        threading.Event().wait()  # leaving now would make the others fail, too, and the first fault is to be told


def environment(start: Start) -> Mapping[str, str]:
    """Return what accelerate and torch look up to know of the other processes, all of this machine."""
    return {
        "RANK": str(start.rank),
        "LOCAL_RANK": str(start.rank),
        "WORLD_SIZE": str(start.processes),
        "LOCAL_WORLD_SIZE": str(start.processes),
        "GLOO_SOCKET_IFNAME": "lo",
        "NCCL_SOCKET_IFNAME": "lo",
        # Else accelerate chooses for itself, once a trainer is made.
        **({} if start.threads is None else {"OMP_NUM_THREADS": str(start.threads)}),
    }


def _join(start: Start) -> None:
    import torch
    import torch.distributed as dist

    os.environ.update(environment(start))
    here = None
    if start.device != "cpu":
        here = torch.device("cuda", start.rank)
        torch.cuda.set_device(here)
    dist.init_process_group(
        "gloo" if here is None else "nccl",
        init_method=f"file://{start.store}",
        rank=start.rank,
        world_size=start.processes,
        device_id=here,
    )


def _share_of_the_subject(member: Member) -> Any:
    from pipeline.sharded.weights import load_share
    from pipeline.train.process import prepare_process, quiet_libraries

    quiet_libraries()
    start = member.start
    model = load_share(start.subject, start.device, lambda: member.ask(LOADED))
    prepare_process(start.subject.parameters, start.device, start.threads)
    return model


def _failed(error: BaseException) -> Failed:
    if out_of_memory(error):
        return Failed("memory", str(error))
    if isinstance(error, UserError):
        return Failed("user", error.what, error.remedy)
    if isinstance(error, InstrumentError):
        return Failed("instrument", str(error))
    # The number, as `pipeline.errors` looks for it: a full disk is told as such, wherever it is met.
    number = f" (os error {error.errno})" if isinstance(error, OSError) and error.errno else ""
    return Failed("other", f"{type(error).__name__}: {error}{number}")


def _leave_with_the_command(place: Path) -> None:
    """End this process once the command's end of standard input is closed, however the command ended."""
    while os.read(sys.stdin.fileno(), 1):
        pass
    shutil.rmtree(place, ignore_errors=True)
    os._exit(CODE_LEFT)
