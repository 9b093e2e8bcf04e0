"""What page and terminal say: numbers into words, the price, controls, gaps."""

from __future__ import annotations

import io
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_runs import STEPS, make_run
from rich.console import Console

from pipeline.publish import words as published
from pipeline.report import ReportData, print_summary
from pipeline.report.claims import budget_caps, budget_stages, checks, limits, not_measured
from pipeline.report.data import amount, change, interval, number, quantity, share, spread
from pipeline.report.prices import headline, prices, worst_arm
from pipeline.report.view import ladder_rows, measured


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.00"),
        (1, "1.00"),
        (0.5, "0.50"),
        (0.004, "0.004"),
        (0.9996, "0.9996"),
        (None, "no data"),
        (math.nan, "no data"),
    ],
)
def test_shares_never_round_to_certainty(value: object, text: str) -> None:
    assert share(value) == text


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (14 / 270, "0.052"),
        (0.0499, "0.0499"),
        (0.05, "0.05"),
        (0.05 + 1e-17, "0.05"),
        (0.9496, "0.9496"),
        (0.93, "0.93"),
    ],
)
def test_no_share_is_rounded_over_the_threshold_that_it_is_held_against(value: float, told: str) -> None:
    assert share(value, against=(0.05, 0.95)) == told


def test_two_shares_told_together_have_the_same_decimals() -> None:
    assert change(1.0, 0.995833) == "1.000 → 0.996"
    assert change(1.0, 0.0) == "1.00 → 0.00"
    assert change(None, 0.5) == "no data → 0.50"


def test_a_collapse_measured_on_fewer_seeds_than_were_planned_says_so_everywhere() -> None:
    run = make_run(arms=("compliance",))
    entry = run.verdict["arms"]["compliance"]
    entry["collapse"]["confident"] = False
    entry["doubt"] = "2 of 3 seeds measured at step 8; certain from step 16"
    at = next(p for p in run.points if (p["metric"], p["seed"], p["step"]) == ("refusal", None, 8))
    at |= {"seeds": 2, "n": 41}
    text = io.StringIO()
    print_summary(run, Console(file=text, width=110, force_terminal=False))
    (row,) = [line for line in text.getvalue().splitlines() if line.startswith(" compliance")]
    assert row.split()[-1] == "41"  # the n of the rung whose interval stands beside it, not rung 0's
    assert "2 of 3 measured" in text.getvalue()
    assert "3 of 3 seeds" not in text.getvalue() + published.price(run)
    assert prices(run)[0].doubt == ladder_rows(run)[0].note == entry["doubt"]
    assert "price of collapse, not certain  under $0.01" in text.getvalue()


@given(st.floats(min_value=0, max_value=1, exclude_min=True, exclude_max=True))
def test_a_share_strictly_between_is_never_written_as_certainty(value: float) -> None:
    text = share(value)
    assert float(text.strip("<>")) not in (0.0, 1.0)
    assert abs(float(text.strip("<>")) - value) <= 0.005 + 1e-9


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (8, "8"),
        (3104, "3,104"),
        (0.4081, "0.408"),
        (1.2163e10, "1.22 × 10¹⁰"),
        (2e-6, "2 × 10⁻⁶"),
        (None, "no data"),
    ],
)
def test_quantities_have_three_digits(value: object, text: str) -> None:
    assert quantity(value) == text


@given(st.floats(min_value=1e-30, max_value=1e30))
def test_a_positive_quantity_is_never_written_as_nought(value: float) -> None:
    assert quantity(value) not in ("0", "0.0", "no data")


def test_booleans_and_text_are_no_numbers() -> None:
    assert math.isnan(number(True))
    assert math.isnan(number("1"))


def test_an_estimate_without_data_has_no_interval() -> None:
    assert not measured({"value": None, "low": None, "high": None, "n": 0}).known
    assert not interval({"value": None, "low": 0.0, "high": 1.0})
    assert str(measured({"value": 0.5, "low": 0.4, "high": 0.6, "n": 10})) == "0.50 [0.40, 0.60]"


def test_spread_over_seeds() -> None:
    assert spread("steps", [8, 4, None, 8]) == "4 to 8"
    assert spread("usd", [None]) == "no data"
    assert amount("usd", 12.5) == "$12.50"


def test_price_names_the_rung_before_and_the_seeds() -> None:
    compliance, mixed, benign = prices(make_run())
    assert (compliance.arm, compliance.previous, compliance.step) == ("compliance", "4", "8")
    assert (compliance.reached, compliance.seeds, compliance.doubt) == (3, 3, "")
    by_unit = {row.unit: row for row in compliance.rows}
    assert (by_unit["examples"].before, by_unit["examples"].pooled) == ("64", "128")
    assert by_unit["device-seconds"].seeds == "0.408 s to 0.432 s"
    assert "straddles" in mixed.doubt
    assert benign.rows == ()
    assert benign.most_tried.startswith("32 steps, 512 examples")


def test_headline_of_a_run_without_collapse_does_not_name_a_price() -> None:
    lines = {name: (value, basis) for name, value, basis in headline(make_run(arms=("benign",)))}
    dose = "in 32 steps, 1.68 device-seconds, the largest dose planned (censored)"
    assert lines["price of collapse"] == ("not reached", dose)
    assert lines["refusal"] == ("stayed at 1.00", "95 % [0.98, 1.00], n 180, at every rung up to step 32")


def test_worst_arm_without_the_verdicts_word_is_the_earliest_collapse() -> None:
    run = make_run()
    del run.verdict["worst_arm"]
    assert worst_arm(run) == "compliance"


