"""Prompts resampled: collapse found anew is the definition's, and limits over prompts hold what they say."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from pairs import REFUSED, demo_pair, falls_at, finished

from pipeline.compare.cost import Ladder, cost_ratio, ladders, priced
from pipeline.compare.prices import Prices
from pipeline.compare.redrawn import (
    Redrawn,
    _deciding,
    first_collapse,
    redrawn,
    redrawn_prices,
    weighted_means,
    weighted_retention,
)
from pipeline.compare.runs import FinishedRun
from pipeline.hierarchical import crossed_mean, crossed_ratio


def test_each_prompt_once_gives_the_definitions_means_ratios_and_collapse() -> None:
    rng = np.random.default_rng(1)
    table = rng.integers(0, 2, (4, 60)).astype(float)
    table[1, 3] = table[2, :2] = np.nan
    once = np.ones((1, 60))
    assert weighted_means(table, once)[0] == pytest.approx([crossed_mean(row, 0.95).value for row in table])
    assert weighted_retention(table[0], table[1:], once)[0] == pytest.approx(
        [crossed_ratio(table[0], row, 0.95).value for row in table[1:]]
    )
    assert np.isnan(weighted_means(np.full((1, 60), np.nan), once)).all()


def test_the_first_rung_at_which_refusal_is_lost_and_all_ability_kept() -> None:
    refusal = np.array([[1.0, 0.04, 0.05 + 1e-12, 0.0], [1.0, 1.0, 0.2, np.nan], [0.05, 0.0, 0.0, 0.0]])
    able, less = np.full((3, 3), 1.0), np.array([[0.94, 0.95 - 1e-12, 1.0]] * 3)
    assert first_collapse(refusal, [able, less], 0.05, 0.95).tolist() == [1, 3, 3]  # 3: at none; rung 0 must refuse
    assert first_collapse(refusal, [able], 0.05, 0.95).tolist() == [0, 3, 3]
    assert first_collapse(refusal, [], 0.05, 0.95).tolist() == [3, 3, 3]  # no ability measured: nothing was kept


def test_every_prompt_alike_gives_the_collapse_of_the_run_in_every_resample() -> None:
    a, b = demo_pair()
    found = redrawn(a, b, 50)
    for run in (a, b):
        for place, ladder in ladders(run).items():
            if place == ("mixed", 2):
                continue  # some prompts refuse there: resamples differ
            again = found[run.letter][place]
            assert {again.ladders[at].collapsed for at in again.at} == {ladder.collapsed}
            assert {again.ladders[at].clear for at in again.at} == {ladder.clear}


def test_a_share_near_tau_collapses_in_some_resamples_at_another_rung_or_at_none() -> None:
    near = [REFUSED] * 4 + [(0.045, 0.955, 1.0), (0.055, 0.945, 1.0), (0.0, 1.0, 1.0)]
    a, b = (
        finished("A", "x", {"compliance": {1: near}}),
        finished("B", "y", {"compliance": {1: near[:5] + near[4:5] * 2}}),
    )
    found = redrawn(a, b, 400)
    steps = {
        letter: [one.ladders[at].collapsed for at in one.at] for letter, of in found.items() for one in of.values()
    }
    assert set(steps["A"]) == {8, 32}  # whose refusals at 16 are those at 8, and one more
    assert set(steps["B"]) == {8, None}  # all its rungs are the same prompts' refusals, and so in every resample
    # The same prompts are drawn for both runs: A at step 8 is B at step 8.
    assert [step == 8 for step in steps["A"]] == [step == 8 for step in steps["B"]]
    assert steps["A"] == [one.ladders[at].collapsed for one in redrawn(a, b, 400)["A"].values() for at in one.at]


def test_a_collapse_that_other_prompts_would_not_show_leaves_the_upper_limit_open() -> None:
    near = [REFUSED] * 4 + [(0.03, 0.97, 1.0)] * 3  # seeds differ by 0.012
    a, b = (finished(x, x, {"compliance": dict.fromkeys((0, 1, 2), s)}) for x, s in (("A", falls_at(8)), ("B", near)))
    cost = Prices(a, b).cost("flops")
    assert (cost["case"], cost["high"]) == ("both", math.inf)
    assert 0 < cost["low"] <= cost["rungs_low"] < cost["rungs_high"]
    back = Prices(replace(b, letter="A"), replace(a, letter="B")).cost("flops")
    assert (back["case"], back["low"]) == ("both", 0)


def test_of_several_refusal_metrics_the_first_counts_and_a_certain_one_before_others() -> None:
    found = {"refusal": np.array([2, 4, 4]), "in_french": np.array([1, 1, 4])}  # 4: at no rung
    assert _deciding(found, None, 4).tolist() == [1, 1, 4]
    assert _deciding(found, {"metric": "refusal", "confident_step": None}, 4).tolist() == [1, 1, 4]
    assert _deciding(found, {"metric": "refusal", "confident_step": 8}, 4).tolist() == [2, 1, 4]


def test_a_run_without_replies_beyond_rung_0_has_no_ends() -> None:
    a, b = (finished(x, x, {"compliance": {1: falls_at(8)}}) for x in "AB")
    bare = [{**p, "n": 0, "value": None} if p["step"] else p for p in a.points]
    empty = replace(a, points=bare, outcomes=a.outcomes.filter(pl.col("rung") == "base"), collapses={})
    found = redrawn(empty, b, 10)["A"]
    assert found["compliance", 1].ends("flops").tolist() == [[0.0, math.inf]] * 10
    assert redrawn_prices(found, priced(ladders(empty), "flops"), "flops", {}).size == 0


def test_what_is_paid_on_top_moves_both_ends() -> None:
    ladder = Ladder(4, 8, {step: {"flops": float(step)} for step in (4, 8)})
    assert Redrawn([ladder], np.zeros(2, dtype=np.intp)).ends("flops", 10).tolist() == [[15.0, 18.0]] * 2


def _data_set(
    rng: np.random.Generator, steps: list[int], prompts: int, seeds: int, resamples: int, spread: float, median: float
) -> tuple[list[Ladder], list[Redrawn]]:
    """Return what seeds show whose prompts each have a dose at which their refusal ends, the same but for a tenth."""
    doses = {step: {"steps": float(step)} for step in steps}
    rungs = [Ladder(before, step, doses) for before, step in zip([0, *steps], steps, strict=False)]
    rungs.append(Ladder(steps[-1], None, doses))
    ends = rng.normal(math.log(median), spread, prompts)
    weights = rng.multinomial(prompts, np.full(prompts, 1 / prompts), size=resamples).astype(float)
    kept = np.ones((1, len(steps)))
    seen, again = [], []
    for _ in range(seeds):
        refuses = np.array([np.exp(ends + rng.normal(0, 0.1, prompts)) > step for step in [0, *steps]], dtype=float)
        seen.append(rungs[first_collapse(refuses.mean(axis=1)[None], [kept], 0.05, 0.95)[0]])
        at = first_collapse(weighted_means(refuses, weights), [kept], 0.05, 0.95)
        again.append(Redrawn(rungs, at))
    return seen, again


@pytest.mark.parametrize(("per_doubling", "prompts", "spread"), [(1, 90, 1.0), (4, 90, 1.0), (4, 200, 0.5)])
@pytest.mark.parametrize("ratio", [1.0, 2.0])
def test_limits_hold_the_true_ratio_where_the_prompts_are_a_sample(
    per_doubling: int, prompts: int, spread: float, ratio: float, request: pytest.FixtureRequest
) -> None:
    """Limits that took the prompts for all there are left it out in 12 to 50 % of data sets."""
    trials, resamples = (400 if request.config.getoption("--slow") else 60), 200
    steps = sorted({round(2 ** (place / per_doubling)) for place in range(9 * per_doubling + 1)})
    rng = np.random.default_rng([per_doubling, prompts, round(ratio)])
    hits = bare = 0
    for _ in range(trials):
        median = 5 * 2 ** rng.uniform()
        sides = [_data_set(rng, steps, prompts, 3, resamples, spread, median * factor) for factor in (1.0, ratio)]
        doses = [[dose for ladder in seen if (dose := ladder.dose("steps"))] for seen, _ in sides]
        ends = [np.stack([one.ends("steps") for one in again], axis=1).transpose(2, 0, 1) for _, again in sides]
        with_prompts = cost_ratio(*doses, 0.95, resamples, (ends[0], ends[1]))
        without = cost_ratio(*doses, 0.95, resamples)
        assert with_prompts.low <= without.low
        assert with_prompts.high >= without.high
        hits += with_prompts.low <= ratio * (1 + 1e-9) and ratio <= with_prompts.high * (1 + 1e-9)
        bare += without.low <= ratio * (1 + 1e-9) and ratio <= without.high * (1 + 1e-9)
    assert hits / trials >= 0.95
    assert bare / trials < 0.95


def test_a_comparisons_prices_are_the_same_twice() -> None:
    a, b = demo_pair()
    one, other = (Prices(a, b).cost("flops") for _ in range(2))
    assert one == other


def _run(letter: str, shape: object) -> FinishedRun:
    return finished(letter, letter, {"compliance": {1: shape}})  # type: ignore[dict-item]


def test_certain_counts_collapses_that_the_intervals_bear_out_at_the_rung_of_the_price() -> None:
    """The verdict's word may rest on a later rung: 8 of 180 at the rung whose price is used are certain of nothing."""
    close = [REFUSED] * 4 + [(0.044, 0.956, 1.0), (0.0, 1.0, 1.0), (0.0, 1.0, 1.0)]
    a, b = _run("A", falls_at(8)), _run("B", close)
    assert [run.verdict["verdict"] for run in (a, b)] == ["collapses", "collapses"]
    prices = Prices(a, b)
    assert (prices.certain(a, "flops"), prices.certain(b, "flops")) == (1, 0)
