"""Processes that start warm: forks of one that has imported what they need, for tests of what comes after the start.

Six of ten cycles of the smallest job are imports, by the command and again by vLLM's server. Where a test is not about
starting, both are forked from processes that imported once, for all tests of a session: processes of their own all the
same, with a session, signals, an environment and a folder of their own, which run the real code from its `main` on.
The demo, the jobs under Slurm, the wheel and the tests of the server start as users' do.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import importlib
import json
import os
import runpy
import select
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any, NoReturn

from pipeline import guard, interpreter
from tests.torture import forks

PATIENCE_S = 300.0  # for the imports, on a machine that others use too
SERVERS = "HOLDFAST_WARM_SERVERS"  # in a command's environment: where its server is forked from
Find = Callable[[str], Path]  # a kind of process (`command`, `server`) → where it is forked from
LARGEST = 1 << 20  # bytes of a request
SERVER = (
    *("vllm.entrypoints.openai.api_server", "vllm.v1.engine.core", "vllm.v1.engine.utils", "vllm.v1.executor"),
    *("vllm.v1.worker.cpu_worker", "vllm.v1.worker.cpu_model_runner", "vllm.lora.worker_manager"),
)


class Process:
    """A process that was forked warm, seen as a `subprocess.Popen`; it ends when it likes, whoever started it."""

    def __init__(
        self, source: Path, argv: Sequence[str], *, env: Mapping[str, str], cwd: Path, files: Sequence[int]
    ) -> None:
        self._line = connected(source)
        socket.send_fds(self._line, [json.dumps([list(argv), dict(env), str(cwd)]).encode()], list(files))
        self.pid = int(self._line.recv(32))
        self.returncode: int | None = None
        self.stdin: IO[bytes] | None = None

    def poll(self) -> int | None:
        """Return the exit code, or None while it runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end and return the exit code; minus its number where a signal ended it.

        Raises:
            subprocess.TimeoutExpired: it still runs.
        """
        if self.returncode is None:
            if not select.select([self._line], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
            self.returncode = int(self._line.recv(32))
            self._line.close()
        return self.returncode


def start(argv: Sequence[str], find: Find, log: Path, cwd: Path | None = None) -> Process:
    """Start `holdfast …` or a module with words, with its output and errors in a file."""
    env = {**os.environ, **({SERVERS: str(find("server"))} if argv[0] == "holdfast" else {})}
    with log.open("ab") as file, open(os.devnull, "rb") as nothing:
        files = (nothing.fileno(), file.fileno(), file.fileno())
        return Process(find("command"), argv, env=env, cwd=cwd or Path.cwd(), files=files)


def source(kind: str, folder: Path) -> tuple[Path, socket.socket]:
    """Return where processes of a kind are forked from, and a line that keeps it there.

    Workers of one session share it by the folder: the first that asks starts it, the last that leaves ends it.
    """
    path, log = folder / f"warm-{kind}", folder / f"warm-{kind}.log"
    with (folder / f"warm-{kind}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            with log.open("ab") as said:
                process = subprocess.Popen(
                    [sys.executable, "-m", "tests.warm", kind, str(path)],
                    cwd=Path(__file__).parents[1],
                    stdin=subprocess.DEVNULL,
                    stdout=said,
                    stderr=said,
                    start_new_session=True,
                )
            deadline = time.monotonic() + PATIENCE_S
            while not path.exists():
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"what a {kind} is forked from did not start:\n{log.read_text()[-4000:]}")
                time.sleep(0.05)
        return path, connected(path)


def connected(path: Path) -> socket.socket:
    """Return a line to what listens at `path`."""
    line = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    line.connect(str(path))
    return line


def _command(argv: list[str]) -> None:
    """Be a `holdfast` whose server starts warm too, or another module that is named."""
    sys.argv = argv
    if argv[0] != "holdfast":
        runpy.run_module(argv[0], run_name="__main__")
        return
    from pipeline.__main__ import main
    from pipeline.serve import launch as serve
    from tests.standins import ForkedServers

    serve.subprocess = ForkedServers(Path(os.environ[SERVERS]))  # type: ignore[assignment]
    main()


def _server(argv: list[str]) -> None:
    """Be the guard of a server, which it forks instead of starting it: `[python, guard.py, python, -P, …]`."""
    guard.subprocess = SimpleNamespace(DEVNULL=subprocess.DEVNULL, Popen=Forked)  # type: ignore[assignment]
    raise SystemExit(guard.main(argv[2:]))


def _wandb(argv: list[str]) -> None:
    """Be a module with words: `[python, -P, -m, MODULE, …]`."""
    sys.argv = argv[3:]
    runpy.run_module(argv[3], run_name="__main__", alter_sys=True)


def _script(argv: list[str]) -> None:
    """Be a script with words: `[python, -P, interpreter.py, SCRIPT, …]`."""
    sys.argv = argv[3:]
    runpy.run_path(sys.argv[0], run_name="__main__")


def _import_inspect() -> None:
    for name in ("inspect_ai", "inspect_ai._eval.loader", "inspect_ai.hooks", "inspect_ai.model", "inspect_ai.viewer"):
        importlib.import_module(name)


def _import_wandb() -> None:
    for name in ("wandb.apis.public", "wandb.cli.cli", "wandb_workspaces.reports.v2", "httpx"):
        importlib.import_module(name)


class Forked:
    """The child of the guard, seen as a `subprocess.Popen`: `[python, -P, interpreter.py, SCRIPT, …]` runs SCRIPT."""

    def __init__(self, argv: Sequence[str], *, env: Mapping[str, str], preexec_fn: Callable[[], None], **_: Any):
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            preexec_fn()
            _become(env)
            sys.argv = list(argv[3:])
            forks.be(lambda: runpy.run_path(sys.argv[0], run_name="__main__"))

    def poll(self) -> int | None:
        """Return the exit code, or None while it runs."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode


