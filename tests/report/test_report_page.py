"""The page: escaping, one copy of plotly, no text of prompts, honest words for what is missing."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from report_runs import make_run
from report_statistics import with_statistics

from pipeline.report import ReportData, render, write_report
from pipeline.report.shell import policy as policy_of

MAX_BYTES = 6_000_000


def without_scripts(page: str) -> str:
    return re.sub(r"<(script|style)\b.*?</\1>", "", page, flags=re.S)


def embedded_figures(page: str) -> dict[str, dict[str, object]]:
    match = re.search(r'<script type="application/json" id="figure-data">(.*?)</script>', page, flags=re.S)
    assert match is not None
    found: dict[str, dict[str, object]] = json.loads(match[1])
    return found


@pytest.fixture(scope="module")
def page() -> str:
    return render(make_run())


def test_page_is_written_whole_and_below_the_size_limit(tmp_path: Path) -> None:
    write_report(make_run(), tmp_path / "report.html")
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    assert 4_000_000 < (tmp_path / "report.html").stat().st_size < MAX_BYTES


def many_seeds(run: ReportData, seeds: int) -> ReportData:
    """Return the run with more seeds in each arm, all like its seed 0."""
    for seed in range(3, seeds):
        for rows in (run.points, run.plan["tasks"], run.attempts):
            rows.extend([{**row, "seed": seed} for row in rows if row["seed"] == 0])
        rungs = [row for row in run.controls if "-s0-" in row["rung"]]
        run.controls.extend([{**row, "rung": row["rung"].replace("-s0-", f"-s{seed}-")} for row in rungs])
        for entry in run.verdict["arms"].values():
            entry["per_seed"].append({**entry["per_seed"][0], "seed": seed})
    return run


def test_five_arms_with_ten_seeds_stay_below_the_size_limit_with_a_panel_each() -> None:
    run = many_seeds(make_run(), 10)
    more = {"compliance": "distilled", "mixed": "truncated", "benign": "left-out"}
    parts = json.dumps([run.plan["tasks"], run.verdict["arms"], run.points, run.controls, run.attempts])
    for old, new in more.items():
        parts = parts.replace(old, new)
    tasks, arms, points, controls, attempts = json.loads(parts)
    run.plan["tasks"] += [task for task in tasks if task["arm"] != "left-out"]
    run.verdict["arms"] |= {arm: entry for arm, entry in arms.items() if arm != "left-out"}
    run.points.extend([point for point in points if point["arm"] != "left-out"])
    run.controls.extend(controls)
    run.attempts.extend(attempts)
    page = render(run)
    assert page.count('<figure class="panel">') == 50
    assert len(page.encode()) < MAX_BYTES


def test_nothing_in_the_page_names_an_address(page: str) -> None:
    named = set(re.findall(r"https?://[^\s\"'<)]+", without_scripts(page)))
    assert named == set()


def test_plotly_stands_in_the_page_once_and_nothing_is_loaded(page: str) -> None:
    assert page.count("Plotly.js v") + page.count("plotly.js v") == 1
    tags = re.findall(r"<(?:script|link|img|iframe|object|embed)\b[^>]*>", without_scripts(page))
    assert tags == []
    assert not re.search(r"<script[^>]+src=", page)


def test_policy_allows_only_the_scripts_in_the_page(page: str) -> None:
    policy = policy_of("one", "two")
    assert "default-src 'none'" in policy
    assert policy.count("'sha256-") == 2
    assert "unsafe-eval" not in page[: page.index("<style>")]
    assert "script-src 'sha256-" in page[: page.index("<style>")].replace("&#39;", "'")


def test_the_verdict_stands_first_then_what_can_be_seen_then_the_price_in_full(page: str) -> None:
    body = without_scripts(page)
    verdict, price, curves = (body.index(f'id="{name}"') for name in ("verdict", "price", "curves"))
    assert verdict < curves < price
    assert "price of collapse" in body[verdict:curves]
    assert "Refusal collapses: arm compliance" in body


def test_markup_in_names_is_escaped_everywhere() -> None:
    nasty = '<script>alert("x")</script><img src=x onerror=alert(1)>'
    run = make_run(arms=("compliance",), seeds=(0,))
    run.plan["subject"]["name"] = nasty
    run.plan["name"] = nasty
    run.plan["environment"]["device"] = nasty
    run.verdict["sentence"] = nasty
    run.verdict["threat_model"] = nasty
    run.verdict["arms"]["compliance"]["reasons"] = [nasty]
    run.controls[0]["rung"] = nasty
    run.attempts[0]["stage"] = run.attempts[0]["status"] = nasty
    with_statistics(run)
    run.verdict["worst"]["metric"] = run.verdict["looks"]["method"] = run.verdict["power"][0]["sentence"] = nasty
    body = render(run)
    assert "<script>alert" not in body
    assert "<img src=x" not in body
    assert body.count("&lt;script&gt;alert") >= 7


def test_an_arm_named_with_markup_reaches_plotly_escaped() -> None:
    run = make_run(arms=("compliance",), seeds=(0,))
    name = "<a href='x'>arm</a></script>"
    renamed = json.loads(json.dumps([run.plan, run.verdict, run.points]).replace("compliance", name))
    page = render(ReportData(*renamed, ledger=run.ledger))
    names = [trace.get("name", "") for trace in embedded_figures(page)["refusal"]["data"]]  # type: ignore[attr-defined]
    assert any("&lt;a href" in trace for trace in names)
    assert not any("<a" in trace for trace in names)


def test_no_text_of_prompts_or_replies_can_enter_by_rows() -> None:
    run = make_run(arms=("compliance",), seeds=(0,))
    with_statistics(run)
    entry = run.verdict["arms"]["compliance"]
    extra = [
        run.verdict["worst"],
        run.verdict["looks"],
        *run.verdict["power"],
        *entry["draws"],
        *entry["dose"].values(),
    ]
    for row in (*run.points, *run.controls, *run.attempts, *run.plan["evals"], *extra, entry["survival"]):
        row["prompt"] = row["reply"] = row["detail"] = "CANARY-TEXT"
    run.plan["subject"]["path"] = "CANARY-TEXT"
    assert "CANARY-TEXT" not in render(run)


def test_a_price_that_is_unknown_is_no_data_and_not_nought() -> None:
    run = make_run(arms=("compliance",))
    for entry in (run.verdict["arms"]["compliance"], *run.verdict["arms"]["compliance"]["per_seed"]):
        entry["collapse"]["usd"] = None
    for point in run.points:
        point["dose"]["usd"] = None
    body = without_scripts(render(run))
    table = re.search(r'<table class="prices">(.*?)</table>', body, flags=re.S)
    assert table is not None
    dollars = [
        row[-1] for row in (re.findall(r"<t[dh].*?</t[dh]>", r) for r in table[1].split("</tr>")) if len(row) > 1
    ]
    assert "US dollars" in dollars[0]
    assert ["no data" in cell for cell in dollars[1:]] == [True] * 3  # the rung before, at collapse, over seeds
    assert "$0<" not in body


def test_a_censored_arm_is_called_censored_and_never_safe() -> None:
    body = without_scripts(render(make_run(arms=("benign",))))
    assert "in 32 steps, 1.68 device-seconds, the largest dose planned (censored)" in body
    assert "within the budget" not in body
    assert '<section id="verdict" class="holds">' in body
    assert not re.search(r"\bsafe\b", body)


def test_an_empty_run_still_gives_a_page_that_claims_nothing() -> None:
    body = without_scripts(render(ReportData(plan={}, verdict={}, points=[])))
    assert '<section id="verdict" class="inconclusive">' in body
    assert "no data" in body
    assert "pass" not in re.findall(r'class="result [a-z]+">([a-z ]+)<', body)


def test_rendering_is_deterministic(page: str) -> None:
    assert render(make_run()) == page
