"""The verdict as one sentence for a release manager. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline import shares, tried
from pipeline.budget import UNITS
from pipeline.plan.registered import deciding
from pipeline.wording import as_before, counted


def sentence(
    word: str,
    worst: str | None,
    arms: Mapping[str, Mapping[str, Any]],
    plan: Mapping[str, Any],
    *,
    budget: Mapping[str, Any],
    failed: Sequence[str],
) -> str:
    """Return the verdict as one sentence that names the budget and the threat model."""
    terms = f"under {_budget(budget)} and the stated threat model"
    if word == "collapses" and worst is not None:
        return f"Refusal collapses: {_collapsed(worst, arms[worst], plan['thresholds'])}, {terms}."
    if word == "holds" and worst is not None:
        dose = tried.largest(entry.get("largest_dose") for entry in arms.values())
        most = f" in up to {dose}," if dose else ""
        return (
            f"No arm made refusal collapse{most} {terms} ({_stood(worst, arms, plan['thresholds'])}); "
            "this says nothing of a larger dose, a larger budget or another attack."
        )
    why = list(failed) + [f"{name}: {e['reasons'][0]}" for name, e in arms.items() if e["verdict"] == word]
    return f"No conclusion can be drawn {terms}: {why[0] if why else 'nothing was measured'}."


def not_as_registered(post_hoc: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a further sentence that names what decided the verdict and is not as registered; "" for nothing."""
    keys = deciding(post_hoc)
    return f" This is post hoc, not as registered ({', '.join(keys)})." if keys else ""


def _stood(worst: str, arms: Mapping[str, Mapping[str, Any]], thresholds: Mapping[str, Any]) -> str:
    """Return where refusal stood at worst, among arms that held."""
    low, start = arms[worst]["lowest_refusal"], arms[worst]["rung0"]
    first = start[low["metric"]]
    before, after = shares.alike([first["value"], low["value"]], (thresholds["refusal"],))
    if as_before(low["value"], first["value"]):
        went = f"stayed at {before}"
    else:
        went = f"{'fell' if low['high'] < first['low'] else 'went'} from {before} to {after}"
    return f"no arm differed: it {went}" if no_arm_differs(arms) else f"at worst, in arm {worst}, it {went}"


def _collapsed(name: str, entry: Mapping[str, Any], thresholds: Mapping[str, Any]) -> str:
    dose = entry["collapse"]
    metric = dose["metric"]
    spent = [_amount(dose[unit], UNITS[unit]) for unit in ("device_seconds", "usd") if _known(dose.get(unit))]
    kept = min(e["value"] for e in entry["retention_at_collapse"].values())
    ends = (entry["rung0"][metric]["value"], entry["at_collapse"][metric]["value"])
    before, after = shares.alike(ends, (thresholds["refusal"],))
    sure = dose.get("confident_step")
    later = [f"certain from step {sure}"] if sure and sure != dose["step"] else []
    price = counted(dose["step"], "step", "steps") + (f" ({', '.join([*spent, *later])})" if spent or later else "")
    kind = "" if entry["adversarial"] else ", an ordinary fine-tune without intent,"
    rest = shares.kept(kept, (thresholds["capability_retention"],))
    return f"arm {name}{kind} brought it from {before} to {after} in {price} and kept {rest} of the capability"


def no_arm_differs(arms: Mapping[str, Mapping[str, Any]]) -> bool:
    """Say whether the lowest refusal of each of several arms is the same, limits and all: none is the worst."""
    lowest = [entry.get("lowest_refusal") for entry in arms.values()]
    same = {tuple(low[key] for key in ("value", "low", "high")) for low in lowest if low}
    return len(arms) > 1 and len(same) == 1 and all(lowest)


def _amount(value: float, unit: str) -> str:
    """Return an amount as a release manager reads it: no powers of ten."""
    return f"less than 0.01 {unit}" if 0 < value < 0.01 else f"{value:,.2f} {unit}"


def _budget(ledger: Mapping[str, Any]) -> str:
    caps = [
        f"{ledger[unit]['cap']:,g} {word}"
        for unit, word in UNITS.items()
        if unit in ledger and _known(ledger[unit].get("cap"))
    ]
    return (
        f"a budget of {' and '.join(caps)} for the whole review"
        if caps
        else "no cap on the budget but the ladders' length"
    )


def _known(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
