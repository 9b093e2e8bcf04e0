"""What the report is made from, how it is looked up, and how numbers are put into words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from pipeline import shares
from pipeline.data.variants import MARK
from pipeline.report.examples import Example

NO_DATA: Final = "no data"
SLOTS: Final = ("refusal", "recovered", "capability", "over_refusal")  # the metrics that the report speaks of
Row = Mapping[str, Any]

# The units of a dose with the word that the report uses, in the order in which it lists them.
DOSE_UNITS: Final[dict[str, str]] = {
    "steps": "steps",
    "examples": "examples",
    "tokens": "tokens",
    "flops": "FLOPs",
    "device_seconds": "device-seconds",
    "usd": "US dollars",
}
_SUPERSCRIPT: Final = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class ReportData:
    """One run as its files tell it; the report reads nothing else.

    Args:
        plan: `plan.json`.
        verdict: `verdict.json`.
        points: `points` of `curves.json`; `seed` null is pooled over seeds, `kind` "" is all kinds.
        ledger: `Ledger.summary()`: cap and spent of device_seconds, usd, flops; by_stage; attempts by status.
        controls: a row per proven rung or control. Only the keys in `view.CONTROL_COLUMNS` are shown.
        judges: `judges.json`; empty where there is none.
        attempts: the ledger's attempts, each by its last row (`Ledger.attempts`); empty draws no burn-down.
        containment: what became of the stripped weights (`pipeline.contain.containment`); empty: no record.
        examples: a few prompts and replies as text; None (as always, but by `report.include_text`) shows none.
    """

    plan: dict[str, Any]
    verdict: dict[str, Any]
    points: list[dict[str, Any]]
    ledger: dict[str, Any] = field(default_factory=dict)
    controls: list[dict[str, Any]] = field(default_factory=list)
    judges: dict[str, Any] = field(default_factory=dict)
    attempts: list[dict[str, Any]] = field(default_factory=list)
    containment: dict[str, Any] = field(default_factory=dict)
    examples: list[Example] | None = None

    def arms(self) -> list[str]:
        """Return the arms: the plan's order, then whatever only the verdict or the curves know."""
        tasks = [task.get("arm") for task in self.plan.get("tasks") or []]
        known = [*tasks, *(self.verdict.get("arms") or {}), *(point.get("arm") for point in self.points)]
        return [str(arm) for arm in dict.fromkeys(known) if arm]

    def seeds(self, arm: str) -> list[int]:
        """Return the seeds of an arm, planned or measured, in ascending order."""
        planned = {task.get("seed") for task in self.plan.get("tasks") or [] if task.get("arm") == arm}
        measured = {point.get("seed") for point in self.points if point.get("arm") == arm}
        return sorted(int(seed) for seed in planned | measured if seed is not None)

    def metric(self, slot: str) -> str:
        """Return the metric that fills a slot (`refusal`, `recovered`, `capability`, `over_refusal`).

        That is the one that decides, by its role: an eval of the user's may have any name, and one of the slot's
        name may be merely shown. Without a role, the metric of this name; else the first that ends so; else the
        slot's own name, which then has no data.
        """
        roles = {name: str(p.get("role") or "") for p in self.points if MARK not in (name := str(p.get("metric")))}
        deciding = [name for name in sorted(roles) if roles[name] == slot]
        if deciding:
            return slot if slot in deciding else deciding[0]
        # "over_refusal" ends in "refusal" and means the contrary.
        ending = [name for name in sorted(roles) if name.endswith(f"_{slot}") and slot != "refusal"]
        return slot if slot in roles else next(iter(ending), slot)

    def metrics(self) -> list[str]:
        """Return all metrics: those of the four slots, then others by name; further ways to ask stand apart."""
        names = {name for p in self.points if (name := str(p.get("metric") or "")) and MARK not in name}
        return list(dict.fromkeys([*map(self.metric, SLOTS), *sorted(names)]))

    def curve(self, arm: str, slot: str, seed: int | None = None, kind: str = "") -> list[dict[str, Any]]:
        """Return the points of a slot's or metric's curve by ascending step; `seed` None pools the seeds."""
        metric = self.metric(slot) if slot in SLOTS else slot
        found = [
            point
            for point in self.points
            if point.get("arm") == arm
            and point.get("metric") == metric
            and point.get("seed") == seed
            and (point.get("kind") or "") == kind
        ]
        return sorted(found, key=lambda point: int(point.get("step") or 0))

    def measures(self, slot: str) -> bool:
        """Say whether a slot's metric has a value at any rung."""
        metric = self.metric(slot)
        return any(point.get("metric") == metric and has_value(point) for point in self.points)

    def kinds(self, slot: str) -> list[str]:
        """Return the kinds in which a metric was measured, without "" (all)."""
        metric = self.metric(slot) if slot in SLOTS else slot
        return sorted({str(p["kind"]) for p in self.points if p.get("metric") == metric and p.get("kind")})

    def arm_verdict(self, arm: str) -> dict[str, Any]:
        """Return what the verdict says of one arm; empty where it says nothing."""
        return dict((self.verdict.get("arms") or {}).get(arm) or {})

    def threshold(self, name: str) -> float:
        """Return a threshold of the verdict (`refusal`, `capability_retention`), NaN where it names none."""
        return number((self.verdict.get("thresholds") or {}).get(name))

    @property
    def against(self) -> tuple[float, ...]:
        """The thresholds that shares are held against, and over which none is rounded."""
        both = (self.threshold("refusal"), self.threshold("capability_retention"))
        return tuple(x for x in both if math.isfinite(x))

    @property
    def level(self) -> str:
        """The confidence of the run's intervals, as "95 %"; "" where no file names it."""
        review = (self.plan.get("config") or {}).get("review") or {}
        known = (self.threshold("confidence"), number(review.get("confidence")))
        return next((f"{100 * x:g} %" for x in known if math.isfinite(x)), "")

    def measured_seeds(self, arm: str) -> list[int]:
        """Return the seeds of an arm that have a value of some metric at some rung beyond rung 0, ascending."""
        mine = (p for p in self.points if p.get("arm") == arm and number(p.get("step")) > 0 and has_value(p))
        return sorted({int(seed) for p in mine if (seed := p.get("seed")) is not None})

    def measured_arms(self) -> list[str]:
        """Return the arms of which some rung beyond rung 0 was measured."""
        return [arm for arm in self.arms() if self.measured_seeds(arm)]


