"""Intervals against known answers, closed forms, properties, and simulated coverage."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.statistics import PairedBootstrap, mean_estimate, pooled_estimate, wilson

SHARES = st.floats(0, 1, allow_nan=False)


def bootstrap(prompts, resamples=2000, seed=0):
    return PairedBootstrap(prompts, resamples, 0.95, np.random.default_rng(seed))


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        (0, 10, 0.0, 0.2775),
        (5, 10, 0.2366, 0.7634),
        (10, 10, 0.7225, 1.0),
        (81, 263, 0.2553, 0.3662),  # Newcombe 1998, Stat. Med. 17:857-872, table I
        (15, 148, 0.0624, 0.1605),  # the same
        (0, 20, 0.0, 0.1611),  # the same
        (1, 29, 0.0061, 0.1718),  # the same
    ],
)
def test_wilson_gives_the_published_limits(successes, n, low, high):
    found = wilson(successes, n, 0.95)
    assert (round(found.low, 4), round(found.high, 4)) == (low, high)
    assert (found.value, found.n) == (successes / n, n)


def test_nothing_measured_is_nan_with_n_zero():
    nothing = (
        wilson(0, 0, 0.95),
        mean_estimate([math.nan], 0.95),
        pooled_estimate([[math.nan, math.nan]], 0.95),
        bootstrap(2).difference([math.nan, 1.0], [1.0, math.nan]),
        bootstrap(2).ratio([0.0, 0.0], [1.0, 1.0]),
        bootstrap(0).ratio([], []),
    )
    for found in nothing:
        assert found.n == 0
        assert all(math.isnan(x) for x in (found.value, found.low, found.high))


def test_impossible_input_is_refused():
    with pytest.raises(ValueError, match="3 successes of 2"):
        wilson(3, 2, 0.95)
    with pytest.raises(ValueError, match="confidence"):
        wilson(1, 2, 95)
    with pytest.raises(ValueError, match="expected \\[0, 1\\]"):
        mean_estimate([0.5, 1.5], 0.95)
    with pytest.raises(ValueError, match="shapes"):
        bootstrap(3).difference([0, 1], [[0, 1]])


@given(st.integers(1, 500), SHARES)
def test_wilson_holds_its_point_stays_in_range_and_narrows_with_n(n, share):
    successes = round(share * n)
    few, many = wilson(successes, n, 0.95), wilson(successes * 4, n * 4, 0.95)
    assert 0 <= few.low <= few.value <= few.high <= 1
    assert many.high - many.low <= few.high - few.low + 1e-12
    assert wilson(successes, n, 0.99).high >= few.high - 1e-12


@given(st.lists(SHARES, min_size=1, max_size=60), st.randoms())
def test_a_mean_ignores_the_order_of_prompts_and_missing_values(values, random):
    shuffled = [*values, math.nan]
    random.shuffle(shuffled)
    found = mean_estimate(values, 0.95)
    assert mean_estimate(shuffled, 0.95) == found
    assert 0 <= found.low <= found.value <= found.high <= 1


def test_the_mean_of_zeros_and_ones_has_wilsons_interval():
    assert mean_estimate([1, 0, 1, 1], 0.9) == wilson(3, 4, 0.9)


def test_copies_of_one_seed_add_no_information():
    row = [1.0] * 70 + [0.0] * 30
    assert pooled_estimate([row] * 5, 0.95) == wilson(70, 100, 0.95)


def test_seeds_that_disagree_widen_the_pooled_interval_by_students_t():
    table = [[1.0] * 60 + [0.0] * 40, [1.0] * 70 + [0.0] * 30, [1.0] * 80 + [0.0] * 20]
    found, plain = pooled_estimate(table, 0.95), wilson(70, 100, 0.95)
    spread = 4.302653 * 0.1 / math.sqrt(3)  # t of 2 degrees of freedom, sd 0.1
    assert found.low == pytest.approx(0.7 - math.hypot(0.7 - plain.low, spread), abs=1e-6)
    assert found.high == pytest.approx(0.7 + math.hypot(plain.high - 0.7, spread), abs=1e-6)


@settings(max_examples=50)
@given(st.integers(1, 5), st.integers(1, 30), st.integers(0, 2**31), st.randoms())
def test_the_pooled_estimate_ignores_the_order_of_seeds_and_of_prompts(seeds, prompts, key, random):
    table = np.random.default_rng(key).random((seeds, prompts))
    rows, columns = random.sample(range(seeds), seeds), random.sample(range(prompts), prompts)
    found, shuffled = pooled_estimate(table, 0.95), pooled_estimate(table[rows][:, columns], 0.95)
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert (shuffled.value, shuffled.low, shuffled.high) == pytest.approx((found.value, found.low, found.high))


def test_the_bootstrap_agrees_with_the_closed_form_of_a_paired_difference():
    rng = np.random.default_rng(1)
    before, after = rng.random(400), rng.random(400)
    gain = after - before
    # Bounded values far from 0 and 1: the percentile interval alone, which must lie inside the widened one.
    boot = bootstrap(400, 20_000)
    samples = (boot._prompt_weights @ gain) / 400
    normal = 1.96 * gain.std() / 20
    assert np.quantile(samples, [0.025, 0.975]) == pytest.approx(
        [gain.mean() - normal, gain.mean() + normal], abs=0.003
    )
    found = boot.difference(before, after)
    assert found.value == pytest.approx(gain.mean())
    assert found.low <= gain.mean() - normal + 0.003
    assert found.high >= gain.mean() + normal - 0.003
    assert found.high - found.low < 3 * normal


def test_the_ratio_agrees_with_the_delta_method():
    rng = np.random.default_rng(2)
    before = (rng.random(500) < 0.8).astype(float)
    after = np.where(rng.random(500) < 0.1, 1 - before, before)
    found = bootstrap(500, 5000).ratio(before, after)
    value = after.sum() / before.sum()
    error = (after - value * before).std() / before.mean() / math.sqrt(500)
    assert found.value == pytest.approx(value)
    assert found.low <= value - 1.9 * error
    assert found.high >= value + 1.9 * error
    assert found.high - found.low < 1.3 * 2 * 1.96 * error


def test_no_change_seen_is_not_no_change():
    same = np.ones(50)
    kept, moved = bootstrap(50).ratio(same, same), bootstrap(50).difference(same, same)
    assert kept.value == 1.0
    assert kept.low == pytest.approx(1 - wilson(0, 50, 0.95).high)
    assert (moved.value, moved.low) == (0.0, pytest.approx(kept.low - 1))
    wide = bootstrap(500).ratio(np.ones(500), np.ones(500))
    assert wide.low > kept.low


def test_only_prompts_with_both_replies_are_compared():
    found = bootstrap(4).difference([1.0, 1.0, math.nan, 0.0], [0.0, math.nan, 1.0, 0.0])
    assert (found.value, found.n) == (-0.5, 2)


def test_seeds_that_disagree_widen_a_paired_difference():
    before = np.ones(200)
    agree = np.repeat([[1.0] * 100 + [0.0] * 100], 3, axis=0)
    disagree = np.array([[1.0] * 200, [1.0] * 100 + [0.0] * 100, [0.0] * 200])
    narrow, wide = (bootstrap(200).difference(before, table) for table in (agree, disagree))
    assert narrow.value == wide.value == -0.5
    assert narrow.high - narrow.low < 0.2
    assert wide.low == -1.0
    assert wide.high > 0.5


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 4), st.integers(1, 20), st.integers(0, 2**31))
def test_the_same_generator_gives_the_same_interval_around_its_point(seeds, prompts, key):
    rng = np.random.default_rng(key)
    before, after = rng.random(prompts), rng.random((seeds, prompts))
    first, second = (bootstrap(prompts, 200) for _ in range(2))
    moved, kept = first.difference(before, after), first.ratio(before, after)
    assert (second.ratio(before, after), second.difference(before, after)) == (kept, moved)
    assert -1 <= moved.low <= moved.value <= moved.high <= 1
    assert 0 <= kept.low <= kept.value <= kept.high
    assert kept.value == pytest.approx(1 + moved.value / before.mean())


@pytest.mark.parametrize(("mean", "seed_sd"), [(0.0, 0.0), (2.5, 0.0), (1.0, 0.6), (-2.5, 0.3)])
def test_the_pooled_interval_covers_the_truth(mean, seed_sd):
    """Prompts of differing hardness and seeds of differing strength, 3 seeds, 100 prompts, logistic scale."""
    rng = np.random.default_rng(7)

    def shares(size, prompts):
        hardness = rng.normal(0, 2, (size, 1, prompts))
        strength = rng.normal(0, seed_sd, (size, 3, 1))
        return 1 / (1 + np.exp(-(mean + hardness + strength)))

    truth = shares(2000, 100).mean()
    tables = (rng.random((400, 3, 100)) < shares(400, 100)).astype(float)
    found = [pooled_estimate(table, 0.95) for table in tables]
    assert np.mean([e.low <= truth <= e.high for e in found]) >= 0.93


@pytest.mark.parametrize("loss", [0.0, 0.02, 0.2])
def test_the_retention_interval_covers_the_truth(loss):
    rng = np.random.default_rng(8)
    covered = 0
    boot = bootstrap(100, 400)
    for _ in range(200):
        before = (rng.random(100) < 0.9).astype(float)
        after = before * (rng.random((3, 100)) >= loss * rng.uniform(0.5, 1.5, (3, 1)))
        found = boot.ratio(before, after)
        covered += found.low <= 1 - loss <= found.high
    assert covered / 200 >= 0.93
