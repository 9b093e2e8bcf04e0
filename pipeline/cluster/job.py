"""Where a review runs: here, or as jobs of Slurm; and what such a job does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from pipeline.workspace import Workspace

Run = Callable[[Workspace], None]  # runs the chosen stages of one review in this process
NEEDS_DEVICES: Final = ("train", "generate")


def here(work: Workspace, run: Run) -> None:
    """Run the review in this process."""
    run(work)


def on_slurm(work: Workspace, run: Run) -> None:
    """Submit the review, or do a job's part of it; printing a plan, and what needs no accelerator, is done here."""
    from pipeline.cluster.submit import submit
    from pipeline.cluster.task import require_trained, run_task

    job, stages = work.config.cluster.job, work.config.stages
    if job is None and set(NEEDS_DEVICES) & set(stages):
        return submit(work)
    if job == "train":
        return run_task(work)
    if job == "serve":
        require_trained(work)
    return run(work)


PLACES: Final[Mapping[str, Callable[[Workspace, Run], None]]] = {"local": here, "slurm": on_slurm}
