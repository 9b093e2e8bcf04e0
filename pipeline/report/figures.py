"""The figures: refusal, recovered secrets, capability and over-refusal against dose, and capability against refusal."""

from __future__ import annotations

import html
import math
from typing import Any, Final

import plotly.graph_objects as go

from pipeline.report.data import ReportData, has_value, number, quantity, share
from pipeline.report.ink import (
    DASHES,
    DODGE,
    GREY,
    SPREAD,
    SYMBOLS,
    blank_figure,
    capability_floor,
    colour,
    hover,
    say_no_data,
)
from pipeline.report.path import partings, path_figure
from pipeline.report.ways import DEPTH_TITLE, depth_figure

TITLES: Final = {
    "refusal": "Refusal: restricted requests refused",
    "recovered": "Recovered: held-out secrets given",
    "capability": "Capability: ordinary tasks right",
    "over_refusal": "Over-refusal: harmless look-alikes refused",
}


def figures(run: ReportData) -> dict[str, go.Figure]:
    """Return the figures by name: those of `TITLES` (each against dose), `path`, maybe `depth`.

    A metric without data gives a figure that says so; it is never drawn as 0. `depth` is drawn where the plan asks
    with the reply begun.
    """
    drawn = {**{metric: _dose_figure(run, metric) for metric in TITLES}, "path": path_figure(run)}
    depth = depth_figure(run)
    return drawn if depth is None else {**drawn, "depth": depth}


def words(run: ReportData) -> dict[str, str]:
    """Return what each figure shows in a sentence, for those who cannot see it; the numbers stand in a table."""
    said = {metric: f"{title}. {_ends(run, metric)}" for metric, title in TITLES.items()}
    said["path"] = " ".join(f"{arm}: {sentence}" for arm, _, sentence in partings(run)) or "No data."
    said["depth"] = f"{DEPTH_TITLE}. The numbers stand in the table below."
    return said


def _ends(run: ReportData, metric: str) -> str:
    """Return each arm's first and last value of a metric, and the step of its collapse."""
    parts = []
    for arm in run.arms():
        points = [point for point in run.curve(arm, metric) if has_value(point)]
        if points:
            step = collapse_step(run, arm)
            ring = "" if step is None else f", collapse at step {step}"
            last = f"{share(points[-1]['value'])} at step {points[-1]['step']}"
            parts.append(f"{arm}: {share(points[0]['value'])} at step {points[0]['step']}, {last}{ring}")
    return "; ".join(parts) + "." if parts else "No data."


def _dose_figure(run: ReportData, metric: str) -> go.Figure:
    """Draw one metric against dose: intervals per arm, faint lines per seed, thresholds, collapse."""
    figure = blank_figure(TITLES[metric])
    axis = DoseAxis(run)
    for arm in run.arms():
        for seed in run.seeds(arm):
            figure.add_trace(_seed_trace(run, arm, metric, seed, axis))
        points = [point for point in run.curve(arm, metric) if has_value(point)]
        if points:
            figure.add_trace(_pooled_trace(run, arm, metric, points, axis))
    _mark_collapse(figure, run, metric, axis)
    _draw_threshold(figure, run, metric)
    figure.update_layout(xaxis=axis.layout())
    if not any(has_value(point) for arm in run.arms() for point in run.curve(arm, metric)):
        say_no_data(figure)
    return figure


def _seed_trace(run: ReportData, arm: str, metric: str, seed: int, axis: DoseAxis) -> go.Scatter:
    index = run.arms().index(arm)
    points = [point for point in run.curve(arm, metric, seed) if has_value(point)]
    return go.Scatter(
        x=[axis.place(point["step"], index) for point in points],
        y=[number(point["value"]) for point in points],
        mode="lines",
        line={"color": colour(run, arm), "width": 1},
        opacity=0.35,
        legendgroup=html.escape(arm),
        showlegend=False,
        hoverinfo="skip",
        name=f"{html.escape(arm)}, seed {seed}",
    )


def _pooled_trace(run: ReportData, arm: str, metric: str, points: list[dict[str, Any]], axis: DoseAxis) -> go.Scatter:
    index = run.arms().index(arm)
    name = html.escape(arm)
    values = [number(point["value"]) for point in points]
    ink = colour(run, arm)
    return go.Scatter(
        x=[axis.place(point["step"], index) for point in points],
        y=values,
        error_y={
            "type": "data",
            "symmetric": False,
            "array": [_reach(point.get("high"), y) for point, y in zip(points, values, strict=True)],
            "arrayminus": [-_reach(point.get("low"), y) for point, y in zip(points, values, strict=True)],
            "thickness": 1.25,
            "width": 4,
            "color": ink,
        },
        mode="lines+markers",
        line={"color": ink, "width": 2.25, "dash": DASHES[index % len(DASHES)]},
        marker={"color": ink, "size": 8, "symbol": SYMBOLS[index % len(SYMBOLS)]},
        legendgroup=name,
        name=name,
        cliponaxis=False,
        text=[hover(arm, metric, point) for point in points],
        hovertemplate="%{text}<extra></extra>",
    )


