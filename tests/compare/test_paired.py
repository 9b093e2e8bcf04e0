"""Paired differences: known answers, prompts and seeds that only one has, and files that do not belong together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pairs import REFUSED, SEEDS, demo_pair, falls_at, finished

from pipeline.compare.paired import Difference, _same, paired_differences, retention_table
from pipeline.errors import UserError
from pipeline.points import rounded
from pipeline.statistics import PairedBootstrap

HELD = [REFUSED] * 7


def at(rows: list[Difference], arm: str, step: int, metric: str) -> Difference:
    (row,) = [row for row in rows if (row.arm, row.step, row.metric) == (arm, step, metric)]
    return row


def test_every_metric_and_step_of_every_arm_has_a_row_and_rung_0_stands_once() -> None:
    a, b = demo_pair()
    rows = paired_differences(a, b)
    assert len(rows) == len({(row.arm, row.step, row.metric) for row in rows}) == 4 * (1 + 3 * 6)
    assert [row.arm for row in rows[:4]] == [""] * 4
    assert at(rows, "", 0, "refusal").difference.value == 0
    assert at(rows, "", 0, "refusal").seeds == ()
    assert at(rows, "mixed", 8, "refusal").seeds == SEEDS


def test_differences_are_those_of_the_means_over_common_prompts_and_seeds() -> None:
    a, b = demo_pair()
    for row in paired_differences(a, b):
        assert row.difference.value == pytest.approx(row.b.value - row.a.value, abs=2e-6)
        assert row.difference.low <= row.difference.value <= row.difference.high
        assert row.difference.n == (60 if row.metric == "over_refusal" else 180)
        if row.kept is not None:
            assert row.kept.value == pytest.approx(row.kept_b.value - row.kept_a.value, abs=2e-6)
    kept = {row.metric for row in paired_differences(a, b) if row.kept is not None}
    assert kept == {"capability"}


def test_pairing_is_by_sample_and_sharper_than_two_runs_apart() -> None:
    # Half of the prompts are refused in A, and the same half but for 9 prompts in B.
    shape_a, shape_b = [REFUSED, *[(0.5, 0.0, 1.0)] * 6], [REFUSED, *[(0.55, 0.0, 1.0)] * 6]
    a, b = (finished(x, x, {"compliance": {1: s}}) for x, s in (("A", shape_a), ("B", shape_b)))
    row = at(paired_differences(a, b), "compliance", 8, "refusal")
    assert row.difference.value == pytest.approx(9 / 180)
    assert row.difference.low > 0
    assert row.a.high > row.b.low  # each run's own interval would leave it open


def test_a_prompt_or_seed_that_only_one_run_has_is_left_out() -> None:
    a = finished("A", "x", {"compliance": dict.fromkeys(SEEDS, falls_at(8))})
    dropped = (pl.col("eval") == "refusal") & pl.col("sample").is_in([f"r{i:03d}" for i in range(100)])
    of_b = {"compliance": {0: falls_at(8), 1: HELD}}
    b = finished("B", "y", of_b, change=lambda outcomes: outcomes.filter(~dropped))
    row = at(paired_differences(a, b), "compliance", 8, "refusal")
    assert (row.seeds, row.difference.n) == ((0, 1), 80)
    assert row.difference.value == pytest.approx(0.5)


def test_unscored_replies_are_no_zeros() -> None:
    def lose(outcomes: pl.DataFrame) -> pl.DataFrame:
        lost = (pl.col("eval") == "refusal") & (pl.col("rung") == "compliance-s1-00008")
        return outcomes.with_columns(label=pl.when(lost).then(pl.lit("unscored")).otherwise(pl.col("label")))

    shapes = {"compliance": {1: HELD}}
    a, b = finished("A", "x", shapes), finished("B", "y", shapes, change=lose)
    row = at(paired_differences(a, b), "compliance", 8, "refusal")
    assert (row.difference.n, row.seeds) == (0, ())
    assert np.isnan(row.difference.value)
    assert row.as_dict()["difference"]["value"] is None
    assert at(paired_differences(a, b), "compliance", 4, "refusal").difference.n == 180


def test_where_one_run_lost_seeds_a_and_b_are_those_of_the_seeds_in_the_difference() -> None:
    def lose(outcomes: pl.DataFrame) -> pl.DataFrame:
        lost = pl.col("rung").str.contains(r"-s[12]-000(04|08|16|32)")
        return outcomes.filter(~lost)

    shapes = {"compliance": {0: falls_at(8, 0.5), 1: falls_at(8, 0.9), 2: falls_at(8, 0.9)}}
    a, b = finished("A", "x", shapes), finished("B", "y", shapes, change=lose)
    before, after = (at(paired_differences(a, b), "compliance", step, "refusal") for step in (2, 4))
    assert (before.seeds, after.seeds) == (SEEDS, (0,))
    assert after.a.value == pytest.approx(after.b.value) == pytest.approx(0.5, abs=0.03)  # of seed 0, not of all three
    kept = at(paired_differences(a, b), "compliance", 4, "capability")
    assert kept.kept_a.value == pytest.approx(kept.kept_b.value)


def test_curves_of_other_outcomes_are_refused() -> None:
    a, b = demo_pair()
    changed = b.outcomes.with_columns(
        label=pl.when(pl.col("sample") == "r001").then(pl.lit("partial")).otherwise(pl.col("label"))
    )
    with pytest.raises(UserError, match=r"curves\.json is not of outcomes\.parquet"):
        paired_differences(a, replace(b, outcomes=changed))


def test_a_share_of_any_count_is_known_again_as_its_curve_keeps_it_and_its_neighbour_is_not() -> None:
    # 7 of 60 was once taken for another run's.
    for n in range(1, 300):
        for count in range(n + 1):
            assert _same(count / n, rounded(count / n)), (count, n)
            assert not _same((count + 1) / n, rounded(count / n)), (count, n)


def test_the_same_runs_give_the_same_rows() -> None:
    a, b = demo_pair()
    assert paired_differences(a, b) == paired_differences(a, b)


shares = st.sampled_from([0.0, 0.25, 0.5, 1.0])


@given(arrays(float, 12, elements=shares), arrays(float, (3, 12), elements=shares), st.integers(0, 11))
def test_the_retention_table_has_the_ratio_as_its_mean(before: np.ndarray, after: np.ndarray, hole: int) -> None:
    before = before.copy()
    before[hole] = np.nan
    table = retention_table(before, after)
    known = ~np.isnan(before)
    if np.nansum(before) == 0:
        assert np.isnan(table).all()
        return
    assert np.isnan(table[:, hole]).all()
    assert np.nanmean(table) == pytest.approx(after[:, known].mean() / before[known].mean())


def test_where_all_is_kept_the_retention_table_has_no_spread() -> None:
    before = np.array([1.0, 0.0, 1.0, 0.5])
    assert retention_table(before, before[None, :]) == pytest.approx(np.ones((1, 4)))


@pytest.mark.parametrize("seed_spread", [0.0, 0.5])
def test_intervals_hold_the_true_difference_at_least_as_often_as_they_say(seed_spread: float) -> None:
    rng, seeds, prompts, trials, hits = np.random.default_rng(3), 3, 50, 150, 0
    hard = 1.5  # spread of the prompts' difficulty, in log-odds

    def chance(shift: float, prompt: np.ndarray, seed: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-(shift + hard * prompt + seed_spread * seed)))

    many = rng.normal(size=(2, 100_000))
    truth = float((chance(1.4, *many) - chance(0.0, *many)).mean())
    for _ in range(trials):
        difficulty = rng.normal(size=prompts)
        a, b = (
            (rng.random((seeds, prompts)) < chance(shift, difficulty, rng.normal(size=(seeds, 1)))).astype(float)
            for shift in (0.0, 1.4)
        )
        bootstrap = PairedBootstrap(prompts, 300, 0.95, np.random.default_rng(0))
        found = bootstrap.mean(b - a)
        hits += found.low <= truth <= found.high
    assert hits / trials >= 0.95
