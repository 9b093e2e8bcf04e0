"""The figures of a comparison: A and B side by side, one figure a metric, and the ratio of their prices.

A and B differ in colour and in filled or open marks, arms in marker and dash.
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping
from typing import Any, Final

import plotly.graph_objects as go

from pipeline.compare.words import limits, times
from pipeline.report import ReportData
from pipeline.report.data import SLOTS, has_value, number, quantity
from pipeline.report.figures import TITLES, DoseAxis, collapse_step
from pipeline.report.ink import (
    DASHES,
    GREY,
    PALETTE,
    SYMBOLS,
    blank_figure,
    capability_floor,
    hover,
    say_no_data,
)

COLOURS: Final = {"A": PALETTE[0], "B": PALETTE[1]}
RATIO: Final = "B's price in units of A's"


def comparison_figures(a: ReportData, b: ReportData, made: Mapping[str, Any]) -> dict[str, go.Figure]:
    """Return the figures by name: `ratio`, and the four metrics against dose."""
    runs = {"A": a, "B": b}
    return {"ratio": ratio_figure(made), **{slot: _curves(runs, slot) for slot in SLOTS}}


def _curves(runs: Mapping[str, ReportData], slot: str) -> go.Figure:
    figure = blank_figure(TITLES[slot])
    lines = [(letter, arm) for arm in runs["A"].arms() for letter in runs]
    # The axis spreads its arms a little beside each other; here these are the arms of both runs.
    merged = [{**p, "arm": f"{letter} {p['arm']}"} for letter, run in runs.items() for p in run.points]
    axis = DoseAxis(ReportData({}, {}, merged))
    for place, (letter, arm) in enumerate(lines):
        points = [point for point in runs[letter].curve(arm, slot) if has_value(point)]
        if points:
            x = [axis.place(int(point["step"]), place) for point in points]
            figure.add_trace(_line(runs[letter], letter, arm, slot, points, x))
            _ring(figure, letter, collapse_step(runs[letter], arm), points, x)
    _thresholds(figure, runs, slot)
    figure.update_layout(xaxis=axis.layout())
    if not figure.data:
        say_no_data(figure)
    return figure


def _line(
    run: ReportData, letter: str, arm: str, slot: str, points: list[dict[str, Any]], x: list[float]
) -> go.Scatter:
    index, ink = run.arms().index(arm), COLOURS[letter]
    values = [number(point["value"]) for point in points]
    reach = {key: [number(p.get(key)) - y for p, y in zip(points, values, strict=True)] for key in ("low", "high")}
    name = f"{letter}: {html.escape(arm)}"
    return go.Scatter(
        x=x,
        y=values,
        error_y={
            "type": "data",
            "symmetric": False,
            "array": [r if math.isfinite(r) else 0.0 for r in reach["high"]],
            "arrayminus": [-r if math.isfinite(r) else 0.0 for r in reach["low"]],
            "thickness": 1.25,
            "width": 4,
            "color": ink,
        },
        mode="lines+markers",
        line={"color": ink, "width": 2.25, "dash": DASHES[index % len(DASHES)]},
        marker={
            "color": ink,
            "size": 8,
            "symbol": SYMBOLS[index % len(SYMBOLS)] + ("-open" if letter == "B" else ""),
            "line": {"width": 2 if letter == "B" else 0},
        },
        name=name,
        text=[hover(f"{letter}: {arm}", slot, point) for point in points],
        hovertemplate="%{text}<extra></extra>",
    )


def _ring(figure: go.Figure, letter: str, step: int | None, points: list[dict[str, Any]], x: list[float]) -> None:
    """Put a ring around the point of collapse."""
    place = next((i for i, point in enumerate(points) if point["step"] == step), None)
    if place is not None:
        mark = {"symbol": "circle-open", "size": 19, "color": COLOURS[letter], "line": {"width": 1.75}}
        y = [number(points[place]["value"])]
        figure.add_trace(go.Scatter(x=[x[place]], y=y, mode="markers", marker=mark, showlegend=False, hoverinfo="skip"))


def _thresholds(figure: go.Figure, runs: Mapping[str, ReportData], slot: str) -> None:
    """Draw tau once, and under capability each run's own floor; floors that are one are drawn once."""
    levels = {}
    if slot == "refusal":
        levels = {"τ": (runs["A"].threshold("refusal"), GREY)}
    elif slot == "capability":
        floors = {letter: capability_floor(run) for letter, run in runs.items()}
        one = math.isclose(*floors.values())
        levels = (
            {"ρ × rung 0": (floors["A"], GREY)}
            if one
            else {f"ρ × rung 0 of {letter}": (floor, COLOURS[letter]) for letter, floor in floors.items()}
        )
    for place, (text, (level, ink)) in enumerate(levels.items()):
        if math.isfinite(level):
            figure.add_hline(y=level, line={"color": ink, "width": 1.25, "dash": "6px,4px"}, layer="below")
            side = {"x": place, "xanchor": "right" if place else "left"}
            figure.add_annotation(
                **side,
                xref="x domain",
                y=level,
                yanchor="bottom" if slot == "refusal" else "top",
                text=f"{text} = {quantity(level)}",
                showarrow=False,
                font={"size": 12, "color": ink},
            )


