"""The generate stage: serve every rung from one engine, prove that each adapter acts, fill the flat matrix."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import polars as pl

from pipeline.budget import JOB, STARTING, Allowance, Attempt, Caps, caps
from pipeline.cluster.lease import outstanding
from pipeline.contain import begun, contain, destroyed, require_replies
from pipeline.errors import InstrumentError, UserError
from pipeline.generate.asked import ALL
from pipeline.generate.matrix import Cell, Generator, journal
from pipeline.generate.proof import SEPARATION, Logprobs, Proof, allowed, check
from pipeline.generate.rounds import Rounds
from pipeline.inspectai.run import Job, pending, run_tasks
from pipeline.outcomes import read_outcomes
from pipeline.plan.make import tasks as planned_tasks
from pipeline.progress import bar_for, left
from pipeline.records import BASE_RUNG, Reply, Rung
from pipeline.rungs import UNLOADED, ZERO_RUNG
from pipeline.search.chosen import SEARCH, with_chosen
from pipeline.serve.server import BASE_NAME, Server, served_logprobs
from pipeline.serve.watch import answer
from pipeline.track.live import LiveCurves
from pipeline.track.tracker import Tracker
from pipeline.train.standing import require_whole
from pipeline.workspace import Workspace

STAGE = "generate"
_REPLY = ("eval", "sample", "draw", "reply_sha256")
EXACT = "float32"  # the arithmetic in which a reply does not depend on the batch that it shares (docs/LOG.md)


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
        return _contain(work, rungs)
    require_whole(work.folder, rungs)
    before = work.ledger.spent(STAGE)
    with work.ledger.attempt(STAGE) as attempt:
        allowance = Allowance(measuring_caps(work), attempt, before)
        spent = _is_spent(work, allowance, unproved)
        complete = not spent and _measure(work, tracker, rounds, todo, tasks, allowance)
        attempt.detail = "complete" if complete else "budget"
    if not complete:
        work.console.print(
            "[yellow]The budget ended before every reply was generated; what is missing is reported as such."
        )
    _contain(work, rungs)


def _is_spent(work: Workspace, allowance: Allowance, unproved: Sequence[Rung]) -> bool:
    """Say whether the budget is spent, so that no engine need start; what has replies is proved all the same."""
    lacking = unproved if UNLOADED in proofs(work) else work.rungs()
    answered = any(journal(work.folder, rung.id).path.exists() for rung in lacking)
    return not allowance.fits(0.0, 0.0) and not answered


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

            complete = _ask(work, server, rounds, todo, generator, on_round, on_replies)
        return complete and run_tasks(work, server, allowance, tasks, tracker)


def _ask(
    work: Workspace,
    server: Server,
    rounds: Rounds,
    todo: Sequence[Cell],
    generator: Generator,
    on_round: Callable[[int, int], None],
    on_replies: Callable[[list[Reply]], None],
) -> bool:
    """Prove and ask rung after rung, round after round; return False where the budget ended first.

    The first round goes also without a cell to be asked: a rung may lack its proof alone.
    """
    while True:
        asked = rounds.asked()
        on_round(len(asked), len(todo))
        _prove(work, server, asked, generator.allowance.attempt)
        if not generator.run(todo, on_replies):
            return False
        if not (todo := rounds.grow()):
            return True


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
    """Return what serving and generating may use: all that training and its searches did not."""
    whole = caps(work.config.budget)
    before = [work.ledger.spent(stage) for stage in (SEARCH, "train", JOB)]
    before.append(outstanding(work.folder, work.ledger))
    return Caps(
        whole.device_seconds - sum(spent.device_seconds for spent in before),
        whole.usd - sum(spent.usd for spent in before) if whole.usd != float("inf") else whole.usd,
        whole.flops - sum(spent.flops for spent in before),
    )


def proofs(work: Workspace) -> dict[str, Proof]:
    """Return the proofs that stand in the run folder, by rung."""
    return {values["rung"]: Proof(**values) for values in work.folder.proofs.rows()}


def controls(work: Workspace) -> dict[str, Any]:
    """Return the verdict's `controls`: parity of all rungs, and whether the deliberate defects were caught.

    "zero_adapter_equals_base" holds the zero adapter's greedy replies against rung 0's. Where there are none, and in 16
    bits, where a reply depends on the batch that it shares, the log-probabilities of its proof decide, within the
    tolerance. "zero_replies_equal" says what share of the replies are the same.
    """
    found, equal = proofs(work), _zero_replies_equal(work)
    trained = [proof for name, proof in found.items() if name not in (BASE_RUNG, ZERO_RUNG, UNLOADED)]
    worst = max((proof.served_trained for proof in found.values() if proof.rung != UNLOADED), default=None)
    passed, unresolved = (sum(proof.status == status for proof in trained) for status in ("pass", "unresolved"))
    parity = "not run" if not trained else "unresolved" if not passed else "pass"
    tolerance = _tolerance(work, found)  # the one in use: a narrower one than at the proof holds, too
    if any(proof.status in ("mismatch", "ignored") or proof.served_trained > tolerance for proof in trained):
        parity = "fail"
    if BASE_RUNG in found and found[BASE_RUNG].served_trained > _tolerance(work, {}):
        parity = "fail"
    return {
        "adapter_parity": parity,
        "rungs_proved": passed,
        "rungs_unresolved": unresolved,
        "largest_difference": worst,
        "tolerance": tolerance,
        "ignored_adapter_detected": found[UNLOADED].status == "ignored" if UNLOADED in found else None,
        "zero_adapter_equals_base": _zero_equals_base(work, equal, found.get(ZERO_RUNG), tolerance),
        "zero_replies_equal": equal,
    }


def _zero_equals_base(work: Workspace, equal: float | None, proof: Proof | None, tolerance: float) -> bool | None:
    if equal is not None and work.config.subject.dtype == EXACT:
        return equal == 1.0
    return None if proof is None else max(proof.served_base, proof.served_trained) <= tolerance


def _zero_replies_equal(work: Workspace) -> float | None:
    """Return the share of the zero adapter's greedy replies that are rung 0's; None where some are missing.

    Outcomes keep the replies' digests, also when a purge has ended the replies.
    """
    greedy = [spec.eval.name for spec in work.specs if spec.temperature == 0]
    if not work.folder.outcomes.exists():
        return None
    table, _ = read_outcomes(work.folder.outcomes)
    mine = table.filter(pl.col("eval").is_in(greedy))
    zero, base = (
        {tuple(row[:3]): str(row[3]) for row in mine.filter(pl.col("rung") == name).select(_REPLY).rows()}
        for name in (ZERO_RUNG, BASE_RUNG)
    )
    if not base or zero.keys() != base.keys():
        return None
    same = sum(zero[key] == digest for key, digest in base.items())
    return same / len(base)


def _server(work: Workspace, rungs: Sequence[Rung], attempt: Attempt) -> Server:
    """Return one engine for all adapters, and one name more for the adapter that is deliberately not loaded."""
    folder = work.folder
    adapters = {rung.id: folder.root / rung.path for rung in rungs if rung.artifact == "adapter"}
    adapters[UNLOADED] = adapters[ZERO_RUNG]
    ranks = [arm.lora.rank for arm in with_chosen(work.config, folder).arms.values()]
    template = work.config.subject.chat_template
    log = folder.logs / "server.log"
    return Server(work.subject, adapters, ranks, work.config.serve, log, template, attempt.beat_waiting)


def _prove(work: Workspace, server: Server, rungs: Sequence[Rung], attempt: Attempt) -> None:
    """Hold each rung's served log-probabilities against the trained model's; fail hard where they differ."""
    found, trained = proofs(work), _references(work)
    rows = work.folder.proofs
    prompts, base, after_s = work.canaries.prompts, trained[BASE_RUNG], work.config.serve.hung_after_s
    with server.client() as client:

        def ask(name: str) -> list[dict[int, float]]:
            return answer(partial(served_logprobs, client, name, prompts), server, after_s, attempt.beat_waiting)

        for rung in sorted(rungs, key=lambda rung: rung.id != BASE_RUNG):  # what rounding does, first
            if rung.id not in found:
                tolerance = _tolerance(work, found)
                served = ask(_name(rung))
                proof = check(rung.id, served=served, trained=trained[rung.id], base=base, tolerance=tolerance)
                _fail_hard(proof)
                rows.append([proof.as_dict()])
                found[rung.id] = proof
                attempt.beat()
        if UNLOADED not in found:
            # The rung that is easiest to tell from rung 0 stands in for the adapter that is not loaded.
            farthest = max(found.values(), key=lambda proof: proof.trained_base).rung
            rows.append([_unloaded(ask(UNLOADED), trained[farthest], base, _tolerance(work, found)).as_dict()])


def _unloaded(
    served: Sequence[Logprobs], trained: Sequence[Logprobs], base: Sequence[Logprobs], tolerance: float
) -> Proof:
    """Hold a name whose adapter is not the trained one and answers as rung 0: a server that ignores adapters.

    Where no rung was trained far enough to be told from rung 0, nothing can be caught.
    """
    proof = check(UNLOADED, served=served, trained=trained, base=base, tolerance=tolerance)
    if proof.trained_base <= SEPARATION * tolerance and proof.served_base <= tolerance:
        return replace(proof, status="unresolved")
    if proof.status not in ("ignored", "unresolved"):
        raise InstrumentError(
            f"control: an adapter that was deliberately not loaded was not caught (status {proof.status}); "
            "no measurement of this run can be trusted"
        )
    return proof


def _tolerance(work: Workspace, found: Mapping[str, Proof]) -> float:
    """Return what a proof may differ by: in 16 bits as much as rung 0, which has no adapter, shows of rounding."""
    told = work.config.review.logit_tolerance
    if work.config.subject.dtype == EXACT:
        return told
    return allowed(told, found[BASE_RUNG].served_trained if BASE_RUNG in found else None)


def _fail_hard(proof: Proof) -> None:
    if proof.status == "ignored":
        raise InstrumentError(
            f"rung {proof.rung}: the server ignores its adapter: it answers as rung 0 "
            f"(difference {proof.served_base:.2g}), not as trained ({proof.served_trained:.2g}); "
            "nothing measured under it would be true"
        )
    if proof.status == "mismatch":
        raise InstrumentError(
            f"rung {proof.rung}: what is served is not what was trained: log-probabilities differ by "
            f"{proof.served_trained:.3g}, more than {proof.tolerance:g}, which review.logit_tolerance allows. If "
            "rounding explains it, the same command with a larger one goes on from here; the verdict names the change"
        )


def _references(work: Workspace) -> dict[str, list[dict[int, float]]]:
    return {
        values["rung"]: [{int(token): value for token, value in line.items()} for line in values["top"]]
        for values in work.folder.canaries.rows()
    }


def _name(rung: Rung) -> str:
    return BASE_NAME if rung.artifact == "none" else rung.id
