"""The train stage: each arm and seed climbs its ladder, within its share of the budget."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.progress import Progress

from pipeline.arms.base import Climb, Pause, Task
from pipeline.arms.mixture import draw
from pipeline.arms.ways import find
from pipeline.budget import JOB
from pipeline.cluster.lease import limits_of
from pipeline.contain import begun
from pipeline.contain.weights import destroy_parked
from pipeline.errors import UserError
from pipeline.files import canonical, require_room
from pipeline.generate import ahead
from pipeline.generate.proving import proofs
from pipeline.ledger import Allowance
from pipeline.plan.make import tasks, training_caps, training_processes
from pipeline.progress import bar_for, left
from pipeline.records import Dose, Rung
from pipeline.rungs import row
from pipeline.search.chosen import with_chosen
from pipeline.search.stage import search
from pipeline.sharded.ranks import Ranks
from pipeline.track.tracker import Tracker
from pipeline.train.before import check_base, check_measured, rungs_of
from pipeline.train.fixed import has_fixed_rungs, save_fixed_rungs
from pipeline.train.process import prepare_process, quiet_libraries, release
from pipeline.train.standing import STATE, can_go_on, damage, is_lost, standing, unanswered
from pipeline.workspace import Workspace

WORTH_FREEING = 10_000_000  # parameters in main memory; for fewer a search of all objects takes too long, half a second


def train(work: Workspace, tracker: Tracker) -> None:
    """Search the options of the arms that have a sweep, then train what is not trained yet or was lost since.

    What is done is skipped.

    Raises:
        UserError: the subject's weights are not those that the run folder's rungs were trained on, or could not be
            served; on a GPU, something of a measured ladder was lost.
    """
    planned = tasks(work.config)
    todo = [task for task in planned if _unfinished(work, task)]
    for task in planned:
        if task not in todo:
            _drop_state(work, task)  # a kill may have come before
    if not todo and has_fixed_rungs(work):
        return
    check_base(work)
    check_measured(work, todo)
    ahead.start(work)
    model = _subject_in_memory(work)
    try:
        ahead.settle(work)
        _train(work, tracker, model)
    finally:
        if isinstance(model, Ranks):
            model.close()
        del model
        if work.device != "cpu" or work.subject.parameters >= WORTH_FREEING:
            release(work.device)  # the engine needs the device's memory, and runs in another process


def _train(work: Workspace, tracker: Tracker, model: Any) -> None:
    search(work, model)  # on dev prompts, before anything is measured
    config = with_chosen(work.config, work.folder)
    todo = [task for task in tasks(config) if _unfinished(work, task)]
    total = sum(task.rungs[-1] for task in todo)
    if not has_fixed_rungs(work):
        with _full_disk_told(work.folder.root):
            first = min(config.arms)  # by name: the order in which a command names its arms is in no digest
            save_fixed_rungs(work, model, config.arms[first].lora)
    with bar_for(work.console) as bar:
        job = bar.add_task("train", total=total, what="", left="")
        for task in todo:
            with _full_disk_told(work.folder.root):
                _climb(work, tracker, task, model, bar, job)


@contextmanager
def _full_disk_told(folder: Path) -> Iterator[None]:
    """Raise OSError where a library failed since the disk is full: torch and safetensors tell it as something else."""
    from safetensors import SafetensorError

    try:
        yield
    except (RuntimeError, SafetensorError):
        require_room(folder)
        raise


def train_one(work: Workspace, tracker: Tracker, task: Task, pause: Pause) -> str:
    """Let one arm and seed climb its ladder, alone on its node; return why it ended, or "paused".

    Raises:
        UserError: as `train`.
    """
    ended = work.ledger.ending("train", task.arm, task.seed)
    if ended is not None and not _unfinished(work, task):
        _drop_state(work, task, pause)
        return ended
    check_base(work)
    check_measured(work, [task])
    model = _subject_in_memory(work)
    try:
        with bar_for(work.console) as bar, _full_disk_told(work.folder.root):
            job = bar.add_task("train", total=task.rungs[-1], what="", left="")
            return _climb(work, tracker, task, model, bar, job, pause)
    finally:
        if isinstance(model, Ranks):
            model.close()


def _subject_in_memory(work: Workspace) -> Any:
    """Return the subject's model, this process set up to train it, or the processes that are to hold it together."""
    threads = work.config.cluster.threads
    processes = training_processes(work.config)
    if processes > 1:
        ranks = Ranks(work.subject, work.device, processes, threads, _logs(work))
        ranks.open()  # before an attempt counts: nor does it count loading in one process
        return ranks
    quiet_libraries()
    model = work.subject.load_model(work.device)
    prepare_process(work.subject.parameters, work.device, threads)
    return model


