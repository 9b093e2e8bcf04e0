"""How many times as much does B cost to strip as A? Pure: ladders in, ratios with bounds out.

What is known of one seed's collapse is an interval: not yet at the last rung before it, and by its own rung. Doses
come in whole steps, so it begins one step after the last rung without collapse. A seed that did not collapse has only
a lower end (censored): its price, if there is one, lies beyond what was tried.

The ratio is that of the geometric means over seeds. Its limits allow for three things, all of which only widen them:

- the rungs: the lower limit takes B at the lower ends and A at the upper ends of their intervals, the upper limit the
  reverse. Nothing is assumed on where between two rungs collapse lies (partial identification; Manski 2003, Partial
  Identification of Probability Distributions). With rungs at powers of two this alone is a factor of up to two each
  way, however many seeds there are.
- the seeds: percentile bootstrap over the seeds of A and, independently, of B (Efron & Tibshirani 1993, chapter 13),
  of those two extremes; widened to Welch's t for the difference of the mean log doses at the intervals' middles,
  since resampling 3 of 3 seeds shrinks their spread. With one seed there is no spread to see.
- the prompts: which rung collapses hangs on which prompts were asked, for all seeds of a run alike. So the same
  bootstrap once more with the prompts resampled as well, each seed's collapse found anew (`pipeline.compare.redrawn`).
  A resample in which a seed does not collapse leaves its price open above; where more than the tail are such, the
  limit is infinite (or 0).

By simulation of seeds (rungs at powers of two, log-normal doses; tests/compare/test_cost.py) 95 % limits hold the true
ratio 96 to 100 % of the time with 3 seeds or more, most often where seeds agree to within a rung; with 2 seeds down to
92 %. By simulation of prompts, each with a dose of its own at which its refusal ends (log-normal with a spread of 0.5
or 1, of which 0.1 or 0.5 more by seed; 90 or 200 prompts; 1, 2 or 4 rungs a doubling; 3 or 5 seeds; a true ratio of 1
or 2; 200 data sets in each of 72 cells) they leave it out in 0 to 1 % of data sets, where limits that take the prompts
for all there are do in 1.5 to 50 %. With 50 prompts it is up to 2.5 %, with seeds that differ by 0.6 on top up to 4 %.
What it costs: half the width is 1.1 to 2 doublings at powers of two and 0.5 to 1.2 with 4 rungs a doubling, instead of
0.9 to 1.4 and 0.3 to 0.6; less where prompts that are hard for A are hard for B. Taking each seed's ends where the
intervals of the curve are sure instead (the last rung that is certainly not collapsed, the first that certainly is)
leaves the ratio out as seldom, but is 1.1 to 2.3 times as wide, and never sees a collapse on 50 prompts.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Literal

import numpy as np
from scipy import special

from pipeline.compare.runs import FinishedRun
from pipeline.inference.doses import last_clear_step
from pipeline.report.data import DOSE_UNITS
from pipeline.statistics import FloatArray

Case = Literal["both", "at least", "at most", "neither", "no data"]
MACHINE_UNITS: Final = ("device_seconds", "usd")


@dataclass(frozen=True)
class PriceBounds:
    """One seed's price in one unit, its dose at collapse: from `low` to `high`, which is infinite where it held."""

    low: float
    high: float

    @property
    def collapsed(self) -> bool:
        """Whether this seed collapsed at a dose that was tried."""
        return math.isfinite(self.high)

    @property
    def middle(self) -> float:
        """The geometric middle of what is known; the lower end where there is no upper one."""
        return math.sqrt(self.low * self.high) if self.collapsed else self.low


@dataclass(frozen=True)
class Ladder:
    """One arm and seed as it was measured: the last step without collapse, the step of collapse, doses by step.

    `clear` is the last step before the first that either collapsed or was not measured; 0 is rung 0. `collapsed` is
    None where no rung collapsed.
    """

    clear: int
    collapsed: int | None
    doses: Mapping[int, Mapping[str, float | None]]

    def dose(self, unit: str) -> PriceBounds | None:
        """Return the dose at collapse in a unit of `DOSE_UNITS`; None where nothing is known of it."""
        below = self._at(unit, self.clear) if self.clear else 0.0
        if self.collapsed is None:
            return PriceBounds(below, math.inf) if below > 0 else None
        high = self._at(unit, self.collapsed)
        low = below + (high - below) / (self.collapsed - self.clear)
        return PriceBounds(low, high) if 0 < low <= high else None

    def _at(self, unit: str, step: int) -> float:
        value = self.doses.get(step, {}).get(unit)
        return math.nan if value is None else float(value)


