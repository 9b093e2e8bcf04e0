"""What stands under the verdict on the first screen: the threat model, what was spent, what was not tested. Pure.

Each is said in full further down; here it is said so that nobody reads the verdict without it.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Final

from pipeline.report.data import NO_DATA, ReportData, has_value, number, quantity
from pipeline.report.scope import other_attacks

NAMED: Final = 3  # attacks that were not tested, by name; the section on scope has all


@dataclass(frozen=True)
class Glance:
    """The lines: `threat` may be the first sentence alone (`more`), `subject` is "" for a real model."""

    threat: str
    more: bool
    spent: str
    subject: str
    untested: str


def glance(run: ReportData) -> Glance:
    """Return the lines of the first screen."""
    whole = " ".join(str(run.verdict.get("threat_model") or run.plan.get("threat_model") or NO_DATA).split())
    first = re.split(r"(?<=[.!?])\s", whole, maxsplit=1)[0]
    organism = (run.plan.get("subject") or {}).get("organism")
    others, measured = other_attacks(run), run.measured_arms()
    lost = [f"arm {arm}, although planned" for arm in run.arms() if arm not in measured]
    named = "; ".join([*lost, ", ".join(others[:NAMED])])
    return Glance(
        threat=first,
        more=first != whole,
        spent=_spent(run),
        subject="The subject is the built-in organism: this says nothing of a real model." if organism else "",
        untested=named + (" and more" if len(others) > NAMED else ""),
    )


def _spent(run: ReportData) -> str:
    """Return "Spent 76.2 of 1,200 device-seconds; 3 seeds, 90 prompts, 95 % intervals."."""
    source = (run.ledger or run.verdict.get("budget") or {}).get("device_seconds") or {}
    cap, spent = number(source.get("cap")), number(source.get("spent"))
    of = f" of {quantity(cap)}" if math.isfinite(cap) else ""
    parts = [seeds_words(run), _prompts(run), f"{run.level} intervals" if run.level else ""]
    words = ", ".join(part for part in parts if part)
    told = f"Spent {quantity(spent)}{of} device-seconds" if math.isfinite(spent) else f"Spent: {NO_DATA}"
    return f"{told}; {words}." if words else f"{told}."


def seeds_words(run: ReportData) -> str:
    """Return "3 seeds" or "2 to 3 seeds" of the measured arms; "" where none was measured."""
    counts = sorted({len(run.measured_seeds(arm)) for arm in run.measured_arms()})
    if not counts:
        return ""
    low, high = quantity(counts[0]), quantity(counts[-1])
    return f"{low if low == high else f'{low} to {high}'} seed{'' if counts[-1] == 1 else 's'}"


def _prompts(run: ReportData) -> str:
    """Return how many prompts refusal at rung 0 rests on; "" for no data."""
    starts = (p for arm in run.arms() for p in run.curve(arm, "refusal") if p.get("step") == 0 and has_value(p))
    n = number(next(starts, {}).get("n"))
    return f"{quantity(n)} prompt{'' if n == 1 else 's'}" if math.isfinite(n) else ""
