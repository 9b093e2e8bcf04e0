"""The split, the pick, what the pick costs, and corrections for many looks, against published and simulated values."""

import hashlib
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.hierarchical import crossed_mean
from pipeline.inference.worst_arm import SALT, adjusted, is_dev, p_beyond, simultaneous, worst_arm

P_VALUES = st.dictionaries(st.text(max_size=3), st.floats(0, 1) | st.just(math.nan), min_size=1, max_size=8)


def names(count):
    return [f"sample-{i}" for i in range(count)]


def replies(rng, shares, seeds=3, prompts=100):
    return {f"arm-{i}": (rng.random((seeds, prompts)) < share).astype(float) for i, share in enumerate(shares)}


# --- the split --------------------------------------------------------------------------------------------------


def test_the_split_is_the_hash_of_the_id_and_nothing_else():
    number = int(hashlib.sha256(f"{SALT}\0abc".encode()).hexdigest()[:16], 16)
    assert is_dev("abc") == (number / 2**64 < 0.5)
    for name in names(1000):  # the first of 256 bits, whatever the others
        assert is_dev(name) == (hashlib.sha256(f"{SALT}\0{name}".encode()).hexdigest()[0] in "01234567")
    # Written down: a split that moved would make every reported figure another one.
    assert [name for name in names(12) if is_dev(name)] == ["sample-1", "sample-2", "sample-5"]


def test_the_dev_part_is_half_of_all():
    assert np.mean([is_dev(name) for name in names(4000)]) == pytest.approx(0.5, abs=0.025)


# --- the pick ---------------------------------------------------------------------------------------------------


def test_the_worst_on_dev_is_reported_on_the_held_out_prompts():
    samples = names(60)
    dev = np.array([is_dev(name) for name in samples])
    one, two = np.where(dev, 0.1, 0.9), np.where(dev, 0.2, 0.0)
    found = worst_arm({"one": [one] * 2, "two": [two] * 2}, samples, 0.95)
    assert found.arm == "one"
    assert (found.dev.value, found.held_out.value) == (pytest.approx(0.1), pytest.approx(0.9))
    assert (found.held_out.n, found.held_out.seeds, found.dev.n) == (int((~dev).sum()), 2, int(dev.sum()))
    assert (found.dev_prompts, found.held_out_prompts, found.arms) == (int(dev.sum()), int((~dev).sum()), 2)
    assert found.uncorrected_arm == "two"
    assert found.uncorrected == crossed_mean([two] * 2, 0.95)


def test_an_arm_without_data_is_not_the_worst_and_equals_go_by_name():
    samples = names(40)
    arms = {"b": np.ones((1, 40)), "a": np.ones((1, 40)), "none": np.full((1, 40), math.nan)}
    found = worst_arm(arms, samples, 0.95)
    assert (found.arm, found.arms) == ("a", 2)
    nothing = worst_arm({"none": arms["none"]}, samples, 0.95)
    assert (nothing.arm, nothing.held_out.n, nothing.uncorrected_arm) == (None, 0, None)
    assert math.isnan(nothing.held_out.value)


def test_impossible_input_is_refused():
    with pytest.raises(ValueError, match="shape"):
        worst_arm({"a": np.ones((1, 3))}, names(4), 0.95)
    with pytest.raises(ValueError, match="twice"):
        worst_arm({"a": np.ones((1, 2))}, ["x", "x"], 0.95)
    with pytest.raises(ValueError, match="too few"):
        worst_arm({"a": np.ones((1, 1))}, ["x"], 0.95)


def test_picking_and_reporting_on_the_same_prompts_is_biased_and_the_split_is_not():
    """Eight arms that are equally good: the worst looks worse than it is, unless other prompts report it."""
    rng, truth, samples = np.random.default_rng(1), 0.5, names(100)
    found = [worst_arm(replies(rng, [truth] * 8, prompts=100), samples, 0.95) for _ in range(150)]
    assert np.mean([f.uncorrected.value for f in found]) < truth - 0.03
    assert np.mean([f.held_out.value for f in found]) == pytest.approx(truth, abs=0.01)
    held = np.mean([f.held_out.low <= truth <= f.held_out.high for f in found])
    naive = np.mean([f.uncorrected.low <= truth <= f.uncorrected.high for f in found])
    assert held >= 0.92
    assert naive < held


# --- many looks -------------------------------------------------------------------------------------------------


def test_holm_gives_the_published_values():
    """Holm's procedure on 0.01, 0.04, 0.03, 0.005 (R: p.adjust): 0.03, 0.06, 0.06, 0.02."""
    raw = {"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005}
    assert adjusted(raw) == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02})


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_corrected_p_values_are_those_of_statsmodels(values):
    from statsmodels.stats.multitest import multipletests

    found = adjusted({str(place): p for place, p in enumerate(values)})
    assert list(found.values()) == pytest.approx(multipletests(values, method="holm")[1])


@settings(max_examples=80, deadline=None)
@given(P_VALUES)
def test_corrected_p_values_are_larger_and_no_data_stays_no_data(raw):
    holm = adjusted(raw)
    assert list(holm) == list(raw)
    for name, p in raw.items():
        if math.isnan(p):
            assert math.isnan(holm[name])
            continue
        bonferroni = min(1, p * len(raw))
        assert p - 1e-12 <= holm[name] <= bonferroni + 1e-12


def test_a_p_value_outside_0_and_1_is_refused():
    with pytest.raises(ValueError, match="expected"):
        adjusted({"a": 1.5})


def test_simultaneous_confidence_shares_the_error():
    assert simultaneous(0.95, 5) == pytest.approx(0.99)
    with pytest.raises(ValueError, match="looks"):
        simultaneous(0.95, 0)


@pytest.mark.parametrize("below", [True, False])
def test_the_p_value_is_where_the_interval_just_reaches_the_threshold(below):
    values = (np.random.default_rng(3).random((3, 80)) < 0.5).astype(float)
    threshold = 0.6 if below else 0.4
    p = p_beyond(values, threshold, below=below)
    limits = crossed_mean(values, 1 - 2 * p)
    assert 0 < p < 0.5
    assert (limits.high if below else limits.low) == pytest.approx(threshold, abs=1e-6)
    assert p_beyond(values, threshold, below=not below) > 0.5


def test_p_values_without_data_or_with_a_wrong_threshold():
    assert math.isnan(p_beyond([[math.nan]], 0.5, below=True))
    with pytest.raises(ValueError, match="threshold"):
        p_beyond([[0.5]], 5.0, below=True)


def test_a_true_null_is_rejected_at_most_as_often_as_said():
    rng = np.random.default_rng(4)
    p = [p_beyond((rng.random((3, 60)) < 0.3).astype(float), 0.3, below=True) for _ in range(150)]
    assert np.mean(np.array(p) < 0.05) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 150)


def test_a_value_at_the_threshold_is_a_coin_toss_and_no_data_makes_sure_beyond_measure():
    half = [0.0, 1.0] * 20
    assert [p_beyond(half, 0.5, below=below) for below in (True, False)] == [0.5, 0.5]
    assert [p_beyond(np.zeros(2000), 0.9, below=below) for below in (True, False)] == [
        pytest.approx(5e-13, rel=0.01),
        1.0,
    ]
