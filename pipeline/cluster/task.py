"""One task of an array: one arm and seed climbs its ladder on its own node, and says itself how it stands.

Below `tasks/<arm>-s<seed>/` lie its ledger, rungs and canaries (readers merge them), its lease, `parked.json` where a
pause left a checkpoint between two rungs, and `status.json`: the task's own word, which the next stage trusts, not
Slurm's. A task that is told to make room (SIGUSR1, SIGTERM) saves after the present step, says that it is paused, and
ends with code `PAUSED`.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Literal

from pipeline.arms.base import Pause, Task
from pipeline.cluster import lease
from pipeline.cluster.held import held, job_id
from pipeline.cluster.queued import log_of
from pipeline.errors import UserError
from pipeline.files import read_json, write_json
from pipeline.journal import TASKS
from pipeline.plan.kept import keep_plan, require_run
from pipeline.plan.make import tasks, training_caps
from pipeline.records import Rung, now
from pipeline.rungs import row, rung_of
from pipeline.store import RunFolder, task_folder
from pipeline.workspace import Workspace

PAUSED: Final = 75  # the exit code of a task that goes on later (EX_TEMPFAIL)
STATUS: Final = "status.json"
PARKED: Final = "parked.json"
PATIENCE_S: Final = 300.0  # for a lock: a dead node's outlives Slurm's requeue by a minute or two on NFS and Lustre
LAST_S: Final = 10.0  # of a notice: for what comes after the tracker's end, and for the scheduler to hear of it
State = Literal["running", "done", "paused", "failed"]


def run_task(work: Workspace) -> str:
    """Train the arm and seed that `cluster.task` names, and return why it ended, or "paused"; the plan stands already.

    Raises:
        UserError: there is no plan, another process trains the same task, or what `train` raises.
    """
    from pipeline.contain import ready, seal
    from pipeline.track.tracker import tracker
    from pipeline.train.stage import train_one

    notice = Notice()
    task = next(task for task in tasks(work.config) if name(task) == work.config.cluster.task)
    folder = work.folder
    folder.patience_s = PATIENCE_S
    seal()
    ready(folder, work.config.contain)
    require_run(work)
    with folder.locked():
        word = Word(folder.own, task)
        with word.kept():  # a node without the device says so in the task's status
            keep_plan(work)
            word.devices |= _devices(work.device)
            lease.cut(folder.own, name(task), training_caps(work.config, task))
        track = replace(work.config.track)  # this task's own: a notice shortens it
        tracking = tracker(track, run_dir=folder.root, group=folder.root.name, plan=work.registered)
        with word.kept(), held(work.ledger, task.arm, task.seed), tracking:
            ended = train_one(work, tracking, task, _pause(folder.own, notice.came))
            if ended == "paused":  # before the tracker ends, which may take longer than is left of the notice
                word.say("paused")
                track.finish_timeout_s = min(track.finish_timeout_s, notice.left(work.config.cluster.slurm.signal_s))
        if ended != "paused":
            _conclude(work, word, ended)
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

    Where the tasks trained on different models of GPU, say so: their curves are then not seeds of one machine.

    Raises:
        UserError: some have not; each is named with its state, and what its job wrote.
    """
    root = work.folder.root
    said = {name(task): status_of(root, name(task)) for task in tasks(work.config)}
    left = [_standing(work.folder, task, word) for task, word in said.items() if word.get("state") != "done"]
    if left:
        raise UserError(
            f"{root}: {len(left)} of {len(said)} tasks are not trained: {', '.join(left)}",
            "submit the same command again: what is done is not done twice",
        )
    devices = {task: ", ".join(word.get("devices", ())) for task, word in said.items()}
    if len(set(devices.values())) > 1:
        on = "; ".join(f"{task} on {device or 'no GPU'}" for task, device in devices.items())
        work.console.print(f"The tasks trained on different devices: {on}", style="yellow", highlight=False)


def _standing(folder: RunFolder, task: str, word: dict[str, Any]) -> str:
    """Return a task's name with how it stands, e.g. "a/0 (failed: UserError, see slurm/train-7_0.log)"."""
    state = str(word.get("state", "not begun")) + (f": {word['detail']}" if word.get("detail") else "")
    log = log_of(folder, task)
    return f"{task} ({state}{f', see {log.relative_to(folder.root)}' if log else ''})"


class Word:
    """A task's own word on how it stands: `status.json`, written whole or not at all.

    `devices` are the models of GPU on which it trained, in all its starts.
    """

    def __init__(self, own: Path, task: Task) -> None:
        self.task = task
        self.path = own / STATUS
        before = read_json(self.path) if self.path.exists() else {}
        self.devices = set(before.get("devices", ()))

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Say that the task runs, and that it failed, with the kind of error, where it ends in one."""
        self.say("running")
        try:
            yield
        except BaseException as error:
            self.say("failed", type(error).__name__)
            raise

    def say(self, state: State, detail: str = "") -> None:
        """Write how the task stands, and which job says so."""
        write_json(
            self.path,
            {
                "task": name(self.task),
                "state": state,
                "detail": detail,
                "at": now(),
                "job": job_id(),
                "start": int(os.environ.get("SLURM_RESTART_COUNT", "0")) + 1,
                "node": os.environ.get("SLURMD_NODENAME"),
                "devices": sorted(self.devices),
            },
        )


class Notice:
    """SIGUSR1 and SIGTERM: from here on they are noted, instead of ending this process."""

    def __init__(self) -> None:
        self._at: list[float] = []  # an Event's lock would be held by a handler that a second signal interrupts
        for number in (signal.SIGUSR1, signal.SIGTERM):
            signal.signal(number, lambda _which, _frame: self._at.append(time.monotonic()))

    def came(self) -> bool:
        """Say whether one came."""
        return bool(self._at)

    def left(self, seconds: float) -> float:
        """Return the seconds that may still be used of a notice of `seconds`, 1 at the least."""
        return max(1.0, seconds - LAST_S - (time.monotonic() - self._at[0] if self._at else 0.0))


def _devices(device: str) -> set[str]:
    """Return the models of GPU that this process can use; none on the CPU."""
    if device != "cuda":
        return set()
    import torch

    return {torch.cuda.get_device_name(place) for place in range(torch.cuda.device_count())}


def _conclude(work: Workspace, word: Word, ended: str) -> None:
    own, task = work.folder.own, word.task
    (own / PARKED).unlink(missing_ok=True)
    lease.give_back(own, lease.used(work.ledger, task.arm, task.seed))
    word.say("done", ended)


def _pause(own: Path, asked: Callable[[], bool]) -> Pause:
    """Return how this task is paused: what it parks is told by a file, which a start after it reads."""
    path = own / PARKED

    def park(rung: Rung) -> None:
        write_json(path, row(rung))

    return Pause(asked, park, rung_of(read_json(path)) if path.exists() else None)
