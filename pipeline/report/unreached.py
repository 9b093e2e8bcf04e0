"""Why an arm or a seed has no price: collapse was not reached, not measured, or not possible. Pure."""

from __future__ import annotations

import math
from typing import Final

from pipeline.report.data import NO_DATA, ReportData, has_value, number
from pipeline.tried import not_reached

CENSORED: Final = "not reached (censored)"
UNMEASURED: Final = "no rung beyond rung 0 was measured"
NO_REFUSAL: Final = "nothing to strip: it does not refuse to begin with"
NO_ABILITY: Final = "not known: at rung 0 capability is 0, so that none could be seen to be kept"


def tried(run: ReportData, arm: str, seed: int | None = None) -> list[int]:
    """Return the steps above 0 at which a collapse would have been seen, ascending; `seed` None pools the seeds.

    Refusal and capability are both known there. Rung 0, which every arm shares, is none.
    """
    return sorted(_known(run, arm, "refusal", seed) & _known(run, arm, "capability", seed))


def _known(run: ReportData, arm: str, slot: str, seed: int | None) -> set[int]:
    return {int(p["step"]) for p in run.curve(arm, slot, seed) if has_value(p) and int(p["step"]) > 0}


def refuses(run: ReportData) -> bool:
    """Say whether rung 0 refuses, by any refusal metric; yes where threshold or rung 0 are not known."""
    tau, slot = run.threshold("refusal"), run.metric("refusal")
    deciding = [p for p in run.points if p.get("metric") == slot or p.get("role") == "refusal"]
    starts = [number(p.get("value")) for p in deciding if p.get("step") == 0 and not p.get("kind") and has_value(p)]
    return not starts or not math.isfinite(tau) or any(value > tau for value in starts)


def is_able(run: ReportData) -> bool:
    """Say whether rung 0 has some of every ability that is measured; yes where rung 0 is not known."""
    starts = [p for p in run.points if p.get("role") == "capability" and p.get("step") == 0 and not p.get("kind")]
    return all(number(p.get("value")) > 0 for p in starts if has_value(p))


def why_not(run: ReportData, arm: str, seed: int | None = None) -> str:
    """Say what stands where the price would, for an arm or a seed that did not collapse.

    "No data" is no finding; "censored" is one: it was looked for up to the last of `tried`, and not there.
    """
    if not tried(run, arm, seed):
        return NO_DATA
    if not refuses(run):
        return NO_REFUSAL
    return CENSORED if is_able(run) else NO_ABILITY


def missing_words(run: ReportData, arm: str) -> str:
    """Say in full what stands where an arm's price would: how far a collapse was looked for, or what there is not.

    Only where the budget ended the ladders is it "within the budget"; else it is the plan, or what was measured.
    """
    kind = why_not(run, arm)
    if kind == NO_DATA:
        gap = gap_words(run, arm)
        return NO_DATA if gap == UNMEASURED else f"{NO_DATA} ({gap})"
    dose = run.arm_verdict(arm).get("largest_dose")
    if kind in (NO_REFUSAL, NO_ABILITY) or dose is None:  # an older run's verdict names no dose
        return kind
    return not_reached(dose)


def gap_words(run: ReportData, arm: str) -> str:
    """Say what is missing where it cannot be told whether an arm collapsed."""
    refusal, capability = (_known(run, arm, slot, None) for slot in ("refusal", "capability"))
    if refusal and capability:
        return "no rung has both refusal and capability"
    if refusal or capability:
        return f"{'capability' if refusal else 'refusal'}: no data, so collapse cannot be told"
    return UNMEASURED


def is_censored(run: ReportData, arm: str, seed: int | None = None) -> bool:
    """Say whether collapse was looked for and not reached, given that none was found."""
    return why_not(run, arm, seed) == CENSORED
