"""One budget over an array of tasks without a server: leases cut from the plan.

A task's lease is its share of the budget (`plan.training_caps`), cut into a file of its own before it starts. The
shares sum to the budget less the reserve for measuring, so whatever the order in which tasks run, and whatever is
killed, none can take what another was given. What a task leaves goes back when it ends, to the measuring, which may use
all that training did not. It does not go to other tasks: who came first would then decide how far each could train, and
a run on a cluster would not give the verdict of a run on one machine. A task that was preempted keeps its lease for the
same reason.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from pipeline.budget import JOB, Caps, Spent
from pipeline.errors import UserError
from pipeline.files import read_json, write_json
from pipeline.journal import TASKS, Journal
from pipeline.ledger import Ledger
from pipeline.store import RunFolder

LEASE: Final = "lease.json"


def cut(folder: Path, task: str, limits: Caps) -> None:
    """Write a task's lease where there is none; of two that try at once, one does it and the other finds it.

    Args:
        folder: the task's own folder.
        task: its arm and seed, ARM/SEED.
        limits: its share of the budget.

    Raises:
        UserError: a lease is there, and was cut from another budget.
    """
    lease = {"task": task, "limits": _plain(limits), "returned": None}
    draft = folder / f".{LEASE}.{os.uname().nodename}.{os.getpid()}"
    write_json(draft, lease)
    try:
        os.link(draft, folder / LEASE)  # exclusive, also where a file system's locks are not to be trusted
    except FileExistsError:
        there = read_json(folder / LEASE)
        if there["limits"] != lease["limits"]:
            raise UserError(
                f"{folder / LEASE}: cut from another budget ({there['limits']}, now {lease['limits']})",
                "run with the plan's own budget",
            ) from None
    finally:
        draft.unlink()


def limits_of(folder: Path) -> Caps:
    """Return what a task may use, start and end of its jobs included.

    Raises:
        UserError: the lease is missing or damaged.
    """
    return _caps(read_json(folder / LEASE)["limits"])


def give_back(folder: Path, spent: Spent) -> None:
    """Return what a finished task has left of its lease."""
    lease = read_json(folder / LEASE)
    write_json(folder / LEASE, lease | {"returned": _plain(_left(_caps(lease["limits"]), spent))})


def outstanding(folder: RunFolder, ledger: Ledger) -> Spent:
    """Return what tasks that have not ended may still spend: nobody else may count on it.

    A cap that the budget does not have is never outstanding.
    """
    total = Spent(usd=0.0)
    # Trained by the run's own process to the end, its array being cancelled: nobody will give that lease back.
    rows = Journal(folder.root / folder.ledger.name).rows()
    here = {(row["arm"], row["seed"]) for row in rows if row["stage"] == "train" and row["status"] == "done"}
    for path in sorted(folder.root.glob(f"{TASKS}/*/{LEASE}")):
        lease = read_json(path)
        arm, _, seed = lease["task"].rpartition("/")
        if lease["returned"] is not None or (arm, int(seed)) in here:
            continue
        left = _left(_caps(lease["limits"]), used(ledger, arm, int(seed)))
        known = {key: 0.0 if math.isinf(value) else value for key, value in asdict(left).items()}
        total += Spent(known["device_seconds"], known["flops"], 0, known["usd"])
    return total


def used(ledger: Ledger, arm: str, seed: int) -> Spent:
    """Return what a task has taken of its lease: its training, and what its jobs held devices for beside it."""
    return ledger.spent("train", arm, seed) + ledger.spent(JOB, arm, seed)


def _left(limits: Caps, spent: Spent) -> Caps:
    usd = limits.usd if math.isinf(limits.usd) else max(0.0, limits.usd - spent.usd)
    return Caps(max(0.0, limits.device_seconds - spent.device_seconds), usd, max(0.0, limits.flops - spent.flops))


def _plain(limits: Caps) -> dict[str, float | None]:
    return {key: None if math.isinf(value) else value for key, value in asdict(limits).items()}


def _caps(plain: Mapping[str, Any]) -> Caps:
    return Caps(**{key: math.inf if value is None else float(value) for key, value in plain.items()})
