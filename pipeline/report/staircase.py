"""The share of seeds not yet collapsed against dose (Kaplan and Meier, 1958), all arms in one small drawing. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from pipeline.report.canvas import DASHES, Box, DoseScale, Place, Tick, stairs
from pipeline.report.data import ReportData, number, quantity, share
from pipeline.report.ink import colour

WIDTH: Final = 400
HEIGHT: Final = 210
BOX: Final = Box(36, 14, 388, 176)
TICK_ROOM: Final = 30.0
_KINDS: Final = ("seen", "earliest")  # where a collapse is counted: at the rung where it was seen, or the one before
APART: Final = 2.5  # units between arms, so that equal lines do not hide one another


@dataclass(frozen=True)
class Stair:
    """One arm: collapse counted at the rung where it was seen, and at the rung before it.

    `open` is where seeds were left uncollapsed (censored), None where none was.
    """

    arm: str
    colour: str
    dash: str
    seen: str
    earliest: str
    open: Place | None
    words: str


@dataclass(frozen=True)
class Stairs:
    """The drawing: each arm's stairs and the ticks of the axis of doses, in `unit`."""

    arms: tuple[Stair, ...]
    ticks: tuple[Tick, ...]
    unit: str


def stairs_of(run: ReportData) -> Stairs | None:
    """Return the drawing; None where the verdict holds no such curves (an older run's)."""
    curves = {arm: dict(run.arm_verdict(arm).get("survival") or {}) for arm in run.arms()}
    known = {arm: curve for arm, curve in curves.items() if curve and math.isfinite(number(curve.get("end")))}
    if not known:
        return None
    doses = [number(row["dose"]) for curve in known.values() for kind in _KINDS for row in curve.get(kind) or []]
    scale = DoseScale([*doses, *(number(curve["end"]) for curve in known.values())], BOX)
    middle = (len(known) - 1) / 2
    arms = tuple(_stair(run, arm, curve, scale, (n - middle) * APART) for n, (arm, curve) in enumerate(known.items()))
    return Stairs(arms, tuple(scale.ticks(TICK_ROOM)), str(next(iter(known.values())).get("unit") or "steps"))


def _stair(run: ReportData, arm: str, curve: Mapping[str, Any], scale: DoseScale, shift: float) -> Stair:
    end = number(curve["end"])
    lines = {}
    for kind in _KINDS:
        rows = curve.get(kind) or []
        places = [(scale.at(0), BOX.up(1.0))]
        places += [(scale.at(number(row["dose"])), BOX.up(number(row["share"]))) for row in rows]
        places.append((scale.at(end), places[-1][1]))
        lines[kind] = [(x, y + shift) for x, y in places]
    left = number(curve["seen"][-1]["share"]) if curve.get("seen") else 1.0
    index = run.arms().index(arm)
    return Stair(
        arm=arm,
        colour=colour(run, arm),
        dash=DASHES[index % len(DASHES)],
        seen=stairs(lines["seen"]),
        earliest=stairs(lines["earliest"]) if curve.get("earliest") else "",
        open=lines["seen"][-1] if left > 0 else None,
        words=f"{arm}: {share(left)} of the seeds not collapsed by {quantity(end)}{' (censored)' if left > 0 else ''}",
    )
