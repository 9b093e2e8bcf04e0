"""Arms x seeds as small multiples: refusal and capability kept against dose, one panel each, on the same axes. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pipeline.report.canvas import Box, DoseScale, Place, Tick, bars, path
from pipeline.report.data import NO_DATA, ReportData, change, has_value, number, quantity
from pipeline.report.ink import colour
from pipeline.report.unreached import CENSORED, tried, why_not
from pipeline.report.view import collapse_of

WIDTH: Final = 180
HEIGHT: Final = 132
BOX: Final = Box(20, 10, 174, 110)
TOP: Final = 1.05  # of the upright axis: capability kept may exceed rung 0's a little
TICK_ROOM: Final = 24.0


@dataclass(frozen=True)
class Line:
    """One curve: its path, its markers, and its intervals as upright strokes."""

    path: str
    places: tuple[Place, ...]
    intervals: str


@dataclass(frozen=True)
class Panel:
    """One seed of one arm. `note` says what became of it, `words` what is drawn, for those who cannot see it."""

    seed: int
    note: str
    words: str
    refusal: Line
    kept: Line
    ring: Place | None  # where refusal stood at collapse


@dataclass(frozen=True)
class ArmPanels:
    """The panels of one arm."""

    arm: str
    colour: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Grid:
    """All panels with what they share: ticks, and the height of both thresholds (None: not known)."""

    arms: tuple[ArmPanels, ...]
    ticks: tuple[Tick, ...]
    tau: float | None
    rho: float | None


def grid(run: ReportData) -> Grid:
    """Return the small multiples; an arm without a seed has none."""
    scale = DoseScale((number(p.get("step")) for p in run.points), BOX)
    arms = tuple(
        ArmPanels(arm, colour(run, arm), tuple(_panel(run, arm, seed, scale) for seed in run.seeds(arm)))
        for arm in run.arms()
    )
    tau, rho = run.threshold("refusal"), run.threshold("capability_retention")
    return Grid(
        tuple(arm for arm in arms if arm.panels),
        tuple(scale.ticks(TICK_ROOM)),
        _height(tau) if math.isfinite(tau) else None,
        _height(rho) if math.isfinite(rho) else None,
    )


def _panel(run: ReportData, arm: str, seed: int, scale: DoseScale) -> Panel:
    refusal = [p for p in run.curve(arm, "refusal", seed) if has_value(p)]
    kept = [(p["step"], of) for p in run.curve(arm, "capability", seed) if has_value(of := _retention(p))]
    step = collapse_of(run, arm, seed).get("step")
    at = next((p for p in refusal if p["step"] == step), None)
    note = _note(run, arm, seed, step)
    drawn: dict[str, list[Any]] = {"refusal": refusal, "capability kept": [estimate for _, estimate in kept]}
    ends = [f"{word} {_ends(values, run.against)}" for word, values in drawn.items()]
    return Panel(
        seed=seed,
        note=note,
        words=f"arm {arm}, seed {seed}: {'; '.join(ends)}; {note}",
        refusal=_line([(p["step"], p) for p in refusal], scale),
        kept=_line(kept, scale),
        ring=None if at is None else (scale.at(at["step"]), _height(number(at["value"]))),
    )


def _retention(point: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return capability over rung 0's at a point; at rung 0 it is 1 by definition, if it was measured at all."""
    if point["step"] == 0:
        return {"value": 1.0} if has_value(point) else {}
    return point.get("retention") or {}


def _line(points: list[tuple[int, Mapping[str, Any]]], scale: DoseScale) -> Line:
    places = tuple((scale.at(step), _height(number(estimate["value"]))) for step, estimate in points)
    known = [
        (step, e) for step, e in points if math.isfinite(number(e.get("low"))) and math.isfinite(number(e.get("high")))
    ]
    ends = ((scale.at(step), _height(number(e["low"])), _height(number(e["high"]))) for step, e in known)
    return Line(path(places), places, bars(ends))


def _height(value: float) -> float:
    return BOX.up(value / TOP)


def _note(run: ReportData, arm: str, seed: int, step: object) -> str:
    if step is not None:
        return f"collapse by step {quantity(step)}"
    missing = why_not(run, arm, seed)
    return f"censored: not reached by step {quantity(tried(run, arm, seed)[-1])}" if missing == CENSORED else missing


def _ends(values: list[Any], against: Sequence[float]) -> str:
    return f"from {change(values[0]['value'], values[-1]['value'], against, ' to ')}" if values else NO_DATA
