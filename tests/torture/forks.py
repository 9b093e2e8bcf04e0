"""Runs `holdfast` in a fork of a process that has imported it already, watches its stages, and breaks it off.

What runs is the real command: its own process, its own folder, real signals. Only the interpreter's start and the
imports (16 s here) are done once for all; and where a vLLM server is attached, the command finds it instead of
starting one.
"""

from __future__ import annotations

import atexit
import datetime as dates
import importlib
import os
import random
import select
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from pipeline import interpreter

# Where each stage begins: module, name as that module's caller looks it up, stage.
SEAMS = (
    ("pipeline.train.stage", "train", "train"),
    ("pipeline.generate.stage", "generate", "generate"),
    ("pipeline.generate.stage", "contain", "contain"),
    ("pipeline.score", "score", "score"),
    ("pipeline.conclude", "analyse", "analyse"),
    ("pipeline.conclude", "report", "report"),
)
STAGES = tuple(stage for _, _, stage in SEAMS)
MARK = "HOLDFAST_TORTURE"  # in the environment of the command and all it starts: finds what outlives it
WRITES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.chmod", "os.truncate")
HEAVY = ("torch", "transformers", "trl", "peft", "datasets", "polars", "plotly", "scipy.stats", "statsmodels.api")
OURS = (
    *("train.stage", "generate.stage", "score", "conclude", "arms.lora", "workspace", "report", "gate"),
    *("plan.shown", "track.tracker"),
)

Setup = Callable[["Inside"], None]


def preload() -> None:
    """Import everything that a run imports; torch keeps to one thread, so that a fork inherits no pool."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    for name in (*HEAVY, "pipeline.__main__", *(f"pipeline.{name}" for name in OURS)):
        importlib.import_module(name)
    for library, name in (("trl", "SFTTrainer"), ("trl", "SFTConfig"), ("transformers", "AutoModelForCausalLM")):
        getattr(importlib.import_module(library), name)
    importlib.import_module("transformers.models.llama.modeling_llama")
    sys.modules["torch"].set_num_threads(1)


@dataclass(frozen=True)
class AtWrite:
    """Break off before the `number`th (from 1) change to a file below the case's folder within a stage; 0: count."""

    stage: str
    number: int
    signal: int = signal.SIGKILL
    only: str = ""  # a part of the path


@dataclass
class Inside:
    """What a setup, run within the fork, may use: the tracing pipe and the case's folder."""

    folder: Path
    pipe: int
    stage: str = "start"
    writes: dict[str, int] = field(default_factory=dict)

    def tell(self, what: str) -> None:
        """Write a line to the harness."""
        os.write(self.pipe, f"{what}\n".encode())


@dataclass
class Command:
    """A `holdfast` process seen from the harness."""

    pid: int
    pipe: int
    log: Path
    began: float
    told: list[tuple[float, str]] = field(default_factory=list)
    code: int | None = None

    def poll(self, wait_s: float = 0.02) -> bool:
        """Read what the process tells, for up to `wait_s`; say whether it still runs."""
        if select.select([self.pipe], [], [], wait_s)[0]:
            data = os.read(self.pipe, 1 << 16).decode()
            self.told += [(time.monotonic(), line) for line in data.splitlines()]
            if not data:
                time.sleep(wait_s)
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
        return self.code is None

    def until(self, what: str, timeout_s: float) -> bool:
        """Wait for a line; False where the process ended or the time was up without it."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            running = self.poll()
            if any(line == what for _, line in self.told):
                return True
            if not running:
                return False
        return False

    def wait(self, timeout_s: float) -> int:
        """Wait for the end and return the exit code; what takes longer is killed and told as -1000."""
        deadline = time.monotonic() + timeout_s
        while self.poll(0.05):
            if time.monotonic() > deadline:
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
                self.code = -1000
        while select.select([self.pipe], [], [], 0)[0]:
            data = os.read(self.pipe, 1 << 16).decode()
            if not data:
                break
            self.told += [(time.monotonic(), line) for line in data.splitlines()]
        os.close(self.pipe)
        assert self.code is not None
        return self.code

    def send(self, number: int) -> bool:
        """Send a signal; False where the process has ended."""
        if not self.poll(0):
            return False
        os.kill(self.pid, number)
        return True

    def said(self) -> str:
        """Return what the command printed."""
        return self.log.read_text(encoding="utf-8", errors="replace")


def start(words: Sequence[str], folder: Path, log: Path, setups: Sequence[Setup] = ()) -> Command:
    """Start `holdfast WORDS` in `folder`. Each setup runs in the fork before the command does."""
    read, write = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        _child(words, folder, log, Inside(folder, write), setups)
    os.close(write)
    return Command(pid, read, log, time.monotonic())


def _child(words: Sequence[str], folder: Path, log: Path, inside: Inside, setups: Sequence[Setup]) -> None:
    """Run the command and end as an interpreter would; never returns."""

    def command() -> None:
        with log.open("ab") as file, open(os.devnull, "rb") as nothing:
            settle((nothing.fileno(), file.fileno(), file.fileno()), folder)
        temporary = folder / "tmp"
        temporary.mkdir(exist_ok=True)
        os.environ |= {MARK: str(folder), "TMPDIR": str(temporary)}
        sys.argv = ["holdfast", *words]
        for setup in (trace, *setups):
            setup(inside)
        from pipeline.__main__ import main

        main()

    be(command)


def settle(files: Sequence[int], folder: Path) -> None:
    """Take on what a new process starts with: a session, signals, standard input, output and errors, and a folder."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else signal.SIG_IGN)
    for place, file in enumerate(files):
        os.dup2(file, place)
    sys.stdout, sys.stderr = (os.fdopen(n, "w", buffering=1, closefd=False) for n in (1, 2))
    os.chdir(folder)
    tempfile.tempdir = None


