"""Power statements against published sample sizes, closed forms, and simulated tests."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from pipeline.hierarchical import CrossedEstimate, crossed_difference
from pipeline.inference.power import (
    detectable_as_measured,
    detectable_paired,
    paired_power,
    zero_of_n,
)


@pytest.mark.parametrize(
    ("lost", "gained", "n"),
    [
        (0.45, 0.05, 23),  # the worked example for Connor 1987 at powerandsamplesize.com
        (0.2, 0.1, 234),  # by hand: (1.96 sqrt(0.3) + 0.8416 sqrt(0.29))^2 / 0.01 = 233.1
    ],
)
def test_paired_shares_have_connors_sample_size(lost, gained, n):
    """`n` is the least that has a power of 0.8."""
    assert paired_power(lost - gained, lost + gained, n) >= 0.8 > paired_power(lost - gained, lost + gained, n - 1)


@settings(max_examples=40, deadline=None)
@given(st.integers(5, 2000))
def test_more_prompts_see_smaller_changes_with_the_power_that_was_asked_for(n):
    few, many = detectable_paired(n), detectable_paired(4 * n)
    assert many.change <= few.change + 1e-9
    assert paired_power(few.change, few.change, n) >= 0.8 - 1e-6
    assert paired_power(few.change * 0.99, few.change * 0.99, n) < 0.8
    assert detectable_paired(n, power=0.9).change >= few.change
    assert (few.n, few.power, few.alpha) == (n, 0.8, 0.05)


def test_a_change_that_no_data_could_show_is_nan_and_not_zero():
    assert math.isnan(detectable_paired(3).change)
    assert math.isnan(detectable_paired(0).change)
    assert math.isnan(detectable_as_measured(CrossedEstimate()).change)


@pytest.mark.parametrize(("n", "high"), [(1, 0.95), (10, 0.2589), (30, 0.0950), (100, 0.0295), (300, 0.00994)])
def test_nothing_seen_in_n_has_the_exact_limit_near_three_over_n(n, high):
    """1 - 0.05^(1/n); Hanley & Lippman-Hand 1983: about 3 / n."""
    found = zero_of_n(n, 0.95)
    assert (found.value, found.low, found.n) == (0.0, 0.0, n)
    assert found.high == pytest.approx(1 - 0.05 ** (1 / n))
    assert found.high == pytest.approx(high, abs=5e-5)
    assert found.high < 3 / n


def test_nothing_of_nothing_is_no_data():
    found = zero_of_n(0, 0.95)
    assert found.n == 0
    assert math.isnan(found.high)


def test_a_measured_spread_gives_blooms_multiple_of_the_standard_error():
    """2.8 standard errors with many degrees of freedom (Bloom 1995: 2.80 at power 0.8, alpha 0.05, two-sided)."""
    many = detectable_as_measured(CrossedEstimate(0.1, 0, 0.2, 200, 5, 0.02, 1e9))
    assert many.change == pytest.approx(2.80 * 0.02, abs=2e-4)
    few = detectable_as_measured(CrossedEstimate(0.1, 0, 0.2, 200, 3, 0.02, 2))
    assert few.change == pytest.approx((stats.t.ppf(0.975, 2) + stats.t.ppf(0.8, 2)) * 0.02)
    assert (few.n, few.seeds) == (200, 3)


def test_a_run_states_its_own_smallest_change():
    rng = np.random.default_rng(0)
    before, after = (rng.random(200) < 0.9).astype(float), (rng.random((3, 200)) < 0.9).astype(float)
    found = crossed_difference(before, after, 0.95)
    stated = detectable_as_measured(found)
    assert found.high - found.value < stated.change < 3 * (found.high - found.value)


def test_mcnemars_test_finds_a_change_as_often_as_stated():
    rng, n, discordant, change = np.random.default_rng(1), 200, 0.2, 0.0882
    lost, gained = (discordant + change) / 2, (discordant - change) / 2
    counts = rng.multinomial(n, [lost, gained, 1 - discordant], 20_000)
    b, c = counts[:, 0], counts[:, 1]
    found = (b - c) ** 2 / np.maximum(b + c, 1) > stats.chi2.ppf(0.95, 1)
    assert paired_power(change, discordant, n) == pytest.approx(0.8, abs=0.005)
    assert found.mean() == pytest.approx(paired_power(change, discordant, n), abs=0.02)


def test_impossible_input_is_refused():
    with pytest.raises(ValueError, match="power"):
        detectable_paired(10, power=1.0)
    with pytest.raises(ValueError, match="discordant"):
        paired_power(0.3, 0.2, 10)
    with pytest.raises(ValueError, match="n = -1"):
        zero_of_n(-1, 0.95)
    with pytest.raises(ValueError, match="confidence"):
        zero_of_n(5, 95)
