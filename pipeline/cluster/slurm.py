"""The few commands of Slurm that Holdfast uses: sbatch, squeue, scancel. No other module starts them.

A job is named as `sbatch --parsable` names it: its number, and `;CLUSTER` where it went to a cluster that has a name
(a federation, SLURM_CLUSTERS). That cluster is then the one that is asked for it.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pipeline.errors import UserError

PROGRAMS: Final = ("sbatch", "squeue", "scancel")
MEND: Final = (
    "mend cluster.slurm (see conf/cluster) and give the same command again: what Slurm took before is on record in the "
    "run folder's slurm/jobs.json and is not submitted twice"
)
_TIMEOUT_S: Final = 60.0
_JOB: Final = re.compile(r"\d+(;\S+)?")
_GONE: Final = "Invalid job id"  # of a job that has ended


@dataclass(frozen=True)
class Row:
    """A row of the queue: `name` is JOB, or JOB_INDEX of an array's element; `reason` is why it waits."""

    name: str
    state: str
    reason: str
    comment: str


def there() -> bool:
    """Say whether Slurm's clients are installed here."""
    return shutil.which("squeue") is not None


def require() -> None:
    """Refuse where Slurm's clients are not installed.

    Raises:
        UserError: one of them is not.
    """
    for program in PROGRAMS:
        if shutil.which(program) is None:
            raise _absent(program)


def number(job: str) -> str:
    """Return a job's number, without its cluster."""
    return job.partition(";")[0]


def cluster(job: str) -> str:
    """Return the name of the cluster that a job went to, "" where it is the one that answers here."""
    return job.partition(";")[2]


def sbatch(words: Sequence[str], environment: Mapping[str, str]) -> str:
    """Submit one job and return its name, NUMBER or NUMBER;CLUSTER.

    Raises:
        UserError: Slurm is not there or refuses the job, in its own words; or what it says names no job.
    """
    said = _run(["sbatch", "--parsable", *words], environment).strip()
    last = said.splitlines()[-1].strip() if said else ""  # a site's own sbatch may greet first
    if not _JOB.fullmatch(last):
        raise UserError(
            f"sbatch does not end with the number of a job, but says: {said!r}",
            "see with squeue whether it took the job, and end it with scancel; a site's own sbatch must hand on what "
            "`sbatch --parsable` says, as its last line",
        )
    return last


def queue(cluster: str = "") -> list[Row]:
    """Return this user's jobs in the queue of a cluster ("": of the one that answers), arrays by their elements.

    Raises:
        UserError: Slurm is not there or does not answer.
    """
    # --array: each element in a row of its own, also while all wait. An id that Slurm has forgotten is an error
    # ("Invalid job id specified") where it is asked for alone, so all of the user's jobs are asked for.
    text = _run(["squeue", "--noheader", *_where(cluster), "--array", "--me", "--format=%i|%T|%r|%k"])
    rows = (line.strip().split("|", 3) for line in text.splitlines())
    return [Row(*row) for row in rows if len(row) == 4]  # not the heading "CLUSTER: NAME"


def cancel_waiting(jobs: Sequence[str]) -> None:
    """Take jobs out of the queue that have not started; what has started or ended meanwhile is left alone.

    Raises:
        UserError: Slurm is not there or refuses.
    """
    for name in dict.fromkeys(map(cluster, jobs)):
        numbers = [number(job) for job in jobs if cluster(job) == name]
        _run(["scancel", "--state=PENDING", *_where(name), *numbers], passes=_GONE)


def _where(cluster: str) -> list[str]:
    return [f"--clusters={cluster}"] if cluster else []


def _run(words: Sequence[str], environment: Mapping[str, str] | None = None, passes: str | None = None) -> str:
    """Run a command and return what it prints; a failure that says `passes` is none."""
    try:
        done = subprocess.run(
            list(words), capture_output=True, text=True, check=False, timeout=_TIMEOUT_S, env=environment
        )
    except FileNotFoundError:
        raise _absent(words[0]) from None
    except subprocess.TimeoutExpired:
        raise UserError(f"{words[0]} gave no answer within {_TIMEOUT_S:g} s", "try again when Slurm answers") from None
    if done.returncode != 0 and not (passes and passes in done.stderr):
        raise UserError(
            f"{words[0]} ended with {done.returncode}: {done.stderr.strip() or done.stdout.strip()}",
            MEND if words[0] == "sbatch" else "try again when Slurm answers",
        )
    return done.stdout


def _absent(program: str) -> UserError:
    return UserError(f"{program} is not installed here", "run this where Slurm's clients are, or use cluster=local")