@dataclass(frozen=True)
class CostRatio:
    """B's price in units of A's. `case` says what is known.

    both: value and limits; at least: only `low` (B has seeds that did not collapse), `high` is infinite; at most: only
    `high` (A has such seeds), `low` is 0; neither: both have, no ratio; no data. `value` is NaN but for `both`.
    `rungs_low` and `rungs_high` are what the limits would be if the seeds and prompts seen were all there are: more
    rungs narrow these, more seeds and prompts the rest. With `both`, too, `low` may be 0 and `high` infinite.
    """

    case: Case
    value: float = math.nan
    low: float = math.nan
    high: float = math.nan
    rungs_low: float = math.nan
    rungs_high: float = math.nan


Ladders = Mapping[tuple[str, int], Ladder]  # by arm and seed
NO_SEARCH: Final[Mapping[str, float]] = MappingProxyType({})


def ladders(run: FinishedRun) -> dict[tuple[str, int], Ladder]:
    """Return each arm's and seed's ladder; one on which no rung was measured has nothing clear and no collapse."""
    found = {}
    for arm, seed in dict.fromkeys((str(task["arm"]), int(task["seed"])) for task in run.plan["tasks"]):
        collapse = run.collapses.get((arm, seed))
        step = int(collapse["step"]) if collapse else None
        points = [p for p in run.points if (p["arm"], p["seed"], p["kind"]) == (arm, seed, "")]
        found[arm, seed] = Ladder(clear_before(points, step), step, run.doses.get((arm, seed), {}))
    return found


def clear_before(points: Iterable[Mapping[str, Any]], collapsed: int | None) -> int:
    """Return the last step up to which every rung was measured, of those below a step (None: of all).

    Args:
        points: those of one arm and seed.
        collapsed: the step of collapse.
    """
    return last_clear_step(
        (int(p["step"]), int(p["n"]))
        for p in points
        if p["role"] in ("refusal", "capability") and (collapsed is None or p["step"] < collapsed)
    )


def price_bounds(
    found: Ladders, unit: str, arm: str | None = None, search: Mapping[str, float] = NO_SEARCH
) -> dict[int, tuple[str, PriceBounds]]:
    """Return each seed's price with the arm that has it: of one arm, or of the cheapest of all (`arm` None).

    The cheapest is taken seed by seed: no cheaper than the least lower end of any arm, no dearer than the least upper
    end. The arm named is that of the least middle, one that collapsed before one that did not. A seed of which an arm
    was not measured has no cheapest arm: that one might have been it (`unmeasured`). Arguments as for `priced`.
    """
    cheapest = {}
    for seed, doses in priced(found, unit, arm, search).items():
        name = min(doses, key=lambda each: (not doses[each].collapsed, doses[each].middle, each))
        ends = doses.values()
        cheapest[seed] = (name, PriceBounds(min(d.low for d in ends), min(d.high for d in ends)))
    return cheapest


def priced(
    found: Ladders, unit: str, arm: str | None = None, search: Mapping[str, float] = NO_SEARCH
) -> dict[int, dict[str, PriceBounds]]:
    """Return what each seed's price is taken from: by seed, the arms of which something is known.

    Args:
        found: what `ladders` returned.
        unit: of `DOSE_UNITS`.
        arm: this arm alone; None: all.
        search: by arm, what is paid on top of the training that collapsed.
    """
    by_seed: dict[int, dict[str, PriceBounds]] = {}
    lacking = {seed for _, seed in unmeasured(found)} if arm is None else set()
    for (name, seed), ladder in sorted(found.items(), key=lambda item: item[0][1]):
        dose = ladder.dose(unit)
        if dose is not None and arm in (None, name) and seed not in lacking:
            more = search.get(name, 0.0)
            by_seed.setdefault(seed, {})[name] = PriceBounds(dose.low + more, dose.high + more)
    return by_seed


def unmeasured(found: Ladders) -> list[tuple[str, int]]:
    """Return each arm and seed of which nothing is known beyond rung 0."""
    return [place for place, ladder in found.items() if not ladder.clear and ladder.collapsed is None]


