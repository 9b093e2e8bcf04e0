"""The figures: what is drawn is what was measured."""

from __future__ import annotations

import math

import pytest
from report_runs import STEPS, make_run

from pipeline.report import ReportData, figures


def trace(figure: object, name: str, mode: str) -> object:
    return next(t for t in figure.data if t.name == name and t.mode == mode)  # type: ignore[attr-defined]


def test_every_figure_is_there_with_all_arms() -> None:
    drawn = figures(make_run())
    assert list(drawn) == ["refusal", "recovered", "capability", "over_refusal", "path"]
    for figure in drawn.values():
        assert {"compliance", "mixed", "benign"} <= {t.name for t in figure.data if t.showlegend is not False}


def test_values_and_intervals_are_the_pooled_points() -> None:
    run = make_run()
    line = trace(figures(run)["refusal"], "compliance", "lines+markers")
    points = run.curve("compliance", "refusal")
    assert list(line.y) == [p["value"] for p in points]  # type: ignore[attr-defined]
    reach = zip(line.y, line.error_y.arrayminus, points, strict=True)  # type: ignore[attr-defined]
    assert [y - minus for y, minus, _ in reach] == pytest.approx([p["low"] for p in points])


def test_rung_0_stands_left_of_the_first_rung_on_a_log_axis() -> None:
    figure = figures(make_run(arms=("compliance",)))["refusal"]
    line = trace(figure, "compliance", "lines+markers")
    assert figure.layout.xaxis.type == "log"
    assert list(line.x) == [0.5, *STEPS[1:]]  # type: ignore[attr-defined]
    assert figure.layout.xaxis.ticktext[0] == "0"


def test_a_point_without_data_is_left_out_and_not_drawn_as_nought() -> None:
    run = make_run(arms=("compliance",), seeds=(0,))
    for point in run.points:
        if point["step"] == 8:
            point.update(value=None, low=None, high=None, n=0)
    drawn = figures(run)
    for name in ("refusal", "capability"):
        line = trace(drawn[name], "compliance", "lines+markers")
        assert len(line.x) == len(STEPS) - 1  # type: ignore[attr-defined]
        assert 8 not in line.x  # type: ignore[attr-defined]
        assert all(math.isfinite(y) for y in line.y)  # type: ignore[attr-defined]


def test_collapse_is_ringed_at_its_step_and_thresholds_are_dashed() -> None:
    figure = figures(make_run(arms=("compliance",)))["refusal"]
    ring = trace(figure, "compliance: collapse at step 8", "markers")
    assert (list(ring.x), list(ring.y)) == ([8.0], [0.0])  # type: ignore[attr-defined]
    assert [(s.y0, s.line.dash) for s in figure.layout.shapes] == [(0.05, "6px,4px")]
    benign = figures(make_run(arms=("benign",)))["refusal"]
    assert not any("collapse" in (t.name or "") for t in benign.data)


def test_path_goes_from_rung_0_through_the_rungs() -> None:
    run = make_run(arms=("compliance",))
    path = figures(run)["path"].data[0]
    assert list(path.x) == [p["value"] for p in run.curve("compliance", "refusal")]
    assert list(path.y) == [p["value"] for p in run.curve("compliance", "capability")]
    labels = {note.text: (note.x, note.y) for note in figures(run)["path"].layout.annotations}
    assert labels["0 to 4"] == (path.x[0], path.y[0])
    assert labels["8 to 16"] == (path.x[4], path.y[4])
    assert list(path.error_y.arrayminus) == pytest.approx(
        [p["value"] - p["low"] for p in run.curve("compliance", "capability")]
    )
    arrows = figures(run)["path"].data[1]
    assert list(zip(arrows.x, arrows.y, strict=True))[::2] == list(zip(path.x, path.y, strict=True))[:-1]
    longest = max(range(len(arrows.x)), key=lambda n: arrows.marker.size[n])
    assert arrows.x[longest] == pytest.approx((path.x[3] + path.x[4]) / 2)  # the collapse


def test_figures_of_an_empty_run_say_no_data() -> None:
    for figure in figures(ReportData(plan={}, verdict={}, points=[])).values():
        assert "no data" in [annotation.text for annotation in figure.layout.annotations]