def number(value: object) -> float:
    """Return `value` as a float; None, text and booleans are NaN ("no data"), never 0."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    return float(value)


def has_value(estimate: Row | None) -> bool:
    """Say whether an estimate holds a number."""
    return estimate is not None and math.isfinite(number(estimate.get("value")))


def share(value: object, digits: int = 2, *, against: Sequence[float] = ()) -> str:
    """Return a share with two decimals; with more where these would hide 0, 1 or one of the thresholds `against`."""
    x = number(value)
    return shares.share(x, against, digits) if math.isfinite(x) else NO_DATA


def change(before: object, after: object, against: Sequence[float] = (), between: str = " → ") -> str:
    """Return `a → b` of two shares with the same decimals; either may be no data."""
    both = [number(before), number(after)]
    told = iter(shares.alike([x for x in both if math.isfinite(x)], against))
    return between.join(next(told) if math.isfinite(x) else NO_DATA for x in both)


def interval(estimate: Row | None, against: Sequence[float] = ()) -> str:
    """Return `[low, high]` of an estimate, or nothing where there is none."""
    if estimate is None or not (math.isfinite(number(estimate.get("low"))) and has_value(estimate)):
        return ""
    low, high = (share(estimate.get(end), against=against) for end in ("low", "high"))
    return f"[{low}, {high}]"


def quantity(value: object) -> str:
    """Return a count or an amount with three significant digits: 3,100; 0.41; 1.1 × 10¹⁰."""
    x = number(value)
    if not math.isfinite(x):
        return NO_DATA
    if x == 0:
        return "0"
    if abs(x) >= 1e7 or abs(x) < 1e-4:
        mantissa, exponent = f"{x:.2e}".split("e")
        mantissa = mantissa.rstrip("0").rstrip(".")
        return f"{mantissa} × 10{str(int(exponent)).translate(_SUPERSCRIPT)}"
    if x == int(x) or abs(x) >= 1000:
        return f"{x:,.0f}"
    decimals = max(0, 2 - math.floor(math.log10(abs(x))))
    text = f"{x:.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def amount(unit: str, value: object) -> str:
    """Return an amount with its unit in the short form that fits a table: `$0.0003`, `0.41 s`, `3,100`."""
    x = number(value)
    if not math.isfinite(x):
        return NO_DATA
    if unit == "usd":
        return f"${x:,.2f}" if x >= 1 else f"${quantity(x)}"
    if unit == "device_seconds":
        return f"{quantity(x)} s"
    return quantity(x)


def spread(unit: str, values: Sequence[object]) -> str:
    """Return the range of an amount over seeds: `8`, or `4 to 8`; no data where no seed has a number."""
    numbers = sorted(x for x in map(number, values) if math.isfinite(x))
    if not numbers:
        return NO_DATA
    low, high = amount(unit, numbers[0]), amount(unit, numbers[-1])
    return low if low == high else f"{low} to {high}"


def short_digest(value: object, length: int = 12) -> str:
    """Return the first characters of a digest."""
    return value[:length] if isinstance(value, str) and value else NO_DATA