def _reach(bound: object, value: float) -> float:
    """Return how far an interval reaches from its value; 0 draws no bar where there is no interval."""
    reach = number(bound) - value
    return reach if math.isfinite(reach) else 0.0


class DoseAxis:
    """A logarithmic axis of steps; rung 0 stands at its left edge, one octave before the first rung."""

    def __init__(self, run: ReportData) -> None:
        steps = {int(point.get("step") or 0) for point in run.points}
        self.arms = max(1, len(run.arms()))
        self.dodge = min(DODGE, SPREAD / max(1, self.arms - 1))
        self.steps = sorted(step for step in steps if step > 0)
        self.first = self.steps[0] if self.steps else 1
        self.last = self.steps[-1] if self.steps else 2

    def place(self, step: int, index: float | None = None) -> float:
        """Return where a step stands; arms stand a little beside each other."""
        offset = 0.0 if index is None else (index - (self.arms - 1) / 2) * self.dodge
        return float((step or self.first / 2) * 2**offset)

    def layout(self) -> dict[str, Any]:
        """Return plotly's description of the axis; ticks are rungs, thinned where they would collide."""
        shown: list[int] = []
        for step in self.steps:
            if not shown or step >= 1.9 * shown[-1]:
                shown.append(step)
        edge = 0.5 * math.log10(2)
        low, high = math.log10(self.first / 2), math.log10(self.last)
        return {
            "type": "log",
            "title": {"text": "training steps (log scale; 0 is the untouched subject)", "font": {"size": 13}},
            "range": [low - edge / 2, high + edge / 2],
            "tickvals": [self.first / 2, *shown],
            "ticktext": ["0", *(f"{step:,}" for step in shown)],
            "showgrid": False,
        }


def _mark_collapse(figure: go.Figure, run: ReportData, metric: str, axis: DoseAxis) -> None:
    """Put a ring around each arm's point of collapse, and one ring in the legend."""
    ringed = False
    for index, arm in enumerate(run.arms()):
        step = collapse_step(run, arm)
        point = next((p for p in run.curve(arm, metric) if p["step"] == step and has_value(p)), None)
        if step is None or point is None:
            continue
        figure.add_trace(
            go.Scatter(
                x=[axis.place(step, index)],
                y=[number(point["value"])],
                mode="markers",
                marker={
                    "symbol": "circle-open",
                    "size": 19,
                    "color": colour(run, arm),
                    "line": {"width": 1.75},
                },
                cliponaxis=False,
                name=f"{html.escape(arm)}: collapse at step {step}",
                legendgroup=html.escape(arm),
                showlegend=False,
                hoverinfo="skip",
            )
        )
        ringed = True
    if ringed:
        figure.add_trace(
            go.Scatter(
                x=[None],
                y=[None],
                mode="markers",
                marker={"symbol": "circle-open", "size": 13, "color": GREY, "line": {"width": 1.75}},
                name="collapse",
                hoverinfo="skip",
            )
        )


def collapse_step(run: ReportData, arm: str) -> int | None:
    """Return the step at which an arm collapsed (pooled over seeds), None where it was not reached."""
    step = number((run.arm_verdict(arm).get("collapse") or {}).get("step"))
    return int(step) if math.isfinite(step) else None


def _draw_threshold(figure: go.Figure, run: ReportData, metric: str) -> None:
    if metric == "refusal":
        level, text, anchor = run.threshold("refusal"), "τ", "bottom"
    elif metric == "capability":
        level, text, anchor = capability_floor(run), "ρ × rung 0", "top"
    else:
        return
    if not math.isfinite(level):
        return
    figure.add_hline(y=level, line={"color": GREY, "width": 1.25, "dash": "6px,4px"}, layer="below")
    figure.add_annotation(
        x=0,
        xref="x domain",
        xanchor="left",
        y=level,
        yanchor=anchor,
        text=f"{text} = {quantity(level)}",
        showarrow=False,
        font={"size": 12, "color": GREY},
    )
