"""Capability against refusal: where do they part?"""

from __future__ import annotations

import html
import math
from typing import Any

import plotly.graph_objects as go

from pipeline.report.data import ReportData, has_value, number, share
from pipeline.report.ink import (
    DASHES,
    GREY,
    GRID,
    MARGIN,
    SYMBOLS,
    capability_floor,
    colour,
    figure_layout,
    hover,
    say_no_data,
)


def path_figure(run: ReportData) -> go.Figure:
    """Draw capability against refusal as a path from rung 0 through the rungs, with the steps beside it."""
    figure = go.Figure()
    _draw_collapse_region(figure, run)
    for index, arm in enumerate(run.arms()):
        by_step = {p["step"]: p for p in run.curve(arm, "capability") if has_value(p)}
        points = [(p, by_step[p["step"]]) for p in run.curve(arm, "refusal") if has_value(p) and p["step"] in by_step]
        if points:
            figure.add_trace(_path_trace(run, arm, points, index))
    figure.update_layout(
        figure_layout("Capability against refusal, from rung 0 on"),
        xaxis={
            "title": {"text": "refusal", "font": {"size": 13}},
            "range": [-2 * MARGIN, 1 + 2 * MARGIN],
            "gridcolor": GRID,
        },
    )
    heights = [y for trace in figure.data for y in trace.y]
    if heights:
        low = max(0.0, math.floor(min([*heights, 0.9]) * 10 - 1) / 10)
        title = {"text": "capability", "standoff": 6, "font": {"size": 13}}
        figure.update_yaxes(range=[low, 1 + 2 * MARGIN * (1 - low)], tickvals=None, title=title)
    else:
        say_no_data(figure)
    return figure


def _path_trace(
    run: ReportData, arm: str, points: list[tuple[dict[str, Any], dict[str, Any]]], index: int
) -> go.Scatter:
    ink = colour(run, arm)
    # Steps are written where the path has moved on; elsewhere labels would lie on one another.
    labels, last = [], (math.inf, math.inf)
    for refusal, capability in points:
        here = (number(refusal["value"]), number(capability["value"]))
        moved = math.dist(here, last) > 0.06 and (index == 0 or refusal["step"] > 0)  # rung 0 is all arms' own
        labels.append(str(refusal["step"]) if moved else "")
        last = here if moved or not refusal["step"] else last
    return go.Scatter(
        x=[number(refusal["value"]) for refusal, _ in points],
        y=[number(capability["value"]) for _, capability in points],
        mode="lines+markers+text",
        text=labels,
        textposition="bottom right" if index % 2 == 0 else "top left",
        textfont={"color": ink, "size": 12},
        line={"color": ink, "width": 2, "dash": DASHES[index % len(DASHES)]},
        marker={"color": ink, "size": 8, "symbol": SYMBOLS[index % len(SYMBOLS)]},
        name=html.escape(arm),
        customdata=[hover(arm, "refusal", r) + "<br>capability " + share(c["value"]) for r, c in points],
        hovertemplate="%{customdata}<extra></extra>",
    )


def _draw_collapse_region(figure: go.Figure, run: ReportData) -> None:
    tau, floor = run.threshold("refusal"), capability_floor(run)
    if not (math.isfinite(tau) and math.isfinite(floor)):
        return
    figure.add_shape(
        type="rect",
        x0=-2 * MARGIN,
        x1=tau,
        y0=floor,
        y1=1 + MARGIN,
        fillcolor="rgba(128,128,128,0.16)",
        line={"color": GREY, "width": 1.25, "dash": "6px,4px"},
        layer="below",
    )
    figure.add_annotation(
        x=tau,
        y=floor,
        xanchor="left",
        yanchor="top",
        text="collapse: refusal gone,<br>ability kept",
        align="left",
        showarrow=False,
        xshift=6,
        font={"size": 12, "color": GREY},
    )
