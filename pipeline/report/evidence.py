"""How sure the verdict is, in words: doses over seeds, several draws, the worst arm, power, the number of looks. Pure.

It puts keys of verdict.json into words and computes nothing. What an older run does not hold is left out; what was
measured without result is "no data"; a seed that never collapsed is "censored".
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pipeline.report.data import DOSE_UNITS, NO_DATA, ReportData, amount, has_value, number, quantity, share, spread
from pipeline.report.ink import colour
from pipeline.report.view import Measured, measured

UNITS: Final = ("steps", "flops", "device_seconds", "usd")


@dataclass(frozen=True)
class DoseRow:
    """When the seeds of one arm collapse, in one unit; every cell is words."""

    arm: str
    colour: str
    unit: str
    collapsed: str
    share: Measured
    median: str
    median_interval: str
    mean: str
    mean_interval: str
    restricted: str
    restricted_note: str


@dataclass(frozen=True)
class DrawRow:
    """One number of tries k: the share that is not refused, to who keeps the best of k and to who asks once."""

    k: str
    attacker: Measured
    average: Measured
    left_out: str


@dataclass(frozen=True)
class Draws:
    """Several draws of one metric at one rung of one arm."""

    arm: str
    colour: str
    title: str
    rows: tuple[DrawRow, ...]
    flips: tuple[str, ...]


def has_any(run: ReportData) -> bool:
    """Say whether the verdict holds any of this; an older run's holds none."""
    arms = any(run.arm_verdict(arm).get(key) for arm in run.arms() for key in ("dose", "survival", "draws"))
    return arms or any(run.verdict.get(key) for key in ("worst", "power", "looks"))


def dose_rows(run: ReportData, unit: str) -> list[DoseRow]:
    """Return a row for each arm whose verdict has a dose in this unit (a key of `UNITS`)."""
    found = {arm: (run.arm_verdict(arm).get("dose") or {}).get(unit) for arm in run.arms()}
    return [_dose_row(run, arm, unit, dose) for arm, dose in found.items() if dose]


def _metric(row: Mapping[str, Any]) -> str:
    return str(row.get("metric") or "refusal").replace("_", " ")


def _dose_row(run: ReportData, arm: str, unit: str, dose: Mapping[str, Any]) -> DoseRow:
    mean, restricted = dose.get("geometric_mean") or {}, dose.get("restricted_mean") or {}
    early, late = restricted.get("earliest") or {}, restricted.get("seen") or {}
    between = spread(unit, [early.get("value"), late.get("value")])
    limits = f"[{amount(unit, early.get('low'))}, {amount(unit, late.get('high'))}]"
    return DoseRow(
        arm=arm,
        colour=colour(run, arm),
        unit=DOSE_UNITS[unit],
        collapsed=_collapsed(dose),
        share=measured(dose.get("share_collapsed")),
        median=_median(unit, dose),
        median_interval=_open_interval(unit, dose.get("exact")),
        mean=amount(unit, mean.get("value")),
        mean_interval=f"[{amount(unit, mean.get('low'))}, {amount(unit, mean.get('high'))}]" if has_value(mean) else "",
        restricted=between if has_value(late) else NO_DATA,
        restricted_note=f"{limits}, no seed counted beyond {amount(unit, restricted.get('horizon'))}"
        if has_value(late)
        else "",
    )


def _collapsed(dose: Mapping[str, Any]) -> str:
    seeds, censored = number(dose.get("seeds")), number(dose.get("censored"))
    if not seeds > 0:
        return NO_DATA
    words = f"{quantity(dose.get('collapsed'))} of {quantity(seeds)}"
    return f"{words}; {quantity(censored)} censored" if censored > 0 else words


def _median(unit: str, dose: Mapping[str, Any]) -> str:
    seen, early, above = (number(dose.get(key)) for key in ("median_seen", "median_earliest", "median_above"))
    if math.isfinite(seen):
        return f"after {amount(unit, early if math.isfinite(early) else 0)}, by {amount(unit, seen)}"
    return f"above {amount(unit, above)} (censored)" if math.isfinite(above) else NO_DATA


def _open_interval(unit: str, ends: object) -> str:
    """Return the distribution-free interval; a null end is open, which with few seeds it must be."""
    if not isinstance(ends, list | tuple) or len(ends) != 2:
        return ""
    low, high = (number(end) for end in ends)
    if low > 0 and math.isfinite(high):
        return f"[{amount(unit, low)}, {amount(unit, high)}]"
    if low > 0:
        return f"above {amount(unit, low)}; no upper end with so few seeds"
    return f"up to {amount(unit, high)}; no lower end" if math.isfinite(high) else "no interval with so few seeds"


def half_open(rows: Sequence[DoseRow]) -> bool:
    """Say whether the median of some arm has an interval with one end only."""
    return any("no upper end" in row.median_interval or "no lower end" in row.median_interval for row in rows)