def cost_ratio(
    a: Sequence[PriceBounds],
    b: Sequence[PriceBounds],
    confidence: float,
    resamples: int,
    redrawn: tuple[FloatArray, FloatArray] | None = None,
) -> CostRatio:
    """Return how many times as much B costs as A, with limits over seeds, prompts and rungs; see the module's text.

    Args:
        a, b: the doses at collapse of each run's seeds, in one unit.
        confidence: coverage, such as 0.95.
        resamples: number of bootstrap resamples; the generator is seeded, so that limits repeat.
        redrawn: the ends of these doses with the prompts of each resample (`pipeline.compare.redrawn`), each of shape
            (2, resamples, seeds); None: the prompts are taken for all there are.

    Raises:
        ValueError: a dose is not positive, or `confidence` is not in (0, 1).
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence {confidence}: expected a share between 0 and 1")
    if any(not 0 < dose.low <= dose.high for dose in (*a, *b)):
        raise ValueError("a dose at collapse must be above 0, its ends in order")
    if not a or not b:
        return CostRatio("no data")
    has_a, has_b = (all(dose.collapsed for dose in side) for side in (a, b))
    if not has_a and not has_b:
        return CostRatio("neither")
    low_a, high_a, middle_a = _logs(a)
    low_b, high_b, middle_b = _logs(b)
    centre, half = float(middle_b.mean() - middle_a.mean()), _welch(middle_a, middle_b, confidence)
    least, most = _resampled_limits((a, b), confidence, resamples, redrawn)
    low = rungs_low = -math.inf
    high = rungs_high = math.inf
    if has_a:
        rungs_low = float(low_b.mean() - high_a.mean())
        low = min(rungs_low, least, centre - half)
    if has_b:
        rungs_high = float(high_b.mean() - low_a.mean())
        high = max(rungs_high, most, centre + half)
    case: Case = "both" if has_a and has_b else "at least" if has_a else "at most"
    return CostRatio(
        case,
        math.exp(centre) if case == "both" else math.nan,
        *(math.exp(limit) for limit in (low, high, rungs_low, rungs_high)),
    )


def _resampled_limits(
    sides: tuple[Sequence[PriceBounds], Sequence[PriceBounds]],
    confidence: float,
    resamples: int,
    redrawn: tuple[FloatArray, FloatArray] | None,
) -> tuple[float, float]:
    """Return the log ratio's limits by resampling: the wider of seeds alone, and of seeds and prompts together."""
    rng = np.random.default_rng(0)
    draws_a, draws_b = (
        rng.multinomial(len(side), np.full(len(side), 1 / len(side)), size=resamples) / len(side) for side in sides
    )
    as_seen = [np.array([[dose.low for dose in side], [dose.high for dose in side]])[:, None, :] for side in sides]
    least, most = [], []
    for ends_a, ends_b in [as_seen, *([redrawn] if redrawn else [])]:
        with np.errstate(divide="ignore"):  # a price of which nothing is known begins at 0
            (low_a, high_a), (low_b, high_b) = np.log(ends_a), np.log(ends_b)
        tail = (1 - confidence) / 2
        least.append(_quantile(_drawn(draws_b, low_b) - _drawn(draws_a, high_a), tail))
        most.append(-_quantile(_drawn(draws_a, low_a) - _drawn(draws_b, high_b), tail))
    return min(least), max(most)


def _drawn(draws: FloatArray, logs: FloatArray) -> FloatArray:
    """Return the mean log of the seeds drawn, shape (resamples,); a seed not drawn counts nothing, if it is infinite.

    Args:
        draws: each seed's share of a resample, shape (resamples, seeds).
        logs: shape (resamples or 1, seeds).
    """
    logs = np.broadcast_to(logs, draws.shape)
    mean: FloatArray = np.multiply(draws, logs, out=np.zeros_like(draws), where=draws > 0).sum(axis=1)
    return mean


def _quantile(values: FloatArray, share: float) -> float:
    """Return the value with at most `share` of all below it: one of them, since half-way to infinity is nowhere."""
    return float(np.sort(values)[math.floor(share * (values.size - 1))])


def _logs(doses: Sequence[PriceBounds]) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return the logarithms of the lower ends, the upper ends and the middles, each of shape (seeds,)."""
    rows = np.log(np.array([(dose.low, dose.high, dose.middle) for dose in doses], dtype=np.float64))
    return rows[:, 0], rows[:, 1], rows[:, 2]


def _welch(one: FloatArray, other: FloatArray, confidence: float) -> float:
    """Return the half-width of Welch's interval for the difference of two means; a side of one seed adds nothing."""
    parts = [(float(side.var(ddof=1)) / side.size, side.size - 1) for side in (one, other) if side.size > 1]
    total = math.fsum(part for part, _ in parts)
    if not total > 0:
        return 0.0
    free = total**2 / math.fsum(part**2 / degrees for part, degrees in parts)
    return float(special.stdtrit(free, 0.5 + confidence / 2)) * math.sqrt(total)


def units(comparable_time: bool) -> list[str]:
    """Return the units in which a ratio is given: seconds and money only where both ran on one kind of machine."""
    return [unit for unit in DOSE_UNITS if comparable_time or unit not in MACHINE_UNITS]
