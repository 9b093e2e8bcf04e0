"""`holdfast cluster=slurm ...`: the review as jobs, joined by dependencies; then what to do to follow them.

One array over arms and seeds trains; one job serves, generates and scores; one analyses and reports. The measuring job
starts `afterany` of the array, not `afterok`: how a task stands is for its own status file to say, since Slurm calls a
job COMPLETED whose work failed and FAILED one whose work is done; and a refusal that names the tasks that are missing
is worth more than a job that vanishes. The report starts `afterok` of the measuring, which ends with 0 only when
there is something to report; with `--kill-on-invalid-dep` it leaves the queue where that can never be.

The same command again submits what is left: tasks neither done nor in the queue. Jobs that wait from before make room
for new ones, unless they are what would be submitted.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any, Final

from pipeline.cluster import lease, slurm
from pipeline.cluster.hub import fetch_judges
from pipeline.cluster.queued import ENDING, PENDING, Job, Queued
from pipeline.cluster.task import name, status_of
from pipeline.cluster.words import Asked, asked
from pipeline.errors import UserError
from pipeline.files import write_json
from pipeline.plan.kept import keep_plan
from pipeline.plan.make import tasks, training_caps
from pipeline.records import now
from pipeline.store import RunFolder, task_folder
from pipeline.workspace import Workspace

LATER: Final = ("score", "analyse", "report", "export")  # stages that need no accelerator


def submit(work: Workspace) -> None:
    """Submit what is left of the chosen stages of a review.

    Raises:
        UserError: Slurm is not there or refuses, the run is being worked on, its plan is another, or weights of a
            judge can't be had.
    """
    slurm.require()  # before weights are hashed and anything is written
    for arm, config in work.config.arms.items():
        if config.sweep is not None:
            raise UserError(f"arms.{arm}.sweep: a search runs on one machine", "use cluster=local, or no sweep")
    work.submits = True  # a login node need not have what the jobs work on
    folder = work.folder
    if not folder.plan.exists():
        with folder.locked():
            keep_plan(work)
    else:
        keep_plan(work)
    fetch_judges(work.config)
    with folder.submitting():
        _submit_left(work)


def _submit_left(work: Workspace) -> None:
    """Read the queue and submit what neither it nor the run folder has; nobody else may do so meanwhile."""
    folder, before = work.folder, Queued.read(work.folder)
    _refuse_busy(folder, before)
    queued = {job.task for job in before.training}
    planned = [task for task in tasks(work.config) if "train" in work.config.stages]
    todo = [task for task in planned if not _is_done(folder, name(task)) and name(task) not in queued]
    wanted = _wanted(work, [name(task) for task in todo])
    if not wanted or _wait_already(before, wanted):
        return _tell(work, {}, [], before.single)
    for task in todo:
        own = RunFolder(folder.root, task_folder(name(task))).own
        lease.cut(own, name(task), training_caps(work.config, task))
    made = _submit_all(work, before, wanted, [name(task) for task in todo])
    slurm.cancel_waiting([job.submitted for job in before.single])  # they would start before what is new has ended
    _tell(work, made["jobs"], made["tasks"], before.single)


def _refuse_busy(folder: RunFolder, before: Queued) -> None:
    """Refuse while the queue holds jobs that the new ones would meet, or that nobody knows what they do.

    Raises:
        UserError: it does; the jobs are named.
    """
    if before.strangers:
        raise UserError(
            f"{folder.root}: job {', '.join(before.strangers)} in Slurm's queue says that it is of this review, and "
            f"{folder.jobs} does not have it",
            "wait for it, or end it with scancel; nothing was submitted",
        )
    if ending := [job.name for job in before.jobs if job.state == ENDING and not _is_done(folder, job.task)]:
        raise UserError(
            f"{folder.root}: job {', '.join(ending)} is still ending",
            "try again in a minute; where it stays COMPLETING, its node cannot end it: ask who runs the cluster. "
            "Nothing was submitted",
        )
    if working := [job.name for job in before.single if job.state != PENDING]:
        raise UserError(
            f"{folder.root}: job {', '.join(working)} of this review is at work",
            "wait for it, or end it with scancel; nothing was submitted",
        )


def _is_done(folder: RunFolder, task: str) -> bool:
    return bool(task) and status_of(folder.root, task).get("state") == "done"


def _wanted(work: Workspace, todo: Sequence[str]) -> list[Asked]:
    """Return array, measuring and report, each where it is asked for."""
    config, stages = work.config.cluster.slurm, work.config.stages
    found = [asked(work, "train", config.train, ["train"], todo)] if todo else []
    serves = "generate" in stages
    if serves:
        found.append(asked(work, "serve", config.serve, [s for s in ("train", "generate", "score") if s in stages]))
    if rest := [stage for stage in LATER if stage in stages and not (stage == "score" and serves)]:
        found.append(asked(work, "report", config.report, rest))
    return found


def _wait_already(before: Queued, wanted: Sequence[Asked]) -> bool:
    """Say whether the jobs that wait are those that are wanted, asked for alike, after every array in the queue."""
    waiting = {job.kind: job.submitted for job in before.single}
    if len(waiting) != len(before.single) or not waiting or waiting.keys() != {job.kind for job in wanted}:
        return False
    row = next(row for row in reversed(before.rows) if set(waiting.values()) & set(row["jobs"].values()))
    alike = all(
        row["jobs"].get(job.kind) == waiting[job.kind] and row.get("asked", {}).get(job.kind) == job.sha256
        for job in wanted
    )
    return alike and {job.submitted for job in before.training} <= set(row.get("after", ()))


def _submit_all(work: Workspace, before: Queued, wanted: Sequence[Asked], todo: Sequence[str]) -> dict[str, Any]:
    """Submit the wanted jobs one after the other, each on record before the next; return the record."""
    folder, at_once = work.folder, work.config.cluster.slurm.at_once
    jobs: dict[str, str] = {}
    digests: dict[str, str] = {}
    after = sorted({job.submitted for job in before.training})  # and the new array, as soon as there is one
    made = {"at": now(), "jobs": jobs, "tasks": list(todo), "after": after, "asked": digests}
    for job in wanted:
        options = [f"--array=0-{len(todo) - 1}{f'%{at_once}' if at_once else ''}"] if job.kind == "train" else []
        if job.kind == "report" and "serve" in jobs:
            options.append(f"--dependency=afterok:{slurm.number(jobs['serve'])}")
        elif job.kind != "train" and after:
            options.append(f"--dependency=afterany:{':'.join(map(slurm.number, after))}")
        words = [*job.options, *options, *job.command]
        jobs[job.kind] = slurm.sbatch(words, {**os.environ, **job.environment})
        digests[job.kind] = job.sha256
        if job.kind == "train":
            after.append(jobs["train"])
        write_json(folder.jobs, [*before.rows, made])  # Slurm may refuse the next, and a kill may come
    return made


def _tell(work: Workspace, jobs: dict[str, str], todo: Sequence[str], waited: Sequence[Job]) -> None:
    root = work.folder.root
    least = min((training_caps(work.config, task).device_seconds for task in tasks(work.config)), default=math.inf)
    lease_s = "" if math.isinf(least) else f"; a lease of {least:,.0f} device-seconds pays for a task's start, too"
    what = {
        "train": f"{len(todo)} tasks: {', '.join(todo)}{lease_s}",
        "serve": "serve, generate, score",
        "report": ", ".join(stage for stage in LATER if stage in work.config.stages),
    }
    lines = [f"job {job}  {kind:<6}  {what[kind]}" for kind, job in jobs.items()]
    names = ", ".join(job.name for job in waited)
    if jobs and waited:
        lines.append(f"Cancelled, since it would have started too early: job {names}")
    elif not jobs:
        lines.append(f"Nothing is left to submit{f'; in the queue: job {names}' if waited else ''}.")
    lines.append(f"Follow them: holdfast stages=[status] run.dir={root}")
    lines.append(f"Their logs: {root / 'slurm'}. The same command again submits what is left.")
    work.console.print("\n".join(lines), highlight=False, markup=False, soft_wrap=True)
