"""Intervals against known answers, closed forms, properties, and simulated coverage."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.statistics import PairedBootstrap, unbounded_estimate, wilson

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
        bootstrap(2).mean([[math.nan, math.nan]]),
        bootstrap(0).mean([[]]),
    )
    for found in nothing:
        assert found.n == 0
        assert all(math.isnan(x) for x in (found.value, found.low, found.high))


def test_impossible_input_is_refused():
    with pytest.raises(ValueError, match="3 successes of 2"):
        wilson(3, 2, 0.95)
    with pytest.raises(ValueError, match="-1 successes of 2"):
        wilson(-1, 2, 0.95)
    with pytest.raises(ValueError, match="confidence"):
        unbounded_estimate([[1, 2]], 95)
    with pytest.raises(ValueError, match="confidence"):
        wilson(1, 2, 95)
    with pytest.raises(ValueError, match="shape"):
        bootstrap(3).mean([[0, 1]])


@given(st.integers(1, 500), SHARES)
def test_wilson_holds_its_point_stays_in_range_and_narrows_with_n(n, share):
    successes = round(share * n)
    few, many = wilson(successes, n, 0.95), wilson(successes * 4, n * 4, 0.95)
    assert 0 <= few.low <= few.value <= few.high <= 1
    assert many.high - many.low <= few.high - few.low + 1e-12
    assert wilson(successes, n, 0.99).high >= few.high - 1e-12


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
    found = boot.mean(gain)
    assert found.value == pytest.approx(gain.mean())
    assert found.low <= gain.mean() - normal + 0.003
    assert found.high >= gain.mean() + normal - 0.003
    assert found.high - found.low < 3 * normal


def test_no_change_seen_is_not_no_change():
    few, many = bootstrap(50).mean(np.zeros(50)), bootstrap(500).mean(np.zeros(500))
    assert (few.value, few.n) == (0.0, 50)
    assert (few.low, few.high) == pytest.approx((-wilson(0, 50, 0.95).high, wilson(0, 50, 0.95).high))
    assert many.low > few.low


@pytest.mark.parametrize("sign", [1, -1])
def test_a_gain_of_some_prompts_has_at_least_wilsons_interval(sign):
    found = bootstrap(100).mean([sign * 1.0] * 20 + [0.0] * 80)
    share, none = wilson(20, 100, 0.95), wilson(0, 100, 0.95)
    far, near = (found.high, found.low) if sign > 0 else (-found.low, -found.high)
    assert far == pytest.approx(share.high)  # wider than the percentiles, about 0.28
    assert near <= 0.2 - math.hypot(0.2 - share.low, none.high) + 1e-12


def test_differences_of_ratios_may_lie_beyond_one():
    tripled = bootstrap(50).mean([3.0] * 50, bounded=False)
    assert (tripled.value, tripled.n) == (3.0, 50)
    all_, none = wilson(50, 50, 0.95), wilson(0, 50, 0.95)
    assert (tripled.low, tripled.high) == pytest.approx((3.0 - math.hypot(1 - all_.low, none.high), 3.0))
    assert bootstrap(50).mean([1.0] * 50).high == 1.0


def test_an_unbounded_mean_has_students_t_over_prompts_and_over_seeds():
    # 1, 2, 3, 4: standard error sqrt(5 / 3) / 2, t with 3 degrees of freedom 3.18245.
    half = 3.18245 * math.sqrt(5 / 3) / 2
    for values in ([1, 2, 3, 4], [[1, 2, 3, 4]], [[1, math.nan, 2, 3, 4], [math.nan] * 5]):
        found = unbounded_estimate(values, 0.95)
        assert (found.value, found.n) == (2.5, 4)
        assert (found.low, found.high) == pytest.approx((2.5 - half, 2.5 + half), abs=1e-4)
    # Seeds 1, 3 and 3, 5: prompts' means 2, 4 and seeds' means 2, 4, each with standard error 1 and t = 12.7062.
    found = unbounded_estimate([[1, 3], [3, 5]], 0.95)
    half = 12.7062 * math.sqrt(2)
    assert (found.value, found.low, found.high) == pytest.approx((3, 3 - half, 3 + half), abs=1e-3)


def test_one_prompt_or_none_gives_an_unbounded_mean_no_limits():
    one, none = unbounded_estimate([[7.0], [9.0]], 0.95), unbounded_estimate([[math.nan]], 0.95)
    assert (one.value, one.n, none.n) == (8.0, 1, 0)
    assert all(math.isnan(x) for x in (one.low, one.high, none.value))


def test_prompts_and_seeds_without_data_are_left_out():
    found = bootstrap(4).mean([[-1.0, math.nan, math.nan, 0.0], [math.nan] * 4])
    assert (found.value, found.n) == (-0.5, 2)


def test_seeds_that_disagree_widen_a_paired_difference():
    agree = np.repeat([[0.0] * 100 + [-1.0] * 100], 3, axis=0)
    disagree = np.array([[0.0] * 200, [0.0] * 100 + [-1.0] * 100, [-1.0] * 200])
    narrow, wide = (bootstrap(200).mean(table) for table in (agree, disagree))
    assert narrow.value == wide.value == -0.5
    assert narrow.high - narrow.low < 0.2
    assert wide.low == -1.0
    assert wide.high > 0.5


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 4), st.integers(1, 20), st.integers(0, 2**31))
def test_the_same_generator_gives_the_same_interval_around_its_point(seeds, prompts, key):
    rng = np.random.default_rng(key)
    gains = rng.random((seeds, prompts)) - rng.random(prompts)
    first, second = (bootstrap(prompts, 200) for _ in range(2))
    found = first.mean(gains)
    assert second.mean(gains) == found
    assert -1 <= found.low <= found.value <= found.high <= 1
    assert found.value == pytest.approx(gains.mean())


@pytest.mark.parametrize("loss", [0.0, 0.02, 0.2])
def test_the_interval_of_a_mean_difference_covers_the_truth(loss):
    rng = np.random.default_rng(8)
    covered = 0
    boot = bootstrap(100, 400)
    for _ in range(200):
        before = (rng.random(100) < 0.9).astype(float)
        after = before * (rng.random((3, 100)) >= loss * rng.uniform(0.5, 1.5, (3, 1)))
        found = boot.mean(after - before)
        covered += found.low <= -0.9 * loss <= found.high
    assert covered / 200 >= 0.93
