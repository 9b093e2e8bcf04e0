"""`stages=[status]`: how each task of a run stands, from its own files and, where there is one, from Slurm's queue.

Works on any run folder, also one of a single machine, while others work in it: it only reads, and takes no lock.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from pipeline.budget import JOB
from pipeline.cluster import slurm
from pipeline.cluster.queued import PENDING, Queued, log_file, log_of
from pipeline.errors import UserError
from pipeline.files import read_json
from pipeline.journal import Journal, SharedJournal
from pipeline.ledger import OPEN, attempt_key
from pipeline.plan.make import at_most
from pipeline.records import BASE_RUNG
from pipeline.rungs import recorded
from pipeline.schema import Config
from pipeline.store import RunFolder

KILLED: Final = "killed"  # it says that it runs, and Slurm has no such job: out of memory or time, a node's failure
COLUMNS = ("task", "state", "rung", "step", "tokens", "device-s", "of", "start", "node", "Slurm")


@dataclass(frozen=True)
class Line:
    """One task as it stands; `used` and `limit` in device-seconds, NaN where there is no cap.

    `detail` is the kind of error of a task that failed, `slurm` Slurm's state of it.
    """

    task: str
    state: str
    rungs: int
    planned: int
    step: int
    tokens: int
    used: float
    limit: float
    start: int
    node: str
    detail: str = ""
    slurm: str = ""

    def cells(self) -> tuple[str, ...]:
        """Return the line as the table shows it."""
        limit = "no cap" if math.isnan(self.limit) else f"{self.limit:,.0f}"
        place = f"{self.rungs}/{self.planned}"
        dose = (str(self.step), f"{self.tokens:,}", f"{self.used:,.1f}", limit)
        state = f"{self.state} ({self.detail})" if self.detail else self.state
        return (self.task, state, place, *dose, str(self.start or "-"), self.node or "-", self.slurm or "-")


def show_status(config: Config, console: Console) -> None:
    """Print the table of the run in `run.dir`.

    Raises:
        UserError: there is no run, or a file of it is damaged.
    """
    folder = RunFolder.of_run(config.run.dir, "run.dir")
    plan, rows = read_json(folder.plan), list(SharedJournal(folder.ledger, folder.root).rows())
    try:
        queued, silent = in_queue(folder), None
    except UserError as error:  # the files tell the rest all the same
        queued, silent = None, error.what.splitlines()[0]
    table, found = Table(*COLUMNS, box=None, pad_edge=False), lines(folder, plan, rows, queued)
    for line in found:
        table.add_row(*line.cells())
    console.print(table)
    logs = [f"{line.task} {line.state}: see {path}" for line in found if (path := _log(folder, line))]
    told = [*logs, *whole(folder, plan, rows), *(other_jobs(folder, queued) if queued else [])]
    for text in [*told, *([f"Slurm was not asked: {silent}"] if silent else [])]:
        console.print(text, highlight=False, markup=False, soft_wrap=True)


def lines(
    folder: RunFolder,
    plan: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    queued: Queued | None,
) -> list[Line]:
    """Return one line for each planned task, in the plan's order.

    Args:
        folder: the run folder, read for rungs and the tasks' own status.
        plan: `plan.json`.
        rows: of all ledgers.
        queued: what Slurm's queue holds of the run; None where it was not asked.
    """
    waiting = {job.task: job for job in queued.training} if queued else {}
    rungs: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
    for rung in recorded(folder).values():  # without those that were lost, whose ladder is climbed again
        rungs.setdefault((rung["arm"], rung["seed"]), []).append(rung)
    found = []
    for task in plan["tasks"]:
        arm, seed = task["arm"], task["seed"]
        name = f"{arm}/{seed}"
        mine = {
            (row["stage"], row["attempt"]): row
            for row in rows
            if (row["arm"], row["seed"]) == (arm, seed) and row["stage"] in ("train", JOB)
        }
        last = max(rungs.get((arm, seed), []), key=lambda rung: int(rung["step"]), default=None)
        said, job = _said(folder, name), waiting.get(name)
        state = said.get("state") or _state(list(mine.values()))
        if said.get("state") == "running" and queued and (job is None or job.state == PENDING):
            state = KILLED
        limit = task["caps"]["device_seconds"]
        found.append(
            Line(
                task=name,
                state=state,
                rungs=len(rungs.get((arm, seed), [])),
                planned=len(task["rungs"]),
                step=last["step"] if last else 0,
                tokens=last["dose"]["tokens"] if last else 0,
                used=sum(row["device_seconds"] for row in mine.values()),
                limit=math.nan if limit is None else limit,
                start=said.get("start", 0),
                node=said.get("node") or "",
                detail=said.get("detail", "") if state == "failed" else "",
                slurm=job.shown if job else "",
            )
        )
    return found


def whole(folder: RunFolder, plan: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what is to be said of the run as a whole: replies, the budget, the verdict."""
    last = {attempt_key(row): row for row in rows}
    spent = sum(row["device_seconds"] for row in last.values())
    cap = plan["config"]["budget"]["device_seconds"]
    replies = sum(Journal(path).count() for path in folder.replies.glob("*.jsonl"))
    fixed = "there" if any(rung["id"] == BASE_RUNG for rung in folder.rungs.rows()) else "not yet"
    verdict = read_json(folder.verdict)["verdict"] if folder.verdict.exists() else "none yet"
    return [
        f"rung 0 and control: {fixed}; replies: {replies:,} of {at_most(plan)}{plan['estimate']['replies']:,}",
        f"budget: {spent:,.1f} device-seconds spent" + ("" if cap is None else f" of {cap:,.0f}"),
        f"verdict: {verdict}",
    ]


