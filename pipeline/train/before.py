"""What is told before the train stage loads or spends anything."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.arms.base import Task
from pipeline.contain import require_replies
from pipeline.errors import UserError
from pipeline.plan.make import training_processes
from pipeline.records import Rung
from pipeline.serve.device import require_devices, require_dtype, require_engine
from pipeline.train.compiler import require_compiler
from pipeline.train.standing import standing
from pipeline.workspace import Workspace


def check_base(work: Workspace) -> None:
    """Make sure that this device can train what is to be served, and that the subject is the one of the run's rungs.

    Raises:
        UserError: it can't, or it is not; or the run was purged.
    """
    require_replies(work.folder)  # what was purged is not trained again
    require_dtype(work.config.subject.dtype, work.device)
    require_compiler(work.device)
    here, task = "generate" in work.config.stages, work.config.cluster.job is not None
    if here or task:  # else it is served elsewhere
        require_engine(work.device)
    require_processes(work)
    if here and not task:  # another job serves, with devices of its own
        require_devices(work.config.serve, work.device)
    for values in work.folder.rungs.rows():
        if values["base_sha256"] != work.subject.sha256:
            raise UserError(
                f"{work.folder.rungs.path}: its rungs were trained on other weights "
                f"({values['base_sha256'][:12]}) than the subject has now ({work.subject.sha256[:12]})",
                "bring the old weights back, or start afresh with run.dir=",
            )


def require_processes(work: Workspace) -> None:
    """Make sure that each of several training processes gets a device of its own.

    Raises:
        UserError: fewer devices can be used here.
    """
    processes = training_processes(work.config)
    if processes == 1 or work.device == "cpu":
        return
    import torch

    if (there := torch.cuda.device_count()) < processes:
        raise UserError(
            f"subject.fsdp: training takes {processes} CUDA devices (budget.training_devices), and {there} can be used "
            "here",
            "name as many as there are (another number is another run), or take a machine with more",
        )


def check_measured(work: Workspace, todo: Sequence[Task]) -> None:
    """Refuse to train again on a GPU what was measured and lost.

    Sums there come in any order, so it hardly ever comes out the same, which the train stage would find only once the
    ladder is paid for a second time.

    Raises:
        UserError: a rung of one of the tasks was measured, and does not stand any more.
    """
    if work.device == "cpu":
        return
    answered = work.folder.answered()
    for task in todo:
        there = rungs_of(work, task)
        stand = {rung.id for rung in standing(work.folder, there, task)}
        all_of_it = [task.rung_id(step) for step in sorted({*task.rungs, *(rung.step for rung in there)})]
        if lost := next((name for name in all_of_it if name in answered and name not in stand), None):
            raise UserError(
                f"{work.folder.rungs.path}: rung {lost} was measured, and its ladder would have to be trained again, "
                "since files of it were lost; on a GPU it would come out otherwise, and what was measured of the first "
                "could not be joined with it",
                "bring the files back, or start afresh with run.dir=",
            )


def rungs_of(work: Workspace, task: Task) -> list[Rung]:
    """Return the rungs of one arm and seed that were saved so far, by step."""
    return [rung for rung in work.rungs() if (rung.arm, rung.seed) == (task.arm, task.seed)]
