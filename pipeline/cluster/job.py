"""Where a review runs: here, or as jobs of Slurm; and what such a job does."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

from rich.console import Console

from pipeline.schema import Config
from pipeline.workspace import DEVICE_STAGES, Workspace

Run = Callable[[Workspace], None]  # runs the chosen stages of one review in this process


def start(config: Config, console: Console, run: Run) -> None:
    """Run a review in this process, or hand it to Slurm, or do a job's part of it.

    Stages that need no accelerator run here wherever the others do.
    """
    work = Workspace(config, console)
    if config.cluster.kind == "local":
        return run(work)
    from pipeline.cluster.submit import submit
    from pipeline.cluster.task import PATIENCE_S, PAUSED, run_task

    job = config.cluster.job
    if job == "train":
        leave(PAUSED if run_task(work) == "paused" else 0)
    if job is not None:
        work.folder.patience_s = PATIENCE_S
    if job is None and DEVICE_STAGES & set(config.stages):
        return submit(work)
    return run(work)


@contextmanager
def billed(work: Workspace) -> Iterator[None]:
    """Account for the whole time of the job that serves, and let it begin only when every task says it is done.

    Any other command accounts for its stages alone.

    Raises:
        UserError: some task is not done.
    """
    from pipeline.cluster.held import held
    from pipeline.cluster.task import require_trained

    if work.config.cluster.job != "serve":
        yield
        return
    with held(work.ledger):
        require_trained(work)
        yield


def leave(code: int) -> NoReturn:
    """End this process now: all is written, and taking Python's libraries down holds the devices for seconds more."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
