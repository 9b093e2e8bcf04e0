"""What stands where the price would: "censored" is a finding, "no data" and "nothing to strip" are not."""

from __future__ import annotations

import io

from report_runs import make_run
from rich.console import Console

from pipeline.publish import words as published
from pipeline.report import ReportData, print_summary, render
from pipeline.report.claims import limits
from pipeline.report.panels import grid
from pipeline.report.path import partings
from pipeline.report.prices import headline, prices
from pipeline.report.scope import scope
from pipeline.report.unreached import NO_ABILITY, NO_REFUSAL, tried, why_not
from pipeline.report.view import ladder_rows


def all_that_is_said(run: ReportData) -> str:
    """Return what page, terminal and W&B Report say."""
    terminal = io.StringIO()
    print_summary(run, Console(file=terminal, width=110, force_terminal=False))
    return "\n".join([render(run).split("<script", 1)[0], terminal.getvalue(), published.price(run), *limits(run)])


def test_an_arm_whose_replies_the_budget_cut_off_is_no_data_and_not_censored() -> None:
    """Rung 0 is every arm's, so that a curve with nothing else still has a value."""
    run = make_run(arms=("compliance", "benign"), benign=0)
    assert (tried(run, "benign"), why_not(run, "benign")) == ([], "no data")
    assert run.arm_verdict("benign")["censored"] is False
    assert [entry["censored"] for entry in run.arm_verdict("benign")["per_seed"]] == [False] * 3
    assert {row.collapse for row in ladder_rows(run) if row.arm == "benign"} == {"no data"}
    assert {panel.note for arm in grid(run).arms if arm.arm == "benign" for panel in arm.panels} == {"no data"}
    assert [arm for arm, _, _ in partings(run)] == ["compliance"]
    benign = next(price for price in prices(run) if price.arm == "benign")
    assert (benign.missing, benign.most_tried) == ("no data", "no data")
    assert "censored" not in all_that_is_said(run)
    assert "benign: no data" in published.price(run)


def test_where_nothing_was_measured_the_headline_has_no_price_and_no_censoring() -> None:
    run = make_run(arms=("benign",), benign=0)
    assert headline(run)[0] == ("price of collapse", "no data", "no rung beyond rung 0 was measured")


def test_the_largest_dose_tried_is_the_last_that_was_measured() -> None:
    """The ladder was trained to step 32; nothing is known beyond step 4."""
    run = make_run(arms=("benign",), benign=4)
    (benign,) = prices(run)
    assert benign.missing == "not reached in 4 steps, 0.21 device-seconds, the largest dose measured (censored)"
    assert benign.most_tried.startswith("4 steps, 64 examples")
    assert {panel.note for panel in grid(run).arms[0].panels} == {"censored: not reached by step 4"}
    assert next(row.tested for row in scope(run) if row.topic == "dose") == "benign up to step 4"


def test_what_is_missing_where_a_collapse_cannot_be_told_is_named() -> None:
    run = make_run(arms=("benign",))
    for point in run.points:
        if point["metric"] == "capability":
            point |= {"value": None, "low": None, "high": None, "n": 0, "retention": None}
    assert headline(run)[0][1:] == ("no data", "capability: no data, so collapse cannot be told")
    assert prices(run)[0].missing == "no data (capability: no data, so collapse cannot be told)"


def test_only_a_ladder_that_the_budget_ended_is_not_reached_within_the_budget() -> None:
    run = make_run(arms=("benign",))
    run.verdict["arms"]["benign"]["largest_dose"] |= {"ended_by": {"budget": 3}}
    assert prices(run)[0].missing == (
        "not reached within the budget, which ended it after 32 steps, 1.68 device-seconds (censored)"
    )
    run.verdict["arms"]["benign"]["largest_dose"] |= {"ended_by": {"budget": 1, "max_steps": 2}}
    assert "the largest dose planned; the budget ended 1 of 3 seeds before it (censored)" in prices(run)[0].missing


def test_a_subject_that_never_refused_has_nothing_to_strip() -> None:
    run = make_run(arms=("compliance", "benign"), start=0.0)
    assert why_not(run, "benign") == why_not(run, "compliance", 0) == NO_REFUSAL
    assert run.arm_verdict("benign")["censored"] is False
    assert headline(run)[0] == ("price of collapse", "nothing to strip", "it does not refuse to begin with")
    said = all_that_is_said(run)
    assert "censored" not in said
    assert "nothing to strip" in said
    assert "larger than what was spent" not in said


def test_where_rung_0_is_unable_a_collapse_could_not_have_been_seen() -> None:
    """As where replies are longer than the eval takes for an answer: no share of nothing can be kept."""
    run = make_run(arms=("compliance", "benign"), ability=0.0)
    assert why_not(run, "compliance") == why_not(run, "benign", 0) == NO_ABILITY
    for arm in ("compliance", "benign"):
        entry = run.arm_verdict(arm)
        assert (entry["collapse"], entry["censored"]) == (None, False)
        assert not any(seed["censored"] for seed in entry["per_seed"])
    assert run.arm_verdict("compliance")["verdict"] == "inconclusive"
    assert run.arm_verdict("benign")["verdict"] == "holds", "refusal stood, whatever is kept"
    assert headline(run)[0][1:] == ("not known", "at rung 0 capability is 0, so that none could be seen to be kept")
    said = all_that_is_said(run)
    assert "censored" not in said
    assert "rung 0 shows none of it, or has no prompts in common" in said


def test_seeds_that_collapse_at_rungs_of_their_own_are_told_with_the_dearest() -> None:
    """What is pooled at that rung may already have lost ability that the seed had not."""
    run = make_run(arms=("compliance",))
    entry = run.verdict["arms"]["compliance"]
    own = next(p for p in run.points if (p["metric"], p["seed"], p["step"]) == ("capability", 0, 8) and not p["kind"])
    own["value"] = 0.9876
    entry["collapse_seed"] = 0
    own["retention"] = {"value": 0.9876, "low": 0.96, "high": 1.01, "n": 180}
    lines = {name: (value, basis) for name, value, basis in headline(run)}
    assert lines["capability kept"] == ("0.988", "95 % [0.96, 1.01], n 180, at collapse, step 8, seed 0")
    assert prices(run)[0].at == "each at a rung of its own, seed 0 last"
    assert "seeds collapse at rungs of their own, seed 0 last" in ladder_rows(run)[0].note
    page = render(run)
    assert "pooled, after step" not in page
    assert "seeds collapse at rungs of their own: of seed 0, the last of them" in page


def test_seeds_that_collapse_together_are_told_pooled() -> None:
    run = make_run(arms=("compliance",))
    assert run.verdict["arms"]["compliance"]["collapse_seed"] is None
    assert headline(run)[1][2].endswith("at collapse, step 8")
    assert "pooled over its seeds" in render(run)


def test_what_decides_is_shown_and_not_what_has_the_slots_name() -> None:
    """As with evals.refusal.role=shown beside a benchmark that decides."""
    run = make_run(arms=("compliance",))
    shown = [{**p, "role": "shown", "value": 1.0} for p in run.points if p["metric"] in ("refusal", "capability")]
    names = {"refusal": "harmbench", "capability": "gsm8k"}
    deciding = [{**p, "metric": names.get(p["metric"], p["metric"])} for p in run.points]
    both = ReportData(run.plan, run.verdict, [*shown, *deciding])
    assert [both.metric(slot) for slot in ("refusal", "capability")] == ["harmbench", "gsm8k"]
    assert ladder_rows(both)[0].cells[:2] == ladder_rows(run)[0].cells[:2]
