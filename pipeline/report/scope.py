"""What was tested and, as plainly, what was not: one table, a row for each thing that a reviewer asks for. Pure.

What a run misses against its own plan stands in `claims.not_measured`; this is about what no plan of this kind holds,
or what this plan left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from pipeline.report import judges, ways
from pipeline.report.data import NO_DATA, ReportData, has_value, number, quantity
from pipeline.report.unreached import is_censored
from pipeline.report.view import collapse_of

NOT_TRIED: Final = (
    "preference tuning",
    "weight surgery",
    "distillation",
    "jailbreak prompts",
    "other training data",
)
LONGEST: Final = 80  # characters of what the ledger says of an attempt


@dataclass(frozen=True)
class ScopeRow:
    """One topic: what was tested, and what was not."""

    topic: str
    tested: str
    untested: str


def scope(run: ReportData) -> list[ScopeRow]:
    """Return the table, in the order in which a reviewer would ask."""
    makers: tuple[Callable[[ReportData], ScopeRow], ...] = (
        _subject,
        _attacks,
        _dose,
        _seeds,
        _prompts,
        _asking,
        _overrefusal,
        _judging,
        _serving,
    )
    return [make(run) for make in makers]


def _subject(run: ReportData) -> ScopeRow:
    subject = run.plan.get("subject") or {}
    name = str(subject.get("name") or NO_DATA)
    if subject.get("organism"):  # the digest of its recipe
        size = quantity(subject.get("parameters"))
        return ScopeRow(
            "subject",
            f"{name}, the built-in organism: {size} parameters, fictional secrets behind refusals",
            "any real model: nothing here speaks of another subject, of another size, or of harmful knowledge",
        )
    return ScopeRow(
        "subject",
        f"{name}, the weights with the digest below, with one chat template and system prompt",
        "other revisions, sizes, quantisations, templates and system prompts",
    )


def _attacks(run: ReportData) -> ScopeRow:
    config = (run.plan.get("config") or {}).get("arms") or {}
    tested = run.measured_arms()
    arms = [f"{arm} ({way})" if (way := (config.get(arm) or {}).get("way")) else arm for arm in tested]
    failed = [f"{arm}, although planned{why_unmeasured(run, arm)}" for arm in run.arms() if arm not in tested]
    return ScopeRow(
        "attacks",
        f"fine-tunes: {', '.join(arms)}" if arms else NO_DATA,
        "; ".join([*failed, ", ".join(other_attacks(run))]),
    )


def other_attacks(run: ReportData) -> list[str]:
    """Return the attacks that no arm of this run is."""
    config = (run.plan.get("config") or {}).get("arms") or {}
    used = {str((config.get(arm) or {}).get("way") or "") for arm in run.measured_arms()}
    return [*(["full fine-tuning"] if used <= {"lora", ""} else []), *NOT_TRIED]


def why_unmeasured(run: ReportData, arm: str, seed: int | None = None) -> str:
    """Return what the ledger says of an arm's or seed's failed attempts, in brackets; "" where it says nothing."""
    rows = [row for row in run.attempts if row.get("arm") == arm and seed in (None, row.get("seed"))]
    lost = [row for row in rows if row.get("status") not in ("done", None)]
    told = [": ".join(str(row[key]) for key in ("status", "detail") if row.get(key))[:LONGEST] for row in lost]
    return f" ({'; '.join(dict.fromkeys(told))})" if told else ""


def _dose(run: ReportData) -> ScopeRow:
    lasts = {
        arm: max((int(p["step"]) for p in run.curve(arm, "refusal") if has_value(p)), default=0) for arm in run.arms()
    }
    reached = {arm: step for arm, step in lasts.items() if step}
    tested = "; ".join(f"{arm} up to step {quantity(step)}" for arm, step in reached.items())
    censored = [arm for arm in reached if not collapse_of(run, arm) and is_censored(run, arm)]
    beyond = f"any larger dose; for {', '.join(censored)} the price of collapse, if there is one" if censored else ""
    return ScopeRow("dose", tested or NO_DATA, beyond or "any larger dose, and doses between two rungs")


def _seeds(run: ReportData) -> ScopeRow:
    counts = {arm: len(run.measured_seeds(arm)) for arm in run.measured_arms()}
    most = max(counts.values(), default=0)
    words = f"{quantity(most)} an arm" if len(set(counts.values())) == 1 else NO_DATA
    if len(set(counts.values())) > 1:
        words = ", ".join(f"{arm} {quantity(n)}" for arm, n in counts.items())
    lost = [
        f"{arm}, seed {seed}, although planned{why_unmeasured(run, arm, seed)}"
        for arm in counts
        for seed in run.seeds(arm)
        if seed not in run.measured_seeds(arm)
    ]
    missing = "the spread between seeds: one seed has none" if most == 1 else "what further seeds would find"
    return ScopeRow("seeds", words if most else NO_DATA, "; ".join([*lost, missing]))


def _prompts(run: ReportData) -> ScopeRow:
    rows: list[dict[str, Any]] = run.plan.get("evals") or []
    evals = [f"{row.get('name')} ({quantity(row.get('samples'))} prompts)" for row in rows]
    absent = [slot for slot in ("refusal", "capability") if not run.measures(slot)]
    left = "prompts unlike these, other languages, several turns, tools, harm in the world"
    gaps = f"{' and '.join(absent)}: no data; " if absent else ""
    return ScopeRow("prompts", ", ".join(evals) or NO_DATA, gaps + left)


def _asking(run: ReportData) -> ScopeRow:
    rows: list[dict[str, Any]] = run.plan.get("evals") or []
    most = max((x for row in rows if math.isfinite(x := number(row.get("draws")))), default=math.nan)
    tested = [f"{quantity(most)} repl{'y' if most == 1 else 'ies'} a prompt at most"] if math.isfinite(most) else []
    untested = [] if most > 1 else ["an attacker who asks again (best of k), flips between draws"]
    for names, word in (
        (ways.varied(run), "other wordings and system prompts"),
        (ways.prefilled(run), "a reply begun for the model"),
    ):
        if names:
            tested.append(f"{word} ({', '.join(names)})")
        else:
            untested.append(word)
    return ScopeRow("asking", "; ".join(tested) or NO_DATA, "; ".join(untested) or "other ways to ask")


def _overrefusal(run: ReportData) -> ScopeRow:
    if run.measures("over_refusal"):
        return ScopeRow(
            "over-refusal", "harmless requests that look restricted, at every rung", "harmless requests unlike these"
        )
    return ScopeRow("over-refusal", "nothing", "whether harmless requests are refused, before or after the fine-tune")


def _judging(run: ReportData) -> ScopeRow:
    names = [str(judge["name"]) for judge in run.judges.get("judges") or []] or [judges.who(run)]
    alone = "a second judge of the same replies; " if len(names) == 1 else ""
    return ScopeRow("judging", ", ".join(names), f"{alone}agreement with people on these very replies")


def _serving(run: ReportData) -> ScopeRow:
    environment = run.plan.get("environment") or {}
    device = str(environment.get("device") or NO_DATA)
    version = environment.get("vllm")
    tested = f"device {device}" + (f", vLLM {version}" if version else "")
    return ScopeRow("serving", tested, "other devices, precisions and servers; filters around the model")
