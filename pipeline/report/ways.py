"""What the report says of evals asked in several ways: how deep the refusal sits, and how far wording moves a metric.

Pure: no I/O, no markup. A way is an eval `<eval>@<way>` (pipeline/data/variants.py).
"""

from __future__ import annotations

import html
import math
from dataclasses import dataclass
from typing import Any, Final

import plotly.graph_objects as go

from pipeline.data.variants import MARK
from pipeline.report.data import ReportData, has_value, number, quantity, share
from pipeline.report.ink import DASHES, GREY, SYMBOLS, blank_figure, colour, hover
from pipeline.report.view import Measured, measured

DEPTH_TITLE: Final = "Depth: refusal once the reply has begun"
FAINTEST: Final = 0.3  # opacity of an arm's first rung; its last is drawn full


@dataclass(frozen=True)
class SpreadRow:
    """One rung of one arm: a metric as planned, and its least and largest value over the further ways to ask."""

    arm: str
    colour: str
    step: str
    planned: Measured
    least: str
    largest: str


def depths(run: ReportData, name: str) -> dict[int, str]:
    """Return the depths at which an eval was asked, ascending, with the refusal metric of each."""
    found = {}
    for metric in ways(run).get(name, []):
        depth = metric.split(MARK, 1)[1]
        if depth.isdigit():
            found[int(depth)] = metric
    return dict(sorted(found.items()))


def prefilled(run: ReportData) -> list[str]:
    """Return the evals that were asked with the reply begun."""
    return [name for name in ways(run) if depths(run, name)]


def varied(run: ReportData) -> list[str]:
    """Return the evals that were asked in other words or under other system prompts."""
    return [name for name in ways(run) if not depths(run, name)]


def ways(run: ReportData) -> dict[str, list[str]]:
    """Return each eval that was asked in several ways with the first metric of each way."""
    found: dict[str, list[str]] = {}
    for point in run.points:
        metric = str(point.get("metric") or "")
        if MARK in metric and metric == point.get("eval"):  # further metrics of an eval have endings
            names = found.setdefault(metric.split(MARK, 1)[0], [])
            if metric not in names:
                names.append(metric)
    return found


def depth_figure(run: ReportData) -> go.Figure | None:
    """Draw refusal against the tokens written for the model, a line for each rung; None where that was not asked."""
    names = prefilled(run)
    if not names:
        return None
    metrics = depths(run, names[0])
    figure = blank_figure(DEPTH_TITLE)
    for index, arm in enumerate(run.arms()):
        steps = sorted({int(p["step"]) for metric in metrics.values() for p in run.curve(arm, metric)})
        for place, step in enumerate(steps):
            if step or not index:  # rung 0 is the same for every arm
                trace = _line(run, arm, step, metrics, (place + 1) / len(steps))
                trace.showlegend = step in (0, steps[-1])
                figure.add_trace(trace)
    figure.update_layout(
        xaxis={
            "title": {"text": "tokens of a compliant reply, written for the model", "font": {"size": 13}},
            "tickvals": list(metrics),
            "showgrid": False,
        }
    )
    return figure


def _line(run: ReportData, arm: str, step: int, metrics: dict[int, str], strength: float) -> go.Scatter:
    found = [(depth, _at(run, arm, metric, step)) for depth, metric in metrics.items()]
    points = [(depth, point) for depth, point in found if point is not None and has_value(point)]
    index = run.arms().index(arm)
    ink = colour(run, arm) if step else GREY
    return go.Scatter(
        x=[depth for depth, _ in points],
        y=[number(point["value"]) for _, point in points],
        mode="lines+markers",
        opacity=FAINTEST + (1 - FAINTEST) * strength if step else 1.0,
        line={"color": ink, "width": 2 if step else 3, "dash": DASHES[index % len(DASHES)] if step else "solid"},
        marker={"color": ink, "size": 7, "symbol": SYMBOLS[index % len(SYMBOLS)]},
        name=f"{html.escape(arm)}, step {step:,}" if step else "rung 0",
        text=[hover(arm if step else "rung 0", f"{depth} tokens: refusal", point) for depth, point in points],
        hovertemplate="%{text}<extra></extra>",
    )


def depth_rows(run: ReportData, name: str) -> list[tuple[str, str, str, list[Measured]]]:
    """Return (arm, its colour, step, refusal at each depth) for each rung, pooled over seeds."""
    metrics = depths(run, name)
    rows = []
    for arm in run.arms():
        steps = sorted({int(p["step"]) for metric in metrics.values() for p in run.curve(arm, metric)})
        rows += [
            (
                arm,
                colour(run, arm),
                quantity(step),
                [measured(_at(run, arm, m, step), run.against) for m in metrics.values()],
            )
            for step in steps
        ]
    return rows


def spread_rows(run: ReportData, name: str) -> list[SpreadRow]:
    """Return, for each rung, an eval's first metric as planned and its extremes over the further ways to ask."""
    metrics = ways(run).get(name, [])
    rows = []
    for arm in run.arms():
        for point in run.curve(arm, name):  # an eval's first metric has its name
            step = int(point["step"])
            found = [(number((_at(run, arm, m, step) or {}).get("value")), m.split(MARK, 1)[1]) for m in metrics]
            known = sorted(pair for pair in found if math.isfinite(pair[0]))
            ends = (known[0], known[-1]) if known else ((math.nan, ""), (math.nan, ""))
            told = ((share(value, against=run.against), way) for value, way in ends)
            low, high = (f"{text} ({way})" if way else text for text, way in told)
            rows.append(SpreadRow(arm, colour(run, arm), quantity(step), measured(point, run.against), low, high))
    return rows


def widest(run: ReportData, name: str) -> str:
    """Return the largest distance between two ways of asking at any rung, the planned one included, as a share."""
    metrics = [*ways(run).get(name, []), name]
    distances = []
    for arm in run.arms():
        for step in {int(p["step"]) for p in run.curve(arm, metrics[0])}:
            values = [number((_at(run, arm, m, step) or {}).get("value")) for m in metrics]
            known = [value for value in values if math.isfinite(value)]
            if len(known) > 1:
                distances.append(max(known) - min(known))
    return share(max(distances, default=math.nan))


def _at(run: ReportData, arm: str, metric: str, step: int) -> dict[str, Any] | None:
    return next((point for point in run.curve(arm, metric) if point["step"] == step), None)