def be(main: Callable[[], object]) -> NoReturn:
    """Be the program `main` in a fork, and end as an interpreter would."""
    code = 1
    try:
        main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except KeyboardInterrupt:
        traceback.print_exc()
        code = 130
    except BaseException:
        traceback.print_exc()
    finally:
        _leave(code)


def _leave(code: int) -> NoReturn:
    """As `pipeline.interpreter.run` does; its own would run before what was registered ahead of the fork."""
    try:
        interpreter.finishing()
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def trace(inside: Inside) -> None:
    """Tell the harness which stage the command is in."""
    for module, name, stage in SEAMS:
        _wrap(importlib.import_module(module), name, stage, inside)


def _wrap(module: Any, name: str, stage: str, inside: Inside) -> None:
    real = getattr(module, name)

    def traced(*args: Any, **kwargs: Any) -> Any:
        outer, inside.stage = inside.stage, stage
        if outer == "start":
            inside.tell(f"leave start {inside.writes.pop('start', 0)}")
        inside.tell(f"enter {stage}")
        with ExitStack() as leaving:
            leaving.callback(lambda: inside.tell(f"leave {stage} {inside.writes.get(stage, 0)}"))
            leaving.callback(setattr, inside, "stage", "" if outer == "start" else outer)
            return real(*args, **kwargs)

    setattr(module, name, traced)


def breaking(at: AtWrite) -> Setup:
    """Return a setup that counts the changes to files in each stage and breaks off before the one named."""

    def setup(inside: Inside) -> None:
        root, stage = str(inside.folder / "runs"), at.stage
        seen = 0

        def audit(event: str, args: tuple[Any, ...]) -> None:
            nonlocal seen
            if event == "open":
                flags = args[2] if len(args) > 2 and isinstance(args[2], int) else 0
                if not flags & (os.O_WRONLY | os.O_RDWR):
                    return
            elif event not in WRITES:
                return
            path = os.fsdecode(args[0]) if isinstance(args[0], str | bytes | os.PathLike) else ""
            if not path.startswith(root) or at.only not in path:
                return
            inside.writes[inside.stage] = inside.writes.get(inside.stage, 0) + 1
            if inside.stage == stage:
                seen += 1
                if seen == at.number:
                    inside.tell(f"broken off at write {seen} of {stage}: {event}")
                    os.kill(os.getpid(), at.signal)

        sys.addaudithook(audit)

    return setup


def jumping_clock(seed: int) -> Setup:
    """Return a setup under which the wall clock leaps by up to a year at every look; the monotonic clock does not."""

    def setup(inside: Inside) -> None:
        chance, real = random.Random(seed), time.time

        def leaping() -> float:
            return real() + chance.choice((0.0, -3.0, 3600.0, -86_400.0, 3.15e7, -3.15e7))

        class Leaping(dates.datetime):
            @classmethod
            def now(cls, tz: dates.tzinfo | None = None) -> dates.datetime:  # type: ignore[override]
                return dates.datetime.fromtimestamp(leaping(), tz)

        time.time = leaping
        for name, module in list(sys.modules.items()):
            if name.split(".")[0] == "pipeline" and getattr(module, "datetime", None) is dates.datetime:
                module.datetime = Leaping  # type: ignore[attr-defined]

    return setup


def attached(server: Mapping[str, Any]) -> Setup:
    """Return a setup with which the generate stage finds a running vLLM (`port`, `key`, `pid`) instead of starting one.

    Everything else of the stage is as it is: the proofs, the requests, the journals, the ledger.
    """

    def setup(_: Inside) -> None:
        from pipeline.generate import ahead
        from pipeline.generate import stage as measure
        from pipeline.serve.server import Server

        ahead.start = lambda work: None  # there is a server already

        class Attached(Server):
            def __enter__(self) -> Server:
                self.port, self._key = server["port"], server["key"]
                return self

            def alive(self) -> bool:
                return Path(f"/proc/{server['pid']}").exists()

            def stop(self) -> None:
                pass

        measure.Server = Attached  # type: ignore[misc]

    return setup
