"""Rungs held against the answers of one engine, and what the verdict says of it.

Proved is an engine, not a run: each attempt of the generate stage starts one, and what another proved says nothing of
it. So each proves rung 0, the adapter that is deliberately not loaded, and whatever it is yet to be asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

import httpx
import polars as pl

from pipeline.errors import InstrumentError
from pipeline.generate.proof import SEPARATION, Logprobs, Proof, allowed, check
from pipeline.ledger import Attempt
from pipeline.outcomes import read_outcomes
from pipeline.records import BASE_RUNG, Rung
from pipeline.rungs import MIXED, UNLOADED, ZERO_RUNG
from pipeline.serve.server import Server, served_logprobs
from pipeline.serve.watch import answer, first_of
from pipeline.store import RunFolder
from pipeline.workspace import Workspace

_REPLY = ("eval", "sample", "draw", "reply_sha256")
_NO_LADDER = (BASE_RUNG, ZERO_RUNG, UNLOADED, MIXED)
EXACT = "float32"  # the arithmetic in which a reply does not depend on the batch that it shares (docs/LOG.md)
TOGETHER = 3  # canaries of each adapter that are asked while the others' are, too
WIDEST_MIX = 64  # requests of them under way at once


def proofs(work: Workspace) -> dict[str, Proof]:
    """Return the proofs that stand in the run folder, by rung: of several engines' the last."""
    return {proof.rung: proof for proof in _every_proof(work)}


def references(folder: RunFolder) -> dict[str, list[dict[int, float]]]:
    """Return what the trained model answered to the canaries, by rung: log-probability by token, a dict a canary."""
    return {
        values["rung"]: [{int(token): value for token, value in line.items()} for line in values["top"]]
        for values in folder.canaries.rows()
    }


def controls(work: Workspace) -> dict[str, Any]:
    """Return the verdict's `controls`: parity of all rungs, and whether the deliberate defects were caught.

    Every engine that was asked counts: the worst proof decides. "mixed_batches" says whether adapters that were asked
    at once answered as trained; None where no two ever were. "zero_adapter_equals_base" holds the zero adapter's greedy
    replies against rung 0's. Where there are none, and in 16 bits, where a reply depends on the batch that it shares,
    the log-probabilities of its proof decide, within the tolerance. "zero_replies_equal" says what share of the replies
    are the same. "arms_proved" says by arm how many rungs were told apart from rung 0: an arm with none may have
    trained nothing, whatever the others did; an arm of which no rung was asked is not in it.
    """
    every, found, equal = _every_proof(work), proofs(work), _zero_replies_equal(work)
    bases = {proof.attempt: proof for proof in every if proof.rung == BASE_RUNG}
    # The tolerance in use, which may be narrower than at the proof, by what rung 0 showed on the same engine.
    within = {proof.attempt: tolerance_of(work, bases.get(proof.attempt)) for proof in every}
    trained = [proof for proof in every if proof.rung not in _NO_LADDER]
    alone = [proof.served_trained for proof in every if proof.rung not in (UNLOADED, MIXED)]
    passed, unresolved = (
        sum(proof.status == status for name, proof in found.items() if name not in _NO_LADDER)
        for status in ("pass", "unresolved")
    )
    parity = "not run" if not trained else "unresolved" if not passed else "pass"
    if not all(_acts(proof, within[proof.attempt]) for proof in trained):
        parity = "fail"
    if any(proof.served_trained > tolerance_of(work, None) for proof in bases.values()):
        parity = "fail"
    mixed = [_acts(proof, within[proof.attempt]) for proof in every if proof.rung == MIXED]
    return {
        "adapter_parity": parity,
        "rungs_proved": passed,
        "arms_proved": _proved_by_arm(found),
        "rungs_unresolved": unresolved,
        "largest_difference": max(alone, default=None),
        "tolerance": max(within.values(), default=tolerance_of(work, None)),
        "ignored_adapter_detected": found[UNLOADED].status == "ignored" if UNLOADED in found else None,
        "mixed_batches": all(mixed) if mixed else None,
        "zero_adapter_equals_base": _zero_equals_base(work, equal, found.get(ZERO_RUNG), within),
        "zero_replies_equal": equal,
    }


def tolerance_of(work: Workspace, base: Proof | None) -> float:
    """Return what a proof may differ by: in 16 bits as much as rung 0, which has no adapter, shows of rounding.

    Args:
        work: the run.
        base: rung 0's proof on the same engine; None: not made yet.
    """
    told = work.config.review.logit_tolerance
    if work.config.subject.dtype == EXACT:
        return told
    return allowed(told, None if base is None else base.served_trained)