def other_jobs(folder: RunFolder, queued: Queued) -> list[str]:
    """Return a line for each job of the run that serves or reports; of one that left the queue, where it says why.

    What was submitted before the verdict was written has done its work.
    """
    said = [f"job {job.kind} {job.name}: {job.shown}" for job in queued.single]
    there = {job.submitted for job in queued.single}
    last = queued.rows[-1] if queued.rows else {"jobs": {}}
    written = folder.verdict.stat().st_mtime if folder.verdict.exists() else -math.inf
    if last["jobs"] and datetime.fromisoformat(last["at"]).timestamp() <= written:
        return said
    for kind, job in last["jobs"].items():
        if kind != "train" and job not in there:
            log = log_file(folder, kind, slurm.number(job)).relative_to(folder.root)
            said.append(f"job {kind} {job}: not in the queue any more, see {log}")
    return said


def in_queue(folder: RunFolder) -> Queued | None:
    """Return what Slurm's queue holds of a run; None where nothing was submitted, or no Slurm is here.

    Raises:
        UserError: Slurm does not answer, or what was submitted is another's to read.
    """
    try:
        return Queued.read(folder) if folder.jobs.exists() and slurm.there() else None
    except PermissionError:
        raise UserError(f"{folder.jobs.parent} is its owner's alone", "ask who submitted the run") from None


def _log(folder: RunFolder, line: Line) -> str | None:
    """Return where a task says why it ended badly, below the run folder."""
    with suppress(PermissionError):  # another's run: its logs are its owner's alone
        lost = line.state == "not begun" and not line.slurm  # its job may have ended before it could say so
        path = log_of(folder, line.task) if lost or line.state in ("failed", KILLED) else None
        return str(path.relative_to(folder.root)) if path else None
    return None


def _state(mine: Sequence[Mapping[str, Any]]) -> str:
    """Return how a task stands that runs without a status file of its own, by its ledger."""
    attempts = [row for row in mine if row["stage"] == "train"]
    if not attempts:
        return "not begun"
    last = attempts[-1]
    return "running or killed" if last["status"] in OPEN else str(last["status"])


def _said(folder: RunFolder, task: str) -> dict[str, Any]:
    from pipeline.cluster.task import status_of

    return status_of(folder.root, task)
