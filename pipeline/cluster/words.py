"""What sbatch is given for a job: its options, and the command that does the job's part of the review."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pipeline.cluster.hub import all_is_here
from pipeline.cluster.queued import log_file
from pipeline.config.compose import shipped
from pipeline.files import digest
from pipeline.multirun import itself
from pipeline.reproduce.overrides import given
from pipeline.schema.cluster import ClusterConfig, JobConfig, SlurmConfig
from pipeline.workspace import Workspace

OFFLINE: Final = "HF_HUB_OFFLINE"
BETWEEN: Final = "\x1e"  # the lines of `setup` in their variable: a line may hold line feeds of its own
_CLUSTER: Final = re.compile(r"[+~]*cluster(?=[.=@]|$)")


@dataclass(frozen=True)
class Asked:
    """One job as it is handed to sbatch, without what it waits for."""

    kind: str  # train, serve or report
    options: Sequence[str]
    command: Sequence[str]  # the script of slurm/ and what it runs
    environment: dict[str, str]  # what the script reads, on top of the caller's

    @property
    def sha256(self) -> str:
        """Tells this job from one that was asked for otherwise."""
        return digest([list(self.options), list(self.command), self.environment])


def asked(work: Workspace, kind: str, job: JobConfig, stages: Sequence[str], tasks: Sequence[str] = ()) -> Asked:
    """Return one job of `slurm/<kind>.sbatch`, which gives this very command again with its part of the work.

    Args:
        work: the review.
        kind: train, serve or report.
        job: what it asks of Slurm.
        stages: its part of the work.
        tasks: the elements of the array, ARM/SEED each, where it is one.
    """
    config, root = work.config.cluster.slurm, work.folder.root
    part = (f"run.dir={root}", f"stages=[{','.join(stages)}]", f"cluster.job={kind}")
    told = [*words_for_jobs(work.config.cluster), *part]
    own = [
        f"--output={log_file(work.folder, kind, '%A_%a' if tasks else '%j')}",
        # After the site's own, so that they hold. The scripts read what is exported; by its comment a job is known.
        *job.extra,
        "--export=ALL",
        f"--comment={root.resolve()}",
    ]
    return Asked(
        kind,
        [*asked_for(config, job), *own],
        [str(shipped("slurm") / f"{kind}.sbatch"), *config.wrap, *(config.command or itself()), *told],
        {
            "HOLDFAST_SLURM": str(shipped("slurm")),
            "HOLDFAST_SETUP": BETWEEN.join(config.setup),
            "HOLDFAST_TASKS": " ".join(tasks),
            "HOLDFAST_REQUEUES": str(config.max_requeues),
            **({OFFLINE: os.environ.get(OFFLINE, "1")} if all_is_here(work.config) else {}),
        },
    )


def asked_for(config: SlurmConfig, job: JobConfig) -> list[str]:
    """Return the options of sbatch for one job."""
    wanted = {
        "partition": job.partition or config.partition,
        "account": config.account,
        "qos": config.qos,
        "gpus-per-node": job.gpus or None,
        "cpus-per-task": job.cpus,
        "mem": job.memory,
        "time": job.time,
        "signal": f"B:USR1@{config.signal_s}",
    }
    fixed = ["--nodes=1", "--ntasks=1", "--requeue", "--open-mode=append", "--kill-on-invalid-dep=yes"]
    return [*fixed, *(f"--{key}={value}" for key, value in wanted.items() if value is not None)]


def words_for_jobs(config: ClusterConfig) -> list[str]:
    """Return the words of this command for its jobs: of `cluster` what a job reads.

    So a job composes without the site's file in conf/cluster/, which a container's Holdfast does not have.
    """
    kept = [word for word in given() if not _CLUSTER.match(word)]
    threads = "null" if config.threads is None else config.threads
    read = ("kind=slurm", f"threads={threads}", f"slurm.signal_s={config.slurm.signal_s}")
    return [*kept, *(f"cluster.{word}" for word in read)]
