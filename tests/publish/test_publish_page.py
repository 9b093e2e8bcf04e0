"""The report's words and sections, without a server: nothing is markup, nothing is drawn that is not there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_runs import make_run

from pipeline.publish import words
from pipeline.publish.curves import rows_of, summary_of
from pipeline.publish.offline import Expected, Piece
from pipeline.publish.page import LONGEST_TITLE, page
from pipeline.report import ReportData


@pytest.fixture
def run() -> ReportData:
    return make_run()


def expected(name: str, part: str, *metrics: str) -> Expected:
    return Expected(name, (Piece(Path(name), name, part, 1, frozenset(metrics), {}, {}),))


def text(made: dict[str, Any]) -> str:
    return "\n".join(block["text"] for block in made["blocks"] if "text" in block)


def panels(made: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for block in made["blocks"] if block["kind"] == "grid" for panel in block["panels"]]


@given(st.text(max_size=80))
def test_words_are_one_line_without_markup(written: str) -> None:
    shown = words.plain(written)
    assert len(shown.splitlines()) <= 1
    assert not re.search(r"[`*_\[\]<>|#~]", re.sub(r"\\.", "", shown))


def test_no_path_is_said() -> None:
    assert words.plain("weights in /home/someone/model, and ~/x") == "weights in redacted, and redacted"


def test_every_line_of_a_table_has_all_its_cells(run: ReportData) -> None:
    lines = [line for line in words.arms(run).splitlines() if line.startswith("|")]
    assert len(lines) == 2 + sum(1 + len(run.seeds(arm)) for arm in run.arms())
    assert {line.count("|") - line.count("\\|") for line in lines} == {8}


def test_rows_go_by_ascending_dose_from_rung_0_and_hold_the_verdicts_points(run: ReportData) -> None:
    arm = run.arms()[0]
    rows = rows_of(run, arm, 0)
    points = {point["step"]: point for point in run.curve(arm, "refusal", 0)}
    assert [dose.steps for dose, _ in rows] == sorted(points)
    assert rows[0][0].steps == 0
    for dose, values in rows:
        point = points[dose.steps]
        assert values["refusal"] == point["value"]
        assert (values["refusal_low"], values["refusal_high"], values["refusal_n"]) == (
            point["low"],
            point["high"],
            point["n"],
        )


def test_a_ladder_that_held_has_no_dose_of_collapse(run: ReportData) -> None:
    held = [(arm, seed) for arm in run.arms() for seed in run.seeds(arm) if summary_of(run, arm, seed)["censored"]]
    fell = [(arm, seed) for arm in run.arms() for seed in run.seeds(arm) if (arm, seed) not in held]
    assert held
    assert fell
    assert all(summary_of(run, *key)["collapse"] == {} for key in held)
    assert all(summary_of(run, *key)["collapse"]["step"] > 0 for key in fell)


def test_only_metrics_that_are_there_are_drawn_and_their_absence_is_said(run: ReportData) -> None:
    bare = page(run, [], [], None, None)
    assert panels(bare) == []
    assert text(bare).count("No data in the W&B runs.") == 2
    some = [expected("m", "measured-1", "dose/steps", "measure/refusal"), expected("t", "training", "dose/steps")]
    drawn = panels(page(run, some, ["m"], None, None))
    assert [panel["y"] for panel in drawn] == [["measure/refusal"]]
    assert {panel["x"] for panel in drawn} == {"dose/steps"}


def test_what_is_post_hoc_and_who_asks_stand_beside_the_sentence(run: ReportData) -> None:
    run.verdict["post_hoc"] = {"review.refusal_threshold": {"planned": 0.05, "used": 0.3}}
    run.verdict["review"] = {"owner": "Tiny | Labs", "reviewer": None, "purpose": "tests"}
    head = page(run, [], [], None, None)["blocks"][0]["text"]
    assert "planned was 0.05" in head
    assert r"owner: Tiny \| Labs" in head
    assert "reviewer" not in head


def test_a_long_title_is_cut_to_what_wandb_takes(run: ReportData) -> None:
    assert len(page(run, [], [], "x" * 500, None)["title"]) == LONGEST_TITLE


def test_threat_model_budget_limits_and_price_are_in_words(run: ReportData) -> None:
    said = text(page(run, [], [], None, None))
    for part in ("Threat model", "Collapse means", "Budget", "What this does not say", "US dollars", "censored"):
        assert part in said
