"""What the small inline drawings (SVG) share: an upright axis, an axis of doses, marks and paths as short strings.

plotly draws the large figures; these are many and small, so that each is a few hundred bytes and needs no script.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

Place = tuple[float, float]
DASHES: Final = ("", "7 4", "2 3", "8 3 2 3", "12 4")  # SVG's words for `ink.DASHES`


@dataclass(frozen=True)
class Box:
    """The drawing's inner field in its own units; y grows downwards, as SVG has it."""

    left: float
    top: float
    right: float
    bottom: float

    def across(self, share: float) -> float:
        """Return x at a share in [0, 1] of the width."""
        return self.left + share * (self.right - self.left)

    def up(self, share: float) -> float:
        """Return y at a share of the height; what lies outside [0, 1] is drawn at the edge."""
        return self.bottom - min(1.0, max(0.0, share)) * (self.bottom - self.top)


@dataclass(frozen=True)
class Tick:
    """A mark on an axis: where, and its words."""

    at: float
    text: str


class DoseScale:
    """Steps on a logarithmic axis (base 2); step 0 stands one octave before the first rung."""

    def __init__(self, steps: Iterable[float], box: Box) -> None:
        self.steps = sorted({float(step) for step in steps if step > 0}) or [1.0]
        self.box = box
        self.low = math.log2(self.steps[0]) - 1
        self.width = max(1.0, math.log2(self.steps[-1]) - self.low)

    def at(self, step: float) -> float:
        """Return x of a step; steps below the first rung, but for 0 itself, lie between the two."""
        place = math.log2(step) if step > 0 else self.low
        return self.box.across(min(1.0, max(0.0, (place - self.low) / self.width)))

    def ticks(self, room: float) -> list[Tick]:
        """Return 0 and the rungs, thinned so that labels stand at least `room` apart; the last one always stands."""
        kept = [Tick(self.at(0), "0")]
        last = Tick(self.at(self.steps[-1]), f"{self.steps[-1]:,.0f}")
        for step in self.steps[:-1]:
            x = self.at(step)
            if x - kept[-1].at >= room and last.at - x >= room:
                kept.append(Tick(x, f"{step:,.0f}"))
        return [*kept, last]


def path(places: Sequence[Place]) -> str:
    """Return a line through places as an SVG path; "" for fewer than two."""
    if len(places) < 2:
        return ""
    return "M" + " ".join(f"{x:.1f} {y:.1f}" for x, y in places)


def stairs(places: Sequence[Place]) -> str:
    """Return a line that keeps its height until the next place, then steps to it."""
    corners = list(places[:1])
    for (_, before), (x, y) in pairwise(places):
        corners += [(x, before), (x, y)]
    return path(corners)


def bars(ends: Iterable[tuple[float, float, float]]) -> str:
    """Return upright strokes (x, from, to) as one SVG path."""
    return "".join(f"M{x:.1f} {low:.1f}V{high:.1f}" for x, low, high in ends)
