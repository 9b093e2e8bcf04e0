"""The ends of a price and of a ratio, one by one: what each is made of, and what must not move it."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from pairs import REFUSED, falls_at, finished
from scipy import stats

from pipeline.compare.cost import Ladder, PriceBounds, _drawn, cost_ratio, ladders, price_bounds, priced, unmeasured

HELD = [REFUSED] * 7
DOSES = {step: {"steps": step, "usd": 1e-4 * step} for step in (1, 2, 4, 8)}


def exact(*doses: float) -> list[PriceBounds]:
    return [PriceBounds(dose, dose) for dose in doses]


def test_a_lower_limit_allows_for_the_spread_of_what_is_known_of_seeds_that_held() -> None:
    """A seed that held counts as its lower end: else three seeds that differ would be as good as three that agree."""
    a, b = (2.0, 3.0, 2.5), (7.0, 11.0, 8.0)
    found = cost_ratio(exact(*a), [*exact(7.0, 11.0), PriceBounds(8.0, math.inf)], 0.95, 200)
    welch = stats.ttest_ind(np.log(b), np.log(a), equal_var=False).confidence_interval(0.95)
    assert found.case == "at least"
    assert math.log(found.low) == pytest.approx(welch.low)


@pytest.mark.parametrize("doses", [(7.0, 11.0), (7.0, 11.0, 8.0)])
def test_where_one_side_has_one_seed_the_spread_of_the_other_still_counts(doses: tuple[float, ...]) -> None:
    logs = np.log(doses)
    student = stats.t.interval(0.95, len(doses) - 1, logs.mean(), stats.sem(logs))
    found, back = cost_ratio(exact(1.0), exact(*doses), 0.95, 200), cost_ratio(exact(*doses), exact(1.0), 0.95, 200)
    assert (math.log(found.low), math.log(found.high)) == pytest.approx(student)
    assert (-math.log(back.high), -math.log(back.low)) == pytest.approx(student)


@pytest.mark.parametrize(("resamples", "left_out"), [(200, 4), (201, 5)])
def test_limits_over_prompts_leave_out_the_tail_and_no_more(resamples: int, left_out: int) -> None:
    """At most 2.5 % of all lie below: B at its lower ends against A's upper ends, and above the reverse."""
    ranks = np.arange(1.0, resamples + 1)
    ends_a = np.broadcast_to(np.array([1.0, 2.0])[:, None, None], (2, resamples, 1))
    ends_b = np.stack([ranks, 3 * ranks])[:, :, None]
    found = cost_ratio([PriceBounds(1, 2)], [PriceBounds(100, 300)], 0.95, resamples, (ends_a, ends_b))
    assert found.low == pytest.approx(ranks[left_out] / 2)
    assert found.high == pytest.approx(3 * ranks[-1 - left_out])


def test_seeds_whose_middles_agree_and_whose_ends_do_not_are_resampled_at_their_ends() -> None:
    one, other = [PriceBounds(1, 1)], [PriceBounds(1, 16), PriceBounds(2, 8)]
    found, back = cost_ratio(one, other, 0.95, 400), cost_ratio(other, one, 0.95, 400)
    assert (found.low, found.value, found.high) == pytest.approx((1, 4, 16))  # one seed twice: 1 of 4 draws
    assert (back.low, back.value, back.high) == pytest.approx((1 / 16, 1 / 4, 1))


def test_a_seed_that_is_not_drawn_counts_nothing_even_where_its_price_is_open() -> None:
    assert _drawn(np.array([[1.0, 0.0], [0.5, 0.5]]), np.array([[2.0, math.inf]])).tolist() == [2.0, math.inf]


def test_no_seeds_of_b_are_no_data_either() -> None:
    assert cost_ratio(exact(2), [], 0.95, 10).case == "no data"


@pytest.mark.parametrize("confidence", [0.0, 1.0])
def test_a_confidence_of_all_or_nothing_is_refused(confidence: float) -> None:
    with pytest.raises(ValueError, match="confidence"):
        cost_ratio(exact(1), exact(2), confidence, 10)


def test_a_dose_of_b_that_is_none_is_refused_too() -> None:
    with pytest.raises(ValueError, match="above 0"):
        cost_ratio(exact(1), [PriceBounds(4, 3)], 0.95, 10)


def test_a_dose_that_costs_nothing_or_falls_with_the_steps_is_not_known() -> None:
    assert Ladder(0, 1, {1: {"usd": 0.0}}).dose("usd") is None  # a machine without a price: no ratio of it
    assert Ladder(4, 8, {4: {"flops": 9.0}, 8: {"flops": 8.0}}).dose("flops") is None


def test_a_price_below_one_of_its_unit_is_one_all_the_same() -> None:
    assert Ladder(8, None, DOSES).dose("usd") == PriceBounds(8e-4, math.inf)


def test_a_seed_without_a_price_in_a_unit_has_none_and_the_others_keep_theirs() -> None:
    found = {("x", 0): Ladder(4, 8, DOSES), ("x", 1): Ladder(4, 8, {4: {"usd": None}, 8: {"usd": None}})}
    assert list(priced(found, "usd")) == [0]


def test_a_collapse_at_the_first_rung_was_measured() -> None:
    found = {("x", 0): Ladder(0, 1, DOSES)}
    assert unmeasured(found) == []
    assert price_bounds(found, "steps") == {0: ("x", PriceBounds(1, 1))}


def test_of_two_arms_that_held_the_one_that_was_tried_less_is_named() -> None:
    found = {("long", 0): Ladder(8, None, DOSES), ("short", 0): Ladder(4, None, DOSES)}
    assert price_bounds(found, "steps") == {0: ("short", PriceBounds(4, math.inf))}


def test_a_search_is_paid_on_top_of_both_ends() -> None:
    found = {("x", 0): Ladder(4, 8, DOSES), ("y", 0): Ladder(4, 8, DOSES)}
    assert priced(found, "steps", None, {"x": 10.0}) == {0: {"x": PriceBounds(15, 18), "y": PriceBounds(5, 8)}}


@pytest.mark.parametrize(
    ("metric", "clear"),
    [("refusal", 4), ("capability", 4), ("recovered", 32)],  # what is only shown decides no collapse
)
def test_what_one_arm_lacks_ends_what_is_clear_in_that_arm_alone(metric: str, clear: int) -> None:
    run = finished("A", "x", {"compliance": {0: HELD, 1: HELD}, "mixed": {0: HELD, 1: falls_at(8)}})
    lost = {"arm": "compliance", "seed": 0, "step": 8, "metric": metric}
    points = [{**p, "n": 0, "value": None} if lost.items() <= p.items() else p for p in run.points]
    found = ladders(replace(run, points=points))
    assert {place: ladder.clear for place, ladder in found.items()} == {
        ("compliance", 0): clear,
        ("compliance", 1): 32,
        ("mixed", 0): 32,
        ("mixed", 1): 4,
    }