def ratio_figure(made: Mapping[str, Any]) -> go.Figure:
    """Draw the ratio with its limits for the cheapest arm and each arm, on a log scale; an open end has an arrow."""
    figure = blank_figure(RATIO)
    cost, unit = made["cost"], made["cost"]["unit"]
    rows = [("cheapest arm", cost["cheapest"][unit]), *((arm, by_unit[unit]) for arm, by_unit in cost["arms"].items())]
    drawn = [(name, found) for name, found in rows if limits(found)]
    ends = [x for _, f in drawn for x in (f["low"], f["high"], f["value"]) if x] + [1.0]
    low, high = min(ends) / 2, max(ends) * 2
    for name, found in drawn:
        _ratio_bar(figure, html.escape(name), found, low, high)
    figure.add_vline(x=1, line={"color": GREY, "width": 1.25, "dash": "6px,4px"}, layer="below")
    figure.update_layout(showlegend=False, margin={"l": 110, "r": 18, "t": 62, "b": 52})
    octaves = range(math.ceil(math.log2(low)), math.floor(math.log2(high)) + 1)
    shown = [2.0**k for k in octaves][:: max(1, math.ceil(len(octaves) / 9))]
    figure.update_xaxes(
        type="log",
        range=[math.log10(low / 1.15), math.log10(high * 1.15)],
        tickvals=shown,
        ticktext=[f"{x:g}" if x >= 1 else f"1/{1 / x:g}" for x in shown],
        gridcolor="rgba(128,128,128,0.18)",
        title={
            "text": f"times as much as A, in {unit if unit == 'steps' else 'FLOPs'} (log scale)",
            "font": {"size": 13},
        },
    )
    figure.update_yaxes(
        range=[len(drawn) - 0.5, -0.5],
        tickvals=list(range(len(drawn))),
        ticktext=[html.escape(name) for name, _ in drawn],
        showgrid=False,
        automargin=True,  # the page narrows the margin on a small screen
    )
    if not drawn:
        say_no_data(figure)
    return figure


def _ratio_bar(figure: go.Figure, name: str, found: Mapping[str, Any], low: float, high: float) -> None:
    place = sum(trace.mode == "lines" and trace.line.width == 2.25 for trace in figure.data)
    start, end = (found["low"] or low), (found["high"] or high)
    said = f"<b>{name}</b><br>{limits(found)}" + (f", {times(found['value'])}" if found["value"] else "")
    ink = {"color": GREY, "width": 2.25}
    figure.add_trace(
        go.Scatter(x=[start, end], y=[place, place], mode="lines", line=ink, text=[said, said], hoverinfo="text")
    )
    if found["rungs_low"] and found["rungs_high"]:
        thick = {"color": GREY, "width": 7}
        ends = [found["rungs_low"], found["rungs_high"]]
        figure.add_trace(go.Scatter(x=ends, y=[place, place], mode="lines", line=thick, opacity=0.35, hoverinfo="skip"))
    marks = [
        (start, "line-ns-open" if found["low"] else "triangle-left"),
        (end, "line-ns-open" if found["high"] else "triangle-right"),
    ]
    if found["value"]:
        marks.append((found["value"], "circle"))
    figure.add_trace(
        go.Scatter(
            x=[x for x, _ in marks],
            y=[place] * len(marks),
            mode="markers",
            marker={
                "symbol": [symbol for _, symbol in marks],
                "size": 11,
                "color": GREY,
                "line": {"width": 2, "color": GREY},
            },
            text=[said] * len(marks),
            hoverinfo="text",
        )
    )
