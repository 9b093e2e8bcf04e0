"""One fault on one copy of a run: what it starts, what it expects, what must hold once the same command completed."""

from __future__ import annotations

import contextlib
import os
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.torture import checks, forks
from tests.torture.world import PATIENCE_S, World

GRACE_S = 20.0  # in which a server must be gone once its command is


@dataclass
class Case:
    """One fault on one copy of a run: what is drawn stands in `detail`."""

    world: World
    number: int
    kind: str
    stage: str
    state: str
    chance: random.Random
    folder: Path
    own_server: bool = False
    run: Path = field(init=False)
    told: list[str] = field(default_factory=list)  # what happened, in order
    wrong: list[str] = field(default_factory=list)  # of exit codes and messages
    logs: int = 0
    words: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.words = self.words or self.world.words
        self.run = self.world.place(self.state, self.folder)

    def start(self, *setups: forks.Setup, words: Sequence[str] = ()) -> forks.Command:
        """Start the command, attached to the long-lived vLLM unless the case has a server of its own."""
        self.logs += 1
        server = [] if self.own_server else [forks.attached(self.world.server)]
        log = self.folder / f"log-{self.logs}"
        return forks.start((*self.words, *words), self.folder, log, [*setups, *server])

    def expect(self, command: forks.Command, codes: Sequence[int], *said: str) -> int:
        """Wait for the command; note where its exit code or its words are not among those expected."""
        code = command.wait(PATIENCE_S)
        text = command.said()
        self.told.append(f"exit code {code}")
        if code not in codes:
            self.wrong.append(f"exit code {code}, not {' or '.join(map(str, codes))}: …{text[-600:]}")
        if "Traceback" in text:
            self.wrong.append(f"a traceback: …{text[text.index('Traceback') :][-900:]}")
        if code in codes and code != 0:
            self.wrong += [f"not said: {word!r} in …{text[-600:]}" for word in said if word not in text]
        return code


def complete(case: Case) -> bool:
    """Give the same command: it must complete; say whether it did."""
    return case.expect(case.start(), (0,)) == 0


def judge(case: Case) -> dict[str, Any]:
    """Complete the run and hold it against the undisturbed one; return the case's row of the result."""
    found: checks.Problems = {}
    if complete(case):
        untouched = case.state in ("measured", "finished")  # nothing was spent again
        found = checks.held(case.folder, case.run, case.world.undisturbed, exact=untouched)
    found["other"] = found.get("other", []) + case.wrong
    return {"told": case.told, "problems": {name: what for name, what in found.items() if what}}


def while_running(command: forks.Command, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while command.poll(max(min(0.02, deadline - time.monotonic()), 0.0)) and time.monotonic() < deadline:
        pass


def where(command: forks.Command) -> str:
    open_stages = []
    for _, line in command.told:
        words = line.split()
        if words[0] == "enter":
            open_stages.append(words[1])
        elif words[0] == "leave" and words[1] in open_stages:
            open_stages.remove(words[1])
    return open_stages[-1] if open_stages else "start or end"


def rest(case: Case) -> None:
    """Wait until what the command left behind is gone, as it must be, and the attached server is idle."""
    deadline = time.monotonic() + GRACE_S
    while (left := checks.leftovers(case.folder)) and time.monotonic() < deadline:
        time.sleep(0.2)
    case.wrong += [f"outlived its command: {line}" for line in left]
    if not case.own_server:
        case.world.drain()


def descendants(pid: int, word: str) -> list[int]:
    """Return the living descendants of a process whose command line holds `word`."""
    parents: dict[int, int] = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                parents[int(entry.name)] = int(Path(entry.path, "stat").read_text().rpartition(")")[2].split()[1])
    found = []
    for one in parents:
        up = one
        while up in parents and up != pid:
            up = parents[up]
        with contextlib.suppress(OSError):
            line = Path(f"/proc/{one}/cmdline").read_bytes().decode(errors="replace").split("\0")
            if up == pid and one != pid and any(word in part for part in line) and "guard.py" not in "".join(line[:2]):
                found.append(one)
    return found
