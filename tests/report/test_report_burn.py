"""The burn-down: what each attempt left of a cap, failed and interrupted ones included."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from report_runs import make_run

from pipeline.ledger import Ledger
from pipeline.report import ReportData
from pipeline.report.burn import BOX, attempt_rows, burn_downs
from pipeline.schema import BudgetConfig


def ledger(cap: float, *attempts: tuple[str, float | None, str]) -> ReportData:
    rows = [
        {"stage": stage, "arm": "", "seed": -1, "attempt": n, "device_seconds": seconds, "status": status}
        for n, (stage, seconds, status) in enumerate(attempts, start=1)
    ]
    return ReportData({}, {}, [], ledger={"device_seconds": {"cap": cap, "spent": None}}, attempts=rows)


def height(share: float) -> float:
    return BOX.bottom - share * (BOX.bottom - BOX.top)


def test_each_attempt_takes_its_cost_off_the_cap_and_lost_ones_are_marked() -> None:
    (found,) = burn_downs(ledger(100, ("train", 25, "done"), ("train", 15, "failed"), ("generate", 10, "done")))
    end = found.path.split()
    assert float(end[-1]) == pytest.approx(height(0.5), abs=0.05)
    third = BOX.across(2 / 3)
    assert found.lost == ((pytest.approx(third), pytest.approx(height(0.6))),)
    assert found.words == "50 s of 100 s left after 3 attempts; 1 attempt failed or interrupted"
    assert [(band.name, band.shaded) for band in found.bands] == [("train", False), ("generate", True)]


def test_a_cap_that_was_overspent_is_told_and_not_drawn_below_nought() -> None:
    (found,) = burn_downs(ledger(10, ("train", 12.5, "budget")))
    assert "0 s of 10 s left after 1 attempt, overspent by 2.5 s" in found.words
    assert float(found.path.split()[-1]) == pytest.approx(height(0))


def test_an_attempt_without_a_figure_is_counted_as_such() -> None:
    (found,) = burn_downs(ledger(10, ("train", None, "done"), ("train", 4, "interrupted")))
    assert "6 s of 10 s left" in found.words
    assert "1 attempt without a figure in this unit" in found.words


def test_only_units_with_a_cap_are_drawn_and_the_reserve_is_the_plans() -> None:
    (found,) = burn_downs(make_run())
    assert (found.unit, found.top) == ("device time", "600 s")
    assert found.reserve == pytest.approx(height(0.5))
    assert found.reserve_words == "300 s kept for measuring"
    run = make_run()
    del run.plan["config"]["budget"]
    assert burn_downs(run)[0].reserve is None
    assert burn_downs(ReportData(run.plan, run.verdict, run.points, run.ledger)) == []


@settings(deadline=None)
@given(st.lists(st.floats(0, 10), min_size=1, max_size=60))
def test_the_line_never_rises_and_ends_at_what_is_left(costs: list[float]) -> None:
    (found,) = burn_downs(ledger(200, *(("train", cost, "done") for cost in costs)))
    numbers = [float(x) for x in found.path.removeprefix("M").split()]
    ys = numbers[1::2]
    assert ys == sorted(ys)  # downwards, as SVG counts
    assert ys[-1] == pytest.approx(height(max(0, 1 - sum(costs) / 200)), abs=0.06)


def test_the_ledger_hands_out_each_attempt_once_by_its_last_row(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    book = Ledger(path, BudgetConfig(device_seconds=60), "cpu")
    with pytest.raises(ValueError, match="no"), book.attempt("train", "a", 0):
        raise ValueError("no")
    with book.attempt("train", "a", 0) as attempt:
        attempt.flops = 5.0
        attempt.beat(force=True)
    rows = Ledger(path, BudgetConfig(device_seconds=60), "cpu").attempts()
    assert [(row["attempt"], row["status"], row["flops"]) for row in rows] == [(1, "failed", 0.0), (2, "done", 5.0)]
    run = ReportData({}, {}, [], ledger=book.summary(), attempts=rows)
    assert [(row.attempt, row.lost) for row in attempt_rows(run)] == [("1", True), ("2", False)]
    assert "1 attempt failed or interrupted" in burn_downs(run)[0].words
