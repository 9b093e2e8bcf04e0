"""`holdfast cluster=slurm ...`: the review as jobs, joined by dependencies; then what to do to follow them.

One array over arms and seeds trains; one job serves, generates and scores; one analyses and reports. The measuring job
starts `afterany` of the array, not `afterok`: how a task stands is for its own status file to say, since Slurm calls a
job COMPLETED whose work failed and FAILED one whose work is done; and a refusal that names the tasks that are missing
is worth more than a job that vanishes. The report starts `afterok` of the measuring, which ends with 0 only when
there is something to report; with `--kill-on-invalid-dep` it leaves the queue where that can never be.

The same command again submits what is left: tasks neither done nor in the queue.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from pipeline.cluster import lease, slurm
from pipeline.cluster.task import name, status_of
from pipeline.config.compose import shipped
from pipeline.errors import UserError
from pipeline.plan.make import tasks, training_caps
from pipeline.records import now
from pipeline.reproduce.overrides import given
from pipeline.schema.cluster import JobConfig, SlurmConfig
from pipeline.store import RunFolder, read_json, task_folder, write_json
from pipeline.workspace import Workspace

LATER: Final = ("score", "analyse", "report", "export")  # stages that need no accelerator


def submit(work: Workspace) -> None:
    """Submit what is left of the chosen stages of a review.

    Raises:
        UserError: Slurm is not there or refuses, the run is being worked on, or its plan is another.
    """
    work.submits = True  # a login node need not have what the jobs work on
    folder = work.folder
    for arm, config in work.config.arms.items():
        if config.sweep is not None:
            raise UserError(f"arms.{arm}.sweep: a search runs on one machine", "use cluster=local, or no sweep")
    if not folder.plan.exists():
        with folder.locked():
            work.keep_plan()
    else:
        work.keep_plan()
    before = Before.read(folder)
    if before.measuring:
        raise UserError(
            f"{folder.root}: job {', '.join(before.measuring)} of this review is at work",
            "wait for it, or end it with scancel; nothing was submitted",
        )
    todo = _left(work, before.training) if "train" in work.config.stages else []
    for task in todo:
        own = RunFolder(folder.root, task_folder(name(task))).own
        lease.cut(own, name(task), training_caps(work.config, task))
    slurm.cancel(before.waiting)  # they would start before what is submitted now has ended
    folder.jobs.parent.mkdir(exist_ok=True)
    made: dict[str, Any] = {"at": now(), "jobs": {}, "tasks": [name(task) for task in todo]}
    try:
        _submit_all(work, made, sorted({job.split("_")[0] for job in before.training}))
    finally:  # Slurm may refuse a later one: what it took is in its queue, and the next command must know
        if made["jobs"]:
            write_json(folder.jobs, [*before.rows, made])
    _tell(work, made, before.waiting)


@dataclass(frozen=True)
class Before:
    """What earlier submissions left in the queue: `training` elements by their names, jobs that work or wait."""

    rows: Sequence[dict[str, Any]]
    training: dict[str, str]  # JOB_INDEX to ARM/SEED
    measuring: list[str]
    waiting: list[str]

    @classmethod
    def read(cls, folder: RunFolder) -> Before:
        """Read the record of a run and ask Slurm."""
        rows = read_json(folder.jobs) if folder.jobs.exists() else []
        found = slurm.queue([job for row in rows for job in row["jobs"].values()], str(folder.root))
        arrays = {row["jobs"].get("train"): row["tasks"] for row in rows}
        elements = [job.split("_") for job in found if "_" in job]
        training = {f"{array}_{place}": arrays[array][int(place)] for array, place in elements}
        single = {job: state for job, state in found.items() if "_" not in job}
        waiting = [job for job, state in single.items() if state == "PENDING"]
        return cls(rows, training, [job for job in single if job not in waiting], waiting)


def _left(work: Workspace, training: dict[str, str]) -> list[Any]:
    root, queued = work.folder.root, set(training.values())
    return [
        task
        for task in tasks(work.config)
        if status_of(root, name(task)).get("state") != "done" and name(task) not in queued
    ]


def _submit_all(work: Workspace, made: dict[str, Any], arrays: list[str]) -> None:
    """Submit array, measuring and report, each where it is asked for, and record each in `made`."""
    config, stages = work.config.cluster.slurm, work.config.stages
    todo, jobs = made["tasks"], made["jobs"]
    if todo:
        at_once = f"%{config.at_once}" if config.at_once else ""
        jobs["train"] = _job(work, "train", config.train, [f"--array=0-{len(todo) - 1}{at_once}"], ["train"], todo)
    after = [*arrays, *([jobs["train"]] if todo else [])]
    trained = [f"--dependency=afterany:{':'.join(after)}"] if after else []
    if "generate" in stages:
        asked = [stage for stage in ("train", "generate", "score") if stage in stages]
        jobs["serve"] = _job(work, "serve", config.serve, trained, asked)
    rest = [stage for stage in LATER if stage in stages and not (stage == "score" and "serve" in jobs)]
    if rest:
        depends = [f"--dependency=afterok:{jobs['serve']}"] if "serve" in jobs else trained
        jobs["report"] = _job(work, "report", config.report, depends, rest)


def _job(
    work: Workspace, kind: str, job: JobConfig, options: list[str], stages: Sequence[str], todo: Sequence[str] = ()
) -> str:
    """Submit one job of `slurm/<kind>.sbatch`, which runs this very command again with its part of the work."""
    config, root = work.config.cluster.slurm, work.folder.root
    told = [*given(), f"run.dir={root}", f"stages=[{','.join(stages)}]", f"cluster.job={kind}"]
    command = [*config.wrap, *(config.command or [sys.executable, "-m", "pipeline"]), *told]
    environment = {
        **os.environ,
        "HOLDFAST_SLURM": str(shipped("slurm")),
        "HOLDFAST_SETUP": "\n".join(config.setup),
        "HOLDFAST_TASKS": " ".join(todo),
        "HOLDFAST_REQUEUES": str(config.max_requeues),
    }
    log = root / "slurm" / f"{kind}-%{'A_%a' if todo else 'j'}.log"
    words = [
        *asked_for(config, job),
        f"--output={log}",
        f"--comment={root}",
        *options,
        *job.extra,
        str(shipped("slurm") / f"{kind}.sbatch"),
    ]
    return slurm.sbatch([*words, *command], environment)


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


def _tell(work: Workspace, made: dict[str, Any], cancelled: Sequence[str]) -> None:
    root, jobs = work.folder.root, made["jobs"]
    least = min((training_caps(work.config, task).device_seconds for task in tasks(work.config)), default=math.inf)
    lease_s = "" if math.isinf(least) else f"; a lease of {least:,.0f} device-seconds pays for a task's start, too"
    what = {
        "train": f"{len(made['tasks'])} tasks: {', '.join(made['tasks'])}{lease_s}",
        "serve": "serve, generate, score",
        "report": ", ".join(stage for stage in LATER if stage in work.config.stages),
    }
    if not jobs:
        work.console.print("Nothing is left to submit.")
    lines = [f"job {job}  {kind:<6}  {what[kind]}" for kind, job in jobs.items()]
    if cancelled:
        lines.append(f"Cancelled, since it would have started too early: job {', '.join(cancelled)}")
    lines.append(f"Follow them: holdfast stages=[status] run.dir={root}")
    lines.append(f"Their logs: {root / 'slurm'}. The same command again submits what is left.")
    work.console.print("\n".join(lines), highlight=False, markup=False, soft_wrap=True)
