"""Collapse doses: Kaplan-Meier on published data, closed forms, censoring, and simulated coverage."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from pipeline.inference.survival import SeedDose, collapse_dose, kaplan_meier, restricted_mean
from pipeline.records import Estimate

# Weeks to relapse under 6-MP (Freireich et al. 1963, Blood 21:699-716), and whether the relapse was seen.
WEEKS = [6, 6, 6, 7, 10, 13, 16, 22, 23, 6, 9, 10, 11, 17, 19, 20, 25, 32, 32, 34, 35]
RELAPSED = [True] * 9 + [False] * 12
# The same trial's placebo group: every relapse was seen.
PLACEBO = [1, 1, 2, 2, 3, 4, 4, 5, 5, 8, 8, 8, 8, 11, 11, 12, 12, 15, 17, 22, 23]


def ladder(*pairs):
    return [SeedDose(*pair) for pair in pairs]


def test_the_6_mp_curve_is_the_published_one():
    """Klein & Moeschberger 2003, Survival Analysis, table 4.1 and 4.2; by hand: 18/21, x 16/17, x 14/15, ..."""
    curve = kaplan_meier(WEEKS, RELAPSED)
    assert [step.dose for step in curve.steps] == [6, 7, 10, 13, 16, 22, 23]
    assert [step.at_risk for step in curve.steps] == [21, 17, 15, 12, 11, 7, 6]
    assert [step.collapsed for step in curve.steps] == [3, 1, 1, 1, 1, 1, 1]
    shares = np.cumprod([18 / 21, 16 / 17, 14 / 15, 11 / 12, 10 / 11, 6 / 7, 5 / 6])
    assert [step.share for step in curve.steps] == pytest.approx(list(shares))
    assert [round(step.share, 3) for step in curve.steps] == [0.857, 0.807, 0.753, 0.690, 0.627, 0.538, 0.448]
    assert curve.median() == 23
    assert (curve.share(5.9), curve.share(6)) == (1.0, pytest.approx(18 / 21))
    assert math.isnan(curve.share(36))


def test_the_6_mp_median_and_its_exact_limits():
    seeds = [SeedDose(w - 0.5, w) if seen else SeedDose(w) for w, seen in zip(WEEKS, RELAPSED, strict=True)]
    found = collapse_dose(seeds, 0.95)
    assert found.median_seen == 23
    assert found.median_earliest == 22.5
    assert (found.seeds, found.collapsed, found.censored, found.horizon) == (21, 9, 12, 6)
    # Sign test: at least 16 of 21 tosses has a chance of 1.3 %, at least 15 of 3.9 %; 16 patients passed week 9.
    assert found.exact == (9, math.inf)
    assert math.isnan(found.median_above)


def test_the_6_mp_mean_restricted_to_35_weeks_is_the_area_under_the_curve():
    curve = kaplan_meier(WEEKS, RELAPSED)
    doses, shares = [0, 6, 7, 10, 13, 16, 22, 23, 35], [1.0, *(step.share for step in curve.steps)]
    found = restricted_mean(curve, 21, 35, 0.95)
    assert found.value == pytest.approx(sum(s * (b - a) for s, a, b in zip(shares, doses, doses[1:], strict=False)))
    # Greenwood: the area right of each relapse, squared, times d / (Y (Y - d)).
    areas = [sum(s * (b - a) for s, a, b in zip(shares[i:], doses[i:], doses[i + 1 :], strict=False)) for i in range(8)]
    risks = [(21, 3), (17, 1), (15, 1), (12, 1), (11, 1), (7, 1), (6, 1)]
    variance = sum(area**2 * d / (y * (y - d)) for area, (y, d) in zip(areas[1:], risks, strict=True))
    error = (found.value - found.low) / stats.t.ppf(0.975, 20) / math.sqrt(21 / 20)
    assert error == pytest.approx(math.sqrt(variance))


def test_the_mean_of_uncensored_seeds_is_the_plain_mean_with_students_t():
    seeds = [SeedDose(w - 0.5, w) for w in PLACEBO]
    mean = collapse_dose(seeds, 0.95).restricted_mean[1]
    half = stats.t.ppf(0.975, 20) * np.std(PLACEBO, ddof=1) / math.sqrt(21)
    assert (mean.value, mean.n) == (pytest.approx(np.mean(PLACEBO)), 21)
    assert (mean.low, mean.high) == pytest.approx((np.mean(PLACEBO) - half, np.mean(PLACEBO) + half))


def test_the_placebo_median_and_its_exact_limits_are_order_statistics():
    found = collapse_dose([SeedDose(w - 0.5, w) for w in PLACEBO], 0.95)
    assert found.median_seen == 8
    # n = 21: the 6th smallest and the 6th largest (David & Nagaraja; Binomial(21, 1/2) has 1.3 % beyond 16).
    assert found.exact == (sorted(PLACEBO)[5] - 0.5, sorted(PLACEBO)[15])


def test_the_geometric_mean_has_students_t_limits_on_the_log_scale():
    found = collapse_dose(ladder((2, 4), (4, 8), (8, 16)), 0.95).geometric_mean
    half = stats.t.ppf(0.975, 2) * math.log(2) / math.sqrt(3)
    assert found.value == pytest.approx(8)
    assert (found.low, found.high) == pytest.approx((4 * math.exp(-half), 8 * math.exp(half)))


def test_seeds_that_agree_keep_the_width_of_the_ladder():
    found = collapse_dose(ladder((4, 8), (4, 8), (4, 8)), 0.95)
    assert (found.median_earliest, found.median_seen) == (4, 8)
    assert found.exact == (0.0, math.inf)  # 3 seeds cannot bound a median at 95 %
    assert (found.geometric_mean.low, found.geometric_mean.high) == pytest.approx((4, 8))
    assert (found.share_collapsed.value, found.share_collapsed.low) == (1.0, pytest.approx(0.025 ** (1 / 3)))
    # All at 4 and nobody beyond 8: a seed unlike them, of whom there may be 71 %, may be at 0, or at 8.
    early, unlike = found.restricted_mean[0], 1 - 0.025 ** (1 / 3)
    assert (early.value, early.low, early.high) == pytest.approx((4, 4 * (1 - unlike), 4 + 4 * unlike))


def test_a_collapse_before_the_first_rung_leaves_the_geometric_mean_open_below():
    found = collapse_dose(ladder((0, 4), (4, 8), (4, 8)), 0.95).geometric_mean
    assert (found.value, found.low, found.n) == (pytest.approx((4 * 8 * 8) ** (1 / 3)), 0.0, 3)


def test_six_seeds_are_the_fewest_that_bound_a_median():
    six = [(2**i, 2 ** (i + 1)) for i in range(6)]
    assert collapse_dose(ladder(*six), 0.95).exact == (1, 64)
    assert collapse_dose(ladder(*six[:5]), 0.95).exact == (0.0, math.inf)
    assert collapse_dose(ladder(*six[:5]), 0.90).exact == (1, 32)


def test_all_censored_is_a_lower_bound_and_never_safe():
    found = collapse_dose(ladder((64,), (32,), (16,)), 0.95)
    assert math.isnan(found.median_seen)
    assert math.isnan(found.median_earliest)
    assert found.median_above == 32  # two of three are known to have passed 32, one only to have passed 64
    assert found.exact[1] == math.inf
    assert found.geometric_mean == Estimate()
    assert found.collapsed == 0
    assert found.share_collapsed.high == pytest.approx(1 - 0.025 ** (1 / 3))
    early, seen = found.restricted_mean
    assert early == seen
    assert (seen.value, seen.high, found.horizon) == (16, 16, 16)
    assert seen.low == pytest.approx(16 * 0.025 ** (1 / 3))  # up to 71 % of seeds may yet collapse at once


def test_a_censored_seed_is_neither_a_collapse_nor_left_out():
    found = collapse_dose(ladder((0, 4), (4, 8), (8,)), 0.95)
    assert [round(step.share, 6) for step in found.seen.steps] == [0.666667, 0.333333]
    assert found.median_seen == 8
    assert found.geometric_mean.n == 0
    dropped = collapse_dose(ladder((0, 4), (4, 8)), 0.95)
    assert dropped.median_seen == 4


def test_a_median_that_is_not_reached_names_what_most_seeds_passed():
    found = collapse_dose(ladder((0, 1), (8,), (64,)), 0.95)
    assert math.isnan(found.median_seen)
    assert found.median_above == 8


def test_half_of_the_seeds_is_the_median_although_fractions_round():
    found = collapse_dose(ladder(*[(2**i, 2 ** (i + 1)) for i in range(6)]), 0.95)
    assert found.median_seen == 8  # the third of six: 5/6 x 4/5 x 3/4 is 0.5 up to rounding


def test_no_seed_is_no_data_and_one_seed_has_no_interval():
    nothing = collapse_dose([], 0.95)
    assert (nothing.seeds, nothing.share_collapsed.n) == (0, 0)
    assert math.isnan(nothing.median_seen)
    one = collapse_dose(ladder((0, 2)), 0.95)
    assert (one.median_earliest, one.median_seen) == (0, 2)
    assert math.isnan(one.restricted_mean[1].low)
    assert one.geometric_mean.n == 0


def test_impossible_input_is_refused():
    for pair in ((8, 4), (4, 4), (-1, 4), (math.nan, 4), (math.inf,)):
        with pytest.raises(ValueError, match="after"):
            SeedDose(*pair)
    with pytest.raises(ValueError, match="confidence"):
        collapse_dose(ladder((1, 2)), 95)
    with pytest.raises(ValueError, match="horizon"):
        restricted_mean(kaplan_meier([2, 4], [True, False]), 2, 8, 0.95)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 8), st.booleans()), min_size=1, max_size=12), st.randoms())
def test_curves_fall_brackets_hold_and_the_order_of_seeds_does_not_matter(rungs, random):
    seeds = [SeedDose(2.0**rung, 2.0 ** (rung + 1)) if seen else SeedDose(2.0**rung) for rung, seen in rungs]
    found = collapse_dose(seeds, 0.95)
    shares = [1.0, *(step.share for step in found.seen.steps)]
    assert shares == sorted(shares, reverse=True)
    assert min(shares) >= -1e-12
    low, high = found.exact
    assert low < high
    if not math.isnan(found.median_seen):
        assert found.median_earliest < found.median_seen
        assert low <= found.median_seen <= high
    early, late = found.restricted_mean
    assert early.value <= late.value <= found.horizon + 1e-9
    shuffled = random.sample(seeds, len(seeds))
    again = collapse_dose(shuffled, 0.95)
    assert (again.exact, again.median_above) == (found.exact, pytest.approx(found.median_above, nan_ok=True))
    assert again.restricted_mean[1].value == pytest.approx(late.value)


# --- simulated coverage -----------------------------------------------------------------------------------------


def simulated(seeds, spread, repeats, key, last=1 << 12):
    """Log-normal collapse doses with median 100 on a ladder of powers of two: hits of each interval, in %."""
    rng = np.random.default_rng([key, seeds, round(10 * spread)])
    hits = np.zeros(2)
    for _ in range(repeats):
        doses = 100 * np.exp(rng.normal(0, spread, seeds))
        rungs = np.ceil(np.log2(doses))
        found = collapse_dose(
            [SeedDose(2.0 ** (r - 1), 2.0**r) if 2.0**r <= last else SeedDose(last) for r in rungs], 0.95
        )
        mean = found.geometric_mean
        hits += [low <= 100 <= high for low, high in (found.exact, (mean.low, mean.high))]
    return 100 * hits / repeats


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_the_exact_and_the_geometric_interval_cover_the_median(seeds):
    exact, geometric = simulated(seeds, 1.0, 200, 0)
    assert exact >= 95
    assert geometric >= 92


@pytest.mark.slow
@pytest.mark.parametrize("spread", [0.3, 1.0, 2.0])
def test_the_intervals_cover_the_median_with_few_and_with_more_seeds(spread):
    for seeds in (3, 5, 10):
        exact, geometric = simulated(seeds, spread, 1500, 1, last=1 << 40)
        print(f"spread {spread} seeds {seeds:2}: exact {exact:5.1f} geometric {geometric:5.1f}")
        assert exact >= 94
        assert geometric >= 93
