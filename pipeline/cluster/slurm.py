"""The few commands of Slurm that Holdfast uses: sbatch, squeue, scancel. No other module starts them."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from typing import Final

from pipeline.errors import UserError

_TIMEOUT_S: Final = 60.0


def there() -> bool:
    """Say whether Slurm's clients are installed here."""
    return shutil.which("squeue") is not None


def sbatch(words: Sequence[str], environment: Mapping[str, str]) -> str:
    """Submit one job and return its id.

    Raises:
        UserError: Slurm is not there or refuses the job, in its own words.
    """
    return _run(["sbatch", "--parsable", *words], environment).split(";")[0].strip()


def queue(jobs: Sequence[str], comment: str) -> dict[str, str]:
    """Return the state of those jobs that are still in the queue; an element of an array is named JOB_INDEX.

    Args:
        jobs: ids that `sbatch` returned.
        comment: what they were submitted with: a job of another purpose may have an id that is used again.

    Raises:
        UserError: Slurm is not there or does not answer.
    """
    if not jobs:
        return {}
    # --array: each element in a row of its own, also while all wait. An id that Slurm has forgotten is an error
    # ("Invalid job id specified") where it is asked for alone, so all of the user's jobs are asked for.
    text = _run(["squeue", "--noheader", "--array", "--me", "--format=%i|%T|%k"])
    rows = (line.strip().split("|", 2) for line in text.splitlines() if line.strip())
    return {name: state for name, state, said in rows if name.split("_")[0] in jobs and said == comment}


def cancel(jobs: Sequence[str]) -> None:
    """Take jobs out of the queue.

    Raises:
        UserError: Slurm is not there or refuses.
    """
    if jobs:
        _run(["scancel", *jobs])


def _run(words: Sequence[str], environment: Mapping[str, str] | None = None) -> str:
    try:
        done = subprocess.run(
            list(words), capture_output=True, text=True, check=False, timeout=_TIMEOUT_S, env=environment
        )
    except FileNotFoundError:
        raise UserError(
            f"{words[0]} is not installed here", "run this where Slurm's clients are, or use cluster=local"
        ) from None
    except subprocess.TimeoutExpired:
        raise UserError(f"{words[0]} gave no answer within {_TIMEOUT_S:g} s", "try again when Slurm answers") from None
    if done.returncode != 0:
        raise UserError(
            f"{words[0]} ended with {done.returncode}: {done.stderr.strip() or done.stdout.strip()}",
            "see conf/cluster; what was submitted before is in the run folder's slurm/jobs.json",
        )
    return done.stdout
