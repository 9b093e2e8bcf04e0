"""The types of `cluster`: where the work runs, and how a cluster's jobs are asked for."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class JobConfig:
    """What one kind of job asks of Slurm; null leaves the choice to the site."""

    partition: str | None = None  # instead of `slurm.partition`
    gpus: int = 0  # of one node; 0 also where `extra` names them
    cpus: int = 1
    memory: str | None = None  # e.g. 64G
    time: str | None = None  # the longest that one start may take, e.g. 02:00:00
    extra: list[str] = field(default_factory=list)  # further options of sbatch, but for pipeline.config.cluster.OWN


@dataclass
class SlurmConfig:
    """How the jobs of a review are submitted; see slurm/ and pipeline/cluster."""

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    at_once: int | None = None  # tasks of the array that may run at the same time (--array=...%n); null: all
    signal_s: int = 60  # seconds before the time limit at which a job is told to save and make room; 65535 at most
    max_requeues: int = 20  # starts again after a preemption or a time limit; then the task is left
    setup: list[str] = field(default_factory=list)  # shell lines before the work; one that fails ends the job
    wrap: list[str] = field(default_factory=list)  # words before the command, e.g. [apptainer, exec, --nv, IMAGE]
    command: list[str] = field(default_factory=list)  # how a job starts Holdfast; []: as this command was started
    train: JobConfig = field(default_factory=JobConfig)
    serve: JobConfig = field(default_factory=JobConfig)
    report: JobConfig = field(default_factory=JobConfig)


@dataclass
class ClusterConfig:
    """Where the work runs. None of this can change a result, so none of it enters a digest."""

    kind: str = "local"  # local or slurm
    threads: int | None = None  # of torch in training; null: one under 50 M parameters on a CPU, else torch's choice
    slurm: SlurmConfig = field(default_factory=SlurmConfig)
    # What a job does, written by the scripts in slurm/, not by people:
    job: str | None = None  # train, serve or report; null: no job, but the command that submits them
    task: str | None = None  # job train: its arm and seed, ARM/SEED
