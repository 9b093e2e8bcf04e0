"""The small multiples: one panel for each arm and seed, drawn from the points of that seed."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_runs import STEPS, make_run

from pipeline.report import ReportData
from pipeline.report.canvas import Box, DoseScale, path, stairs
from pipeline.report.data import number
from pipeline.report.panels import BOX, TICK_ROOM, TOP, grid


def test_every_arm_and_seed_has_a_panel_that_says_what_became_of_it() -> None:
    found = grid(make_run())
    assert [(arm.arm, [p.seed for p in arm.panels]) for arm in found.arms] == [
        (name, [0, 1, 2]) for name in ("compliance", "mixed", "benign")
    ]
    assert {p.note for p in found.arms[0].panels} == {"collapse by step 8"}
    assert {p.note for p in found.arms[2].panels} == {"censored: not reached by step 32"}
    assert [p.ring is None for arm in found.arms for p in arm.panels] == [False] * 6 + [True] * 3


def test_what_is_drawn_is_what_was_measured() -> None:
    run = make_run(arms=("compliance",))
    panel = grid(run).arms[0].panels[1]
    points = run.curve("compliance", "refusal", 1)
    heights = [(BOX.bottom - y) / (BOX.bottom - BOX.top) * TOP for _, y in panel.refusal.places]
    assert heights == pytest.approx([p["value"] for p in points])
    kept = [p["retention"]["value"] for p in run.curve("compliance", "capability", 1) if p["step"]]
    drawn = [(BOX.bottom - y) / (BOX.bottom - BOX.top) * TOP for _, y in panel.kept.places]
    assert drawn == pytest.approx([1.0, *kept])
    xs = [x for x, _ in panel.refusal.places]
    assert xs[0] == BOX.left
    assert xs[-1] == BOX.right
    assert xs == pytest.approx([BOX.across(n / (len(STEPS) - 1)) for n in range(len(STEPS))])  # powers of two


def test_a_seed_without_data_says_so_and_draws_nothing() -> None:
    run = make_run(arms=("compliance",))
    for point in run.points:
        if point["seed"] == 1:
            point.update(value=None, low=None, high=None, retention=None)
    for entry in run.verdict["arms"]["compliance"]["per_seed"]:
        if entry["seed"] == 1:
            entry["collapse"] = None
    panel = grid(run).arms[0].panels[1]
    assert (panel.note, panel.refusal.places, panel.kept.places, panel.ring) == ("no data", (), (), None)
    assert "no data" in panel.words


def test_thresholds_are_unknown_without_a_verdict() -> None:
    run = make_run(arms=("compliance",))
    bare = grid(ReportData(run.plan, {}, run.points))
    assert (bare.tau, bare.rho) == (None, None)
    assert grid(run).tau == pytest.approx(BOX.up(0.05 / TOP))
    assert grid(ReportData({}, {}, [])).arms == ()


@given(st.sets(st.integers(1, 100_000), min_size=1, max_size=40), st.floats(10, 60))
def test_ticks_keep_their_distance_and_name_both_ends(steps: set[int], room: float) -> None:
    box = Box(0, 0, 200, 100)
    ticks = DoseScale(steps, box).ticks(room)
    assert (ticks[0].text, ticks[-1].text) == ("0", f"{max(steps):,}")
    between = [b.at - a.at for a, b in pairwise(ticks)]
    assert len(ticks) == 2 or min(between) >= room
    assert all(box.left <= tick.at <= box.right for tick in ticks)


@given(st.lists(st.floats(0, 1e6), min_size=2))
def test_doses_stand_in_order(steps: list[float]) -> None:
    scale = DoseScale(steps, BOX)
    places = [scale.at(step) for step in sorted(steps)]
    assert places == sorted(places)


def test_paths_have_the_corners_that_they_should() -> None:
    assert path([(0, 1)]) == ""
    assert path([(0, 1), (2, 3)]) == "M0.0 1.0 2.0 3.0"
    assert stairs([(0, 0), (5, 7)]) == "M0.0 0.0 5.0 0.0 5.0 7.0"  # along first, then down


def test_ticks_of_the_demo_are_its_rungs() -> None:
    texts = [tick.text for tick in grid(make_run()).ticks]
    assert texts[0] == "0"
    assert set(texts) <= {str(step) for step in STEPS}
    assert TICK_ROOM * (len(texts) - 1) <= BOX.right - BOX.left


def test_intervals_are_strokes_between_the_limits() -> None:
    run = make_run(arms=("mixed",), seeds=(0,))
    panel = grid(run).arms[0].panels[0]
    strokes = re.findall(r"M([\d.]+) ([\d.]+)V([\d.]+)", panel.refusal.intervals)
    points = run.curve("mixed", "refusal", 0)
    assert len(strokes) == len(points)
    low = (BOX.bottom - float(strokes[4][1])) / (BOX.bottom - BOX.top) * TOP
    assert low == pytest.approx(number(points[4]["low"]), abs=0.001)
