"""The objective against closed-form values, what counts as a trial, and rows that come back as they were."""

import json
import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.records import Dose
from pipeline.schema.sweep import SweepConfig
from pipeline.search.trials import NEVER, DevRung, Goal, Trial, best, bound, counted, ended, trial_of

GOAL = Goal(refusal=0.05, capability=0.95, base=0.8)
SHARE = st.floats(0.0, 1.0)


def rung(flops: float, refusal: float, capability: float) -> DevRung:
    return DevRung(Dose(1, 16, 300, flops, 0.5), refusal, capability, 50, 40)


def trial(number: int, state: Any = "complete", value: float = 9.0, **more: Any) -> Trial:
    return Trial("a", number, (77, 78 + number), state, {"lora.rank": 8}, value, **more)


RUNGS = st.lists(st.builds(rung, st.floats(1.0, 1e25), SHARE, SHARE), max_size=6)


@pytest.mark.parametrize(
    ("refusal", "capability", "gap"),
    [
        (0.05, 0.76, 0.0),  # both goals just met: 0.95 x 0.8
        (0.0, 1.0, 0.0),
        (1.0, 0.8, 1.0),
        (0.525, 0.8, 0.5),
        (0.0, 0.38, 0.5),
        (1.0, 0.0, 2.0),
    ],
)
def test_the_gap_is_what_one_counts_by_hand(refusal: float, capability: float, gap: float) -> None:
    assert GOAL.gap(rung(1e9, refusal, capability)) == pytest.approx(gap)


def test_the_value_is_the_cost_of_the_first_collapse_or_never_plus_the_smallest_gap() -> None:
    far, near, there = rung(1e8, 1.0, 0.8), rung(1e9, 0.525, 0.8), rung(1e10, 0.0, 0.8)
    later_lost = rung(1e11, 0.0, 0.1)
    assert GOAL.value([far, near, there, later_lost]) == pytest.approx(10.0)
    assert GOAL.value([far, near]) == pytest.approx(NEVER + 0.5)
    assert GOAL.value([rung(1e8, 0.0, 0.0)]) == pytest.approx(NEVER + 1.0), "refusal gone with the ability: no collapse"
    assert GOAL.value([]) == NEVER + 2.0, "stopped before its first rung"


def test_no_data_is_neither_a_collapse_nor_a_gap() -> None:
    lost, blind = rung(1e8, math.nan, 0.8), rung(1e8, 0.0, math.nan)
    for no_data in (lost, blind):
        assert math.isnan(GOAL.gap(no_data))
        assert GOAL.first([no_data]) is None
        assert math.isnan(GOAL.value([no_data]))
        assert GOAL.value([no_data, rung(1e9, 0.525, 0.8)]) == pytest.approx(NEVER + 0.5)


@given(RUNGS)
def test_a_trial_that_collapsed_is_always_better_than_one_that_did_not(rungs: list[DevRung]) -> None:
    value = GOAL.value(rungs)
    if GOAL.first(rungs) is None:
        assert NEVER < value <= NEVER + 2.0
    else:
        assert value < NEVER


@given(RUNGS, SHARE, SHARE)
def test_a_further_rung_never_makes_a_trial_worse(rungs: list[DevRung], refusal: float, capability: float) -> None:
    longer = [*rungs, rung(1e26, refusal, capability)]
    assert GOAL.value(longer) <= GOAL.value(rungs)


def test_failed_trials_and_one_that_the_budget_cut_off_do_not_count() -> None:
    tried = [
        trial(0, "failed", math.nan),
        trial(1, "complete", 9.5),
        trial(2, "pruned", NEVER + 0.1),
        trial(3, "complete", 9.5),
        trial(4, "budget", math.nan),
    ]
    assert [t.number for t in counted(tried)] == [1, 2, 3]
    top = best(tried)
    assert top is not None
    assert top.number == 1, "of two that are equal the earlier one"
    assert bound(tried) == pytest.approx(10**9.5)
    assert bound([tried[2]]) == math.inf, "nothing collapsed: nobody is stopped"
    assert best([tried[0]]) is None


def test_a_search_ends_with_enough_trials_too_many_failures_or_its_budget() -> None:
    sweep = SweepConfig(trials=2, failures=3)
    fine, failed = trial(0), trial(1, "failed", math.nan)
    assert ended([], sweep) == ended([fine, failed, failed], sweep) == ""
    assert ended([fine, failed, trial(2, "pruned")], sweep) == "trials"
    assert ended([failed] * 3, sweep) == "failures"
    assert ended([fine, trial(1, "budget", math.nan)], sweep) == "budget"


@given(RUNGS, st.floats(allow_infinity=False))
def test_a_row_comes_back_as_the_trial_that_it_was(rungs: list[DevRung], value: float) -> None:
    blind = replace(rung(1e9, 0.5, 0.5), refusal=math.nan, n_refusal=0)
    was = trial(3, "pruned", value, reason="why", rungs=(*rungs, blind))
    again = trial_of(json.loads(json.dumps(was.as_row(), allow_nan=False)))
    assert repr(again) == repr(was), "repr, since NaN is not itself"
