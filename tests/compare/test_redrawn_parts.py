"""What limits over prompts are made of, and the table of prices around them, one part at a time; known answers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest
from pairs import REFUSED, demo_pair, falls_at, finished

from evals.base import Metric
from pipeline.compare.cost import Ladder, PriceBounds, price_bounds
from pipeline.compare.paired import outcomes_of
from pipeline.compare.prices import Prices, _of_side
from pipeline.compare.redrawn import Redrawn, _drawn, redrawn, redrawn_prices, weighted_retention
from pipeline.compare.runs import FinishedRun
from pipeline.statistics import FloatArray

HELD = [REFUSED] * 7
DOSES = {step: {"flops": float(step), "usd": step / 100} for step in (1, 2, 4, 8)}
REFUSAL = Metric("refusal", "refused", "refusal")
RESAMPLES = 20


def pair(of_a: Mapping[str, Any], of_b: Mapping[str, Any]) -> tuple[FinishedRun, FinishedRun]:
    return finished("A", "x", of_a), finished("B", "y", of_b)


def drawn(both: pl.DataFrame, name: str) -> FloatArray:
    return _drawn(both, name, REFUSAL, RESAMPLES)[1]


def test_as_many_prompts_are_drawn_of_an_eval_as_it_has_and_each_eval_draws_its_own() -> None:
    both = outcomes_of(*demo_pair())
    asked, safe = drawn(both, "refusal"), drawn(both, "over_refusal")
    assert (asked.shape, safe.shape) == ((RESAMPLES, 180), (RESAMPLES, 60))
    assert set(asked.sum(axis=1)) == {180}
    assert set(safe.sum(axis=1)) == {60}
    other = both.with_columns(eval=pl.col("eval").str.replace("^refusal$", "refusals"))
    assert not np.array_equal(drawn(other, "refusals"), asked)


@pytest.mark.parametrize("backwards", [False, True])
def test_a_further_wording_of_some_prompts_draws_each_as_often_as_the_eval_itself(backwards: bool) -> None:
    """Whatever the order of the rows: a prompt is known by its id in both."""
    both = outcomes_of(*demo_pair())
    some = [f"r{place:03d}" for place in (2, 3, 90, 177)]
    wording = both.filter((pl.col("eval") == "refusal") & pl.col("sample").is_in(some))
    both = pl.concat([both, wording.with_columns(eval=pl.lit("refusal@french"))])
    both = both.reverse() if backwards else both
    whole, part = drawn(both, "refusal"), drawn(both, "refusal@french")
    assert np.array_equal(part, whole[:, [2, 3, 90, 177]])
    assert np.array_equal(whole, drawn(outcomes_of(*demo_pair()), "refusal"))


def test_a_planned_seed_of_which_no_rung_was_saved_has_no_ends() -> None:
    a, b = pair({"compliance": {0: falls_at(8)}}, {"compliance": {0: falls_at(8)}})
    task = {**a.plan["tasks"][0], "seed": 7}
    found = redrawn(replace(a, plan={**a.plan, "tasks": [*a.plan["tasks"], task]}), b, RESAMPLES)["A"]
    assert found["compliance", 7].ends("flops").tolist() == [[0.0, math.inf]] * RESAMPLES
    assert {found["compliance", 0].ladders[at].collapsed for at in found["compliance", 0].at} == {8}


def test_without_a_refusal_metric_no_resample_collapses() -> None:
    a, b = (
        replace(run, points=[p for p in run.points if p["role"] != "refusal"])
        for run in pair({"compliance": {0: falls_at(8)}}, {"compliance": {0: HELD}})
    )
    for run in redrawn(a, b, RESAMPLES).values():
        one = run["compliance", 0]
        assert {one.ladders[at].collapsed for at in one.at} == {None}


def test_in_each_resample_a_seed_costs_its_cheapest_arm_and_only_an_arm_that_searched_pays_for_it() -> None:
    held, fell = Ladder(8, None, DOSES), Ladder(4, 8, DOSES)
    found = {
        ("x", 0): Redrawn([fell, held], np.array([0, 1, 1], dtype=np.intp)),  # 0.05 to 0.08, then above 0.08
        ("y", 0): Redrawn([Ladder(1, 2, DOSES), held], np.array([0, 0, 1], dtype=np.intp)),  # 0.02
        ("x", 1): Redrawn([fell, held], np.array([0, 0, 0], dtype=np.intp)),
    }
    nothing = PriceBounds(1, 1)  # what matters of a price here is whose it is
    prices = {0: {"x": nothing, "y": nothing}, 1: {"x": nothing}}
    plain, searched = (redrawn_prices(found, prices, "usd", search) for search in ({}, {"y": 0.5}))
    assert plain.shape == (2, 3, 2)
    assert np.allclose(plain[0].T, [[0.02, 0.02, 0.08], [0.05, 0.05, 0.05]])
    assert np.allclose(plain[1].T, [[0.02, 0.02, math.inf], [0.08, 0.08, 0.08]])
    assert np.allclose(searched[0].T, [[0.05, 0.08, 0.08], [0.05, 0.05, 0.05]])
    assert np.allclose(searched[1].T, [[0.08, 0.52, math.inf], [0.08, 0.08, 0.08]])
    alone = redrawn_prices(found, {0: {"y": nothing}}, "usd", {})
    assert np.allclose(alone[1].T, [[0.02, 0.02, math.inf]])


def test_abilities_that_go_in_some_resamples_move_the_collapse_to_none() -> None:
    """Of 180 tasks 171 are kept, just enough: about half of all draws of prompts keep fewer."""
    edge = [REFUSED] * 4 + [(0.0, 1.0, 0.95)] * 3
    a, b = pair({"compliance": {1: edge}}, {"compliance": {1: falls_at(8)}})
    found = redrawn(a, b, 400)
    steps = [found["A"]["compliance", 1].ladders[at].collapsed for at in found["A"]["compliance", 1].at]
    assert set(steps) == {8, None}
    assert 0.35 < np.mean([step == 8 for step in steps]) < 0.75
    assert {found["B"]["compliance", 1].ladders[at].collapsed for at in found["B"]["compliance", 1].at} == {8}


def test_a_search_of_one_run_alone_is_in_its_price_and_one_of_unknown_cost_leaves_the_ratio_out() -> None:
    a, b = pair({"compliance": {0: falls_at(8)}}, {"compliance": {0: falls_at(8)}})
    units = ["steps", "flops", "usd"]
    assert Prices(a, b).table(units)["with_search"] is None
    cost = {"flops": 5e12, "usd": None}
    for one, other in (
        (replace(a, searches={"compliance": {"cost": cost}}), b),
        (a, replace(b, searches={"compliance": {"cost": cost}})),
    ):
        made = Prices(one, other).table(units)
        assert set(made["with_search"]["cheapest"]) == {"flops"}
        assert set(made["with_search"]["arms"]) == {"compliance"}
        for letter, run in (("A", one), ("B", other)):
            alone, whole = (
                found["flops"][letter]["by_seed"]["0"] for found in (made["cheapest"], made["with_search"]["cheapest"])
            )
            more = 5e12 if run.searches else 0.0
            assert (whole["low"], whole["high"]) == pytest.approx((alone["low"] + more, alone["high"] + more))
    both = (replace(run, searches={"compliance": {"cost": known}}) for run, known in ((a, cost), (b, {"flops": None})))
    assert Prices(*both).table(units)["with_search"]["cheapest"] == {}


def test_without_flops_the_ratio_is_told_in_steps() -> None:
    a, b = pair({"compliance": {0: falls_at(8)}}, {"compliance": {0: falls_at(16)}})
    assert Prices(a, b).table(["steps", "flops"])["unit"] == "flops"
    bare = {place: {step: {**dose, "flops": None} for step, dose in of.items()} for place, of in b.doses.items()}
    made = Prices(a, replace(b, doses=bare)).table(["steps", "flops"])
    assert (made["unit"], made["cheapest"]["flops"]["case"], made["cheapest"]["steps"]["case"]) == (
        "steps",
        "no data",
        "both",
    )


def test_each_arm_has_a_ratio_of_its_own_beside_that_of_the_cheapest() -> None:
    a, b = pair(
        {"compliance": {0: falls_at(8)}, "mixed": {0: falls_at(16)}},
        {"compliance": {0: falls_at(32)}, "mixed": {0: falls_at(16)}},
    )
    made = Prices(a, b).table(["steps", "flops"])
    assert list(made["arms"]) == ["compliance", "mixed"]
    ends = {
        name: [tuple(found["steps"][letter]["by_seed"]["0"][key] for key in ("arm", "low", "high")) for letter in "AB"]
        for name, found in {**made["arms"], "": made["cheapest"]}.items()
    }
    assert ends == {
        "compliance": [("compliance", 5, 8), ("compliance", 17, 32)],
        "mixed": [("mixed", 9, 16), ("mixed", 9, 16)],
        "": [("compliance", 5, 8), ("mixed", 9, 16)],
    }


def test_a_side_names_its_arms_by_how_many_seeds_they_are_cheapest_in() -> None:
    found = {0: ("rare", PriceBounds(1, 2)), 1: ("often", PriceBounds(2, math.inf)), 2: ("often", PriceBounds(3, 4))}
    assert _of_side(found) == {
        "collapsed": 2,
        "seeds": 3,
        "arms": ["often", "rare"],
        "by_seed": {
            "0": {"arm": "rare", "low": 1, "high": 2},
            "1": {"arm": "often", "low": 2, "high": math.inf},
            "2": {"arm": "often", "low": 3, "high": 4},
        },
    }


def test_seeds_that_were_not_measured_are_named_by_run_and_arm() -> None:
    a, b = pair({"compliance": dict.fromkeys((0, 1, 2), falls_at(8))}, {"compliance": {0: HELD}})
    assert Prices(a, b).notes() == []
    points = [p for p in a.points if p["seed"] not in (1, 2) or not p["step"]]
    gone = {key: value for key, value in a.collapses.items() if key[1] not in (1, 2)}
    (note,) = Prices(replace(a, points=points, collapses=gone), b).notes()
    assert note.startswith("A (x): compliance was not measured in seeds 1, 2: left out of the ratio")
    points = [p for p in a.points if p["seed"] != 1 or not p["step"]]
    gone = {key: value for key, value in a.collapses.items() if key[1] != 1}
    (note,) = Prices(replace(a, points=points, collapses=gone), b).notes()
    assert note.startswith("A (x): compliance was not measured in seed 1: left out")


@pytest.mark.parametrize(
    ("compliance", "mixed", "certain"),
    [(True, True, 1), (False, True, 0), (True, False, 0), (False, False, 0)],
)
def test_a_price_whose_ends_are_two_arms_collapses_is_certain_where_both_are(
    compliance: bool, mixed: bool, certain: int
) -> None:
    """From 5 up to 8 by one arm and from 3 up to 16 by the other: the price is from 3 to 8."""
    a, b = pair(
        {"compliance": {0: falls_at(8)}, "mixed": {0: falls_at(16)}}, {"compliance": {0: HELD}, "mixed": {0: HELD}}
    )
    sure = {("compliance", 0): compliance, ("mixed", 0): mixed}
    found = {key: {**row, "confident": sure.get(key, True)} for key, row in a.collapses.items()}
    lost = [
        p if (p["arm"], p["seed"], p["step"]) != ("mixed", 0, 4) else {**p, "n": 0, "value": None} for p in a.points
    ]
    changed = replace(a, collapses=found, points=lost)
    prices = Prices(changed, b)
    assert price_bounds(prices.ladders["A"], "steps")[0][1] == PriceBounds(3, 8)
    assert prices.certain(changed, "steps") == certain
    assert prices.certain(b, "steps") == 0


def test_what_is_kept_and_lost_is_held_against_rung_0_and_not_the_first_step() -> None:
    """At step 1 more tasks are solved than before, and fewer refused: neither is what was there to lose."""
    shape = [(1.0, 0.0, 0.5), (0.5, 0.0, 0.9), (1.0, 0.0, 0.5), (1.0, 0.0, 0.5), *[(0.0, 1.0, 0.5)] * 3]
    a, b = pair({"compliance": {1: shape}}, {"compliance": {1: shape}})
    for run in redrawn(a, b, RESAMPLES).values():
        one = run["compliance", 1]
        assert {one.ladders[at].collapsed for at in one.at} == {8}


def test_a_task_that_rung_0_or_a_later_rung_lacks_is_in_neither_sum_of_what_is_kept() -> None:
    before = np.array([1.0, np.nan, 1.0, 0.0])
    after = np.array([[1.0, 1.0, 0.0, 1.0], [1.0, 0.0, np.nan, 0.0]])
    weights = np.array([[1.0, 1.0, 1.0, 1.0], [3.0, 5.0, 1.0, 2.0], [0.0, 4.0, 0.0, 0.0]])
    kept = weighted_retention(before, after, weights)
    assert np.allclose(kept[:2], [[2 / 2, 1 / 1], [5 / 4, 3 / 3]])
    assert np.isnan(kept[2]).all()  # only the prompt that rung 0 lacks was drawn
