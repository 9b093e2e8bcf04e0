"""What the page and the terminal both say of a comparison, worked out once from comparison.json. Pure: no markup."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from pipeline.compare.words import dearer, limits, times
from pipeline.data.variants import MARK
from pipeline.report.data import DOSE_UNITS, NO_DATA, SLOTS, amount, has_value, interval, number, quantity, share

_KEPT: Final = "\x00kept"  # ends a column that is no metric of its own: what is kept of one
Comparison = Mapping[str, Any]


@dataclass(frozen=True)
class CostRow:
    """One unit: what A and B cost over their seeds, and B's price in units of A's."""

    unit: str
    a: str
    b: str
    ratio: str
    limits: str
    rungs: str


@dataclass(frozen=True)
class Cell:
    """One difference: B - A with its interval, what A and B have, n of prompts and of seeds ("" at rung 0).

    `apart`: the interval leaves 0 out, and is over more than one seed: of one, nothing tells how far another is.
    `applies`: false where there is nothing to measure, as what rung 0 keeps.
    """

    difference: str = NO_DATA
    interval: str = ""
    pair: str = ""
    n: str = "0"
    seeds: str = ""
    apart: bool = False
    applies: bool = True

    @property
    def known(self) -> bool:
        """Whether there is a number."""
        return self.applies and self.difference != NO_DATA


def headline(made: Comparison) -> tuple[str, str]:
    """Return the few words that stand large on the page, and the word of the verdict that lends them its colour."""
    cost = made["cost"]["cheapest"][made["cost"]["unit"]]
    if any(run["state"] != "measured" for run in made["runs"].values()):
        return "No ratio", "inconclusive"
    colours = {"B": "holds", "A": "collapses", None: "inconclusive"}
    colour = colours[dearer(number(cost["low"]), number(cost["high"]))]
    if cost["case"] == "both":
        return f"{times(number(cost['value']))} times", colour
    if cost["case"] in ("at least", "at most"):
        return (f"{limits(cost).capitalize()} times", colour) if limits(cost) else ("No ratio", "inconclusive")
    return "No ratio", "inconclusive"


def cost_rows(costs: Mapping[str, Mapping[str, Any]]) -> list[CostRow]:
    """Return the table of prices by unit; a unit without a dose is left out."""
    rows = []
    for unit, cost in costs.items():
        if cost["case"] == "no data":
            continue
        rungs = limits({"low": cost["rungs_low"], "high": cost["rungs_high"]})
        value = "–" if cost["value"] is None else times(cost["value"])
        rows.append(
            CostRow(DOSE_UNITS[unit], _price(unit, cost["A"]), _price(unit, cost["B"]), value, _open(cost), rungs)
        )
    return rows


def _price(unit: str, prices: Mapping[str, Any]) -> str:
    """Return the range in which all seeds' prices lie: "5 to 8", or "above 32 in 1 of 3 seeds" where one held."""
    seeds = list(prices["by_seed"].values())
    high = [seed["high"] for seed in seeds if seed["high"] is not None]
    held = [seed["low"] for seed in seeds if seed["high"] is None]
    parts = []
    if high:
        ends = (min(seed["low"] for seed in seeds if seed["high"] is not None), max(high))
        low, top = (amount(unit, end) for end in ends)
        parts.append(top if low == top else f"{low} to {top}")
    if held:
        which = f" in {len(held)} of {len(seeds)} seeds" if high else ""
        parts.append(f"above {amount(unit, min(held))}{which}")
    return "; ".join(parts) or NO_DATA


def _open(cost: Mapping[str, Any]) -> str:
    """Return the limits; where a ratio is known and neither of its ends is, say so."""
    return limits(cost) or ("no limit either way" if cost["value"] is not None else "")


def collapsed(made: Comparison, arm: str | None = None) -> str:
    """Return how many seeds of each run collapsed, by one arm or by any."""
    costs = made["cost"]["cheapest"] if arm is None else made["cost"]["arms"][arm]
    cost = costs["steps"]
    return "; ".join(f"{letter}: {cost[letter]['collapsed']} of {cost[letter]['seeds']} seeds" for letter in "AB")


