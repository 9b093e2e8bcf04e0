"""A comparison in words: one sentence for every way that it can end, and how its numbers are written. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from pipeline.collapse import SLACK
from pipeline.compare.cost import CostRatio
from pipeline.compare.runs import FinishedRun
from pipeline.wording import control_problems

State = Literal["measured", "not proven", "does not refuse", "is not able"]
Rounding = Literal["nearest", "down", "up"]
NO_RATIO: Final = "No ratio"
UNITS: Final = {"steps": "training steps", "flops": "training FLOPs"}  # the units that a sentence may use


@dataclass(frozen=True)
class Side:
    """What the sentence needs of one run: its label, what was found of it, and how many of its seeds collapsed.

    `certain` counts those of them whose intervals bear out the very collapse that the price is taken from.
    """

    label: str
    state: State
    collapsed: int
    seeds: int
    certain: int


def state(run: FinishedRun) -> State:
    """Return whether a run's price means anything: its controls passed, its subject refuses to begin with and is able.

    Of nothing no share can be kept, so that no rung could have been a collapse.
    """
    if control_problems(run.verdict["controls"]):
        return "not proven"
    tau = float(run.verdict["thresholds"]["refusal"])
    start = [p for p in run.points if p["step"] == 0 and not p["kind"] and p["n"]]
    refusals = [p["value"] for p in start if p["role"] == "refusal"]
    if refusals and all(value <= tau + SLACK for value in refusals):
        return "does not refuse"
    return "measured" if all(p["value"] > 0 for p in start if p["role"] == "capability") else "is not able"


def sentence(a: Side, b: Side, ratio: CostRatio, unit: str) -> str:
    """Return the verdict on a pair as one sentence.

    Args:
        a, b: the two runs.
        ratio: B's price in units of A's, by the cheapest of the arms tried.
        unit: the unit of the ratio, a key of `UNITS`.
    """
    for found, why in (
        ("not proven", "the controls of {} did not pass, so that nothing measured there is proven"),
        ("does not refuse", "{} does not refuse to begin with, so that there is nothing to strip"),
        ("is not able", "{} does not show an ability that was measured, so that none could be seen to be kept"),
    ):
        which = [side.label for side in (a, b) if side.state == found]
        if which:
            said = why.format(" and ".join(which))
            return f"{NO_RATIO}: {said.replace('does not', 'do not') if len(which) > 1 else said}."
    if ratio.case in ("no data", "neither") or (ratio.case != "both" and not limits(ratio)):
        return f"{NO_RATIO}: {_why_none(a, b, ratio)}"
    unsettled = dearer(ratio.low, ratio.high) is None
    tail = f"{', which leaves open which of the two is dearer' if unsettled else ''}{_doubt(a, b)}{_alone(a, b)}."
    how = f"times as much to strip as {a.label}, in {UNITS[unit]}"
    if ratio.case == "both":
        ends = f"[{times(ratio.low, 'down')}, {times(ratio.high, 'up')}]"
        return f"{b.label} costs {times(ratio.value)} {ends} {how} ({_seeds(a, b)}){tail}"
    if ratio.case == "at least":
        told = f"; {b.collapsed} of its {b.seeds} seeds collapsed at a dose that was tried"
        return f"{b.label} costs at least {times(ratio.low, 'down')} {how}, if it can be stripped at all{told}{tail}"
    told = f"; {a.collapsed} of the {a.seeds} seeds of {a.label} collapsed at a dose that was tried"
    return f"{b.label} costs at most {times(ratio.high, 'up')} {how}{told}{tail}"


def _why_none(a: Side, b: Side, ratio: CostRatio) -> str:
    if ratio.case == "no data":
        which = [side.label for side in (a, b) if not side.seeds]
        return f"of no seed of {' or '.join(which) or 'either'} was every arm measured."
    if ratio.case != "neither":  # a bound is lost: one side held in some seeds, the other would have on other prompts
        held, fell = (b, a) if ratio.case == "at least" else (a, b)
        return (
            f"{held.collapsed} of the {held.seeds} seeds of {held.label} collapsed at a dose that was tried, and "
            f"whether those of {fell.label} did hangs on the prompts that were drawn{_doubt(a, b)}."
        )
    if not a.collapsed and not b.collapsed:
        return (
            f"neither {a.label} nor {b.label} was stripped at any dose that was tried; what either costs is not "
            "known, and that is no finding of safety."
        )
    return (
        f"some seeds of both did not collapse at any dose that was tried ({a.label}: {a.collapsed} of {a.seeds} did; "
        f"{b.label}: {b.collapsed} of {b.seeds} did), so that neither price is known."
    )


def _seeds(a: Side, b: Side) -> str:
    if a.seeds == b.seeds:
        return f"{a.seeds} seeds each" if a.seeds > 1 else "one seed each"
    return f"{a.seeds} seed{'s' if a.seeds > 1 else ''} of A, {b.seeds} of B"


def _alone(a: Side, b: Side) -> str:
    """Say where a side has a single seed, of which nothing tells how far another would have been from it."""
    which = [side.label for side in (a, b) if side.seeds == 1]
    return f"; the spread between seeds of {' and '.join(which)} is not in the limits" if which else ""


def _doubt(a: Side, b: Side) -> str:
    """Say where a price rests on a rung that is collapsed by its point estimates alone, whatever the verdict's word.

    A verdict may be certain of a later rung, or of the seeds pooled; the price is that of this rung and seed.
    """
    which = [
        f"{side.collapsed - side.certain} of {side.collapsed} seeds of {side.label}"
        for side in (a, b)
        if side.certain < side.collapsed
    ]
    return f" (collapsed by point estimates alone, at a rung that is not certain: {'; '.join(which)})" if which else ""


def with_search(ratio: CostRatio, unit: str) -> str:
    """Return the sentence on the price of searching for an arm's options, which the other one leaves out.

    Args:
        ratio: B's price in units of A's, the searches' own cost in both.
        unit: a key of `UNITS`.
    """
    left_out = "What the search for an arm's options cost is not in it"
    said = limits(ratio)
    if ratio.case == "both":
        return f" {left_out}; with it, {times(ratio.value)} times{f' {said}' if said else ''}, in {UNITS[unit]}."
    return f" {left_out}; with it, {said} times, in {UNITS[unit]}." if said else f" {left_out}."


def dearer(low: float, high: float) -> Literal["A", "B"] | None:
    """Return which of the two is the dearer one by the limits as they are written; None where they leave it open."""
    if math.isfinite(low) and float(times(low, "down").replace(",", "")) > 1:
        return "B"
    return "A" if math.isfinite(high) and float(times(high, "up").replace(",", "")) < 1 else None


def times(value: float, rounding: Rounding = "nearest") -> str:
    """Return a ratio with two significant digits, whole from 10 on; limits are rounded outwards."""
    if not math.isfinite(value):
        return "no limit" if value == math.inf else "no data"
    if value <= 0:
        return "0"
    digits = max(0, 1 - math.floor(math.log10(value)))
    shifted = value * 10**digits
    # 1e-6 of a last digit: 2.5 that came out as 2.4999999999 is not rounded down to 2.4.
    whole = {"nearest": round(shifted), "down": math.floor(shifted + 1e-6), "up": math.ceil(shifted - 1e-6)}[rounding]
    return f"{whole / 10**digits:,.{digits}f}"


def limits(ratio: CostRatio | Mapping[str, float | None]) -> str:
    """Return a ratio's limits as a table has them: "[2.2, 4.5]", "at least 4.0", "at most 0.25", or nothing."""
    low, high = (ratio.low, ratio.high) if isinstance(ratio, CostRatio) else (ratio["low"], ratio["high"])
    down = times(low, "down") if low else ""
    up = times(high, "up") if high is not None and math.isfinite(high) else ""
    if down == up == "" or down == "no data":
        return ""
    return f"[{down}, {up}]" if down and up else f"at least {down}" if down else f"at most {up}"
