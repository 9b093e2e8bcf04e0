"""What both runs cost to strip, by unit and arm, with and without the search: `cost` of comparison.json. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from pipeline.compare.cost import (
    NO_SEARCH,
    CostRatio,
    PriceBounds,
    cost_ratio,
    ladders,
    price_bounds,
    priced,
    unmeasured,
)
from pipeline.compare.redrawn import redrawn, redrawn_prices
from pipeline.compare.runs import FinishedRun

_RATIO: Final = ("case", "value", "low", "high", "rungs_low", "rungs_high")


class Prices:
    """The prices of a pair of runs and their ratios."""

    def __init__(self, a: FinishedRun, b: FinishedRun) -> None:
        self.runs = (a, b)
        self.ladders = {run.letter: ladders(run) for run in self.runs}
        self._confidence = float(a.verdict["thresholds"]["confidence"])
        self._resamples = int(a.plan["config"]["review"]["bootstrap"])
        self._redrawn = redrawn(a, b, self._resamples)

    def table(self, units: list[str]) -> dict[str, Any]:
        """Return `cost` of comparison.json.

        `with_search` holds the ratios that have the searches' own cost in both prices: of the cheapest arm, and of each
        arm that searched; None where no arm did. A search has no steps or examples, and a price only where one was set.
        """
        cheapest = {unit: self.cost(unit) for unit in units}
        arms = self.runs[0].arms()
        searched = [arm for arm in arms if any(arm in run.searches for run in self.runs)]
        searches = {unit: self._searches(unit) for unit in units}
        known = {unit: found for unit, found in searches.items() if found}
        return {
            "unit": "flops" if cheapest["flops"]["case"] != "no data" else "steps",
            "cheapest": cheapest,
            "arms": {arm: {unit: self.cost(unit, arm) for unit in units} for arm in arms},
            "with_search": {
                "cheapest": {unit: self.cost(unit, None, found) for unit, found in known.items()},
                "arms": {arm: {unit: self.cost(unit, arm, found) for unit, found in known.items()} for arm in searched},
            }
            if searched
            else None,
        }

    def cost(
        self, unit: str, arm: str | None = None, searches: Mapping[str, Mapping[str, float]] | None = None
    ) -> dict[str, Any]:
        """Return the price of both in one unit, and their ratio; `arm` None: the cheapest of the arms, seed by seed.

        Args:
            unit: of `DOSE_UNITS`.
            arm: this arm alone.
            searches: by run and arm, what is paid on top.
        """
        found, again = {}, []
        for letter, of_run in self.ladders.items():
            on_top = (searches or {}).get(letter, NO_SEARCH)
            found[letter] = price_bounds(of_run, unit, arm, on_top)
            again.append(redrawn_prices(self._redrawn[letter], priced(of_run, unit, arm), unit, on_top))
        one, other = ([dose for _, dose in found[letter].values()] for letter in "AB")
        ratio = cost_ratio(one, other, self._confidence, self._resamples, (again[0], again[1]))
        return {key: getattr(ratio, key) for key in _RATIO} | {
            letter: _of_side(doses) for letter, doses in found.items()
        }

    def certain(self, run: FinishedRun, unit: str) -> int:
        """Return in how many seeds the cheapest price rests on collapses that the intervals bear out at their rung.

        An arm whose collapse is either end of the price is one that it rests on.
        """
        of_run = self.ladders[run.letter]
        cheapest = price_bounds(of_run, unit)
        return sum(
            cheapest[seed][1].collapsed
            and all(
                run.collapses[arm, seed]["confident"]
                for arm, dose in doses.items()
                if dose.collapsed and (dose.low == cheapest[seed][1].low or dose.high == cheapest[seed][1].high)
            )
            for seed, doses in priced(of_run, unit).items()
        )

    def notes(self) -> list[str]:
        """Say which arms and seeds were not measured beyond rung 0, so that the seed is in no cheapest price."""
        return [line for run in self.runs for line in self._left_out(run)]

    def _left_out(self, run: FinishedRun) -> list[str]:
        seeds: dict[str, list[str]] = {}
        for arm, seed in unmeasured(self.ladders[run.letter]):
            seeds.setdefault(arm, []).append(str(seed))
        return [
            f"{run.label}: {arm} was not measured in seed{'' if len(which) == 1 else 's'} {', '.join(which)}: left out "
            "of the ratio, since what was not measured may be the cheapest way"
            for arm, which in seeds.items()
        ]

    def _searches(self, unit: str) -> dict[str, dict[str, float]]:
        """Return what the searches of both runs cost in a unit, by run and arm; {} where it is not known of one."""
        found = {run.letter: {arm: entry["cost"].get(unit) for arm, entry in run.searches.items()} for run in self.runs}
        if not any(found.values()) or None in [cost for of_run in found.values() for cost in of_run.values()]:
            return {}
        return found


def ratio_of(cost: Mapping[str, Any]) -> CostRatio:
    """Return the ratio that `Prices.cost` wrote."""
    return CostRatio(*(cost[key] for key in _RATIO))


def _of_side(found: Mapping[int, tuple[str, PriceBounds]]) -> dict[str, Any]:
    collapsed = sum(dose.collapsed for _, dose in found.values())
    arms = [arm for arm, _ in Counter(arm for arm, _ in found.values()).most_common()]
    seeds = {str(seed): {"arm": arm, "low": dose.low, "high": dose.high} for seed, (arm, dose) in found.items()}
    return {"collapsed": collapsed, "seeds": len(found), "arms": arms, "by_seed": seeds}
