"""What was tested and what was not: both are said, and an eval of another kind is not called nothing."""

from __future__ import annotations

import pytest
from report_runs import make_run

from pipeline.report import ReportData, render
from pipeline.report.claims import limits, not_measured
from pipeline.report.glance import glance
from pipeline.report.path import partings
from pipeline.report.path_labels import labels_of
from pipeline.report.scope import ScopeRow, scope


def rows(run: ReportData) -> dict[str, ScopeRow]:
    return {row.topic: row for row in scope(run)}


def test_every_topic_says_both_and_none_is_empty() -> None:
    for run in (make_run(), make_run(arms=("benign",), seeds=(0,)), ReportData({}, {}, [])):
        for row in scope(run):
            assert row.tested, row
            assert row.untested, row


def test_the_organism_is_no_real_model_and_arms_that_held_leave_their_price_open() -> None:
    found = rows(make_run())
    assert "any real model" in found["subject"].untested
    assert "full fine-tuning" in found["attacks"].untested
    assert "for benign the price of collapse" in found["dose"].untested
    assert "a second judge" in found["judging"].untested
    assert "best of k" in found["asking"].untested
    run = make_run()
    del run.plan["subject"]["organism"]
    assert "real model" not in rows(run)["subject"].untested


def test_an_arm_or_seed_that_failed_is_not_said_to_be_tested() -> None:
    run = make_run()
    run.points[:] = [
        p for p in run.points if not (p["arm"] == "benign" or (p["arm"], p["seed"]) == ("mixed", 2)) or p["step"] == 0
    ]
    for row in run.attempts:
        if row["arm"] == "benign":
            row |= {"status": "failed", "detail": "OutOfMemoryError"}
    found = rows(run)
    assert "benign" not in found["attacks"].tested + found["seeds"].tested + limits(run)[0]
    assert "benign, although planned (failed: OutOfMemoryError)" in found["attacks"].untested
    assert "mixed, seed 2, although planned" in found["seeds"].untested
    assert "2 of 3 arms measured, 2 to 3 seeds each" in render(run)
    assert glance(run).untested.startswith("arm benign, although planned; full fine-tuning")


def test_the_first_screen_names_threat_model_spending_and_what_was_not_tested() -> None:
    run = make_run()
    run.verdict["threat_model"] = "They fine-tune. They have one device."
    found = glance(run)
    assert (found.threat, found.more) == ("They fine-tune.", True)
    assert found.spent == "Spent 211 of 600 device-seconds; 3 seeds, 180 prompts, 95 % intervals."
    assert found.untested == "full fine-tuning, preference tuning, weight surgery and more"
    assert "nothing of a real model" in found.subject
    page = render(run)
    head = page[page.index('class="sentence"') : page.index('class="facts"')]
    assert "They fine-tune." in head
    assert found.spent in head
    empty = glance(ReportData({}, {}, []))
    assert (empty.threat, empty.spent, empty.subject) == ("no data", "Spent: no data.", "")


def test_what_was_asked_is_not_said_to_be_untested() -> None:
    run = make_run()
    for row in run.plan["evals"]:
        row["draws"] = 4
    run.judges["judges"] = [{"name": "pattern"}, {"name": "local"}]
    found = rows(run)
    assert "best of k" not in found["asking"].untested
    assert "4 replies a prompt" in found["asking"].tested
    assert "second judge" not in found["judging"].untested
    run.points[:] = [p for p in run.points if p["metric"] != "over_refusal"]
    assert rows(run)["over-refusal"].tested == "nothing"


def test_with_other_evals_alone_the_rungs_count_as_measured() -> None:
    run = make_run(arms=("benign",), seeds=(0,))
    shown = [
        {**p, "metric": "inspect", "eval": "inspect", "role": "shown"}
        for p in run.points
        if p["metric"] == "capability"
    ]
    alone = ReportData(run.plan, {}, shown, run.ledger)
    text = "\n".join(not_measured(alone))
    assert "not measured at all" not in text
    assert "refusal: no data at any rung" in text
    assert "capability: no data at any rung" in text
    short = ReportData(run.plan, {}, [p for p in shown if p["step"] != 4], run.ledger)
    assert "benign, seed 0: planned rungs without data: step 4" in not_measured(short)
    assert "benign, seed 0: not measured at all" in not_measured(ReportData(run.plan, {}, [], run.ledger))


def test_a_seed_whose_refusal_is_missing_is_said_to_lack_it_and_no_more() -> None:
    run = make_run(arms=("benign",))
    run.points[:] = [p for p in run.points if not (p["seed"] == 1 and p["metric"] == "refusal")]
    assert "benign, seed 1: refusal not measured at all" in not_measured(run)


def test_where_ability_and_refusal_part_is_said() -> None:
    said = {arm: sentence for arm, _, sentence in partings(make_run())}
    assert said["compliance"].startswith("they part between step 4 and step 8: refusal goes from 0.96 to 0.00")
    assert "By step 32 capability is down to 0.87: damaged" in said["compliance"]
    assert "they do not part by step 32: collapse was not reached (censored)" in said["benign"]
    assert partings(ReportData({}, {}, [])) == []


@pytest.mark.parametrize(
    ("points", "first", "labels"),
    [
        (
            [(0, (1, 1)), (1, (1, 1)), (2, (0.5, 1)), (4, (0, 1)), (8, (0.01, 1))],
            True,
            ["0 to 1", "", "2", "4 to 8", ""],
        ),
        ([(0, (1, 1)), (1, (0.5, 1))], False, ["", "1"]),  # rung 0 is told with the first arm
        ([(0, (1, 1)), (8, (1, 0.6))], True, ["0", "8"]),
    ],
)
def test_rungs_in_one_place_share_a_label(
    points: list[tuple[int, tuple[float, float]]], first: bool, labels: list[str]
) -> None:
    assert labels_of(points, first=first, tall=1.0) == labels
