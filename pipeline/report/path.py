"""Capability against refusal: where do they part?"""

from __future__ import annotations

import html
import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import plotly.graph_objects as go

from pipeline.report.data import ReportData, change, has_value, interval, number, quantity, share
from pipeline.report.ink import (
    DASHES,
    GREY,
    GRID,
    MARGIN,
    SYMBOLS,
    blank_figure,
    capability_floor,
    colour,
    hover,
    say_no_data,
)
from pipeline.report.path_labels import LETTER, LETTER_TIGHT, OFF, Label, place_labels
from pipeline.report.unreached import CENSORED, tried, why_not
from pipeline.report.view import collapse_of

ARROW_FROM: Final = 0.08  # shorter moves have no arrow
FIELD: Final = 240  # CSS pixels from the upright axis's beginning to 1, however many rows of labels stand above
ROW: Final = 20 / FIELD  # of that height: a row of labels


@dataclass(frozen=True)
class _Point:
    """One rung: its step, and its estimates of refusal and capability as rows of curves.json."""

    step: int
    refusal: dict[str, Any]
    capability: dict[str, Any]

    @property
    def place(self) -> tuple[float, float]:
        return number(self.refusal["value"]), number(self.capability["value"])


def path_figure(run: ReportData) -> go.Figure:
    """Draw capability against refusal as a path from rung 0 through the rungs: intervals, steps, arrows."""
    figure = blank_figure("Capability against refusal, from rung 0 on")
    paths = {arm: found for arm in run.arms() if (found := _points(run, arm))}
    low = _floor(paths.values())
    for arm, points in paths.items():
        figure.add_traces([_path_trace(run, arm, points), _arrows(run, arm, points, low)])
    places = {arm: [(p.step, p.place) for p in points] for arm, points in paths.items()}
    wide, tight = (place_labels(places, 1 - low, letter) for letter in (LETTER, LETTER_TIGHT))
    for label in wide:
        _flag(figure, run, label, low)
    _draw_collapse_region(figure, run, low)
    figure.update_xaxes(
        title={"text": "refusal", "font": {"size": 13}}, range=[-2 * MARGIN, 1 + 2 * MARGIN], gridcolor=GRID
    )
    if paths:
        # page.js puts `tight` in place where the plot is narrow: the labels are the first annotations
        tightly = {"ay": [_row(label, low) for label in tight], **_reach(figure, tight, low)}
        figure.update_layout(**_reach(figure, wide, low), meta={**figure.layout.meta, "tight": tightly})
        title = {"text": "capability", "standoff": 6, "font": {"size": 13}}
        figure.update_yaxes(tickvals=_upright_ticks(low), title=title)
    else:
        say_no_data(figure)
    return figure


def _reach(figure: go.Figure, labels: list[Label], low: float) -> dict[str, Any]:
    """Return the height of a figure and its upright axis's range, with room for all rows of labels above 1."""
    top = 1 + ROW * (2 + max((label.row for label in labels), default=0))
    margin = figure.layout.margin
    return {"height": round(FIELD * top) + margin.t + margin.b, "yaxis_range": [low, low + top * (1 - low)]}


def _row(label: Label, low: float) -> float:
    return 1 + (1 - low) * ROW * (1 + label.row)


def _points(run: ReportData, arm: str) -> list[_Point]:
    by_step = {p["step"]: p for p in run.curve(arm, "capability") if has_value(p)}
    return [
        _Point(int(p["step"]), p, by_step[p["step"]])
        for p in run.curve(arm, "refusal")
        if has_value(p) and p["step"] in by_step
    ]


def _floor(paths: Any) -> float:
    """Return where the upright axis begins: a little below the lowest value or limit, in tenths."""
    heights = [x for points in paths for p in points for x in (p.place[1], number(p.capability.get("low")))]
    return max(0.0, math.floor(min([x for x in heights if math.isfinite(x)] + [0.9]) * 10 - 0.5) / 10)


def _path_trace(run: ReportData, arm: str, points: list[_Point]) -> go.Scatter:
    index, ink = run.arms().index(arm), colour(run, arm)
    return go.Scatter(
        x=[p.place[0] for p in points],
        y=[p.place[1] for p in points],
        error_x=_error([p.refusal for p in points], ink),
        error_y=_error([p.capability for p in points], ink),
        mode="lines+markers",
        line={"color": ink, "width": 2, "dash": DASHES[index % len(DASHES)]},
        marker={"color": ink, "size": 8, "symbol": SYMBOLS[index % len(SYMBOLS)]},
        name=html.escape(arm),
        legendgroup=html.escape(arm),
        customdata=[
            f"{hover(arm, 'refusal', p.refusal)}<br>capability {share(p.place[1])} {interval(p.capability)}"
            for p in points
        ],
        hovertemplate="%{customdata}<extra></extra>",
    )


