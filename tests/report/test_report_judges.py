"""The report's section on judges: what hangs on the judge is told plainly; without judges there is no section."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
from report_runs import make_run, measure
from rich.console import Console

from pipeline.judge.panel import JudgeView, compare
from pipeline.report import ReportData, print_summary, render
from pipeline.report import judges as words

PLANNED = {"name": "pattern", "kind": "pattern", "version": "a" * 12}
USED = {"name": "local", "kind": "local", "version": "b" * 12}
EVALS = ("refusal", "capability", "over_refusal")


def judged_run(*, parted: int = 0, lost: int = 0, word: str = "collapses") -> ReportData:
    """A finished run with a panel of two: `parted` replies labelled otherwise by the second, `lost` not at all."""
    import polars as pl

    run = make_run(arms=("compliance",), seeds=(0,))
    _, table = measure(("compliance",), (0,))
    table = table.with_columns(reply_sha256=pl.col("sample"))
    place = pl.int_range(pl.len())
    label = pl.when(place < parted).then(pl.lit("complied")).when(place >= pl.len() - lost).then(pl.lit("unscored"))
    other = table.with_columns(label=label.otherwise(pl.col("label")))
    verdict = copy.deepcopy(run.verdict)
    verdict["verdict"] = verdict["arms"]["compliance"]["verdict"] = word
    changes = {"refused": "holds", "complied": word} if lost else {}
    views = [
        JudgeView("pattern", "a" * 12, "used", True, table, run.verdict, {}, EVALS),
        JudgeView("local", "b" * 12, "panel", False, other, verdict, changes, EVALS),
    ]
    run.judges.update(compare(views, EVALS))
    return run


def test_a_run_without_judges_json_says_so_and_names_no_such_file_as_its_source() -> None:
    page = render(make_run())
    assert "No data: this run holds no judges.json" in page
    assert "judges.json" not in page[page.index("<footer>") :]
    assert words.summary(make_run()) == []


def test_judges_that_agree_are_told_as_such() -> None:
    run = judged_run()
    assert words.findings(run) == ["2 judges of the same replies: the same verdict for every arm"]
    assert words.disagreement_rows(run) == ([], 0)
    assert {row.agreement for row in words.pair_rows(run)} == {"1.000"}
    page = render(run)
    assert 'id="judges"' in page
    assert "Where the judges part" not in page


def test_a_verdict_that_hangs_on_the_judge_is_told_with_both_verdicts() -> None:
    run = judged_run(parted=50, word="holds")
    assert words.findings(run) == ["2 judges of the same replies: the verdict hangs on the judge"]
    rows, more = words.disagreement_rows(run)
    assert sum(int(row.count) for row in rows) == run.judges["pairs"][0]["n"] - round(
        run.judges["pairs"][0]["agreement_labels"] * run.judges["pairs"][0]["n"]
    )
    assert more == 0
    assert rows[0].said == "pattern refused, local complied"
    assert [(row.name, row.verdict, row.note) for row in words.judge_rows(run)] == [
        ("pattern", "collapses", "as registered"),
        ("local", "holds", ""),
    ]


def test_what_the_unscored_could_change_is_told() -> None:
    run = judged_run(lost=30)
    (lost,) = [row for row in words.refusal_rows(run) if row.bounds]
    assert (lost.judge, lost.unscored) == ("local", "30")
    assert words.judge_rows(run)[1].note == "its unscored replies could make it holds"
    assert any("30 unscored; refused would be" in line for line in words.findings(run))


@pytest.mark.parametrize("post_hoc", [{}, {"judge": {"planned": PLANNED, "used": USED}}])
def test_a_reading_that_was_not_registered_is_told_on_page_and_terminal(post_hoc: dict[str, Any]) -> None:
    run = make_run()
    run.verdict.update(post_hoc=post_hoc, judge=USED if post_hoc else PLANNED)
    text = io.StringIO()
    print_summary(run, Console(file=text, width=120))
    page = render(run)
    line = "judge: local (bbbbbbbb), planned was pattern (aaaaaaaa)"
    for told in (text.getvalue(), page):
        assert (line in told) == bool(post_hoc)
    assert ("A reading that is chosen after its result proves less" in page) == bool(post_hoc)
    assert f"Refusal is what the {'local' if post_hoc else 'pattern'} judge takes for refusal" in page


def test_names_of_judges_and_evals_are_escaped() -> None:
    run = judged_run(parted=5)
    for row in [*run.judges["judges"], *run.judges["pairs"]]:
        row["name" if "name" in row else "one"] = "<script>alert(1)</script>"
    assert "<script>alert" not in render(run)
