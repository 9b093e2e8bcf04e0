"""What was submitted of a run (`slurm/jobs.json`), and what of it Slurm's queue holds.

A submission is a row: `jobs` by kind, as `slurm.sbatch` names them; `tasks`, the elements of its array in their order;
`after`, the arrays that its other jobs wait for; `asked`, a digest of what each of them was asked to be.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pipeline.cluster import slurm
from pipeline.files import read_json
from pipeline.store import RunFolder

PENDING: Final = "PENDING"
ENDING: Final = "COMPLETING"  # cancelled, preempted or done, and not gone yet


@dataclass(frozen=True)
class Job:
    """A job of the run in Slurm's queue; of an array, one element."""

    name: str  # for scancel and squeue: JOB, or JOB_INDEX
    submitted: str  # as its submission records it: JOB or JOB;CLUSTER
    kind: str  # train, serve or report
    task: str  # ARM/SEED of an array's element, else ""
    state: str
    reason: str = ""

    @property
    def shown(self) -> str:
        """Slurm's state; of what waits with the reason, e.g. "PENDING (Priority)"."""
        return f"{self.state} ({self.reason})" if self.state == PENDING else self.state


@dataclass(frozen=True)
class Queued:
    """A run's submissions, oldest first, and its jobs in the queue.

    `strangers` are jobs that say they are of this run, by their comment, and that no submission records.
    """

    rows: Sequence[dict[str, Any]]
    jobs: Sequence[Job]
    strangers: Sequence[str] = ()

    @classmethod
    def read(cls, folder: RunFolder) -> Queued:
        """Read the record of a run and ask Slurm.

        Raises:
            UserError: Slurm does not answer, or the record is damaged.
        """
        rows = submissions(folder)
        kinds = {job: (row, kind) for row in rows for kind, job in row["jobs"].items()}
        numbers, here = set(map(slurm.number, kinds)), folder.root.resolve()
        found, strangers = [], []
        for cluster in sorted({"", *map(slurm.cluster, kinds)}):
            by_number = {slurm.number(job): job for job in kinds if slurm.cluster(job) == cluster}
            for row in slurm.queue(cluster):
                said = _run_of(row.comment)
                number, _, place = row.name.partition("_")
                job = by_number.get(number)
                # The comment is a site's to rewrite, so the number decides; not where Slurm began to count anew, and
                # gave it to another run's job.
                if job and said in (None, here):
                    found.append(_job(row, job, *kinds[job], place))
                elif said == here and number not in numbers:  # a federation shows every cluster's jobs on each
                    strangers.append(row.name)
        return cls(rows, found, strangers)

    @property
    def training(self) -> list[Job]:
        """The elements of its arrays."""
        return [job for job in self.jobs if job.task]

    @property
    def single(self) -> list[Job]:
        """Its other jobs."""
        return [job for job in self.jobs if not job.task]


def submissions(folder: RunFolder) -> list[dict[str, Any]]:
    """Return the record of what was submitted, oldest first; none where nothing was."""
    return list(read_json(folder.jobs, list)) if folder.jobs.exists() else []


def log_file(folder: RunFolder, kind: str, job: str) -> Path:
    """Return where a job writes what it says; of an array's element `job` is JOB_INDEX, for sbatch a pattern."""
    return folder.jobs.parent / f"{kind}-{job}.log"


def log_of(folder: RunFolder, task: str) -> Path | None:
    """Return what the last job of a task (ARM/SEED) that began wrote, None where none did."""
    for row in reversed(submissions(folder)):
        if task in row["tasks"] and "train" in row["jobs"]:
            element = f"{slurm.number(row['jobs']['train'])}_{row['tasks'].index(task)}"
            if (path := log_file(folder, "train", element)).exists():
                return path
    return None


def _job(row: slurm.Row, job: str, submission: Mapping[str, Any], kind: str, place: str) -> Job:
    task = submission["tasks"][int(place)] if kind == "train" else ""
    return Job(row.name, job, kind, task, row.state, row.reason)


def _run_of(comment: str) -> Path | None:
    """Return the run folder that a job's comment names, None where it names none."""
    return Path(comment.strip()).resolve() if comment.startswith("/") else None
