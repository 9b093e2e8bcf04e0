"""Where the estimate of a plan passes its caps, said before anything is spent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pipeline.budget import UNITS, price
from pipeline.schema import BudgetConfig

if TYPE_CHECKING:
    from rich.console import Console


def over_caps(plan: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each cap that the estimate of a plan passes, with what will come of it; pure.

    Training may use a cap less the reserve for measuring, and measuring what training leaves.
    """
    budget, estimate = BudgetConfig(**plan["config"]["budget"]), plan["estimate"]
    training = estimate["training_flops"] + estimate["search_flops"]
    parts = {"training": training, "measuring": estimate["measuring_flops"]}
    seconds = {part: flops / estimate["assumed_flops_per_second"] for part, flops in parts.items()}
    wanted = {"device_seconds": seconds, "usd": {part: price(s, budget) for part, s in seconds.items()}, "flops": parts}
    found = []
    for unit in UNITS:
        cap = getattr(budget, unit)
        if cap is None:
            continue
        trains, measures = wanted[unit]["training"], wanted[unit]["measuring"]
        room = cap * (1.0 - budget.measure_reserve)
        if trains > room:
            found.append(_over(unit, trains, room, "training", "the ladders will end early"))
        if measures > (left := cap - min(trains, room)):
            found.append(_over(unit, measures, left, "measuring", "replies will be missing"))
    return found


def _over(unit: str, wanted: float, room: float, part: str, comes: str) -> str:
    much, left = amount(unit, wanted), amount(unit, room)
    return f"The estimate is {much} {UNITS[unit]} of {part}, and the cap leaves {left} for it: {comes}."


def amount(unit: str, value: float) -> str:
    """Return an estimate of one of `UNITS` in digits: few of them, and never 0 for something.

    >>> [amount("device_seconds", value) for value in (8961.4, 12.6, 0.0123)]
    ['8,961', '13', '0.012']
    """
    if unit == "flops":
        return f"{value:.3g}"
    whole, places = {"device_seconds": (10.0, 0), "usd": (1.0, 2)}[unit]
    return f"{value:,.{places}f}" if value >= whole else f"{value:.2g}"


def tell_over_caps(plan: Mapping[str, Any], console: Console) -> None:
    """Print what `over_caps` finds."""
    for line in over_caps(plan):
        console.print(line, style="yellow", highlight=False, soft_wrap=True)
