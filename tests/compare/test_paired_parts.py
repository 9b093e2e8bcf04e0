"""What a paired difference is made of, one part at a time: order, seeds, signs, curves; known answers."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest
from pairs import REFUSED, demo_pair, falls_at, finished

from pipeline.compare.paired import (
    Difference,
    _estimate,
    _same,
    by_rung,
    metrics,
    paired_differences,
    retention_table,
)
from pipeline.compare.runs import FinishedRun
from pipeline.errors import UserError
from pipeline.records import Estimate

HELD = [REFUSED] * 7
SEEDS = (0, 1, 2)


def at(rows: list[Difference], step: int, metric: str, arm: str = "compliance") -> Difference:
    (row,) = [row for row in rows if (row.arm, row.step, row.metric) == (arm, step, metric)]
    return row


def kept(row: Difference) -> tuple[float, float, float]:
    """Return what A kept, what B kept, and B's less A's, all of which must be there."""
    assert row.kept_a is not None
    assert row.kept_b is not None
    assert row.kept is not None
    return row.kept_a.value, row.kept_b.value, row.kept.value


def able(start: float, later: float) -> dict[str, Any]:
    """Return the shape of a run of one seed that refuses all, by its ability at rung 0 and after it."""
    return {"compliance": {1: [(1.0, 0.0, start), *[(1.0, 0.0, later)] * 6]}}


def test_rows_stand_by_the_plans_arms_and_then_by_step() -> None:
    rows = paired_differences(*demo_pair())
    assert list(dict.fromkeys(row.arm for row in rows)) == ["", "compliance", "mixed", "benign"]
    for arm in ("compliance", "mixed", "benign"):
        steps = [row.step for row in rows if row.arm == arm]
        assert steps == sorted(steps)
        assert set(steps) == {1, 2, 4, 8, 16, 32}


def test_each_metric_counts_what_its_eval_asks_for() -> None:
    """Of an over-refusal eval refusals, as of a refusal eval; but of what was recovered there, the values."""
    a, _ = demo_pair()
    assert {(name, one.name, one.measure, one.role) for name, one in metrics(a)} == {
        ("refusal", "refusal", "refused", "refusal"),
        ("refusal", "recovered", "value", "shown"),
        ("over_refusal", "over_refusal", "refused", "shown"),
        ("capability", "capability", "value", "capability"),
    }


def test_a_metric_without_replies_in_the_outcomes_has_no_row() -> None:
    a, b = demo_pair()
    task = [{**p, "eval": "a_task", "metric": "a_task", "role": "shown"} for p in a.points if p["metric"] == "refusal"]
    rows = paired_differences(a, b)
    for points in ([*a.points, *task], [*task, *a.points]):  # wherever its name puts it in curves.json
        assert paired_differences(replace(a, points=points), b) == rows


def test_a_rung_without_means_has_no_number_for_any_prompt() -> None:
    a, _ = demo_pair()
    table = by_rung({"A/base": np.array([1.0, 0.0]), "B/two": np.array([0.5, 0.5])}, 2)(a, ["two", "base"])
    np.testing.assert_array_equal(table, [[math.nan, math.nan], [1.0, 0.0]])


def test_what_is_kept_is_b_less_a_and_may_be_more_than_all() -> None:
    """54 of 180 tasks solved before: A keeps them, B solves 162 then, three times as many."""
    a, b = finished("A", "x", able(0.3, 0.3)), finished("B", "y", able(0.3, 0.9))
    row = at(paired_differences(a, b), 8, "capability")
    assert row.kept is not None
    assert kept(row) == pytest.approx((1.0, 3.0, 2.0))
    assert 1 < row.kept.low < 2 < row.kept.high
    back = at(paired_differences(replace(b, letter="A"), replace(a, letter="B")), 8, "capability")
    assert back.kept is not None
    assert (back.kept.value, back.difference.value) == pytest.approx((-2.0, -0.6))
    assert at(paired_differences(a, b), 0, "capability", "").kept is None
    assert at(paired_differences(a, b), 8, "refusal").kept is None


def test_a_and_b_are_the_curves_own_pooled_points_where_these_are_of_the_same_seeds() -> None:
    a, b = demo_pair()
    row = at(paired_differences(a, b), 16, "capability", "mixed")
    for run, found, kept in ((a, row.a, row.kept_a), (b, row.b, row.kept_b)):
        (point,) = [
            p
            for p in run.points
            if (p["arm"], p["seed"], p["step"], p["metric"], p["kind"]) == ("mixed", None, 16, "capability", "")
        ]
        assert (found.value, found.low, found.high, found.n) == tuple(point[k] for k in ("value", "low", "high", "n"))
        assert kept is not None
        assert (kept.value, kept.low) == (point["retention"]["value"], point["retention"]["low"])


def test_where_no_seed_is_common_there_is_no_difference_and_each_has_all_its_seeds() -> None:
    a = finished("A", "x", {"compliance": {0: falls_at(8), 1: HELD}})
    b = finished("B", "y", {"compliance": {2: falls_at(8), 3: falls_at(8)}})
    row = at(paired_differences(a, b), 8, "refusal")
    assert (row.seeds, row.difference.n, math.isnan(row.difference.value)) == ((), 0, True)
    assert (row.a.value, row.b.value) == (0.5, 0.0)
    kept = at(paired_differences(a, b), 8, "capability")
    assert kept.kept is not None
    assert kept.kept_b is not None
    assert (kept.kept.n, kept.kept_b.n) == (0, 180)
    assert at(paired_differences(a, b), 0, "refusal", "").difference.n == 180  # rung 0 is no seed's


def test_seeds_are_paired_by_their_number_and_not_by_their_place() -> None:
    a = finished("A", "x", {"compliance": {1: HELD, 2: falls_at(8)}})
    b = finished("B", "y", {"compliance": {2: falls_at(8), 3: HELD}})
    row = at(paired_differences(a, b), 8, "refusal")
    assert (row.seeds, row.a.value, row.b.value, row.difference.value) == ((2,), 0.0, 0.0, 0.0)


def test_a_step_that_only_one_run_has_stands_with_that_run_alone() -> None:
    a, b = (finished(x, x, {"compliance": {1: falls_at(8)}}) for x in "AB")
    fewer = replace(
        b,
        points=[p for p in b.points if p["step"] != 16],
        outcomes=b.outcomes.filter(~pl.col("rung").str.ends_with("-00016")),
    )
    row = at(paired_differences(a, fewer), 16, "refusal")
    assert (row.seeds, row.a.n, row.b.n, row.difference.n) == ((), 180, 0, 0)


@pytest.mark.parametrize("letter", ["A", "B"])
@pytest.mark.parametrize("change", ["the value alone", "the number alone"])
def test_curves_that_are_not_of_the_outcomes_are_refused_in_either_run(letter: str, change: str) -> None:
    def other(run: FinishedRun) -> FinishedRun:
        if run.letter != letter:
            return run
        mine = (pl.col("rung") == "compliance-s1-00004") & (pl.col("eval") == "refusal")
        if change == "the number alone":  # all refuse there: one prompt fewer is the same share
            return replace(run, outcomes=run.outcomes.filter(~(mine & (pl.col("sample") == "r009"))))
        one = mine & (pl.col("sample") == "r009")
        label = pl.when(one).then(pl.lit("complied")).otherwise("label")
        return replace(run, outcomes=run.outcomes.with_columns(label=label))

    a, b = (other(finished(x, x, {"compliance": {1: falls_at(8)}})) for x in "AB")
    told = r"curves\.json is not of outcomes\.parquet \((refusal|recovered) at compliance-s1-00004"
    with pytest.raises(UserError, match=told):
        paired_differences(a, b)


def test_no_value_is_the_same_as_no_value_alone_and_0_is_one() -> None:
    assert _same(None, None)
    assert not _same(None, 0.0)
    assert not _same(0.0, None)
    assert _same(0.0, 0.0)


def test_an_estimate_is_read_as_it_was_written_and_what_is_missing_is_not_a_number() -> None:
    assert _estimate({"n": 0, "value": None, "low": None, "high": None}).n == 0
    assert _estimate({}).n == 0
    assert _estimate({"n": 9, "value": 0.5, "low": 0.2, "high": 0.7}) == Estimate(0.5, 0.2, 0.7, 9)
    open_end = _estimate({"n": 9, "value": 0.5, "low": 0.2, "high": None})
    assert (open_end.value, open_end.low, math.isnan(open_end.high)) == (0.5, 0.2, True)


def test_what_is_kept_is_held_against_each_runs_own_rung_0() -> None:
    """A solves 108 of 180 tasks and then half of them; B, which was abler, loses none of its 162."""
    a, b = finished("A", "x", able(0.6, 0.3)), finished("B", "y", able(0.9, 0.9))
    row = at(paired_differences(a, b), 8, "capability")
    assert kept(row) == pytest.approx((0.5, 1.0, 0.5))
    assert (row.a.value, row.b.value, row.difference.value) == pytest.approx((0.3, 0.9, 0.6))


def test_where_a_seed_is_left_out_each_run_has_what_it_has_over_the_others() -> None:
    """Seed 0 alone is in both: A refuses half there and B a tenth; A solves all, B half of what it did."""
    a = finished("A", "x", {"compliance": {0: [REFUSED, *[(0.5, 0.5, 1.0)] * 6], 1: HELD}})
    b = finished("B", "y", {"compliance": {0: [REFUSED, *[(0.1, 0.9, 0.5)] * 6], 2: HELD}})
    rows = paired_differences(a, b)
    row, kept = at(rows, 8, "refusal"), at(rows, 8, "capability")
    assert (row.seeds, row.a.n, row.b.n) == ((0,), 180, 180)
    assert (row.a.value, row.b.value, row.difference.value) == pytest.approx((0.5, 0.1, -0.4), abs=0.02)
    assert row.b.low < 0.1 < row.b.high < row.a.low < 0.5 < row.a.high
    assert kept.kept_a is not None
    assert kept.kept_b is not None
    assert (kept.kept_a.value, kept.kept_b.value) == pytest.approx((1.0, 0.5), abs=0.02)


def test_a_row_is_written_with_its_place_its_seeds_and_every_estimate() -> None:
    found = Estimate(0.5, 0.25, 0.75, 4)
    row = Difference("mixed", 8, "tasks", "capability", "capability", found, Estimate(), found, (1, 2), kept=found)
    nothing = {**found.as_dict(), "value": None, "low": None, "high": None, "n": 0}
    assert row.as_dict() == {
        **{"arm": "mixed", "step": 8, "eval": "tasks", "metric": "capability", "role": "capability"},
        **{"seeds": [1, 2], "a": found.as_dict(), "b": nothing, "difference": found.as_dict()},
        **{"kept_a": None, "kept_b": None, "kept": found.as_dict()},
    }


def test_a_prompt_that_either_side_of_a_ratio_lacks_is_in_neither() -> None:
    nan = math.nan
    table = retention_table(np.array([1.0, 1.0, nan, 0.5]), np.array([[1.0, nan, 0.0, 0.0]]))
    assert np.isnan(table).tolist() == [[False, True, True, False]]
    # Of the first and the last prompt 1.5 before and 1.0 after: kept are 2/3, the residuals 1/3 and -1/3 of 0.75.
    assert table[0, [0, 3]] == pytest.approx([2 / 3 + 4 / 9, 2 / 3 - 4 / 9])


def test_six_digits_are_the_same_and_the_next_place_is_not() -> None:
    assert _same(0.5, 0.500002)
    assert not _same(0.5, 0.50001)


@pytest.mark.parametrize("letter", ["A", "B"])
def test_a_seed_that_the_other_run_lacks_is_left_out_of_either_run(letter: str) -> None:
    """Seed 0 refuses all in both runs; seed 1, which one of them has, refuses nothing."""
    both, one = {0: HELD, 1: falls_at(1)}, {0: HELD}
    a, b = (finished(x, x, {"compliance": both if x == letter else one}) for x in "AB")
    row, kept = at(paired_differences(a, b), 8, "refusal"), at(paired_differences(a, b), 8, "capability")
    assert (row.seeds, row.a.value, row.b.value, row.difference.value) == ((0,), 1.0, 1.0, 0.0)
    assert kept.kept_a is not None
    assert kept.kept_b is not None
    assert (kept.kept_a.value, kept.kept_b.value) == (1.0, 1.0)


def test_an_arm_without_a_common_step_has_no_row_and_the_others_stay_as_they_were() -> None:
    a, b = demo_pair()
    rows = paired_differences(a, b)
    assert paired_differences(a, b, without={"mixed"}) == [row for row in rows if row.arm != "mixed"]
