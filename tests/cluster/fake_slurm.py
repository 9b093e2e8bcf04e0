"""sbatch, squeue and scancel on the PATH, where a real queue would have to be held in a state; see test_slurm_real."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

SBATCH = """#!/bin/bash
cd {folder}
given=$(printf '%s\\n' "$@")
if [ -s refused ] && grep --quiet --line-regexp --fixed-strings --file=refused <<<"$given"; then
    echo "sbatch: error: invalid account" >&2
    exit 1
fi
number=$(($(find . -name 'words.*' | wc -l) + 1))
for word in "$@"; do # what stands on record by now
    case "$word" in --output=*) cp "$(dirname "${{word#--output=}}")/jobs.json" "record.$number" 2>/dev/null ;; esac
done
printf '%s\\0' "$@" >"words.$number"
env --null >"environment.$number"
printf '%s %s\\n' sbatch "$number" >>calls
cat greeting
echo "${{number}}0$(cat cluster)"
"""
SQUEUE = """#!/bin/bash
cd {folder}
echo squeue "$@" >>calls
cat queue
"""
SCANCEL = """#!/bin/bash
cd {folder}
echo scancel "$@" >>calls
cat gone >&2
[ ! -s gone ]
"""


class FakeSlurm:
    """What was handed to it, and what it answers; the jobs are numbered 10, 20, ... in the order of their coming."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        folder.mkdir()
        for name, text in (("sbatch", SBATCH), ("squeue", SQUEUE), ("scancel", SCANCEL)):
            (folder / name).write_text(text.format(folder=folder))
            (folder / name).chmod(0o755)
        for name in ("refused", "greeting", "cluster", "queue", "gone", "calls"):
            (folder / name).touch()
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def says(self, name: str, text: str) -> None:
        """Set what it answers: `greeting` and `cluster` of sbatch, `refused` (a word), `gone` of scancel."""
        (self.folder / name).write_text(text)

    def holds(self, root: Path | None, states: Mapping[str, str], reason: str = "None") -> None:
        """Set the queue: JOB or JOB_INDEX to its state, all with a run folder as comment, or none."""
        rows = [f"{name}|{state}|{reason}|{root or '(null)'}\n" for name, state in states.items()]
        self.says("queue", "".join(rows))

    @property
    def calls(self) -> list[str]:
        """What was called, in order: "sbatch 1", "scancel WORDS", ..."""
        return (self.folder / "calls").read_text().splitlines()

    @property
    def cancelled(self) -> list[str]:
        """The words of every scancel."""
        return [call.removeprefix("scancel ") for call in self.calls if call.startswith("scancel")]

    @property
    def submitted(self) -> list[list[str]]:
        """The words of every sbatch."""
        count = len(list(self.folder.glob("words.*")))
        return [(self.folder / f"words.{n}").read_text().split("\0")[:-1] for n in range(1, count + 1)]

    def environment(self, place: int) -> dict[str, str]:
        """Return the environment of one sbatch, from 0."""
        pairs = (self.folder / f"environment.{place + 1}").read_text().split("\0")[:-1]
        return dict(pair.split("=", 1) for pair in pairs)

    def tasks(self) -> list[str]:
        """Return the tasks of every sbatch, joined by spaces."""
        return [self.environment(place)["HOLDFAST_TASKS"] for place in range(len(self.submitted))]

    def recorded(self, place: int) -> Any:
        """Return the run's jobs.json as it stood when one sbatch was called, None where it was not there."""
        path = self.folder / f"record.{place + 1}"
        return json.loads(path.read_text()) if path.exists() else None

    def option(self, place: int, name: str) -> str | None:
        """Return the last value of an option of one sbatch."""
        found = [word.partition("=")[2] for word in self.submitted[place] if word.startswith(f"--{name}=")]
        return found[-1] if found else None
