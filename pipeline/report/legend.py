"""The legend of a figure as plain HTML above it: every arm stands in it however many there are, and long names wrap.

plotly would put its own within the figure: its rows take the plot's height, and those beyond half of it are not shown.
"""

from __future__ import annotations

import html
import math
from dataclasses import dataclass
from typing import Final

import plotly.graph_objects as go

from pipeline.report import canvas
from pipeline.report.ink import DASHES, GREY

AT: Final = (15.0, 6.0)  # the middle of a key, which is 30 wide and 12 high
SIZE: Final = 4.2  # of a mark, from its middle
RING: Final = 5.7  # the same of the ring that stands alone: the one around a collapse
_OPEN: Final = "-open"


@dataclass(frozen=True)
class Key:
    """One line of a legend: its name and how it is drawn. `dash` None: no line; `mark` "": no mark."""

    name: str
    colour: str  # "": the page's own ink
    dash: str | None
    mark: str
    open: bool
    opacity: float


def legend(figure: go.Figure) -> list[Key]:
    """Return a key for each trace of a figure that has a name and is not left out of the legend."""
    return [_key(trace) for trace in figure.data if trace.name and trace.showlegend is not False]


def _key(trace: go.Scatter) -> Key:
    mode, ink = trace.mode or "", str(trace.marker.color or trace.line.color or "")
    symbol = str(trace.marker.symbol or "circle") if "markers" in mode else ""
    ring = mode == "markers" and symbol == "circle-open"
    dash = trace.line.dash or DASHES[0]
    return Key(
        name=html.unescape(str(trace.name)),
        colour="" if ink == GREY else ink,
        dash=canvas.DASHES[DASHES.index(dash)] if "lines" in mode else None,
        mark=mark(symbol.removesuffix(_OPEN), RING if ring else SIZE) if symbol else "",
        open=symbol.endswith(_OPEN),
        opacity=1.0 if trace.opacity is None else float(trace.opacity),
    )


def mark(symbol: str, size: float = SIZE) -> str:
    """Return one of `ink.SYMBOLS` as an SVG path around the middle of a key."""
    x, y = AT
    if symbol == "circle":
        r = size - 0.4
        return f"M{x - r:.1f} {y}a{r:.1f} {r:.1f} 0 1 0 {2 * r:.1f} 0a{r:.1f} {r:.1f} 0 1 0-{2 * r:.1f} 0z"
    if symbol == "x":
        return f"M{x} {y - 2}l2-2 2 2-2 2 2 2-2 2-2-2-2 2-2-2 2-2-2-2 2-2z"
    corners = {"square": 4, "diamond": 4, "triangle-up": 3, "triangle-down": 3, "pentagon": 5, "star": 10}[symbol]
    turn = {"square": 45, "triangle-down": 180}.get(symbol, 0)
    places = []
    for n in range(corners):
        angle = math.radians(turn + 360 * n / corners)
        reach = size * (0.45 if symbol == "star" and n % 2 else 1.15)
        places.append((x + reach * math.sin(angle), y - reach * math.cos(angle)))
    return canvas.path(places) + "z"
