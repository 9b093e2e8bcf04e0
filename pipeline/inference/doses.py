"""The dose at collapse over the seeds of an arm, seeds that did not collapse included. Pure.

A seed says where it collapsed only up to the rung before it, and one that did not says "more than its last rung".
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from pipeline.inference.survival import CollapseDose, Curve, SeedDose, collapse_dose
from pipeline.points import Collapses, CurvePoint
from pipeline.schema import ReviewConfig

UNITS = ("steps", "flops", "device_seconds", "usd")


def over_seeds(points: Sequence[CurvePoint], found: Collapses, arm: str, review: ReviewConfig) -> dict[str, Any]:
    """Return `dose` (unit to its summary over seeds) and `survival` (Kaplan-Meier's curve in steps) of an arm.

    Both are empty where rung 0 does not refuse, since such a subject cannot collapse, and where nothing was
    measured. A unit without a number (no price was set) is left out. Open ends are None.

    Args:
        points: what `pipeline.analyse.curves` returned.
        found: what `pipeline.collapse.collapses` returned for them.
        arm: the arm's name.
        review: threshold and confidence.
    """
    summaries = {}
    for unit in UNITS:
        seeds = seed_doses(points, found, arm, unit, review)
        if seeds:
            summaries[unit] = collapse_dose(seeds, review.confidence)
    steps = summaries.get("steps")
    return {"dose": {unit: _summary(s) for unit, s in summaries.items()}, "survival": _survival(steps) if steps else {}}


def seed_doses(
    points: Sequence[CurvePoint], found: Collapses, arm: str, unit: str, review: ReviewConfig
) -> list[SeedDose]:
    """Return where each measured seed collapsed, or up to where it did not, in a unit of dose.

    A seed counts as uncollapsed up to the last rung before the first that lacks data. One without any measured rung
    is left out: nothing is known of it.
    """
    mine = [p for p in points if p.arm == arm and p.seed is not None and not p.kind]
    starts = [p.estimate.value for p in mine if p.role == "refusal" and p.step == 0]
    if not any(value > review.refusal_threshold for value in starts):
        return []
    doses = []
    for seed in sorted({p.seed for p in mine if p.seed is not None}):
        deciding = [p for p in mine if p.seed == seed and p.role in ("refusal", "capability")]
        clear = last_clear_step((p.step, p.estimate.n) for p in deciding)
        by_step = {p.step: float(p.dose[unit]) for p in mine if p.seed == seed}
        collapse = found.get((arm, seed))
        after, at = clear, math.inf
        if collapse is not None:
            after, at = min(collapse.after_step, clear), float(collapse.dose[unit])
        start = by_step.get(after, 0.0) if after else 0.0
        if (collapse is None and not after) or math.isnan(start) or math.isnan(at):
            continue
        if start < at:
            doses.append(SeedDose(start, at))
    return doses


def last_clear_step(measured: Iterable[tuple[int, int]]) -> int:
    """Return the last step up to which every rung has data for all that decides; 0: not even the first.

    Args:
        measured: step and number of prompts of each metric of one seed that decides.
    """
    found: dict[int, list[int]] = {}
    for step, n in measured:
        found.setdefault(step, []).append(n)
    clear = 0
    for step in sorted(step for step in found if step > 0):
        if not all(found[step]):
            break
        clear = step
    return clear


def _summary(found: CollapseDose) -> dict[str, Any]:
    earliest, seen = found.restricted_mean
    return {
        "seeds": found.seeds,
        "collapsed": found.collapsed,
        "censored": found.censored,
        "share_collapsed": found.share_collapsed.as_dict(),
        "median_seen": found.median_seen,
        "median_earliest": found.median_earliest,
        "median_above": found.median_above,
        "exact": list(found.exact),
        "geometric_mean": found.geometric_mean.as_dict(),
        "restricted_mean": {"earliest": earliest.as_dict(), "seen": seen.as_dict(), "horizon": found.horizon},
    }


def _survival(found: CollapseDose) -> dict[str, Any]:
    return {"unit": "steps", "seen": _steps(found.seen), "earliest": _steps(found.earliest), "end": found.seen.end}


def _steps(curve: Curve) -> list[dict[str, Any]]:
    return [{"dose": s.dose, "share": s.share, "at_risk": s.at_risk, "collapsed": s.collapsed} for s in curve.steps]