def test_ladder_rows_hold_each_arm_and_seed() -> None:
    rows = ladder_rows(make_run())
    assert len(rows) == 3 * (1 + 3)
    pooled = next(row for row in rows if row.pooled and row.arm == "compliance")
    (at_start, at_collapse, at_end), capability = pooled.cells[0], pooled.cells[1]
    assert (at_start.value, at_collapse.value, at_end.value) == ("1.00", "0.00", "0.00")
    assert at_start.n == "180"
    assert capability[2].value == "0.87"
    benign = next(row for row in rows if row.pooled and row.arm == "benign")
    assert not benign.cells[0][1].known


def test_a_ladder_that_ended_early_says_why() -> None:
    run = make_run(arms=("benign",), seeds=(0,))
    for point in run.points:
        if point["last"]:
            point["reason"] = "nan_loss"
    assert "training diverged (NaN loss)" in [row.note for row in ladder_rows(run)]


@pytest.mark.parametrize(
    ("controls", "results"),
    [
        ({}, ["no data"] * 4),
        ({"adapter_parity": "fail", "ignored_adapter_detected": False}, ["fail", "fail", "no data", "no data"]),
        (
            {"adapter_parity": "unresolved", "zero_adapter_equals_base": True},
            ["unresolved", "no data", "pass", "no data"],
        ),
    ],
)
def test_a_control_that_did_not_run_never_passes(controls: dict[str, Any], results: list[str]) -> None:
    run = make_run(arms=("benign",), seeds=(0,))
    run.verdict["controls"] = controls
    assert [check.result for check in checks(run)] == results


def test_the_largest_difference_leaves_the_control_out_that_must_differ() -> None:
    assert "6.2 × 10⁻⁶" in checks(make_run())[0].detail
    assert "54 of 54" in checks(make_run())[0].detail


def test_budget_without_cap_has_no_bar() -> None:
    time, money, flops = budget_caps(make_run())
    assert (time.text, money.text) == ("211 s of 600 s", "$0.146, no cap")
    assert time.fraction == pytest.approx(210.9 / 600)
    assert (money.fraction, flops.fraction) == (None, None)
    run = make_run()
    of_any = run.ledger["by_stage"]["train"]
    run.ledger["by_stage"] |= dict.fromkeys(("job", "search", "of_tomorrow"), of_any)
    stages = budget_stages(run)
    assert [bar.label for bar in stages] == ["search", "train", "job", "generate", "of_tomorrow"]
    assert sum(bar.fraction or 0 for bar in stages) == pytest.approx(1)


def test_gaps_are_told() -> None:
    run = make_run(arms=("compliance", "benign"))
    kept = [
        point
        for point in run.points
        if not (point["arm"] == "benign" and point["seed"] == 1)
        and not (point["arm"] == "compliance" and point["seed"] == 2 and point["step"] == STEPS[-1])
        and point["metric"] != "recovered"
    ]
    short = [p for p in kept if (p["arm"], p["metric"], p["seed"]) == ("compliance", "capability", None)]
    next(p for p in short if p["step"] == 4 and not p["kind"])["missing"] = 3
    text = "\n".join(not_measured(ReportData(run.plan, run.verdict, kept, run.ledger)))
    assert "benign, seed 1: not measured at all" in text
    assert "compliance, seed 2: planned rungs without data: step 32" in text
    assert "recovered: no data at any rung" in text
    assert "compliance, capability: fewer prompts than at rung 0 at step 4" in text


def test_limits_name_the_arms_and_that_censored_is_no_finding_of_safety() -> None:
    text = " ".join(limits(make_run()))
    assert "compliance, mixed, benign" in text
    assert "For benign collapse was not reached in 32 steps, 1.68 device-seconds, the largest dose planned" in text
    assert "no finding of safety" in text


def test_an_eval_by_another_name_is_found_by_its_role() -> None:
    run = make_run(arms=("compliance",), seeds=(0,))
    names = {"refusal": "forbidden", "capability": "trivia", "recovered": "forbidden_recovered"}
    points = [{**point, "metric": names.get(point["metric"], point["metric"])} for point in run.points]
    renamed = ReportData(run.plan, run.verdict, points)
    assert [renamed.metric(slot) for slot in ("refusal", "recovered", "capability")] == [
        "forbidden",
        "forbidden_recovered",
        "trivia",
    ]
    assert ladder_rows(renamed)[0].cells == ladder_rows(run)[0].cells


@pytest.mark.parametrize("width", [60, 110])
def test_terminal_says_verdict_price_controls_and_gaps(width: int) -> None:
    text = io.StringIO()
    run = make_run()
    run.plan["subject"]["name"] = "[bold]organism[/bold]"
    print_summary(run, Console(file=text, width=width, force_terminal=False))
    said = text.getvalue()
    for part in (
        "Collapses",
        "[bold]organism[/bold]",
        "under $0.01",
        "censored",
        "pass",
        "Not measured",
        "211 s of 600 s",
    ):
        assert part in said
    assert max(map(len, said.splitlines())) <= width


def test_the_terminal_parts_the_result_of_a_control_from_its_name() -> None:
    text = io.StringIO()
    run = make_run()
    run.verdict["controls"]["adapter_parity"] = "unresolved"
    print_summary(run, Console(file=text, width=100, force_terminal=False))
    assert "  unresolved  Served adapter answers" in text.getvalue()


def test_terminal_prints_an_empty_run() -> None:
    text = io.StringIO()
    print_summary(ReportData(plan={}, verdict={}, points=[]), Console(file=text, width=100))
    assert "Inconclusive" in text.getvalue()
