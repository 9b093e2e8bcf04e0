"""Agreement, kappa and alpha against published examples, and what must hold of any counts."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.base import LABELS
from pipeline.judge.agreement import SCORED, agreement, alpha, errors, matrix, refusal, unscored_bounds

COUNTS = st.dictionaries(st.tuples(st.sampled_from(LABELS), st.sampled_from(LABELS)), st.integers(0, 50))


def test_agreement_and_kappa_are_those_one_counts_by_hand() -> None:
    # Cohen's kappa by hand: observed 35/50, expected (25 x 30 + 25 x 20) / 2500 = 0.5.
    found = agreement(
        {
            ("refused", "refused"): 20,
            ("refused", "complied"): 5,
            ("complied", "refused"): 10,
            ("complied", "complied"): 15,
        }
    )
    assert (found["n"], found["unscored"]) == (50, 0)
    assert found["agreement"] == found["agreement_labels"] == 0.7
    assert found["kappa"] == found["kappa_labels"] == pytest.approx(0.4)


def test_a_refusal_in_part_is_a_refusal_to_the_field_and_another_label_to_us() -> None:
    found = agreement({("refused", "partial"): 3, ("complied", "degenerate"): 1, ("complied", "complied"): 4})
    assert found["agreement"] == 1.0
    assert found["agreement_labels"] == 0.5


def test_unscored_replies_are_counted_and_are_no_opinion() -> None:
    found = agreement({("refused", "unscored"): 3, ("unscored", "unscored"): 2, ("refused", "refused"): 1})
    assert (found["n"], found["unscored"], found["agreement"]) == (1, 5, 1.0)
    assert math.isnan(found["kappa"])


@pytest.mark.parametrize("counts", [{}, {("unscored", "refused"): 4}, {("refused", "refused"): 0}])
def test_nothing_in_common_is_no_data(counts: dict[tuple[str, str], int]) -> None:
    found = agreement(counts)
    assert found["n"] == 0
    assert all(math.isnan(found[key]) for key in ("agreement", "kappa", "agreement_labels", "kappa_labels"))


@given(COUNTS)
def test_agreement_is_symmetric_and_kappa_is_never_above_one(counts: dict[tuple[str, str], int]) -> None:
    there, back = agreement(counts), agreement({(b, a): k for (a, b), k in counts.items()})
    for key, value in there.items():
        assert value == pytest.approx(back[key], nan_ok=True)
    assert there["n"] + there["unscored"] == sum(counts.values())
    assert not there["kappa"] > 1 + 1e-12
    assert not there["agreement_labels"] > there["agreement"] + 1e-12


@given(st.lists(st.sampled_from(SCORED), min_size=2, max_size=40))
def test_perfect_agreement_has_kappa_one_where_chance_leaves_room(labels: list[str]) -> None:
    found = agreement(Counter((label, label) for label in labels))
    assert found["agreement_labels"] == 1.0
    if len(set(labels)) > 1:
        assert found["kappa_labels"] == pytest.approx(1.0)
    else:
        assert math.isnan(found["kappa_labels"])


def test_errors_say_which_way_a_judge_is_wrong() -> None:
    found = errors(
        {
            ("refused", "complied"): 2,
            ("partial", "refused"): 3,
            ("complied", "partial"): 5,
            ("degenerate", "complied"): 1,
            ("refused", "unscored"): 9,
        }
    )
    assert found == {"false_refusals": 5, "of_not_refused": 6, "missed_refusals": 2, "of_refused": 5}


def counted(observers: tuple[str, ...], values: str) -> np.ndarray:
    """Return how many observers gave each value to each unit; `*` is missing."""
    return np.array([[unit.count(value) for value in values] for unit in map("".join, zip(*observers, strict=True))])


def test_alpha_is_the_published_one() -> None:
    # The example of https://en.wikipedia.org/wiki/Krippendorff%27s_alpha: three coders, fifteen units, gaps; 0.691.
    coders = ("*****34121133*3", "1*213343*******", "**21344*21133*4")
    assert [len(coder) for coder in coders] == [15, 15, 15]
    assert alpha(counted(coders, "1234")) == pytest.approx(0.691, abs=5e-4)


@pytest.mark.parametrize(
    "table", [[[2, 0], [2, 0]], [[1, 0], [0, 1]], [[0, 0]]], ids=["one label", "no pair", "nobody"]
)
def test_alpha_without_pairs_of_labels_is_no_data(table: list[list[int]]) -> None:
    assert math.isnan(alpha(np.array(table)))


def test_alpha_passes_over_replies_that_one_judge_alone_scored() -> None:
    whole = np.array([[2, 0], [1, 1], [0, 2], [0, 2]])
    assert alpha(np.vstack([whole, [[1, 0], [0, 1], [0, 0]]])) == pytest.approx(alpha(whole))


def test_bounds_are_what_the_unscored_could_make_of_it() -> None:
    assert unscored_bounds(30, 80, 20) == (0.3, 0.5)
    assert unscored_bounds(0, 0, 5) == (0.0, 1.0)
    assert all(map(math.isnan, unscored_bounds(0, 0, 0)))
    for counts in ((3, 2, 0), (-1, 2, 0), (1, 2, -1)):
        with pytest.raises(ValueError, match="cannot be"):
            unscored_bounds(*counts)


@given(st.dictionaries(st.sampled_from(LABELS), st.integers(0, 100)))
def test_the_share_refused_lies_within_its_bounds(labels: dict[str, int]) -> None:
    found = refusal(labels)
    assert found["n"] + found["unscored"] == sum(labels.values())
    if found["n"]:
        assert found["low"] - 1e-12 <= found["value"] <= found["high"] + 1e-12
    else:
        assert math.isnan(found["value"])


def test_a_matrix_has_every_row_and_column() -> None:
    assert matrix({("refused", "complied"): 2}, ("refused", "partial"), ("refused", "complied")) == {
        "refused": {"refused": 0, "complied": 2},
        "partial": {"refused": 0, "complied": 0},
    }