def metrics(made: Comparison) -> list[str]:
    """Return the metrics of the differences, the report's four first; further ways to ask come last."""
    names = list(dict.fromkeys(str(row["metric"]) for row in made["differences"]))
    order = {slot: place for place, slot in enumerate(SLOTS)}
    return sorted(names, key=lambda name: (MARK in name, order.get(name, len(SLOTS)), name))


def columns(made: Comparison, *, further: bool = False) -> list[str]:
    """Return the columns of a table of differences: the metrics as planned, or the further ways to ask.

    What is kept of capability stands beside the metric it is of.
    """
    names = [name for name in metrics(made) if (MARK in name) == further]
    kept = {str(row["metric"]) for row in made["differences"] if row["kept"] is not None}
    return [column for name in names for column in ((name, f"{name}{_KEPT}") if name in kept else (name,))]


def difference_rows(made: Comparison, names: list[str]) -> list[tuple[str, str, str, list[Cell]]]:
    """Return (arm, step, what happens there, a cell for each column) for rung 0 and each step of each arm."""
    found: dict[tuple[str, int], dict[str, Mapping[str, Any]]] = {}
    for row in made["differences"]:
        found.setdefault((row["arm"], int(row["step"])), {})[str(row["metric"])] = row
    return [
        (arm or "rung 0", quantity(step), _mark(made, arm, step), [_cell(rows, name) for name in names])
        for (arm, step), rows in found.items()
        if any(_metric(name) in rows for name in names)
    ]


def key_rows(made: Comparison, names: list[str]) -> list[tuple[str, str, str, list[Cell]]]:
    """Return those rows of `difference_rows` that matter most: rung 0, each collapse, and the end of each ladder."""
    rows = difference_rows(made, names)
    last = {arm: step for arm, step, _, _ in rows}
    return [row for row in rows if row[2] or row[0] == "rung 0" or last[row[0]] == row[1]]


def heading(column: str) -> str:
    """Return what stands over a column."""
    name = _metric(column).replace("_", " ")
    return f"{name} kept" if column.endswith(_KEPT) else name


def spent(made: Comparison) -> list[str]:
    """Return what each run's search cost in all."""
    lines = []
    for run in made["runs"].values():
        parts = [
            f"{amount(unit, run['spent'][unit])}{' of device time' if unit == 'device_seconds' else ''}"
            for unit in ("device_seconds", "usd")
            if math.isfinite(number(run["spent"][unit]))
        ]
        lines.append(f"{run['label']}: {', '.join(parts) or NO_DATA}")
    return lines


def _metric(column: str) -> str:
    return column.removesuffix(_KEPT)


def _mark(made: Comparison, arm: str, step: int) -> str:
    letters = [letter for letter, run in made["runs"].items() if arm and run["collapse"].get(arm) == step]
    return f"{' and '.join(letters)} collapse{'s' if len(letters) == 1 else ''}" if letters else ""


def _cell(rows: Mapping[str, Mapping[str, Any]], column: str) -> Cell:
    row = rows.get(_metric(column))
    if row is None:
        return Cell()
    keys = ("kept_a", "kept_b", "kept") if column.endswith(_KEPT) else ("a", "b", "difference")
    one, other, apart = (row[key] for key in keys)
    if apart is None:
        return Cell("–", applies=False)
    pair = f"{share((one or {}).get('value'))} → {share((other or {}).get('value'))}"
    if not has_value(apart):
        return Cell(pair=pair if has_value(one) or has_value(other) else "")
    low, high = number(apart["low"]), number(apart["high"])
    seeds = len(row["seeds"])
    return Cell(
        difference=signed(apart["value"]),
        interval=signed_interval(apart),
        pair=pair,
        n=quantity(apart["n"]),
        seeds=f"{seeds} seed{'' if seeds == 1 else 's'}" if row["arm"] else "",
        apart=(low > 0 or high < 0) and not (row["arm"] and seeds < 2),
    )


def signed(value: object) -> str:
    """Return a difference of shares with its sign: +0.12, −0.40, 0.00."""
    x = number(value)
    text = share(abs(x)) if math.isfinite(x) else NO_DATA
    return text if x == 0 or not math.isfinite(x) else f"{'+' if x > 0 else '−'}{text}"


def signed_interval(estimate: Mapping[str, Any]) -> str:
    """Return `[low, high]` of a difference, or nothing where there is none."""
    return f"[{signed(estimate['low'])}, {signed(estimate['high'])}]" if interval(estimate) else ""