def draws(run: ReportData) -> list[Draws]:
    """Return what several draws say, for each arm, metric and rung that has them."""
    return [
        Draws(
            arm=arm,
            colour=colour(run, arm),
            title=f"{_metric(found)}, step {quantity(found.get('step'))}",
            rows=tuple(_draw_row(row) for row in found.get("k") or []),
            flips=_flips(found.get("flips") or {}),
        )
        for arm in run.arms()
        for found in run.arm_verdict(arm).get("draws") or []
    ]


def _draw_row(row: Mapping[str, Any]) -> DrawRow:
    left = quantity(row.get("left_out")) if number(row.get("left_out")) > 0 else "none"
    return DrawRow(quantity(row.get("k")), measured(row.get("attacker")), measured(row.get("average")), left)


def _flips(found: Mapping[str, Any]) -> tuple[str, ...]:
    both, disagree = measured(found.get("both")), measured(found.get("disagree"))
    if not (both.known or disagree.known):
        return ("Flips between draws: no data; one draw a prompt cannot flip.",) if found else ()
    few, most = (quantity(n) for n in (found.get("draws") or (None, None)))
    counted = f"{few} draws" if few == most else f"{few} to {most} draws"
    left = number(found.get("left_out"))
    lines = [
        f"Over {counted} a prompt, {both} of the prompts were both refused and answered (n {both.n}).",
        f"Two draws of one prompt differ with a chance of {disagree} (n {disagree.n}).",
    ]
    if left > 0:
        lines.append(f"Left out for having a single scored draw: {quantity(left)} of prompts times seeds.")
    return tuple(lines)


def worst(run: ReportData) -> list[str]:
    """Return what is left of the worst arm once the choice and the report rest on different prompts."""
    found = run.verdict.get("worst") or {}
    if not found:
        return []
    metric = _metric(found)
    if found.get("arm") is None:
        return [_said(found) or f"No worst arm: {metric} has no data on the prompts that would choose it."]
    dev, held, plain = (measured(found.get(key), run.against) for key in ("dev", "held_out", "uncorrected"))
    lines = [
        _said(found)
        or f"Picked from {quantity(found.get('arms'))} arms and rungs on {quantity(found.get('dev_prompts'))} prompts: "
        f"{found['arm']} at step {quantity(found.get('step'))}; on the {quantity(found.get('held_out_prompts'))} "
        f"prompts that did not pick it {metric} is {held}.",
        f"On the prompts that picked it, it reads {dev} (n {dev.n}): biased by the choice.",
    ]
    if plain.known:
        lines.append(
            f"Picked and reported on all prompts at once it would read {plain} "
            f"({found.get('uncorrected_arm') or 'arm: no data'}, step {quantity(found.get('uncorrected_step'))})."
        )
    return lines


def power(run: ReportData) -> list[str]:
    """Return the smallest changes that this many prompts could have seen, each as a sentence with its arm and step."""
    lines = []
    for row in run.verdict.get("power") or []:
        change = number(row.get("change"))
        size = f"a change of {share(change)}" if math.isfinite(change) else "no change, however large,"
        lines.append(
            _said(row)
            or f"{_metric(row)}, arm {row.get('arm') or NO_DATA}, step {quantity(row.get('step'))}: "
            f"{quantity(row.get('n'))} prompts could have seen {size} with power {share(row.get('power'))} at alpha "
            f"{share(row.get('alpha'))} ({row.get('method') or 'method: no data'})."
        )
    return list(dict.fromkeys(lines))


def looks(run: ReportData) -> list[str]:
    """Return how many looks there were, and what correcting for them leaves."""
    found = run.verdict.get("looks") or {}
    if not found:
        return []
    confidence = number(found.get("simultaneous_confidence"))
    count = quantity(found.get("count"))
    lines = [
        _said(found) or f"{count} arms and rungs were looked at, corrected for by {found.get('method') or NO_DATA}."
    ]
    if math.isfinite(confidence):
        each = share(confidence, 4)
        lines.append(f"For all of them to hold at once, each interval would need a confidence of {each}.")
    values = [
        f"{arm} {share(p, 3) if math.isfinite(number(p)) else NO_DATA}"
        for arm, p in (found.get("adjusted") or {}).items()
    ]
    return [*lines, f"Least corrected p of each arm: {', '.join(values)}."] if values else lines


def intervals(run: ReportData) -> list[tuple[str, str, str, Measured, Measured]]:
    """Return (arm, colour, metric and step, interval in use, interval of the bootstrap) where the verdict has both."""
    return [
        (
            arm,
            colour(run, arm),
            f"{_metric(row)}, step {quantity(row.get('step'))}",
            measured(row.get("in_use"), run.against),
            measured(row.get("bootstrap"), run.against),
        )
        for arm in run.arms()
        for row in run.arm_verdict(arm).get("intervals") or []
    ]


def _said(found: Mapping[str, Any]) -> str:
    """Return the sentence that the verdict itself holds; "" where it holds none."""
    return str(found.get("sentence") or "")
