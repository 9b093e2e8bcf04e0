"""The plan as it stands in the run folder: written once, before anything runs, and held against later commands'."""

from __future__ import annotations

from pipeline.errors import UserError
from pipeline.files import read_json, write_atomic, write_json
from pipeline.plan.caps import tell_over_caps
from pipeline.plan.digests import VERSION
from pipeline.plan.earlier import going_on, planned_otherwise, refuse
from pipeline.plan.intact import require_as_written
from pipeline.plan.protocol import registered_protocol
from pipeline.plan.registered import post_hoc_words
from pipeline.records import now
from pipeline.reproduce.overrides import given, shown
from pipeline.workspace import DEVICE_STAGES, Workspace


def keep_plan(work: Workspace) -> None:
    """Write `plan.json` and `protocol.md`, or hold the plan there against this one; it is never rewritten.

    Raises:
        UserError: what can change a reply is not what the folder was made for: the differences are listed; or plan.json
            was changed; or the device that this process needs is not here.
    """
    _ = work.device  # asked for before anything is written
    folder = work.folder
    if not folder.plan.exists():
        _tell_begun_anew(work)
        write_json(folder.plan, {**work.plan, "created": now(), "environment": work.environment})
        write_atomic(folder.protocol, registered_protocol(work.registered))
        tell_over_caps(work.plan, work.console)
        return
    _hold(work)
    if not folder.protocol.exists():  # a kill between the two files
        write_atomic(folder.protocol, registered_protocol(work.registered))
    unfinished = DEVICE_STAGES & set(work.config.stages) and not folder.verdict.exists()
    if unfinished and (line := going_on(work.registered, work.environment)):
        _warn(work, line)
    if work.post_hoc:
        what = "; ".join(post_hoc_words(work.post_hoc))
        _warn(work, f"Post hoc, not as registered in plan.json, which stays as it is: {what}")


def require_run(work: Workspace) -> None:
    """Refuse to read the replies of a run that there is not.

    Raises:
        UserError: the run folder holds no plan.
    """
    if not work.folder.plan.exists():
        raise UserError(
            f"there is no run in {work.folder.root}",
            "name the run's folder with run.again=, or give all options that the run was made with; or run it first, "
            "without stages=[…]",
        )


def _hold(work: Workspace) -> None:
    folder, there = work.folder, work.registered
    if there.get("version") == VERSION:
        record = read_json(folder.reproduce) if folder.reproduce.exists() else None
        require_as_written(folder.plan, there, record)
    if (there.get("version"), there.get("run_sha256")) != (VERSION, work.plan["run_sha256"]):
        refuse(folder.root, there, work.plan)


def _tell_begun_anew(work: Workspace) -> None:
    """Say which runs beside this new one the same command made, before an update let it plan otherwise."""
    if work.config.run.dir is None:
        words = shown(given())
        for line in planned_otherwise(work.folder.root, work.config.name, work.plan, words, work.environment):
            _warn(work, line)


def _warn(work: Workspace, line: str) -> None:
    work.console.print(line, style="yellow", highlight=False, soft_wrap=True)
