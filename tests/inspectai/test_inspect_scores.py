"""From the scores of Inspect tasks to outcomes, metrics and points. Pure: files of numbers in, records out."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pipeline.analyse import curves, to_json
from pipeline.errors import UserError
from pipeline.hierarchical import crossed_mean
from pipeline.inspectai.scores import means_of, metrics_of, outcome_rows, read_scores, scores_file
from pipeline.inspectai.shown import points_of
from pipeline.inspectai.task import InspectTask
from pipeline.outcomes import SCHEMA
from pipeline.records import Dose, Rung
from pipeline.rungs import base_rung
from pipeline.schema import ReviewConfig
from pipeline.statistics import unbounded_estimate
from pipeline.store import RunFolder

TASK = InspectTask("mine", "t.py@t", {}, None, 1, 8, 0.0, "shown", False, 4, "0" * 64, ())
RUNGS = [
    base_rung(""),
    *(Rung(f"a-s{seed}-{step}", "a", seed, step, dose=Dose(step, 2 * step)) for seed in (0, 1) for step in (1, 2)),
]
Columns = Mapping[str, Sequence[float | None]]


def put(folder: RunFolder, rung: str, columns: Columns, **more: Any) -> None:
    count = len(next(iter(columns.values())))
    rows = [
        {
            "sample": f"s{n}",
            "epoch": 1,
            "reply_sha256": f"{n}",
            "truncated": n == 0,
            "error": False,
            "scores": {key: values[n] for key, values in columns.items()},
        }
        for n in range(count)
    ]
    path = scores_file(folder, rung, TASK.eval)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"columns": list(columns), "means": {}, "metrics": [], "rows": rows} | more))


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path)


def outcomes(folder: RunFolder, task: InspectTask = TASK) -> pl.DataFrame:
    return pl.DataFrame(list(outcome_rows(folder, [task], RUNGS)), schema=SCHEMA, orient="row")


def test_a_zero_one_score_gets_its_interval_from_the_ordinary_analysis(folder: RunFolder) -> None:
    put(folder, "base", {"includes": [1, 1, 1, 0]}, means={"includes": "accuracy"})
    put(folder, "a-s0-1", {"includes": [1, 0, 0, 0]}, means={"includes": "accuracy"})
    metrics = metrics_of(folder, [TASK], RUNGS)
    assert [(name, metric.name, metric.role) for name, metric in metrics] == [("mine_accuracy",) * 2 + ("shown",)]
    points = curves(outcomes(folder), RUNGS[:2], metrics, ReviewConfig(threat_model="", bootstrap=50))
    found = {(p.seed, p.step): p.estimate for p in points}
    assert found[0, 0] == crossed_mean([1, 1, 1, 0], 0.95)
    assert found[0, 1] == crossed_mean([1, 0, 0, 0], 0.95)


def test_what_was_not_scored_is_unscored_and_never_zero(folder: RunFolder) -> None:
    put(folder, "base", {"includes": [None, 1, None, 0]})
    table = outcomes(folder)
    assert table["label"].to_list() == ["unscored", "complied", "unscored", "complied"]
    assert [math.isnan(value) for value in table["value"]] == [True, False, True, False]
    assert table["truncated"].to_list() == [True, False, False, False]


def test_several_columns_are_several_metrics_and_the_first_has_the_role(folder: RunFolder) -> None:
    put(folder, "base", {"rich_right": [1.0], "includes": [0.0]}, means={"includes": "accuracy"})
    found = metrics_of(folder, [replace(TASK, role="capability")], RUNGS)
    assert [(m.name, m.role) for _, m in found] == [
        ("mine_rich_right_mean", "capability"),
        ("mine_includes_accuracy", "shown"),
    ]


def test_columns_whose_names_become_one_are_told_apart(folder: RunFolder) -> None:
    put(folder, "base", {"is true": [1.0], "is-true": [0.0], "质量": [1.0], "安全": [0.0]})
    names = [name for name, _ in metrics_of(folder, [TASK], RUNGS)]
    assert len(set(names)) == len(names) == 4
    assert outcomes(folder)["eval"].to_list() == names


def test_inverted_turns_a_score_round_and_leaves_unscored_alone(folder: RunFolder) -> None:
    put(folder, "base", {"includes": [1, 0.25, None]})
    values = outcomes(folder, replace(TASK, inverted=True))["value"].to_list()
    assert values[:2] == [0.0, 0.75]
    assert math.isnan(values[2])


def test_a_column_beyond_one_is_shown_with_students_t_and_stays_out_of_the_outcomes(folder: RunFolder) -> None:
    put(folder, "base", {"length": [10, 20, 60]})
    put(folder, "a-s0-1", {"length": [1, 1, None]})
    assert outcomes(folder).is_empty()
    assert metrics_of(folder, [TASK], RUNGS) == []
    points = {(p.seed, p.step): p for p in points_of(folder, [TASK], RUNGS, 0.95)}
    low, high = stats.t.interval(0.95, 2, loc=30, scale=stats.sem([10, 20, 60]))
    assert points[0, 0].estimate.value == 30
    assert (points[0, 0].estimate.low, points[0, 0].estimate.high) == pytest.approx((low, high))
    assert (points[None, 1].estimate.value, points[None, 1].estimate.n) == (1.0, 2)
    assert {p.role for p in points.values()} == {"shown"}


def test_a_column_beyond_one_cannot_decide(folder: RunFolder) -> None:
    put(folder, "base", {"length": [10, 20]})
    with pytest.raises(UserError, match="needs scores from 0 to 1"):
        metrics_of(folder, [replace(TASK, role="refusal")], RUNGS)


def test_inspects_own_metrics_are_shown_without_an_interval_seeds_pooled(folder: RunFolder) -> None:
    for rung, value in (("base", 7.0), ("a-s0-2", 3.0), ("a-s1-2", None)):
        own = [{"column": "includes", "metric": "worst of all", "value": value}]
        put(folder, rung, {"includes": [1, 0]}, metrics=own)
    points = {(p.seed, p.step): p for p in points_of(folder, [TASK], RUNGS, 0.95)}
    assert {p.metric for p in points.values()} == {"mine_worst-of-all"}
    assert (points[0, 0].estimate.value, points[None, 2].estimate.value) == (7.0, 3.0)
    assert points[1, 2].estimate.n == 0
    assert math.isnan(points[1, 2].estimate.value)
    assert math.isnan(points[0, 2].estimate.low)
    assert points[None, 2].dose["steps"] == 2
    row = next(r for r in to_json(list(points.values()), {})["points"] if r["step"] == 2 and r["seed"] == 1)
    assert (row["value"], row["low"], row["n"]) == (None, None, 0)


def test_a_rung_without_scores_has_no_rows_and_no_file_is_no_error(folder: RunFolder) -> None:
    assert outcomes(folder).is_empty()
    assert metrics_of(folder, [TASK], RUNGS) == []
    assert points_of(folder, [TASK], RUNGS, 0.95) == []
    assert read_scores(folder, "base", "mine") is None


def test_a_damaged_file_is_told(folder: RunFolder) -> None:
    put(folder, "base", {"includes": [1]})
    scores_file(folder, "base", "mine").write_text("{")
    with pytest.raises(UserError, match=r"mine.json is damaged"):
        outcomes(folder)


def test_means_for_the_tracker_leave_out_what_has_no_number(folder: RunFolder) -> None:
    put(folder, "base", {"a": [1, 0, None], "b": [None, None, None]})
    scores = read_scores(folder, "base", "mine")
    assert scores is not None
    assert means_of(TASK, scores) == {"mine_a_mean": 0.5}


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=20))
def test_an_unbounded_estimate_of_one_seed_is_students_t(values: list[float]) -> None:
    found = unbounded_estimate(values, 0.9)
    assert found.value == pytest.approx(float(np.mean(values)), abs=1e-9)
    half = stats.t.ppf(0.95, len(values) - 1) * stats.sem(values)
    assert found.high - found.value == pytest.approx(half, abs=1e-6)
    assert found.value - found.low == pytest.approx(half, abs=1e-6)


def test_an_unbounded_estimate_of_nothing_or_of_one_prompt_has_no_limits() -> None:
    assert unbounded_estimate([[math.nan]], 0.95).n == 0
    one = unbounded_estimate([[4.0, math.nan]], 0.95)
    assert (one.value, one.n) == (4.0, 1)
    assert math.isnan(one.low)


def test_seeds_that_disagree_widen_an_unbounded_estimate() -> None:
    agree = unbounded_estimate([[1, 2, 3], [1, 2, 3]], 0.95)
    differ = unbounded_estimate([[0, 1, 2], [2, 3, 4]], 0.95)
    assert agree.value == differ.value
    assert differ.high - differ.low > agree.high - agree.low
