"""Why a verdict is what it is: a line or two for each rung of each arm is more than a reader takes in at once."""

from __future__ import annotations

import io

import pytest
from report_runs import make_run
from rich.console import Console

from pipeline.publish import words as published
from pipeline.report import ReportData, print_summary
from pipeline.report.page import render
from pipeline.report.view import LISTED, reasons


def with_reasons(count: int) -> ReportData:
    """Return a run whose first arm has so many reasons."""
    run = make_run()
    run.verdict["reasons"] = ["of all"]
    for arm in run.arms():
        run.verdict["arms"][arm]["reasons"] = ["one"]
    run.verdict["arms"]["compliance"]["reasons"] = [f"step {step}" for step in range(count)]
    return run


@pytest.mark.parametrize(("count", "opened"), [(1, 1), (LISTED, LISTED), (LISTED + 1, LISTED + 1), (40, LISTED)])
def test_an_arms_many_reasons_are_folded_after_the_first_few_and_none_is_lost(count: int, opened: int) -> None:
    groups = {group.arm: group for group in reasons(with_reasons(count))}
    assert list(groups) == ["", "compliance", "mixed", "benign"]
    mine = groups["compliance"]
    assert len(mine.first) == opened
    assert [*mine.first, *mine.rest] == [f"compliance: step {step}" for step in range(count)]
    assert (groups[""].first, groups["benign"].first) == (("of all",), ("benign: one",))


def test_a_reason_that_comes_twice_in_an_arm_is_told_once() -> None:
    run = with_reasons(1)
    run.verdict["arms"]["mixed"]["reasons"] = ["one", "one"]
    assert [group.first for group in reasons(run) if group.arm == "mixed"] == [("mixed: one",)]


def test_the_page_holds_every_reason_and_opens_the_first_few() -> None:
    page = render(with_reasons(40))
    assert all(f"<li>compliance: step {step}</li>" in page for step in range(40))
    open_part, folded = page.split("<summary>compliance: 36 more</summary>")
    assert f"compliance: step {LISTED - 1}<" in open_part
    assert f"compliance: step {LISTED}<" in folded


def test_the_terminal_tells_the_first_few_reasons_and_where_the_rest_stands() -> None:
    text = io.StringIO()
    print_summary(with_reasons(40), Console(file=text, width=110, force_terminal=False))
    said = [line.strip() for line in text.getvalue().splitlines()]
    assert f"· compliance: step {LISTED - 1}" in said
    assert f"· compliance: step {LISTED}" not in said
    assert "· compliance: 36 more in report.html and verdict.json" in said


def test_a_wandb_report_tells_as_many_as_the_terminal() -> None:
    said = published.arms(with_reasons(40))
    assert f"compliance: step {LISTED - 1}" in said
    assert f"compliance: step {LISTED}" not in said
    assert "compliance: 36 more in report.html and verdict.json" in said
