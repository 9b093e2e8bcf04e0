"""The generate stage: serve every rung from one engine, prove that each adapter acts, fill the flat matrix."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.budget import JOB, JUDGE, REHEARSE, Caps, Spent, caps
from pipeline.cluster.lease import LEASE, outstanding, used
from pipeline.cluster.task import name as task_name
from pipeline.contain import begun, contain, destroyed, require_replies
from pipeline.errors import UserError
from pipeline.generate.ahead import LOG
from pipeline.generate.asked import ALL
from pipeline.generate.matrix import Cell, Generator, journal, most_flops
from pipeline.generate.proving import Prover, proofs
from pipeline.generate.rounds import Rounds
from pipeline.inspectai.run import Job, pending, run_tasks
from pipeline.journal import TASKS
from pipeline.ledger import STARTING, Allowance, Attempt
from pipeline.plan.make import tasks as planned_tasks
from pipeline.plan.make import training_caps
from pipeline.progress import bar_for, left
from pipeline.records import BASE_RUNG, Reply, Rung
from pipeline.rungs import UNLOADED, ZERO_RUNG
from pipeline.schema import ArmConfig
from pipeline.search.chosen import SEARCH, with_chosen
from pipeline.serve.server import Server
from pipeline.serve.width import Load
from pipeline.store import task_folder
from pipeline.track.live import LiveCurves
from pipeline.track.tracker import Tracker
from pipeline.train.standing import require_whole
from pipeline.workspace import Workspace

STAGE = "generate"


def generate(work: Workspace, tracker: Tracker) -> None:
    """Generate the replies that are missing, then contain what was stripped; no server is started where none is.

    Raises:
        UserError: replies are missing, and the weights that would give them were destroyed or the texts purged; or an
            adapter is not the one that was trained.
        InstrumentError: the server failed, or an adapter that was served is not the one that was trained.
    """
    require_replies(work.folder)
    if not work.rungs():
        raise UserError(f"{work.folder.root}: no rung is saved yet, so nothing can be served", "train first")
    rounds = Rounds(work)
    rungs = rounds.rungs
    if begun(work.folder):  # goes on first, whatever is then refused: a kill cut it off, or a backup brought files back
        _contain(work, rungs)
        _refuse_more(work, rounds)
        return _require_measured(work, [*rounds.todo(), *pending(work, rounds.asked())])
    todo, asked = rounds.grow(), rounds.asked()
    tasks = pending(work, asked)  # Inspect's
    unproved = [rung for rung in asked if rung.id not in proofs(work)]
    if not todo and not tasks and not unproved and UNLOADED in proofs(work):
        _tell_complete(work)
        return _contain(work, rungs)
    require_whole(work.folder, rungs)
    before = work.ledger.spent(STAGE)
    with work.ledger.attempt(STAGE) as attempt:
        allowance = Allowance(measuring_caps(work), attempt, before)
        spent = _is_spent(work, allowance, todo, unproved)
        complete = not spent and _measure(work, tracker, rounds, todo, tasks, allowance)
        attempt.detail = "complete" if complete else "budget"
    if not complete:
        work.console.print(
            "The budget ended before every reply was generated; what is missing is reported as such.", style="yellow"
        )
    _contain(work, rungs)


def _tell_complete(work: Workspace) -> None:
    """Let the ledger say that all is measured, where a kill came between the last reply and that."""
    if work.ledger.ending(STAGE, "", -1) is None:
        with work.ledger.attempt(STAGE) as attempt:
            attempt.detail = "complete"


def _is_spent(work: Workspace, allowance: Allowance, todo: Sequence[Cell], unproved: Sequence[Rung]) -> bool:
    """Say whether the budget has no room for one more reply, so that no engine need start.

    What has replies and no proof is proved all the same.
    """
    lacking = unproved if UNLOADED in proofs(work) else work.rungs()
    answered = any(journal(work.folder, rung.id).path.exists() for rung in lacking)
    cheapest = min((most_flops(work.subject, [cell]) for cell in todo), default=0.0)
    return not allowance.fits(0.0, cheapest) and not answered


def _measure(
    work: Workspace,
    tracker: Tracker,
    rounds: Rounds,
    todo: Sequence[Cell],
    tasks: Sequence[Job],
    allowance: Allowance,
) -> bool:
    """Serve all rungs from one engine and ask what is missing; return False where the budget ended first."""
    attempt = allowance.attempt
    live = LiveCurves(work, tracker, rounds.rungs, rounds.cells_a_rung)
    attempt.detail = STARTING
    with _server(work, rounds.rungs, attempt) as server:
        attempt.detail = ""
        attempt.beat(force=True)
        generator = Generator(server, work.config.serve, work.subject, allowance, work.folder, rounds.rungs)
        with bar_for(work.console) as bar:
            job = bar.add_task("generate", total=0, what="", left="")

            def on_replies(replies: list[Reply]) -> None:
                live.add(replies)
                bar.update(job, advance=len(replies), left=left(work.config.budget, work.ledger))

            def on_round(asked: int, todo: int) -> None:
                total = asked * rounds.cells_a_rung
                bar.update(job, total=total, completed=total - todo, what=f"{asked} rungs")

            prover = Prover(work, server, attempt)
            complete = _ask(work, rounds, (todo, tasks), prover, generator, on_round, on_replies)
        return complete and run_tasks(work, server, allowance, tasks, tracker)


def _ask(
    work: Workspace,
    rounds: Rounds,
    first: tuple[Sequence[Cell], Sequence[Job]],
    prover: Prover,
    generator: Generator,
    on_round: Callable[[int, int], None],
    on_replies: Callable[[list[Reply]], None],
) -> bool:
    """Prove and ask rung after rung, round after round; return False where the budget ended first.

    The first round, of cells and Inspect tasks, goes also without a cell: a rung may lack its proof alone.
    """
    todo, tasks = first
    while True:
        asked = rounds.asked()
        on_round(len(asked), len(todo))
        prover.prove(_to_prove(work, asked, todo, tasks))
        if not generator.run(todo, on_replies):
            return False
        if not (todo := rounds.grow()):
            return True


def _to_prove(work: Workspace, asked: Sequence[Rung], todo: Sequence[Cell], tasks: Sequence[Job]) -> list[Rung]:
    """Return the rungs that a new engine has to prove: those it is yet to be asked, those that none proved, and rung 0.

    A rung with all its replies keeps the proof of the engine that gave them.
    """
    awaited = {BASE_RUNG, *(cell.rung for cell in todo), *(job.rung.id for job in tasks)}
    there = proofs(work)
    return [rung for rung in asked if rung.id in awaited or rung.id not in there]


def _contain(work: Workspace, rungs: Sequence[Rung]) -> None:
    """Destroy or encrypt the stripped weights, unless a ladder has yet to be climbed from them."""
    if all(work.ledger.ending("train", task.arm, task.seed) for task in planned_tasks(work.config)):
        work.folder.settle()
        contain(work.folder, rungs, work.config.contain)


def _require_measured(work: Workspace, todo: Sequence[Any]) -> None:
    """Say what can't be made good: replies that the budget left out stay out, others were lost."""
    if not todo:
        return
    if work.ledger.ending(STAGE, "", -1) != "budget":
        raise UserError(
            f"{work.folder.root}: {len(todo)} replies or Inspect logs are missing, and the stripped weights that gave "
            f"them were destroyed{_when(work)}",
            "bring the files back, or run the review again in another folder with run.dir=",
        )


