"""Starts the worker that runs Inspect tasks: with an environment of its own, and never longer than this process."""

from __future__ import annotations

import importlib.util
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final

from pipeline import guard, interpreter
from pipeline.errors import InstrumentError, UserError

WORKER: Final = Path(__file__).with_name("worker.py")  # not imported: it needs inspect_ai
TAIL_LINES: Final = 15
TOLD: Final = 3  # the worker's exit code after a `failed` event
# What a task gets of the user's environment: no key, no token, nothing that sends it elsewhere.
_PASSED: Final = frozenset(
    (
        *("PATH", "HOME", "USER", "LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "VIRTUAL_ENV"),
        *("OMP_NUM_THREADS", "HF_HOME", "HF_HUB_CACHE", "HF_DATASETS_CACHE", "XDG_CACHE_HOME"),
    )
)
# Nothing listens on the discard port: what asks for a proxy there fails at once (tiktoken fetches its files unasked).
_OFFLINE: Final = dict.fromkeys(("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"), "1") | dict.fromkeys(
    ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"), "http://127.0.0.1:9"
)
# Only where the user said HF_HUB_OFFLINE=0: to fetch a task's data set.
_PASSED_ONLINE: Final = frozenset(
    (
        *("HF_TOKEN", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"),
        *("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"),
    )
)


def require_inspect(where: str) -> None:
    """Make sure that inspect_ai is installed.

    Args:
        where: the key that asks for it, e.g. "evals.inspect".

    Raises:
        UserError: it is not.
    """
    if importlib.util.find_spec("inspect_ai") is None:
        raise UserError(
            f"{where} needs inspect_ai, which is not installed",
            "`make env` installs it (pip alone cannot resolve it beside the pinned packages); all else works without",
        )


def environment(state: Path, extra: Mapping[str, str]) -> dict[str, str]:
    """Return the worker's environment: what Inspect keeps lies in `state`; the network is shut but for loopback.

    A task's data set must lie in the Hub's cache already, unless the user says HF_HUB_OFFLINE=0.
    """
    online = os.environ.get("HF_HUB_OFFLINE") == "0"
    passed = _PASSED | _PASSED_ONLINE if online else _PASSED
    return {
        **{key: value for key, value in os.environ.items() if key in passed},
        **({} if online else _OFFLINE),
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
        "XDG_DATA_HOME": str(state / "data"),
        "INSPECT_LOG_DIR": str(state / "logs"),
        "INSPECT_TRACE_FILE": str(state / "trace.log"),
        "DO_NOT_TRACK": "1",
        **extra,
    }


def prepare(state: Path, job: Mapping[str, Any]) -> Path:
    """Make the folder in which the worker lives and write its job; return the job's file."""
    for folder in (state, state / "data", state / "logs"):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    (state / ".env").touch()  # Inspect looks for one upwards from here and must find no other
    file = state / "job.json"
    file.write_text(json.dumps(job), encoding="utf-8")
    return file


def describe(tasks: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Load tasks and return what the worker's `task` events say of each, in order.

    Raises:
        UserError: a task cannot be loaded or used; what and why.
    """
    with tempfile.TemporaryDirectory(prefix="holdfast-inspect-") as folder:
        state = Path(folder)
        file = prepare(state, {"do": "describe", "tasks": list(tasks)})
        command = interpreter.command(str(WORKER), str(file))
        done = subprocess.run(
            command, cwd=state, env=environment(state, {}), stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
    events = [json.loads(line) for line in done.stdout.splitlines()]
    for event in events:
        if event["event"] == "failed":
            raise task_error(event)
    if done.returncode != 0 or len(events) != len(tasks):
        said = "\n".join(done.stderr.decode(errors="replace").splitlines()[-TAIL_LINES:])
        raise InstrumentError(f"inspect_ai could not be asked about a task (code {done.returncode}):\n{said}")
    return events


def task_error(event: Mapping[str, Any]) -> UserError:
    """Return a worker's `failed` event of kind `task` as an error."""
    return UserError(
        f"evals.{event['eval']}.task: {event['what']}",
        "mend the task, or name another; its data must be on this machine (or set HF_HUB_OFFLINE=0 to fetch it)",
    )


@contextmanager
def worker(state: Path, job: Mapping[str, Any], extra: Mapping[str, str], log: Path) -> Iterator[Events]:
    """Run the worker on a job; yield its events. It is ended, its children too, when the block is left.

    Args:
        state: a folder of its own.
        job: see `worker.py`.
        extra: environment variables on top, such as the server's key, which must stand in no file.
        log: where its standard error goes; readable by its owner alone.
    """
    file = prepare(state, job)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as errors:
        log.chmod(0o600)
        process = subprocess.Popen(
            [sys.executable, guard.__file__, *interpreter.command(str(WORKER), str(file))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            cwd=state,
            env=environment(state, extra),
            umask=0o077,
            start_new_session=True,
        )
    try:
        yield Events(process, log)
    finally:
        guard.end(process)


class Events:
    """A worker's events as they come, and whether it still runs."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self._process = process
        self._log = log
        self._queue: queue.Queue[dict[str, Any] | None] = queue.Queue()
        assert process.stdout is not None
        threading.Thread(target=self._read, args=(process.stdout,), daemon=True).start()

    def next(self, timeout_s: float) -> dict[str, Any] | None:
        """Return the next event, an empty one after `timeout_s`, None at the end.

        Raises:
            InstrumentError: the worker ended with an error of its own.
        """
        try:
            event = self._queue.get(timeout=timeout_s)
        except queue.Empty:
            return {}
        if event is None and self._process.wait() not in (0, TOLD):
            raise InstrumentError(f"the process that runs Inspect tasks died; its log ends:\n{self.tail()}")
        return event

    def tail(self) -> str:
        """Return the end of the worker's log."""
        return guard.tail(self._log, TAIL_LINES)

    def _read(self, stdout: IO[bytes]) -> None:
        for line in stdout:
            self._queue.put(json.loads(line))
        self._queue.put(None)
