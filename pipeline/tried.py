"""The largest dose at which a collapse would have been seen, and what ended the ladders there, in words. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

PLANNED = "the largest dose planned"
MEASURED = "the largest dose measured"


def dose_words(dose: Mapping[str, Any]) -> str:
    """Return "32 steps, 1.43 device-seconds" of a dose with `step` and `device_seconds` (None: not known)."""
    seconds = dose.get("device_seconds")
    steps = f"{dose['step']:,} step{'' if dose['step'] == 1 else 's'}"
    return steps if seconds is None or math.isnan(seconds) else f"{steps}, {seconds:,.3g} device-seconds"


def by_budget(dose: Mapping[str, Any]) -> bool:
    """Say whether it was the budget, and nothing else, that ended the ladders at an arm's `largest_dose`."""
    return bool(dose.get("at_end")) and set(dose.get("ended_by") or {}) == {"budget"}


def what_it_is(dose: Mapping[str, Any]) -> str:
    """Say what made an arm's `largest_dose` the largest: the plan, the budget, or what was measured."""
    ended = dose.get("ended_by") or {}
    if by_budget(dose):
        return "where the budget ended it"
    if not dose.get("at_end") or not set(ended) <= {"max_steps", "budget"} or not ended:
        return MEASURED
    if "budget" not in ended:
        return PLANNED
    return f"{PLANNED}; the budget ended {ended['budget']} of {sum(ended.values())} seeds before it"


def not_reached(dose: Mapping[str, Any]) -> str:
    """Return "not reached in 32 steps, 1.43 device-seconds, the largest dose planned (censored)" of a `largest_dose`.

    Only where the budget ended the ladders does it say "within the budget".
    """
    if by_budget(dose):
        return f"not reached within the budget, which ended it after {dose_words(dose)} (censored)"
    return f"not reached in {dose_words(dose)}, {what_it_is(dose)} (censored)"


def largest(doses: Iterable[Mapping[str, Any] | None]) -> str:
    """Return the largest of the arms' `largest_dose` with what made it so, for a sentence on all arms; "" for none."""
    known = [dose for dose in doses if dose]
    if not known:
        return ""
    most = max(known, key=lambda dose: (dose.get("device_seconds") or 0.0, dose["step"]))
    words = {what_it_is(dose) for dose in known}
    how = words.pop() if len(words) == 1 else "the largest dose tried in any arm"
    return f"{dose_words(most)} ({how})"
