"""Tells a server that hangs from one that is busy: nothing comes back from it, and it uses no processor time either.

A busy engine uses some at every step, also on a GPU, whose kernels a process launches and waits for. One that is
stopped, or whose threads wait for each other, uses none. One that spins forever looks busy: that is left to
`request_timeout_s`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from pipeline.errors import InstrumentError

LOOK_S = 5.0  # between two looks
BEATS = 5  # in that time: one a second
LEAST_READ = 1 << 20  # bytes in that time: what loads its weights over a slow network uses little of a processor
T = TypeVar("T")
IDLE = 0.03  # of one core: a server that does nothing uses 0.01 (event loops, statistics), a busy one 0.3 and more


@dataclass(frozen=True)
class Used:
    """What a process group has used so far: processor seconds, and bytes read.

    `read` is a sum of the kernel's counters that bytes of one file may enter twice: what was asked for by read(2), what
    came from a disk, the page faults that had to wait for one. Each sees what others miss: the pages of a mapped file
    are mostly read ahead of the faults, and what comes over a network, or from the cache, is from no disk.
    """

    seconds: float
    read: int


def used_by(group: int, proc: Path = Path("/proc")) -> Used | None:
    """Return what the living processes of a group have used (proc(5)); None where that cannot be told."""
    ticks = read = found = 0
    try:
        entries = [entry for entry in os.scandir(proc) if entry.name.isdigit()]
    except OSError:  # no /proc here
        return None
    for entry in entries:
        try:
            fields = Path(entry.path, "stat").read_text().rpartition(")")[2].split()  # from the third on
            if int(fields[2]) == group:
                told = re.findall(r"^(?:rchar|read_bytes): (\d+)$", Path(entry.path, "io").read_text(), re.MULTILINE)
                read += sum(map(int, told)) + int(fields[9]) * os.sysconf("SC_PAGE_SIZE")
                ticks += int(fields[11]) + int(fields[12])
                found += 1
        except OSError:  # it ended meanwhile
            continue
    return Used(ticks / os.sysconf("SC_CLK_TCK"), read) if found else None


class Watch:
    """Looks at a process group while something is awaited from it.

    Args:
        group: the process group's number; None: one that is not ours, never called hung.
        after_s: idle seconds in a row after which it is called so.
    """

    def __init__(self, group: int | None, after_s: float) -> None:
        self._group = group
        self._after_s = after_s
        self._idle_s = 0.0
        self._last: Used | None = None

    def hangs(self) -> bool:
        """Look once more, `LOOK_S` after the last look, and say whether it has been idle for too long.

        Seconds are those that were awaited, not the clock's: a machine that slept is no server that hangs.
        """
        now, last = None if self._group is None else used_by(self._group), self._last
        self._last = now
        idle = False
        if now is not None and last is not None:
            idle = 0 <= now.read - last.read < LEAST_READ and 0 <= now.seconds - last.seconds < IDLE * LOOK_S
        self._idle_s = self._idle_s + LOOK_S if idle else 0.0
        return self._idle_s >= self._after_s


class Watched(Protocol):
    """A server as this module sees it."""

    @property
    def group(self) -> int | None:
        """The number of its process group; None where it is not ours."""
        ...

    def stop(self) -> None:
        """End it."""
        ...


def no_beat() -> None:
    """Stand in for the beat of a wait that nobody accounts for."""


def first_of(
    pending: Collection[Future[T]], server: Watched, after_s: float, beat: Callable[[], None] = no_beat
) -> set[Future[T]]:
    """Wait for the first answers among some requests to a server, and return them; `beat` is called meanwhile.

    Raises:
        InstrumentError: it hung; it was ended, so that no request waits on.
    """
    watch = Watch(server.group, after_s)
    while True:
        for _ in range(BEATS):
            done, _ = wait(pending, timeout=LOOK_S / BEATS, return_when=FIRST_COMPLETED)
            if done:
                return done
            beat()
        if watch.hangs():
            server.stop()
            raise hung(after_s, f"while {len(pending)} request{'s'[: len(pending) > 1]} waited")


def answer(ask: Callable[[], T], server: Watched, after_s: float, beat: Callable[[], None] = no_beat) -> T:
    """Return what one request to a server gives; `beat` is called while it is awaited.

    Raises:
        InstrumentError: it hung; it was ended.
    """
    with ThreadPoolExecutor(1) as pool:
        return first_of([pool.submit(ask)], server, after_s, beat).pop().result()


def hung(after_s: float, when: str) -> InstrumentError:
    """Return the error that says so."""
    return InstrumentError(
        f"the vLLM server hung: it used no processor time for serve.hung_after_s={after_s:g} {when}; it was ended, "
        "and the same command goes on where it was"
    )
