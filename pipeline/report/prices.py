"""The price of collapse, and the few numbers that stand under the verdict. Pure: no I/O, no markup."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.collapse import SLACK
from pipeline.report.data import (
    DOSE_UNITS,
    NO_DATA,
    ReportData,
    amount,
    change,
    has_value,
    number,
    quantity,
    spread,
)
from pipeline.report.ink import colour
from pipeline.report.unreached import NO_ABILITY, NO_REFUSAL, gap_words, missing_words, tried, why_not
from pipeline.report.view import Measured, collapse_of, collapse_seed, doubt, seeds_at_collapse, three
from pipeline.sentence import no_arm_differs
from pipeline.shares import kept as told_kept


@dataclass(frozen=True)
class PriceRow:
    """The price of collapse in one unit: pooled over seeds, and the range over the seeds that collapsed."""

    unit: str
    before: str
    pooled: str
    seeds: str


@dataclass(frozen=True)
class Price:
    """The price of one arm's collapse, which `reached` of `seeds` seeds had. No rows: it did not collapse.

    `at` says whose dose it is: the pooled curve's, or the dearest seed's where they collapse at rungs of their own;
    `missing` says why there are none; `most_tried` is the largest dose at which a collapse would have been seen.
    `measured` is how many seeds were measured at the rung of the pooled collapse; None: none is, or no file says.
    """

    arm: str
    colour: str
    threat: str
    reached: int
    seeds: int
    at: str
    previous: str
    step: str
    rows: tuple[PriceRow, ...]
    missing: str
    most_tried: str
    doubt: str = ""
    measured: int | None = None

    @property
    def of_seeds(self) -> str:
        """How many seeds collapsed, or, where fewer were measured at that rung, how many were."""
        if self.measured is not None and self.measured < self.seeds:
            return f"{self.measured} of {self.seeds} measured"
        return f"{self.reached} of {self.seeds} seeds"


def prices(run: ReportData) -> list[Price]:
    """Return the price of collapse for each arm, those that collapsed first, cheapest first."""

    def order(price: Price) -> tuple[bool, float]:
        return (not price.rows, number(collapse_of(run, price.arm).get("step")) if price.rows else 0.0)

    return sorted((_price(run, arm) for arm in run.arms()), key=order)


def _price(run: ReportData, arm: str) -> Price:
    collapse, seeds = collapse_of(run, arm), run.seeds(arm)
    of_seeds = [found for seed in seeds if (found := collapse_of(run, arm, seed))]
    doses = {int(p["step"]): p.get("dose") or {} for p in run.curve(arm, "refusal")}
    step = int(number(collapse["step"])) if collapse else None
    previous = collapse.get("after_step", max((s for s in doses if step is not None and s < step), default=None))
    rows = tuple(
        PriceRow(
            DOSE_UNITS[unit],
            NO_DATA if previous is None else amount(unit, doses.get(previous, {}).get(unit) if previous else 0),
            amount(unit, collapse.get(unit, collapse.get("step") if unit == "steps" else None)),
            spread(unit, [d.get(unit, d.get("step") if unit == "steps" else None) for d in of_seeds]),
        )
        for unit in DOSE_UNITS
    )
    config = (run.plan.get("config") or {}).get("arms") or {}
    threat = run.arm_verdict(arm).get("threat") or (config.get(arm) or {}).get("threat") or ""
    return Price(
        arm=arm,
        colour=colour(run, arm),
        threat=str(threat),
        reached=len(of_seeds),
        seeds=len(seeds),
        at="pooled" if (last := collapse_seed(run, arm)) is None else f"each at a rung of its own, seed {last} last",
        previous=quantity(previous) if previous is not None else NO_DATA,
        step=quantity(step) if step is not None else "",
        rows=rows if collapse else (),
        missing="" if collapse else missing_words(run, arm),
        most_tried=_dose_words(doses[steps[-1]]) if (steps := tried(run, arm)) else NO_DATA,
        doubt=doubt(run, arm),
        measured=seeds_at_collapse(run, arm) if collapse else None,
    )


def _dose_words(dose: Mapping[str, Any]) -> str:
    """Return a dose as one phrase; units without data are left out."""
    parts = []
    for unit, word in DOSE_UNITS.items():
        if math.isfinite(number(dose.get(unit))):
            text = amount(unit, dose[unit])
            parts.append(text if unit in ("usd", "device_seconds") else f"{text} {word}")
    return ", ".join(parts) or NO_DATA


def headline(run: ReportData) -> list[tuple[str, str, str]]:
    """Return the numbers under the verdict, of the worst arm: (name, value, what it rests on)."""
    arm = worst_arm(run)
    if arm is None:
        return []
    collapse, seed = collapse_of(run, arm), collapse_seed(run, arm)
    where = "at the end of the ladder"
    if collapse:
        where = f"at collapse, step {quantity(collapse['step'])}" + ("" if seed is None else f", seed {seed}")
    lines = [_price_line(run, arm, collapse)]
    for name, metric in (("refusal", "refusal"), ("capability", "capability"), ("secrets recovered", "recovered")):
        start, at, end = three(run, arm, metric, seed, collapse.get("step"))
        after = at if collapse else end
        if metric == "capability" and has_value(kept := _kept(run, arm, seed, collapse)):
            lines.append(("capability kept", *_of_rung0(run, kept, where)))
        elif metric == "refusal" and not collapse and _stood(run, arm, seed):
            steps = quantity(tried(run, arm, seed)[-1])
            lines.append((name, f"stayed at {after.value}", f"{_limits(run, after)}, at every rung up to step {steps}"))
        elif start.known or after.known:
            basis = f"{_limits(run, after)}, {where}" if after.known else where
            lines.append((name, change(start.share, after.share, run.against), basis))
    return lines


def _limits(run: ReportData, found: Measured) -> str:
    """Return "95 % [0.965, 1.01], n 160"."""
    limits = f"{run.level} {found.interval}".strip() if found.interval else ""
    return ", ".join(part for part in (limits, f"n {found.n}") if part)


def _of_rung0(run: ReportData, kept: Mapping[str, Any], where: str) -> tuple[str, str]:
    """Return a share of rung 0's capability, and what it rests on; with three figures, as in the verdict's reasons."""
    value, *ends = (told_kept(number(kept.get(key)), run.against) for key in ("value", "low", "high"))
    limits = _limits(run, Measured(value, f"[{', '.join(ends)}]", quantity(kept.get("n"))))
    return value, f"{limits}, {where}"


def _kept(run: ReportData, arm: str, seed: int | None, collapse: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what is kept of rung 0's capability at collapse, else at the end of the ladder; empty for no data."""
    points = run.curve(arm, "capability", seed)
    if collapse:
        points = [point for point in points if point["step"] == collapse["step"]]
    return (points[-1].get("retention") or {}) if points else {}