def _logs(work: Workspace) -> Path:
    """Return the folder for what training processes print: a cluster's tasks run at the same time, each has its own."""
    logs = work.folder.logs
    logs.mkdir(exist_ok=True, mode=0o700)
    return logs / work.folder.task if work.folder.task else logs


def _climb(
    work: Workspace, tracker: Tracker, task: Task, model: Any, bar: Progress, job: Any, pause: Pause | None = None
) -> str:
    there = rungs_of(work, task)
    done = standing(work.folder, there, task)
    work.folder.rungs.append({**row(rung), "void": True} for rung in there[len(done) :])
    shas = {rung.id: rung.sha256 for rung in there}
    answers = {values["rung"]: canonical(values) for values in work.folder.canaries.rows()}
    # A cluster's job holds its devices while it starts, too: its task's share pays for that.
    before = work.ledger.spent("train", task.arm, task.seed) + work.ledger.spent(JOB, task.arm, task.seed)
    limits = limits_of(work.folder.own) if work.folder.task else training_caps(work.config, task)
    examples = draw(task, work.subject, work.tables)
    if pause and pause.parked and not _is_whole(work, pause.parked, task):
        pause.parked = None  # a kill came while it was destroyed, and something of the ladder was lost since
    saved = [*done, *([pause.parked] if pause and pause.parked else [])]
    climbed = max((rung.step for rung in saved), default=0)
    bar.update(job, what=f"{task.arm}, seed {task.seed}", advance=climbed)

    def emit(rung: Rung, canaries: Mapping[str, Any]) -> None:
        same = rung.sha256 == shas.get(rung.id) or canonical(canaries) == answers.get(rung.id)
        if rung.id in proofs(work) and not same:
            raise UserError(
                f"{work.folder.rungs.path}: rung {rung.id} was lost, and trained again it came out otherwise; "
                "what was measured of the first cannot be joined with it",
                "start afresh with run.dir=",
            )
        work.folder.canaries.append([canaries])
        work.folder.rungs.append([row(rung)])

    def on_step(dose: Dose, values: Mapping[str, float]) -> None:
        bar.update(job, advance=1, left=left(work.config.budget, work.ledger))
        tracker.step(task.arm, task.seed, dose, values)

    with work.ledger.attempt("train", task.arm, task.seed) as attempt:
        attempt.detail = find(task.config.way)(
            Climb(
                task=task,
                subject=work.subject,
                base_sha256=work.subject.sha256,
                model=model,
                device=work.device,
                examples=examples,
                allowance=Allowance(limits, attempt, before),
                folder=work.folder.private(task.arm, f"s{task.seed}"),
                run_root=work.folder.root,
                canaries=work.canaries,
                done=done,
                emit=emit,
                on_step=on_step,
                pause=pause,
            )
        )
        if attempt.detail == "paused":
            attempt.write("interrupted")
    if attempt.detail != "paused":
        _drop_state(work, task, pause)
    return attempt.detail


def _drop_state(work: Workspace, task: Task, pause: Pause | None = None) -> None:
    """Delete what a ladder would go on from. Not before the ledger says that it ended: after a kill it is needed."""
    if pause and pause.parked:  # no rung: nobody measures it
        destroy_parked(work.folder, pause.parked)
    for name in STATE:
        for path in (work.folder.weights / task.arm / f"s{task.seed}").glob(f"checkpoint-*/{name}"):
            path.unlink()


def _is_whole(work: Workspace, parked: Rung, task: Task) -> bool:
    return not damage(work.folder, parked) and can_go_on(work.folder.root / parked.path, task)


def _unfinished(work: Workspace, task: Task) -> bool:
    """Say whether a task has yet to be climbed, or climbed again since something of it was lost.

    An adapter that is there but is another is not lost: the generate stage tells the user.
    """
    ending = work.ledger.ending("train", task.arm, task.seed)
    if ending is None or begun(work.folder):
        return ending is None
    there = rungs_of(work, task)
    short = ending == "max_steps" and task.rungs[-1] not in {rung.step for rung in there}
    return short or any(is_lost(work.folder, rung) for rung in there) or bool(unanswered(work.folder, there))
