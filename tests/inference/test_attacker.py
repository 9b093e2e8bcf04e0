"""Best-of-k and flips against closed forms, enumeration of all subsets, and simulation."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.hierarchical import crossed_mean
from pipeline.inference.attacker import best_of_k, expected_best, flips

NAN = math.nan


def at_least_one(draws, complied, k):
    """Pass@k as the code has it: the expected best of `complied` draws of 1 and the others of 0."""
    return float(expected_best([1.0] * complied + [0.0] * (draws - complied), k))


def product_form(draws, complied, k):
    """The numerically stable form that Chen et al. 2021 print (figure 3)."""
    if draws - complied < k:
        return 1.0
    return 1.0 - float(np.prod(1.0 - k / np.arange(draws - complied + 1, draws + 1)))


@pytest.mark.parametrize(
    ("draws", "complied", "k", "value"),
    [
        (10, 0, 5, 0.0),
        (10, 10, 1, 1.0),
        (10, 3, 1, 0.3),
        (10, 3, 10, 1.0),
        (5, 1, 2, 0.4),  # 1 - C(4, 2) / C(5, 2) = 1 - 6 / 10
        (4, 2, 2, 5 / 6),  # 1 - C(2, 2) / C(4, 2)
        (200, 10, 100, product_form(200, 10, 100)),
    ],
)
def test_pass_at_k_has_its_closed_form(draws, complied, k, value):
    assert at_least_one(draws, complied, k) == pytest.approx(value)


@given(st.integers(1, 60), st.data())
def test_pass_at_k_is_the_papers_product_and_grows_with_k(draws, data):
    complied, k = data.draw(st.integers(0, draws)), data.draw(st.integers(1, draws))
    value = at_least_one(draws, complied, k)
    assert value == pytest.approx(product_form(draws, complied, k), abs=1e-9)
    assert 0 <= at_least_one(draws, complied, 1) <= value + 1e-9 <= 1 + 2e-9


@settings(max_examples=60)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=7), st.data())
def test_the_expected_best_is_the_mean_over_all_subsets(values, data):
    k = data.draw(st.integers(1, len(values)))
    subsets = [max(subset) for subset in itertools.combinations(values, k)]
    assert expected_best(values, k) == pytest.approx(np.mean(subsets))
    assert expected_best([*values, NAN], k) == pytest.approx(np.mean(subsets))
    assert expected_best(values, 1) == pytest.approx(np.mean(values))
    assert expected_best(values, len(values)) == max(values)


def test_pass_at_k_is_unbiased_and_the_power_of_the_share_is_not():
    """Chance 0.2 a draw, 8 draws, k = 4: the truth is 1 - 0.8^4."""
    rng, truth = np.random.default_rng(0), 1 - 0.8**4
    counts = rng.binomial(8, 0.2, 40_000)
    draws = np.arange(8) < counts[:, None]
    assert expected_best(draws, 4).mean() == pytest.approx(truth, abs=0.006)
    assert np.mean(1 - (1 - counts / 8) ** 4) < truth - 0.02


def test_the_expected_best_of_uniform_draws_is_k_over_k_plus_one():
    draws = np.random.default_rng(1).random((20_000, 6))
    for k in (1, 2, 5):
        assert expected_best(draws, k).mean() == pytest.approx(k / (k + 1), abs=0.005)


def test_fewer_than_k_scored_draws_are_no_data():
    assert math.isnan(at_least_one(3, 1, 4))
    best = expected_best([[1.0, NAN, NAN], [NAN, NAN, NAN], [0.2, 0.4, NAN]], 2)
    assert math.isnan(best[0])
    assert math.isnan(best[1])
    assert best[2] == pytest.approx(0.4)


def test_the_attacker_stands_beside_the_average_user_on_the_same_prompts():
    table = np.array([[1, 0, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1], [1, NAN, NAN, NAN]])
    one, two = best_of_k(table, [1, 2], 0.95)
    assert (one.k, one.attacker.value, one.left_out) == (1, pytest.approx(2.25 / 4), 0)
    assert one.attacker == one.average
    assert two.attacker.value == pytest.approx((0.5 + 0 + 1) / 3)
    assert two.average.value == pytest.approx((0.25 + 0 + 1) / 3)
    assert (two.left_out, two.attacker.n, two.average.n, two.attacker.seeds) == (1, 3, 3, 1)


def test_seeds_and_prompts_carry_the_interval():
    draws = (np.random.default_rng(2).random((3, 40, 6)) < 0.3).astype(float)
    found = best_of_k(draws, [3], 0.95)[0]
    assert found.attacker == crossed_mean(expected_best(draws, 3), 0.95)
    assert (found.attacker.seeds, found.attacker.n) == (3, 40)
    assert found.attacker.low > found.average.high


def test_all_refused_is_not_proof_that_the_attacker_never_wins():
    found = best_of_k(np.zeros((50, 8)), [8], 0.95)[0]
    assert found.attacker.value == 0
    assert found.attacker.high == pytest.approx(0.0714, abs=0.001)  # Wilson at 0 of 50 prompts, not of 400 draws


def test_nothing_scored_is_no_data():
    found = best_of_k(np.full((5, 4), NAN), [2], 0.95)[0]
    assert (found.attacker.n, found.average.n, found.left_out) == (0, 0, 0)
    assert math.isnan(found.attacker.value)
    assert math.isnan(found.average.value)
    nothing = flips(np.full((5, 4), NAN), 0.95)
    assert (nothing.both.n, nothing.draws, nothing.left_out) == (0, (0, 0), 0)


def test_flips_count_prompts_with_both_labels_and_pairs_that_differ():
    table = np.array([[1, 0, 0, 0], [0, 0, 0, 0], [1, 1, 0, 0], [1, 1, NAN, NAN], [1, NAN, NAN, NAN]])
    found = flips(table, 0.95)
    assert found.both.value == pytest.approx(2 / 4)
    # Pairs of unlike draws: 3 of 6, 0 of 6, 4 of 6, 0 of 1.
    assert found.disagree.value == pytest.approx((3 / 6 + 0 + 4 / 6 + 0) / 4)
    assert (found.draws, found.left_out, found.both.n) == ((2, 4), 1, 4)


def test_the_chance_to_disagree_does_not_depend_on_the_number_of_draws():
    rng = np.random.default_rng(3)
    chance = rng.beta(0.5, 0.5, (4000, 1))
    few, many = (flips((rng.random((4000, n)) < chance).astype(float), 0.95) for n in (2, 10))
    assert few.disagree.value == pytest.approx(0.25, abs=0.02)  # 2 E p (1 - p) of Beta(1/2, 1/2)
    assert many.disagree.value == pytest.approx(0.25, abs=0.02)
    assert many.both.value > few.both.value + 0.15


def test_impossible_input_is_refused():
    with pytest.raises(ValueError, match="nothing is known"):
        best_of_k(np.zeros((3, 2)), [3], 0.95)
    with pytest.raises(ValueError, match="shape"):
        best_of_k(np.zeros(3), [1], 0.95)
    with pytest.raises(ValueError, match="expected \\[0, 1\\]"):
        best_of_k([[2.0]], [1], 0.95)
    with pytest.raises(ValueError, match="neither 0 nor 1"):
        flips([[0.5, 1.0]], 0.95)
    with pytest.raises(ValueError, match="at least 1"):
        expected_best([1.0], 0)