def _refuse_more(work: Workspace, rounds: Rounds) -> None:
    """Say that rungs which were not asked cannot be asked any more."""
    left = len(rounds.rungs) - len(rounds.asked())
    if work.config.review.rungs == ALL and left:
        raise UserError(
            f"review.rungs: {left} saved rungs of {work.folder.root} were not asked, and their weights were destroyed"
            f"{_when(work)}",
            "leave review.rungs as registered, or run the review again in another folder with run.dir=",
        )


def _when(work: Workspace) -> str:
    at = destroyed(work.folder)
    return f" on {at}" if at else ", in part"  # a ladder is to be climbed again, so that the rest still waits


def measuring_caps(work: Workspace) -> Caps:
    """Return what serving and generating may use: all that training and its searches did not, nor may use yet."""
    whole = caps(work.config.budget)
    taken = [work.ledger.spent(stage) for stage in (REHEARSE, SEARCH, "train", JUDGE, JOB)]
    taken += [outstanding(work.folder, work.ledger), _to_be_climbed(work)]
    return Caps(
        whole.device_seconds - sum(spent.device_seconds for spent in taken),
        whole.usd - sum(spent.usd for spent in taken) if whole.usd != float("inf") else whole.usd,
        whole.flops - sum(spent.flops for spent in taken),
    )


def _to_be_climbed(work: Workspace) -> Spent:
    """Return what ladders that have not ended may still spend of their shares; a cluster's have leases that say it.

    A cap that the budget does not have holds nothing back.
    """
    total = Spent(usd=0.0)
    for task in planned_tasks(work.config):
        leased = (work.folder.root / TASKS / task_folder(task_name(task)) / LEASE).exists()
        if leased or work.ledger.ending("train", task.arm, task.seed) is not None:
            continue
        share, spent = asdict(training_caps(work.config, task)), asdict(used(work.ledger, task.arm, task.seed))
        left = {unit: 0.0 if math.isinf(cap) else max(0.0, cap - spent[unit]) for unit, cap in share.items()}
        total += Spent(left["device_seconds"], left["flops"], 0, left["usd"])
    return total


def _server(work: Workspace, rungs: Sequence[Rung], attempt: Attempt) -> Server:
    """Return one engine for all adapters, and one name more for the adapter that is deliberately not loaded."""
    folder = work.folder
    adapters = {rung.id: folder.root / rung.path for rung in rungs if rung.artifact == "adapter"}
    adapters[UNLOADED] = adapters[ZERO_RUNG]
    return server_of(work, adapters, with_chosen(work.config, folder).arms, LOG, attempt)


def server_of(
    work: Workspace, adapters: Mapping[str, Path], arms: Mapping[str, ArmConfig], log: str, attempt: Attempt
) -> Server:
    """Return a server of the subject with adapters of the arms' ranks; `attempt` beats while its start is awaited."""
    ranks = [arm.lora.rank for arm in arms.values()]
    template = work.config.subject.chat_template
    place, beat = work.folder.logs / log, attempt.beat_waiting
    load = load_of(work)
    return Server(work.subject, adapters, ranks, work.config.serve, place, template, beat, work.ahead, load)


def load_of(work: Workspace) -> Load:
    """Return what each adapter is asked; how long Inspect's replies are, only its tasks know."""
    replies = [(len(spec.eval.samples()) * spec.draws, spec.max_tokens) for spec in work.specs]
    tokens = 0 if work.inspect_tasks else sum(count * most for count, most in replies)
    return Load(sum(count for count, _ in replies), tokens)