def _become(env: Mapping[str, str]) -> None:
    os.environ.clear()
    os.environ.update(env)


def _import_server() -> None:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    for name in SERVER:
        with contextlib.suppress(ImportError):  # another vLLM, or one for a GPU: its server imports what is missing
            importlib.import_module(name)


KINDS = {
    "command": (forks.preload, _command),
    "server": (_import_server, _server),
    "wandb": (_import_wandb, _wandb),
    "inspect": (_import_inspect, _script),
}


def main(kind: str, path: Path) -> None:
    """Import, then fork at each request, until nobody is connected any more."""
    preload, run = KINDS[kind]
    preload()
    if threading.active_count() > 1:
        raise SystemExit(f"threads run after the imports: {threading.enumerate()}")
    gc.collect()
    gc.freeze()
    gc.set_threshold(*interpreter._THRESHOLDS)
    with selectors.DefaultSelector() as events, socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(f"{path}.new")
        listener.listen()
        os.rename(f"{path}.new", path)
        events.register(listener, selectors.EVENT_READ)
        _attend(events, listener, run)


def _attend(events: selectors.BaseSelector, listener: socket.socket, run: Callable[[list[str]], None]) -> None:
    lines = 0
    while True:
        for key, _ in events.select():
            if key.fileobj is listener:
                events.register(listener.accept()[0], selectors.EVENT_READ)
                lines += 1
            elif key.data is not None:  # a child has ended
                pid, line = key.data
                events.unregister(key.fileobj)
                os.close(key.fd)
                code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                with contextlib.suppress(OSError):  # who started it is gone
                    line.send(str(code).encode())
            elif not _asked(events, key.fileobj, run):
                events.unregister(key.fileobj)
                key.fileobj.close()  # type: ignore[union-attr]
                lines -= 1
                if lines == 0:
                    return


def _asked(events: selectors.BaseSelector, line: Any, run: Callable[[list[str]], None]) -> bool:
    """Fork for a request; False where the line ended instead."""
    try:
        data, files, _, _ = socket.recv_fds(line, LARGEST, 3)
    except ConnectionError:
        return False
    if not data:
        return False
    argv, env, cwd = json.loads(data)
    pid = os.fork()
    if pid == 0:
        _child(events, files, argv, env, cwd, run)
    for file in files:
        os.close(file)
    events.register(os.pidfd_open(pid), selectors.EVENT_READ, (pid, line))
    line.send(str(pid).encode())
    return True


def _child(events: Any, files: list[int], argv: list[str], env: Any, cwd: str, run: Any) -> NoReturn:
    for key in list(events.get_map().values()):  # else a line would outlive who holds it
        os.close(key.fd)
    events.close()
    forks.settle(files, Path(cwd))
    for file in files:
        os.close(file)
    _become(env)
    forks.be(lambda: run(argv))


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    main(sys.argv[1], Path(sys.argv[2]))
