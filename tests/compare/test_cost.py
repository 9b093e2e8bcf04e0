"""The cost ratio: known answers, properties, and whether its limits hold the truth as often as they say."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pairs import COMPLIED, REFUSED, falls_at, finished
from scipy import stats

from pipeline.compare.cost import Ladder, PriceBounds, cost_ratio, ladders, price_bounds, units, unmeasured

HELD = [REFUSED] * 7
ends = st.tuples(st.floats(1e-3, 1e9), st.floats(1.0, 64.0)).map(lambda pair: PriceBounds(pair[0], pair[0] * pair[1]))
sides = st.lists(ends, min_size=1, max_size=6)


def exact(*doses: float) -> list[PriceBounds]:
    return [PriceBounds(dose, dose) for dose in doses]


def test_doses_known_to_the_step_give_welchs_interval_of_the_log_ratio() -> None:
    a, b = (2.0, 3.0, 2.5), (7.0, 11.0, 8.0)
    found = cost_ratio(exact(*a), exact(*b), 0.95, 200)
    logs = [np.log(side) for side in (b, a)]
    welch = stats.ttest_ind(*logs, equal_var=False).confidence_interval(0.95)
    assert found.case == "both"
    assert math.log(found.value) == pytest.approx(logs[0].mean() - logs[1].mean())
    assert (math.log(found.low), math.log(found.high)) == pytest.approx((welch.low, welch.high))
    assert found.rungs_low == pytest.approx(found.value) == pytest.approx(found.rungs_high)


def test_seeds_that_agree_leave_the_spacing_of_the_rungs() -> None:
    found = cost_ratio([PriceBounds(5, 8)] * 3, [PriceBounds(17, 32)] * 3, 0.95, 200)
    assert (found.low, found.high) == pytest.approx((17 / 8, 32 / 5))
    assert (found.rungs_low, found.rungs_high) == pytest.approx((17 / 8, 32 / 5))
    assert found.value == pytest.approx(math.sqrt(17 * 32 / (5 * 8)))


def test_the_bootstrap_can_be_the_wider_part() -> None:
    a, b = [PriceBounds(1, 1)] * 3, [PriceBounds(5, 8), PriceBounds(5, 8), PriceBounds(9, 16)]
    found = cost_ratio(a, b, 0.95, 4000)
    assert found.high >= 16  # all three draws of the third seed: 1 of 27, more than 2.5 %
    assert found.low <= 5


def test_one_seed_each_has_no_spread_between_seeds() -> None:
    found = cost_ratio([PriceBounds(3, 4)], [PriceBounds(9, 16)], 0.95, 100)
    assert (found.low, found.high) == pytest.approx((9 / 4, 16 / 3))


def test_censored_seeds_of_b_give_a_lower_limit_only() -> None:
    a, b = [PriceBounds(5, 8)] * 3, [PriceBounds(32, math.inf)] * 3
    found = cost_ratio(a, b, 0.95, 200)
    assert (found.case, found.low, found.high) == ("at least", pytest.approx(4.0), math.inf)
    assert math.isnan(found.value)
    some = cost_ratio(a, [PriceBounds(17, 32), PriceBounds(17, 32), PriceBounds(32, math.inf)], 0.95, 200)
    assert some.case == "at least"
    assert some.low < 4.0


def test_censored_seeds_of_a_give_an_upper_limit_only() -> None:
    found = cost_ratio([PriceBounds(32, math.inf)] * 2, [PriceBounds(5, 8)] * 2, 0.95, 200)
    assert (found.case, found.low, found.high) == ("at most", 0.0, pytest.approx(0.25))


def test_censored_seeds_of_both_give_no_ratio_and_no_seeds_no_data() -> None:
    held = [PriceBounds(32, math.inf)]
    assert cost_ratio([*held, PriceBounds(5, 8)], [*held, PriceBounds(5, 8)], 0.95, 100).case == "neither"
    found = cost_ratio([], held, 0.95, 100)
    assert found.case == "no data"
    assert math.isnan(found.low)


@pytest.mark.parametrize("bad", [PriceBounds(0, 3), PriceBounds(4, 3), PriceBounds(-1, 1), PriceBounds(math.nan, 3)])
def test_a_dose_that_is_none_is_refused(bad: PriceBounds) -> None:
    with pytest.raises(ValueError, match="above 0"):
        cost_ratio([bad], [PriceBounds(1, 2)], 0.95, 10)


def test_a_confidence_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="confidence"):
        cost_ratio(exact(1), exact(2), 1.0, 10)


@given(sides, sides)
def test_limits_hold_the_value_and_the_rungs_and_b_against_a_is_the_inverse(
    a: list[PriceBounds], b: list[PriceBounds]
) -> None:
    found, back = cost_ratio(a, b, 0.95, 50), cost_ratio(b, a, 0.95, 50)
    slack = 1 + 1e-9
    assert found.low <= found.rungs_low * slack
    assert found.rungs_low <= found.value * slack
    assert found.value <= found.rungs_high * slack
    assert found.rungs_high <= found.high * slack
    assert back.value == pytest.approx(1 / found.value)
    assert back.rungs_high == pytest.approx(1 / found.rungs_low)


@given(sides, sides, st.floats(0.01, 100))
def test_the_unit_does_not_matter(a: list[PriceBounds], b: list[PriceBounds], rate: float) -> None:
    one = cost_ratio(a, b, 0.95, 50)
    scaled = ([PriceBounds(d.low * rate, d.high * rate) for d in side] for side in (a, b))
    other = cost_ratio(*scaled, 0.95, 50)
    assert (other.low, other.value, other.high) == pytest.approx((one.low, one.value, one.high))


@given(sides, sides)
def test_a_seed_that_did_not_collapse_is_never_taken_for_one_that_did(
    a: list[PriceBounds], b: list[PriceBounds]
) -> None:
    whole = cost_ratio(a, b, 0.95, 50)
    cut = cost_ratio(a, [PriceBounds(b[0].low, math.inf), *b[1:]], 0.95, 50)
    assert cut.case == "at least"
    assert cut.high == math.inf
    assert cut.rungs_low == pytest.approx(whole.rungs_low)


RUNGS = [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024]


def seen(doses: np.ndarray) -> list[PriceBounds]:
    """What a ladder at powers of two shows of true doses in steps."""
    places = np.searchsorted(RUNGS, np.ceil(np.clip(doses, 1, 1024)))
    return [PriceBounds(RUNGS[place - 1] + 1, RUNGS[place]) for place in places]


@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize("spread", [0.02, 0.3, 0.6, 1.0])
def test_limits_hold_the_true_ratio_at_least_as_often_as_they_say(seeds: int, spread: float, request: object) -> None:
    trials = 2000 if request.config.getoption("--slow") else 200  # type: ignore[attr-defined]
    rng = np.random.default_rng([seeds, round(100 * spread)])
    hits = 0
    for trial in range(trials):
        ratio = (1.0, 2.7, 6.0)[trial % 3]
        centre = rng.uniform(math.log(4), math.log(8))  # anywhere between two rungs
        a, b = (np.exp(centre + math.log(factor) + spread * rng.normal(size=seeds)) for factor in (1.0, ratio))
        found = cost_ratio(seen(a), seen(b), 0.95, 200)
        hits += found.low <= ratio * (1 + 1e-9) and ratio <= found.high * (1 + 1e-9)
    # Three standard errors below 95 %: limits that cover less than they say are found.
    assert hits / trials >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / trials)


def test_a_dose_begins_one_step_after_the_last_rung_without_collapse() -> None:
    doses = {step: {"steps": step, "flops": 100.0 * step, "usd": None} for step in (1, 2, 4, 8)}
    assert Ladder(4, 8, doses).dose("steps") == PriceBounds(5, 8)
    assert Ladder(4, 8, doses).dose("flops") == PriceBounds(500, 800)
    assert Ladder(0, 1, doses).dose("steps") == PriceBounds(1, 1)  # a step is the least that there is
    assert Ladder(1, 2, doses).dose("steps") == PriceBounds(2, 2)
    assert Ladder(8, None, doses).dose("steps") == PriceBounds(8, math.inf)
    assert Ladder(4, 8, doses).dose("usd") is None  # no price is no data
    assert Ladder(0, None, doses).dose("steps") is None  # nothing was measured


def test_ladders_of_a_run_and_the_cheapest_arm_seed_by_seed() -> None:
    run = finished("A", "x", {"compliance": {0: falls_at(8), 1: HELD}, "mixed": {0: falls_at(16), 1: falls_at(32)}})
    found = ladders(run)
    assert (found["compliance", 0].clear, found["compliance", 0].collapsed) == (4, 8)
    assert (found["compliance", 1].clear, found["compliance", 1].collapsed) == (32, None)
    steps = price_bounds(found, "steps")
    assert steps[0] == ("compliance", PriceBounds(5, 8))
    assert steps[1] == ("mixed", PriceBounds(17, 32))
    assert price_bounds(found, "steps", "compliance")[1] == ("compliance", PriceBounds(32, math.inf))


def test_a_seed_of_which_an_arm_was_not_measured_has_no_cheapest_arm() -> None:
    """That arm might have been it: the other arm's price would be called the least there is."""
    whole = ladders(finished("A", "x", {"compliance": {0: falls_at(8), 1: falls_at(8)}, "benign": {0: HELD, 1: HELD}}))
    assert unmeasured(whole) == []
    cut = {**whole, ("compliance", 1): Ladder(0, None, whole["compliance", 1].doses)}
    assert unmeasured(cut) == [("compliance", 1)]
    assert sorted(price_bounds(cut, "steps")) == [0]
    assert sorted(price_bounds(cut, "steps", "benign")) == [0, 1]


def test_a_rung_without_replies_ends_what_is_known_to_be_clear() -> None:
    run = finished("A", "x", {"compliance": {0: HELD}})
    cut = [{**p, "n": 0, "value": None} if p["step"] == 8 and p["metric"] == "refusal" else p for p in run.points]
    short = type(run)(**{**run.__dict__, "points": cut})
    assert ladders(short)["compliance", 0].clear == 4
    assert ladders(short)["compliance", 0].dose("steps") == PriceBounds(4, math.inf)


def test_lost_ability_is_no_collapse() -> None:
    damaged = [*falls_at(8)[:4], *[(0.0, 0.0, 0.2)] * 3]
    run = finished("A", "x", {"compliance": {0: damaged}})
    assert COMPLIED[0] == damaged[-1][0]
    assert ladders(run)["compliance", 0].dose("steps") == PriceBounds(32, math.inf)


def test_seconds_and_money_are_left_out_between_machines() -> None:
    assert "device_seconds" in units(comparable_time=True)
    assert set(units(comparable_time=True)) - set(units(comparable_time=False)) == {"device_seconds", "usd"}
