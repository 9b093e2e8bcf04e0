"""`stages=[status]`: how each task of a run stands, from its own files and, where there is one, from Slurm's queue.

Works on any run folder, also one of a single machine, while others work in it: it only reads, and takes no lock.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from pipeline.budget import JOB, OPEN, attempt_key
from pipeline.errors import UserError
from pipeline.plan.make import at_most
from pipeline.records import BASE_RUNG
from pipeline.rungs import recorded
from pipeline.schema import Config
from pipeline.store import Journal, RunFolder, SharedJournal, read_json

COLUMNS = ("task", "state", "rung", "step", "tokens", "device-s", "of", "start", "node", "Slurm")


@dataclass(frozen=True)
class Line:
    """One task as it stands; `used` and `limit` in device-seconds, NaN where there is no cap."""

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
    slurm: str = ""

    def cells(self) -> tuple[str, ...]:
        """Return the line as the table shows it."""
        limit = "no cap" if math.isnan(self.limit) else f"{self.limit:,.0f}"
        place = f"{self.rungs}/{self.planned}"
        dose = (str(self.step), f"{self.tokens:,}", f"{self.used:,.1f}", limit)
        return (self.task, self.state, place, *dose, str(self.start or "-"), self.node or "-", self.slurm or "-")


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
        queued, silent = {}, error.what.splitlines()[0]
    table = Table(*COLUMNS, box=None, pad_edge=False)
    for line in lines(folder, plan, rows, queued):
        table.add_row(*line.cells())
    console.print(table)
    for text in [*whole(folder, plan, rows, queued), *([f"Slurm was not asked: {silent}"] if silent else [])]:
        console.print(text, highlight=False, markup=False)


def lines(
    folder: RunFolder,
    plan: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    queued: Mapping[str, str],
) -> list[Line]:
    """Return one line for each planned task, in the plan's order.

    Args:
        folder: the run folder, read for rungs and the tasks' own status.
        plan: `plan.json`.
        rows: of all ledgers.
        queued: ARM/SEED to Slurm's state, of the tasks that are in its queue.
    """
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
        said = _said(folder, name)
        limit = task["caps"]["device_seconds"]
        found.append(
            Line(
                task=name,
                state=said.get("state") or _state(list(mine.values())),
                rungs=len(rungs.get((arm, seed), [])),
                planned=len(task["rungs"]),
                step=last["step"] if last else 0,
                tokens=last["dose"]["tokens"] if last else 0,
                used=sum(row["device_seconds"] for row in mine.values()),
                limit=math.nan if limit is None else limit,
                start=said.get("start", 0),
                node=said.get("node") or "",
                slurm=queued.get(name, ""),
            )
        )
    return found


def whole(
    folder: RunFolder, plan: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], queued: Mapping[str, str]
) -> list[str]:
    """Return what is to be said of the run as a whole: replies, the other jobs, the budget, the verdict."""
    last = {attempt_key(row): row for row in rows}
    spent = sum(row["device_seconds"] for row in last.values())
    cap = plan["config"]["budget"]["device_seconds"]
    replies = sum(1 for path in sorted(folder.replies.glob("*.jsonl")) for _ in Journal(path).rows())
    fixed = "there" if any(rung["id"] == BASE_RUNG for rung in folder.rungs.rows()) else "not yet"
    said = [
        f"rung 0 and control: {fixed}; replies: {replies:,} of {at_most(plan)}{plan['estimate']['replies']:,}",
        f"budget: {spent:,.1f} device-seconds spent" + ("" if cap is None else f" of {cap:,.0f}"),
    ]
    said += [f"job {kind}: {state}" for kind, state in queued.items() if "/" not in kind]
    verdict = read_json(folder.verdict)["verdict"] if folder.verdict.exists() else "none yet"
    return [*said, f"verdict: {verdict}"]


def in_queue(folder: RunFolder) -> dict[str, str]:
    """Return Slurm's state of each task (ARM/SEED) and job (serve, report) in its queue; {} without Slurm or jobs."""
    from pipeline.cluster import slurm

    if not folder.jobs.exists() or not slurm.there():
        return {}
    found = {}
    for row in read_json(folder.jobs):
        names = {job: kind for kind, job in row["jobs"].items()}
        for job, state in slurm.queue(list(names), str(folder.root)).items():
            array, _, place = job.partition("_")
            found[row["tasks"][int(place)] if place else names[array]] = state
    return found


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
