"""A process that answers one JSON line for each line it is sent, so that what it held is free again when it ends.

Standard library only: the script that answers may need vLLM and nothing of ours.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final

ROOT: Final = Path(__file__).parents[1]

# A reason has at most these; vLLM's processes begin each line of their own with "(NAME pid=1) ERROR … [file.py:1] ".
MOST_LINES: Final = 40
MOST_CHARACTERS: Final = 4000
FAULT: Final = re.compile(r"\bERROR\b|Traceback")
FRAME: Final = re.compile(r"(?:^|[\])] )(?:  File \"|    )")
CAUSE: Final = re.compile(r"(?:^|[\])] )[\w.]*(?:Error|Exception)\b")


class Child:
    """`python -m MODULE JOB.json`, up inside `with`; its log is `engine.log` in `root`.

    The module's script hands its job to `answer_lines`.
    """

    def __init__(self, module: str, job: Mapping[str, Any], root: Path, environment: Mapping[str, str]) -> None:
        self.module, self.job, self.root, self.environment = module, job, root, environment

    def __enter__(self) -> Child:
        """Start the process and wait until it says that it is up.

        Raises:
            RuntimeError: it ended; the reason in its log is in the message.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        job, self._log_path = self.root / "job.json", self.root / "engine.log"
        job.write_text(json.dumps(dict(self.job)), encoding="utf-8")
        self._log = self._log_path.open("wb")
        self._process = subprocess.Popen(
            [sys.executable, "-m", self.module, str(job)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            cwd=ROOT,
            env={**os.environ, **offline(), **self.environment},
        )
        try:
            self._answer()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the process: the end of its input ends it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def ask(self, question: Any) -> dict[str, Any]:
        """Send one JSON value; return the object that comes back.

        Raises:
            RuntimeError: the process ended; the reason in its log is in the message.
        """
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            log = self._log_path.read_text(encoding="utf-8", errors="replace")
            raise RuntimeError(f"the engine ended: {reason_in(log)}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def offline() -> dict[str, str]:
    """Return what vLLM's environment must hold besides ours, as the server's does.

    Loopback too: each of an engine's groups else looks up the machine's own name, and where a machine without a network
    has no answer to that at all, each waits 10 s for it.
    """
    # Here: what answers imports nothing of ours.
    from pipeline.serve.device import INTERFACE, LOOPBACK, OFFLINE, unbuilt

    return {**OFFLINE, INTERFACE: os.environ.get(INTERFACE, LOOPBACK), **unbuilt()}


def reason_in(log: str) -> str:
    """Return why a process ended, by its log: the first exception, then what was said from the first error on.

    vLLM's engine fails in a process of its own and says why; only then do those that wait for it fail, each with a
    longer traceback, and the last lines name no cause. Frames are left out.
    """
    lines = [line.rstrip() for line in log.splitlines() if line.strip()]
    if not lines:
        return "nothing was logged"
    first = next((number for number, line in enumerate(lines) if FAULT.search(line)), max(0, len(lines) - MOST_LINES))
    told = [line for line in lines[first:] if not FRAME.search(line)] or lines[-1:]
    cause = next((line for line in told if CAUSE.search(line)), told[-1])
    return f"{cause[:300]}\n{shortened(told)}"


def shortened(lines: Sequence[str]) -> str:
    """Return the lines as one text; of too much the middle is left out."""
    half = MOST_LINES // 2
    kept = "\n".join(lines if len(lines) <= MOST_LINES else [*lines[:half], "…", *lines[-half:]])
    half = MOST_CHARACTERS // 2 - 1
    return kept if len(kept) <= MOST_CHARACTERS else f"{kept[:half]}…{kept[-half:]}"


def answer_lines(start: Callable[[Mapping[str, Any]], Callable[[Any], Mapping[str, Any]]]) -> None:
    """Be the child: read the job that the command line names, `start` it, then answer each line of standard input."""
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # vLLM logs to standard output

    def say(answer: Mapping[str, Any]) -> None:
        answers.write(json.dumps(dict(answer)) + "\n")
        answers.flush()

    answer = start(job)
    say({"up": True})
    for line in sys.stdin:
        say(answer(json.loads(line)))
