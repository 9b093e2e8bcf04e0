"""Starts a server's process under its guard: now, or ahead of time, to import vLLM while something else is done.

Importing is more than half of a start, and holds no device yet. A process that was started ahead imports what the
server needs and waits for its options, which depend on what is being trained meanwhile.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from pipeline import guard, interpreter
from pipeline.files import write_atomic
from pipeline.schema import ServeConfig
from pipeline.serve import keyed, vllm_server
from pipeline.serve.device import Servable, environment

PATIENCE_S: Final = 120.0  # for imports, on a slow disk


def command(options: Sequence[str] = ()) -> list[str]:
    """Return the server's command line."""
    return interpreter.command(vllm_server.__file__, *options)


def launch(words: Sequence[str], env: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
    """Start a command under the guard in a session of its own; what it prints goes to the end of `log`."""
    log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)  # the server may quote what it was asked
    with log.open("ab") as file:
        return subprocess.Popen(
            [sys.executable, guard.__file__, *words],
            stdin=subprocess.PIPE,
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, **env},
            start_new_session=True,
            cwd=log.parent,
        )


class Ahead:
    """One server's process that can be started ahead of time. It is handed over once, or ended.

    Args:
        log: where its output goes; what is told to it lies beside it.
    """

    def __init__(self, subject: Servable, config: ServeConfig, device: str, log: Path) -> None:
        self.key = secrets.token_urlsafe(32)
        self._env = (subject, config, device)
        self._log = log
        self._place = log.parent / "ahead"
        self._process: subprocess.Popen[bytes] | None = None
        self._begun = 0.0

    def start(self) -> None:
        """Let it import from now on; where it cannot, the server starts when it is needed."""
        shutil.rmtree(self._place, ignore_errors=True)  # of a command that was killed
        env = {**environment(*self._env), **keyed.environment(self.key), vllm_server.AHEAD: str(self._place)}
        with contextlib.suppress(OSError):
            self._place.mkdir(mode=0o700, parents=True)
            self._begun, self._process = time.monotonic(), launch(command(), env, self._log)

    def wait(self) -> None:
        """Wait until it has imported: on a CPU it would else disturb the clock of what is trained beside it."""
        while self._alive() and time.monotonic() < self._begun + PATIENCE_S:
            if (self._place / vllm_server.READY).exists():
                return
            time.sleep(vllm_server.POLL_S)

    def take(self, options: Sequence[str]) -> subprocess.Popen[bytes] | None:
        """Let it be the server with these options, and return its process; None where there is none any more."""
        if not self._alive():
            return None
        write_atomic(self._place / vllm_server.OPTIONS, json.dumps(list(options)))
        process, self._process = self._process, None
        return process

    def end(self) -> None:
        """End it, where it was not handed over, and put away what was told to it."""
        if self._process is not None:
            guard.end(self._process)
            self._process = None
        shutil.rmtree(self._place, ignore_errors=True)

    def _alive(self) -> bool:
        return self._process is not None and self._process.poll() is None