class Prover:
    """Proves rungs on the engine that one attempt of the generate stage has started; each of them once."""

    def __init__(self, work: Workspace, server: Server, attempt: Attempt) -> None:
        self.work = work
        self.server = server
        self.attempt = attempt
        self.trained = references(work.folder)
        self.proved: dict[str, Proof] = {}  # on this engine

    def prove(self, rungs: Sequence[Rung]) -> None:
        """Hold what is served of each rung against the trained model: alone, then several adapters at once.

        Args:
            rungs: what this engine is to be asked; of the first call, rung 0 among them.

        Raises:
            InstrumentError: something differs, or the deliberate defect was not caught; or the server failed.
        """
        todo = [rung for rung in rungs if rung.id not in self.proved]
        with self.server.client() as client:
            for rung in sorted(todo, key=lambda rung: rung.id != BASE_RUNG):  # what rounding does, first
                self._keep(self._alone(client, rung))
            adapters = [rung for rung in todo if rung.artifact == "adapter"]
            if len(adapters) > 1:  # the batches of what is asked next hold adapters of this round alone
                self._keep(self._together(client, adapters))
            if UNLOADED not in self.proved:
                self._keep(self._unloaded(client))

    @property
    def _tolerance(self) -> float:
        return tolerance_of(self.work, self.proved.get(BASE_RUNG))

    def _keep(self, proof: Proof) -> None:
        proof = replace(proof, attempt=self.attempt.number)
        self.work.folder.proofs.append([proof.as_dict()])
        self.proved[proof.rung] = proof
        self.attempt.beat()

    def _check(self, rung: str, served: Sequence[Logprobs], like: str) -> Proof:
        """Hold the answers to the first canaries against those of the trained rung `like`."""
        trained, base = (self.trained[name][: len(served)] for name in (like, BASE_RUNG))
        return check(rung, served=served, trained=trained, base=base, tolerance=self._tolerance)

    def _ask(self, client: httpx.Client, name: str) -> list[dict[int, float]]:
        ask = partial(served_logprobs, client, name, self.work.canaries.prompts)
        return answer(ask, self.server, self.work.config.serve.hung_after_s, self.attempt.beat_waiting)

    def _alone(self, client: httpx.Client, rung: Rung) -> Proof:
        proof = self._check(rung.id, self._ask(client, rung.served_as), rung.id)
        _fail_hard(proof)
        return proof

    def _together(self, client: httpx.Client, rungs: Sequence[Rung]) -> Proof:
        """Ask some canaries of all adapters at once and return the worst of the proofs, this engine's earlier ones too.

        Rung 0 stays out: vLLM's own operator for a CPU would answer it by an adapter of the batch (docs/LOG.md,
        2026-11-21), and the generate stage asks it before the others for that.
        """
        prompts = self.work.canaries.prompts[:TOGETHER]
        made = [self.proved[MIXED]] if MIXED in self.proved else []
        after_s, beat = self.work.config.serve.hung_after_s, self.attempt.beat_waiting
        with ThreadPoolExecutor(min(len(rungs), WIDEST_MIX)) as pool:
            pending = {pool.submit(served_logprobs, client, rung.served_as, prompts): rung.id for rung in rungs}
            try:
                while pending:
                    for future in first_of(pending, self.server, after_s, beat):
                        name = pending.pop(future)
                        made.append(self._check(name, future.result(), name))
                        _fail_hard_together(made[-1])
            finally:
                for future in pending:
                    future.cancel()
        worst = max(made, key=lambda proof: proof.served_trained)
        told_apart = any(proof.status == "pass" for proof in made)
        return replace(worst, rung=MIXED, status="pass" if told_apart else "unresolved")

    def _unloaded(self, client: httpx.Client) -> Proof:
        """Ask a name whose adapter is not the trained one: the rung easiest to tell from rung 0 stands in for it."""
        known = [proof for proof in proofs(self.work).values() if proof.rung in self.trained]
        farthest = max(known, key=lambda proof: proof.trained_base).rung
        return require_caught(self._check(UNLOADED, self._ask(client, UNLOADED), farthest))


def require_caught(proof: Proof) -> Proof:
    """Return the proof of an adapter that is not the trained one and answers as rung 0: a server that ignores adapters.

    Where no rung was trained far enough to be told from rung 0, nothing can be caught.

    Raises:
        InstrumentError: it was taken for the trained one.
    """
    if proof.trained_base <= SEPARATION * proof.tolerance and proof.served_base <= proof.tolerance:
        return replace(proof, status="unresolved")
    if proof.status not in ("ignored", "unresolved"):
        raise InstrumentError(
            f"control: an adapter that was deliberately not loaded was not caught (status {proof.status}); "
            "no measurement of this run can be trusted"
        )
    return proof


def _acts(proof: Proof, tolerance: float) -> bool:
    return proof.status not in ("mismatch", "ignored") and proof.served_trained <= tolerance


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


def _fail_hard_together(proof: Proof) -> None:
    if proof.status in ("ignored", "mismatch"):
        raise InstrumentError(
            f"rung {proof.rung}: asked alone it answers as trained, asked at once with other adapters it does not: "
            f"log-probabilities differ by {proof.served_trained:.3g}, more than {proof.tolerance:g}. Replies are made "
            "in such batches, so nothing measured in them would be true. The same command with serve.max_loras=1 goes "
            "on from here, one adapter a batch; or, if rounding explains it, with a larger review.logit_tolerance"
        )


def _proved_by_arm(found: Mapping[str, Proof]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for name, proof in found.items():
        if name not in _NO_LADDER:
            arm = name.partition("-")[0]  # `Task.rung_id`; an arm's name is of letters, digits and _
            counts[arm] = counts.get(arm, 0) + (proof.status == "pass")
    return counts


def _every_proof(work: Workspace) -> list[Proof]:
    return [Proof(**values) for values in work.folder.proofs.rows()]


def _zero_equals_base(
    work: Workspace, equal: float | None, proof: Proof | None, within: Mapping[int, float]
) -> bool | None:
    if equal is not None and work.config.subject.dtype == EXACT:
        return equal == 1.0
    return None if proof is None else max(proof.served_base, proof.served_trained) <= within[proof.attempt]


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
