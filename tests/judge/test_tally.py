"""Counts, confusion and calibration of a labelled file, against what one counts by hand."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.base import Judgement
from pipeline.judge.tally import Calibration, Tally


def test_calibration_is_the_mean_gap_between_what_is_stated_and_what_is_true() -> None:
    calibration = Calibration()
    for probability, right in ((0.9, True), (0.9, False), (0.5, True), (1.0, True)):
        calibration.add(probability, right)
    found = calibration.as_dict()
    # Bins: two of 0.9 (one right: gap 0.4), one of 0.5 (right: 0.5), one of 1.0 (right: 0). ECE (0.8 + 0.5 + 0) / 4.
    assert found["ece"] == pytest.approx(1.3 / 4)
    assert found["brier"] == pytest.approx((0.01 + 0.81 + 0.25 + 0) / 4)
    assert [(row["n"], row["right"]) for row in found["bins"]] == [(1, 1.0), (2, 0.5), (1, 1.0)]
    assert [row["stated"] for row in found["bins"]] == pytest.approx([0.5, 0.9, 1.0])
    assert [(row["low"], row["high"]) for row in found["bins"]] == [
        (7 / 15, 8 / 15),
        (13 / 15, 14 / 15),
        (14 / 15, 1.0),
    ]


def test_no_probability_is_no_data_and_not_a_calibrated_judge() -> None:
    calibration = Calibration()
    calibration.add(math.nan, True)
    found = calibration.as_dict()
    assert (found["n"], found["without_probability"], found["bins"]) == (0, 1, [])
    assert math.isnan(found["ece"])
    assert math.isnan(found["brier"])


@pytest.mark.parametrize("probability", [-0.01, 1.01])
def test_a_probability_outside_its_range_is_a_fault_of_the_judge(probability: float) -> None:
    with pytest.raises(ValueError, match="probability"):
        Calibration().add(probability, True)


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60))
def test_ece_and_brier_stay_between_0_and_1(given_: list[tuple[float, bool]]) -> None:
    calibration = Calibration()
    for probability, right in given_:
        calibration.add(probability, right)
    found = calibration.as_dict()
    assert 0 <= found["ece"] <= 1 + 1e-12
    assert 0 <= found["brier"] <= 1
    assert sum(row["n"] for row in found["bins"]) == len(given_)


def test_a_file_without_human_labels_has_counts_and_bounds_only() -> None:
    tally = Tally()
    for label in ("refused", "refused", "complied", "unscored"):
        tally.add(Judgement(label), None)
    found = tally.as_dict()
    assert found["human"] is None
    assert found["rows"] == 4
    assert found["labels"] == {"refused": 2, "partial": 0, "complied": 1, "degenerate": 0, "unscored": 1}
    assert (found["refusal"]["low"], found["refusal"]["high"]) == (0.5, 0.75)


def test_human_labels_give_agreement_confusion_errors_and_calibration() -> None:
    tally = Tally()
    rows = [
        ("refused", "refused", 0.9),
        ("partial", "refused", 0.8),
        ("complied", "refused", 0.6),
        ("complied", "complied", 0.9),
        ("refused", "unscored", math.nan),
        (None, "complied", 0.9),
    ]
    for human, label, probability in rows:
        tally.add(Judgement(label, probability), human)  # type: ignore[arg-type]
    human = tally.as_dict()["human"]
    assert (human["labelled"], human["unlabelled"], human["n"], human["unscored"]) == (5, 1, 4, 1)
    assert (human["agreement"], human["agreement_labels"]) == (0.75, 0.5)
    assert (human["false_refusals"], human["missed_refusals"]) == (1, 0)
    assert human["confusion"]["refused"] == {"refused": 1, "partial": 0, "complied": 0, "degenerate": 0, "unscored": 1}
    assert human["confusion"]["partial"]["refused"] == 1
    assert human["calibration"]["n"] == human["calibration_labels"]["n"] == 4
    assert human["calibration"]["brier"] < human["calibration_labels"]["brier"]
