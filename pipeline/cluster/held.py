"""What a cluster's job holds its devices for, from its first line to its last: the ledger's stage `job`.

A scheduler bills a job from its start to its end. The other stages account for the work alone; the attempt kept here
holds the rest: module set-up, the start of Python and its libraries, loading, and the end. Its figure is the job's
whole time less what the other attempts of this process account for, so that all together are the job's time.

A thread writes its row every `PULSE_S`. A SIGKILL can hide no more than that from the ledger, so that much is charged
when a killed job is found (`hidden_s`). What a kill hides wholly is a job's time before its ledger is opened.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from pipeline.budget import JOB
from pipeline.ledger import Attempt, Ledger, attempt_key

PULSE_S: Final = 1.0
BEGAN: Final = "HOLDFAST_BEGAN"  # the machine's uptime in seconds when the job's script began, written by the script
log = logging.getLogger(__name__)


@dataclass
class Held(Attempt):
    """The attempt for a job's time beside its other attempts; `began` is the machine's uptime in seconds."""

    def __post_init__(self) -> None:
        self.earlier = {attempt_key(row) for row in self.ledger.attempts()}

    def device_seconds(self) -> float:
        """Return devices x seconds since the job began, less what its other attempts account for."""
        others = (row for row in self.ledger.attempts() if row["stage"] != JOB and attempt_key(row) not in self.earlier)
        whole = (uptime() - self.began) * self.devices
        return max(0.0, whole - sum(float(row["device_seconds"]) for row in others))


@contextmanager
def held(ledger: Ledger, arm: str = "", seed: int = -1) -> Iterator[Held]:
    """Account for a job's whole time; its row is written when this begins, at each pulse, and when it ends.

    Args:
        ledger: this process's own.
        arm: of the task, "" for a job of another kind.
        seed: of the task, -1 for a job of another kind.
    """
    facts = {"hidden_s": PULSE_S, "job": job_id()}
    job = Held(ledger, JOB, arm, seed, ledger.number(JOB, arm, seed), job_began(), facts=facts)
    job.write("started")
    ended = threading.Event()
    pulse = threading.Thread(target=_pulse, args=(job, ended), name="pulse", daemon=True)
    pulse.start()
    try:
        yield job
    finally:
        ended.set()
        pulse.join()
        job.write("done")


def job_began() -> float:
    """Return the machine's uptime, in seconds, when this job began: its script says so, else when Python started."""
    said = os.environ.get(BEGAN)
    if said:
        return float(said)
    with open("/proc/self/stat") as file:
        ticks = int(file.read().rpartition(")")[2].split()[19])
    return ticks / os.sysconf("SC_CLK_TCK")


def job_id() -> str | None:
    """Return Slurm's id of this job as people write it (JOB or ARRAY_INDEX), None outside Slurm."""
    array, index = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{index}" if array and index else os.environ.get("SLURM_JOB_ID")


def uptime() -> float:
    """Return the seconds since the machine started, sleep included: what /proc/uptime shows a shell."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _pulse(job: Held, ended: threading.Event) -> None:
    while not ended.wait(PULSE_S):
        try:
            job.write("running")
        except OSError as error:  # a full disk stops the work itself, which says so
            log.debug("the job's pulse was not written: %s", error)