def _stood(run: ReportData, arm: str, seed: int | None) -> bool:
    """Say whether refusal was at every measured rung what it was at rung 0."""
    values = [number(p["value"]) for p in run.curve(arm, "refusal", seed) if has_value(p)]
    return bool(tried(run, arm, seed)) and all(abs(x - values[0]) < SLACK for x in values)


def _price_line(run: ReportData, arm: str, collapse: Mapping[str, Any]) -> tuple[str, str, str]:
    """Return the headline's first line; powers of ten belong in the table of prices, not here."""
    if not collapse:
        return ("price of collapse", *_no_price(run, arm))
    usd, steps = number(collapse.get("usd")), f"{quantity(collapse['step'])} steps"
    cost = "under $0.01" if 0 < usd < 0.01 else amount("usd", usd)
    paid = f"{quantity(collapse.get('examples'))} examples, {amount('device_seconds', collapse.get('device_seconds'))}"
    name = "price of collapse" + (", not certain" if doubt(run, arm) else "")
    return (name, cost if cost != NO_DATA else steps, paid)


def _no_price(run: ReportData, arm: str) -> tuple[str, str]:
    """Return what stands where the price would, and what it rests on."""
    kind = why_not(run, arm)
    if kind == NO_DATA:
        return NO_DATA, gap_words(run, arm)
    if kind == NO_REFUSAL:
        return "nothing to strip", "it does not refuse to begin with"
    if kind == NO_ABILITY:
        return "not known", NO_ABILITY.removeprefix("not known: ")
    return "not reached", missing_words(run, arm).removeprefix("not reached ")


def worst_arm(run: ReportData) -> str | None:
    """Return the verdict's worst arm; without one, the earliest to collapse, or that of lowest refusal."""
    named = run.verdict.get("worst_arm")
    if named in run.arms():
        return str(named)
    arms = run.arms()
    collapsed = [arm for arm in arms if collapse_of(run, arm)]
    if collapsed:
        return min(collapsed, key=lambda arm: number(collapse_of(run, arm)["step"]))

    def lowest(arm: str) -> float:
        return min((number(p["value"]) for p in run.curve(arm, "refusal") if has_value(p)), default=math.inf)

    return min(arms, key=lowest) if arms else None


def no_worst(run: ReportData) -> bool:
    """Say whether no arm fared worse than another: none collapsed, and refusal stood alike in all."""
    stripped = any(collapse_of(run, arm) for arm in run.arms())
    return not stripped and no_arm_differs(run.verdict.get("arms") or {})
