"""What all figures share: colours, marks, layout, and the words on hovering.

Colours begin with Okabe and Ito's (2008, "Color Universal Design"). The others keep their hues, darker on light paper
and lighter on a dark page, so that each has 3:1 with its ground (WCAG 2.2, 1.4.11) and any two are told apart with
every common colour-vision deficiency. Arms also differ in marker and dash, so that a grey print can be read. Green
comes last: nothing here means "safe".
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping
from typing import Any, Final

import plotly.graph_objects as go

from pipeline.report.data import ReportData, has_value, interval, number, quantity, share

# 7 colours, 8 symbols and 5 dashes have no common divisor: two arms look alike after 280, not after 7.
PALETTE: Final = ("#D55E00", "#0072B2", "#A63A73", "#593809", "#269CBF", "#351B59", "#004C42")
ON_DARK: Final = dict(
    zip(PALETTE, ("#D55E00", "#3D9BDC", "#BF7394", "#F2D361", "#C2E9F2", "#7452CC", "#73E6B8"), strict=True)
)
SYMBOLS: Final = ("circle", "square", "diamond", "triangle-up", "triangle-down", "pentagon", "star", "x")
DASHES: Final = ("solid", "dash", "dot", "dashdot", "longdash")
GREY: Final = "#767676"  # legible on white and on black; the page replaces it by its own ink
GRID: Final = "rgba(128,128,128,0.18)"
FONT: Final = "-apple-system, 'Segoe UI', 'Helvetica Neue', Arial, 'DejaVu Sans', sans-serif"
DODGE: Final = 0.045  # octaves between arms, so that equal values do not hide one another
SPREAD: Final = 0.2  # octaves between the first arm and the last at most, so that each still stands at its rung
MARGIN: Final = 0.045  # of the y axis, so that 0 and 1 are drawn whole


def colour(run: ReportData, arm: str) -> str:
    """Return the colour of an arm: the same in every figure and table."""
    return PALETTE[run.arms().index(arm) % len(PALETTE)]


def hover(arm: str, metric: str, point: Mapping[str, Any]) -> str:
    """Return the words on hovering over a point; names are escaped, as plotly reads simple markup."""
    dose = point.get("dose") or {}
    lines = [
        f"<b>{html.escape(arm)}</b>, step {point['step']}",
        f"{metric} {share(point.get('value'))} {interval(point)}, n = {quantity(point.get('n'))}",
    ]
    if math.isfinite(number(dose.get("examples"))):
        lines.append(f"after {quantity(dose['examples'])} examples, {quantity(dose.get('flops'))} FLOPs")
    return "<br>".join(lines)


def capability_floor(run: ReportData) -> float:
    """Return rho x the capability of rung 0, below which a model counts as damaged; NaN: no data."""
    for arm in run.arms():
        for point in run.curve(arm, "capability"):
            if point["step"] == 0 and has_value(point):
                return run.threshold("capability_retention") * number(point["value"])
    return math.nan


def say_no_data(figure: go.Figure) -> None:
    """Write "no data" across an empty figure."""
    figure.add_annotation(
        x=0.5,
        y=0.5,
        xref="paper",
        yref="paper",
        text="no data",
        showarrow=False,
        font={"size": 16, "color": GREY},
    )


def blank_figure(title: str) -> go.Figure:
    """Return a figure with what all share and no data. Backgrounds are transparent: the page decides light or dark.

    The layout is given at once: a figure begun without one has plotly's own theme below, which is merged, not replaced.
    """
    layout = go.Layout(
        template="none",
        meta={"on_dark": ON_DARK},  # page.js puts these in place of the palette's on a dark page
        height=380,
        title={"text": title, "x": 0, "xanchor": "left", "y": 0.985, "yanchor": "top", "font": {"size": 15}},
        margin={"l": 56, "r": 12, "t": 62, "b": 52},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": FONT, "size": 13, "color": GREY},
        legend={
            "orientation": "h",
            "x": 0,
            "y": 1.02,
            "yanchor": "bottom",
            "font": {"size": 13},
            "itemclick": False,
            "itemdoubleclick": False,
        },
        hoverlabel={"align": "left", "font": {"family": FONT}},
        dragmode=False,
        hovermode="closest",
        xaxis={"zeroline": False, "fixedrange": True, "automargin": True, "title": {"standoff": 15}},
        yaxis={
            "range": [-MARGIN, 1 + MARGIN],
            "tickvals": [0, 0.25, 0.5, 0.75, 1],
            "gridcolor": GRID,
            "zeroline": False,
            "fixedrange": True,
            "automargin": True,
            "title": {"standoff": 15},
        },
    )
    return go.Figure(layout=layout)
