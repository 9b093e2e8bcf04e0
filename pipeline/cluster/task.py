"""One task of an array: one arm and seed climbs its ladder on its own node, and says itself how it stands.

Below `tasks/<arm>-s<seed>/` lie its ledger, rungs and canaries (readers merge them), its lease, `parked.json` where a
pause left a checkpoint between two rungs, and `status.json`: the task's own word, which the next stage trusts, not
Slurm's. A task that is told to make room (SIGUSR1, SIGTERM) saves after the present step and ends with code `PAUSED`.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Literal

from pipeline.arms.base import Pause, Task
from pipeline.cluster import lease
from pipeline.cluster.held import held, job_id
from pipeline.errors import UserError
from pipeline.plan.make import tasks, training_caps
from pipeline.records import Rung, now
from pipeline.rungs import row, rung_of
from pipeline.store import TASKS, read_json, task_folder, write_json
from pipeline.workspace import Workspace

PAUSED: Final = 75  # the exit code of a task that goes on later (EX_TEMPFAIL)
STATUS: Final = "status.json"
PARKED: Final = "parked.json"
State = Literal["running", "done", "preempted", "failed"]


def run_task(work: Workspace) -> str:
    """Train the arm and seed that `cluster.task` names, and return why it ended, or "paused"; the plan stands already.

    Raises:
        UserError: there is no plan, another process trains the same task, or what `train` raises.
    """
    from pipeline.contain import ready, seal
    from pipeline.track.tracker import tracker
    from pipeline.train.stage import train_one

    asked = _on_signal()
    task = next(task for task in tasks(work.config) if name(task) == work.config.cluster.task)
    folder = work.folder
    seal()
    ready(folder, work.config.contain)
    work.require_run()
    with folder.locked():
        with _told(folder.own, task):  # a node without the device says so in the task's status
            work.keep_plan()
        lease.cut(folder.own, name(task), training_caps(work.config, task))
        tracking = tracker(work.config.track, run_dir=folder.root, group=folder.root.name, plan=work.registered)
        with _told(folder.own, task), held(work.ledger, task.arm, task.seed), tracking:
            ended = train_one(work, tracking, task, _pause(folder.own, asked))
        _conclude(work, task, ended)
    return ended


def name(task: Task) -> str:
    """Return a task's name: ARM/SEED."""
    return f"{task.arm}/{task.seed}"


def status_of(root: Path, task: str) -> dict[str, Any]:
    """Return what a task last said of itself; {} where it never began.

    Raises:
        UserError: its status file is damaged.
    """
    path = root / TASKS / task_folder(task) / STATUS
    return dict(read_json(path)) if path.exists() else {}


def require_trained(work: Workspace) -> None:
    """Refuse to measure while a task has not said that it is done, whatever Slurm says of its job.

    Raises:
        UserError: some have not; each is named with its state.
    """
    root = work.folder.root
    states = {name(task): status_of(root, name(task)).get("state", "not begun") for task in tasks(work.config)}
    left = [f"{task} ({state})" for task, state in states.items() if state != "done"]
    if left:
        raise UserError(
            f"{root}: {len(left)} of {len(states)} tasks are not trained: {', '.join(left)}",
            "submit the same command again: what is done is not done twice",
        )


@contextmanager
def _told(own: Path, task: Task) -> Iterator[None]:
    """Keep `status.json`: running, and failed with the kind of error where it ends in one."""
    _say(own, task, "running")
    try:
        yield
    except BaseException as error:
        _say(own, task, "failed", type(error).__name__)
        raise


def _conclude(work: Workspace, task: Task, ended: str) -> None:
    own = work.folder.own
    if ended == "paused":
        _say(own, task, "preempted")
        return
    (own / PARKED).unlink(missing_ok=True)
    lease.give_back(own, lease.used(work.ledger, task.arm, task.seed))
    _say(own, task, "done", ended)


def _say(own: Path, task: Task, state: State, detail: str = "") -> None:
    write_json(
        own / STATUS,
        {
            "task": name(task),
            "state": state,
            "detail": detail,
            "at": now(),
            "job": job_id(),
            "start": int(os.environ.get("SLURM_RESTART_COUNT", "0")) + 1,
            "node": os.environ.get("SLURMD_NODENAME"),
        },
    )


def _pause(own: Path, asked: Callable[[], bool]) -> Pause:
    """Return how this task is paused: what it parks is told by a file, which a start after it reads."""
    path = own / PARKED

    def park(rung: Rung) -> None:
        write_json(path, row(rung))

    return Pause(asked, park, rung_of(read_json(path)) if path.exists() else None)


def _on_signal() -> Callable[[], bool]:
    """Note SIGUSR1 and SIGTERM instead of ending; return a question: did one come?"""
    came: list[int] = []  # an Event's lock would be held by a handler that a second signal interrupts
    for number in (signal.SIGUSR1, signal.SIGTERM):
        signal.signal(number, lambda which, _frame: came.append(which))
    return lambda: bool(came)
