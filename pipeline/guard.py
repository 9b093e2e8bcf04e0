"""Runs a command and ends its whole process group when the parent goes away, however it goes.

Started as `python guard.py COMMAND …` in a session of its own, with a pipe from the parent as standard input. The
pipe's end, which also a SIGKILL of the parent brings about, ends the group: SIGTERM, then SIGKILL. The sockets that
vLLM's processes talk by lie in a folder that goes with the group: vLLM leaves them in /tmp. Standard library only, and
nothing of ours, since it is run as a file. `end` and `tail` are for the parent, which imports it.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

GRACE_S = 5.0
POLL_S = 0.1
SOCKETS = "VLLM_RPC_BASE_PATH"
LONGEST = 107  # bytes of a socket's path (unix(7))
NAME = 40  # of a socket: a slash, a UUID and a little more


def end(process: subprocess.Popen[bytes]) -> None:
    """End a guarded process that this one started, with its whole group; it has ended when this returns.

    Closing its pipe lets the guard end the group. What is left then is killed: the guard may have been killed alone,
    and would leave a server with stripped adapters behind.
    """
    assert process.stdin is not None
    process.stdin.close()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=GRACE_S + 5.0)
    with contextlib.suppress(ProcessLookupError):  # nobody is left, as ever
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def tail(log: Path, lines: int) -> str:
    """Return the last lines of a guarded process' log, indented, for an error; "" where there is none."""
    try:
        text = log.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""
    return "\n".join(f"    {line}" for line in text.splitlines()[-lines:])


def main(command: list[str]) -> int:
    """Run `command` until it ends or standard input does; return its exit code (143 where it was ended)."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the group's own SIGTERM must not end the guard before the rest
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sockets = tempfile.mkdtemp(prefix="hf-", dir=os.environ.get(SOCKETS))
    fits = len(sockets) + NAME <= LONGEST  # else they lie where vLLM puts them
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        env={**os.environ, **({SOCKETS: sockets} if fits else {})},
        preexec_fn=_default_signals,  # noqa: PLW1509
    )
    while child.poll() is None:
        readable, _, _ = select.select([sys.stdin], [], [], POLL_S)
        if readable and not os.read(sys.stdin.fileno(), 1):
            _end_group(child, sockets)
            return 143
    code = child.returncode
    _end_group(child, sockets)
    return code


def _default_signals() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _end_group(child: subprocess.Popen[bytes], sockets: str) -> None:
    """SIGTERM to the group; SIGKILL to what is left of it after `GRACE_S`, the guard included."""
    os.killpg(0, signal.SIGTERM)
    deadline = time.monotonic() + GRACE_S
    while time.monotonic() < deadline:
        child.poll()
        if not _others():
            break
        time.sleep(0.02)
    shutil.rmtree(sockets, ignore_errors=True)
    if _others():
        os.killpg(0, signal.SIGKILL)


def _others() -> bool:
    """Say whether the group has living processes besides the guard (zombies do not count)."""
    group = os.getpgrp()
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            with open(f"/proc/{entry.name}/stat") as file:
                state, _parent, pgrp = file.read().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(pgrp) == group and state not in "ZX":
            return True
    return False


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
