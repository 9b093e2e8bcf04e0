"""The budget's burn-down: what each attempt of the ledger left of a cap, in the order in which they began. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final

from pipeline.report.canvas import Box, Place, stairs
from pipeline.report.data import NO_DATA, ReportData, amount, number, quantity

WIDTH: Final = 400
HEIGHT: Final = 210
BOX: Final = Box(50, 14, 392, 168)
ENDINGS: Final = ("failed", "interrupted")  # attempts that cost and gave nothing that counts by itself
LETTER: Final = 6.6  # units of width that a letter of a stage's name takes
UNITS: Final = {"device_seconds": "device time", "usd": "money", "flops": "FLOPs"}
HEADINGS: Final = ("stage", "arm", "seed", "attempt", "ended", *UNITS.values())  # of `attempt_rows`


@dataclass(frozen=True)
class Band:
    """Attempts of one stage in a row, as a band from `left` to `right`; no name where another's takes its room."""

    name: str
    middle: float  # of the name
    left: float
    right: float
    shaded: bool


@dataclass(frozen=True)
class Burn:
    """One unit that has a cap. Heights and places are those of the drawing."""

    unit: str
    words: str
    path: str
    lost: tuple[Place, ...]  # after failed and interrupted attempts
    bands: tuple[Band, ...]
    top: str  # the cap
    reserve: float | None  # the height of what is kept for measuring; None where the plan does not say
    reserve_words: str
    attempts: int


@dataclass(frozen=True)
class AttemptRow:
    """One attempt in words, with what it spent in each unit."""

    stage: str
    arm: str
    seed: str
    attempt: str
    status: str
    lost: bool
    spent: tuple[str, ...]


def burn_downs(run: ReportData) -> list[Burn]:
    """Return a burn-down for each unit with a cap; none where the ledger's rows are not at hand."""
    caps = {unit: number((run.ledger.get(unit) or {}).get("cap")) for unit in UNITS}
    return [_burn(run, unit, cap) for unit, cap in caps.items() if cap > 0 and run.attempts]


def _burn(run: ReportData, unit: str, cap: float) -> Burn:
    rows = run.attempts
    left, places = cap, [(BOX.left, BOX.up(1.0))]
    lost = []
    for place, row in enumerate(rows, start=1):
        spent = number(row.get(unit))
        left -= spent if math.isfinite(spent) else 0.0
        here = (BOX.across(place / len(rows)), BOX.up(left / cap))
        places.append(here)
        lost += [here] if row.get("status") in ENDINGS else []
    budget = (run.plan.get("config") or {}).get("budget") or {}
    kept = number(budget.get("measure_reserve"))
    known = math.isfinite(kept) and kept > 0
    unpriced = sum(not math.isfinite(number(row.get(unit))) for row in rows)
    words = f"{amount(unit, max(0.0, left))} of {amount(unit, cap)} left after {_count(len(rows), 'attempt')}"
    words += f", overspent by {amount(unit, -left)}" if left < 0 else ""
    words += f"; {_count(len(lost), 'attempt')} failed or interrupted" if lost else "; none failed or was interrupted"
    words += f"; {_count(unpriced, 'attempt')} without a figure in this unit" if unpriced else ""
    return Burn(
        unit=UNITS[unit],
        words=words,
        path=stairs(places),
        lost=tuple(lost),
        bands=tuple(_bands(rows)),
        top=amount(unit, cap),
        reserve=BOX.up(kept) if known else None,
        reserve_words=f"{amount(unit, kept * cap)} kept for measuring" if known else "",
        attempts=len(rows),
    )


def _bands(rows: Sequence[Mapping[str, Any]]) -> list[Band]:
    bands: list[Band] = []
    place, written = 0, BOX.left
    for stage, of_stage in groupby(rows, key=lambda row: str(row.get("stage") or "")):
        left = BOX.across(place / len(rows))
        place += len(list(of_stage))
        right = BOX.across(place / len(rows))
        half = LETTER * len(stage) / 2
        middle = min(max((left + right) / 2, BOX.left + half), BOX.right - half)
        free = middle - half >= written
        written = middle + half + LETTER if free else written
        bands.append(Band(stage if free else "", middle, left, right, len(bands) % 2 == 1))
    return bands


def attempt_rows(run: ReportData) -> list[AttemptRow]:
    """Return every attempt as a row of a table, in the ledger's order."""
    return [
        AttemptRow(
            stage=str(row.get("stage") or NO_DATA),
            arm=str(row.get("arm") or "–"),
            seed="–" if number(row.get("seed")) < 0 else quantity(row.get("seed")),
            attempt=quantity(row.get("attempt")),
            status=str(row.get("status") or NO_DATA),
            lost=row.get("status") in ENDINGS,
            spent=tuple(amount(unit, row.get(unit)) for unit in UNITS),
        )
        for row in run.attempts
    ]


def _count(n: int, word: str) -> str:
    return f"{quantity(n)} {word}{'' if n == 1 else 's'}"
