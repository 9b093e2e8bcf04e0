"""What stands for the module `subprocess` in parts of `pipeline`: what they start is forked (`tests/warm.py`)."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from pipeline.serve import vllm_server
from tests.warm import PATIENCE_S, SERVERS, Find, Process


class ForkedServers:
    """Stands for the module `subprocess` in `serve/launch.py`: what it starts there is the guard of a vLLM server."""

    PIPE, STDOUT, TimeoutExpired = subprocess.PIPE, subprocess.STDOUT, subprocess.TimeoutExpired

    def __init__(self, source: Path) -> None:
        self.source = source

    def Popen(self, argv: Sequence[str], *, stdout: IO[bytes], env: Any, cwd: Path, **more: Any) -> Any:
        """Start the guard with a pipe as standard input, and its errors where its output goes.

        Where vLLM would not fork its engine (on a GPU), it starts as ever.
        """
        if env.get(vllm_server.FORK) != "1":
            return subprocess.Popen(argv, stdout=stdout, env=env, cwd=cwd, **more)
        read, write = os.pipe()
        process = Process(self.source, argv, env=env, cwd=cwd, files=(read, stdout.fileno(), stdout.fileno()))
        os.close(read)
        process.stdin = os.fdopen(write, "wb", buffering=0)
        return process


class Asked(Process):
    """W&B's client or its sync, seen as the `subprocess.Popen` of `pipeline.publish.server`: two pipes of text."""

    def __init__(
        self, source: Path, argv: Sequence[str], *, cwd: str | Path, env: Any, stderr: IO[str], **_: Any
    ) -> None:
        (read, write), (hear, say) = os.pipe(), os.pipe()
        super().__init__(source, argv, env=env, cwd=Path(cwd), files=(read, say, stderr.fileno()))
        os.close(read)
        os.close(say)
        self.stdin = os.fdopen(write, "w", encoding="utf-8")  # type: ignore[assignment]
        self.stdout = os.fdopen(hear, encoding="utf-8")

    def kill(self) -> None:
        """End it, if it has not ended."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)

    def communicate(self, timeout: float | None = None) -> tuple[str, None]:
        """Close its input, wait for its end, and return what it wrote, which must fit in a pipe."""
        assert self.stdin is not None
        with contextlib.suppress(OSError):
            self.stdin.close()
        self.wait(timeout)
        with self.stdout:
            return self.stdout.read(), None


class ForkedWandb:
    """Stands for the module `subprocess` in `pipeline.publish.server`."""

    PIPE, TimeoutExpired = subprocess.PIPE, subprocess.TimeoutExpired

    def __init__(self, source: Path) -> None:
        self.Popen = functools.partial(Asked, source)


class ForkedInspect:
    """Stands for the module `subprocess` in `pipeline.inspectai.process`: loading tasks is forked, running is not."""

    DEVNULL, PIPE, TimeoutExpired = subprocess.DEVNULL, subprocess.PIPE, subprocess.TimeoutExpired
    Popen = subprocess.Popen

    def __init__(self, source: Path) -> None:
        self.source = source

    def run(self, argv: Sequence[str], *, cwd: Path, env: Any, **_: Any) -> subprocess.CompletedProcess[bytes]:
        """Run to the end with nothing as standard input; return what it wrote."""
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors, open(os.devnull, "rb") as nothing:
            files = (nothing.fileno(), out.fileno(), errors.fileno())
            code = Process(self.source, argv, env=env, cwd=cwd, files=files).wait(PATIENCE_S)
            out.seek(0)
            errors.seek(0)
            return subprocess.CompletedProcess(argv, code, out.read(), errors.read())


class ForkedRuns:
    """Stands for the module `subprocess` in `pipeline.multirun`: each run is forked and speaks where this one does."""

    def __init__(self, find: Find) -> None:
        self.find = find

    def run(self, argv: Sequence[str], *, check: bool) -> subprocess.CompletedProcess[bytes]:
        """Run `[python, -m, pipeline, …]` to its end."""
        assert not check
        env = {**os.environ, SERVERS: str(self.find("server"))}
        with open(os.devnull, "rb") as nothing:
            process = Process(
                self.find("command"), ["holdfast", *argv[3:]], env=env, cwd=Path.cwd(), files=(nothing.fileno(), 1, 2)
            )
        return subprocess.CompletedProcess(argv, process.wait(600))
