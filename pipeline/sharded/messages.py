"""What the command and its training processes say to each other, pickled, over a socket that nobody else has."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

from pipeline.subject.subject import Subject

LOADED: Final = "loaded"  # asked once the first process has read the subject
Kind = Literal["user", "instrument", "memory", "other"]


@dataclass
class Used:
    """What a call has used so far."""

    flops: float = 0.0
    tokens: int = 0


@dataclass(frozen=True)
class Start:
    """To a process, first: who it is, and what it is to hold."""

    rank: int
    processes: int
    store: str  # a file by which the processes meet; no port is opened for it
    subject: Subject
    device: str  # cpu or cuda
    threads: int | None  # torch's, on a CPU; None: as `pipeline.train.process.prepare_process` chooses


@dataclass(frozen=True)
class Call:
    """To all processes: call `function(model, *arguments)`, each with its share of the subject."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]


@dataclass(frozen=True)
class Done:
    """From each process: what it was told to call is done. `result` is that of the first process alone."""

    result: Any = None


@dataclass(frozen=True)
class Ask:
    """From each process, in the middle of a call: all wait for the answer. `payload` is the first process's alone.

    `flops` and `tokens` are what the call has used so far.
    """

    question: str
    payload: tuple[Any, ...]
    flops: float
    tokens: int


@dataclass(frozen=True)
class Told:
    """From the first process, in the middle of a call: work goes on; nobody waits. `force`: to be written at once."""

    force: bool
    flops: float
    tokens: int


@dataclass(frozen=True)
class Answer:
    """To all processes: the answer to an `Ask`; or the call is to be broken off there."""

    value: Any = None
    stop: bool = False


@dataclass(frozen=True)
class Failed:
    """From a process: a call, or its start, failed. It then waits to be ended."""

    kind: Kind
    what: str
    remedy: str = ""