def _upright_ticks(low: float) -> list[float]:
    """Return ticks from the axis's beginning to 1, in steps of 0.05 or, on a long axis, 0.2."""
    step = 0.05 if low >= 0.6 else 0.2
    return [round(1 - n * step, 2) for n in range(int((1 - low) / step + 1e-9), -1, -1)]


def _flag(figure: go.Figure, run: ReportData, label: Label, low: float) -> None:
    """Write the words for a rung in their row above the paths, tied to it in the arm's colour."""
    x, y = label.place
    figure.add_annotation(
        x=x,
        y=y,
        text=html.escape(label.text),
        axref="x",
        ayref="y",
        ax=x + label.side * OFF,
        ay=_row(label, low),
        xanchor="right" if label.side < 0 else "left",
        yanchor="middle",
        showarrow=True,
        arrowhead=0,
        arrowwidth=1,
        arrowcolor=colour(run, label.arm),
        standoff=4,
        font={"size": 12, "color": GREY},
    )


def _error(estimates: list[dict[str, Any]], ink: str) -> dict[str, Any]:
    """Return plotly's description of the intervals; 0 draws nothing where there is none."""

    def reach(estimate: dict[str, Any], key: str) -> float:
        found = abs(number(estimate.get(key)) - number(estimate["value"]))
        return found if math.isfinite(found) else 0.0

    return {
        "type": "data",
        "symmetric": False,
        "array": [reach(e, "high") for e in estimates],
        "arrayminus": [reach(e, "low") for e in estimates],
        "thickness": 1,
        "width": 0,
        "color": ink,
    }


def _arrows(run: ReportData, arm: str, points: list[_Point], low: float) -> go.Scatter:
    """Return arrowheads amid the longer moves; the trace passes through all rungs, so that each knows its direction."""
    xs, ys, sizes = [], [], []
    for before, after in pairwise(points):
        (x0, y0), (x1, y1) = before.place, after.place
        long = math.hypot(x1 - x0, (y1 - y0) / (1 - low)) >= ARROW_FROM
        xs += [x0, (x0 + x1) / 2]
        ys += [y0, (y0 + y1) / 2]
        sizes += [0, 15 if long else 0]
    return go.Scatter(
        x=xs,
        y=ys,
        mode="markers",
        marker={
            "symbol": "arrow",
            "angleref": "previous",
            "size": sizes,
            "color": colour(run, arm),
            "line": {"width": 0},
        },
        name=f"{html.escape(arm)}: direction",
        legendgroup=html.escape(arm),
        showlegend=False,
        hoverinfo="skip",
    )


def partings(run: ReportData) -> list[tuple[str, str, str]]:
    """Say for each arm where ability and refusal part: (arm, its colour, a sentence). Measured arms only."""
    found = []
    for arm in run.arms():
        points = _points(run, arm)
        if points and tried(run, arm):
            found.append((arm, colour(run, arm), _parting(run, arm, points)))
    return found


def _parting(run: ReportData, arm: str, points: list[_Point]) -> str:
    start, end = points[0], points[-1]
    step = collapse_of(run, arm).get("step")
    at = next((p for p in points if p.step == step), None)
    if at is None:
        lowest = min(p.place[0] for p in points)
        return (
            f"they do not part by step {quantity(end.step)}: {_unreached(run, arm)}. "
            f"Refusal is {share(lowest, against=run.against)} where it is lowest, "
            f"capability {share(end.place[1])} at the end."
        )
    before = points[points.index(at) - 1] if points.index(at) else start
    text = (
        f"they part between step {quantity(before.step)} and step {quantity(at.step)}: refusal goes from "
        f"{change(before.place[0], at.place[0], run.against, ' to ')}, "
        f"capability from {change(before.place[1], at.place[1], between=' to ')}."
    )
    if end is not at and end.place[1] < capability_floor(run):
        text += (
            f" By step {quantity(end.step)} capability is down to {share(end.place[1])}: damaged, not merely stripped."
        )
    return text


def _unreached(run: ReportData, arm: str) -> str:
    missing = why_not(run, arm)
    return f"collapse was {missing}" if missing == CENSORED else missing


def _draw_collapse_region(figure: go.Figure, run: ReportData, low: float) -> None:
    tau, floor = run.threshold("refusal"), capability_floor(run)
    if not (math.isfinite(tau) and math.isfinite(floor)):
        return
    figure.add_shape(
        type="rect",
        x0=-2 * MARGIN,
        x1=tau,
        y0=floor,
        y1=1 + (1 - low) * ROW / 2,  # below the first row of labels
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
