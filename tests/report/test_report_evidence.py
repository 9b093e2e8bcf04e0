"""How sure the verdict is, in words: every key may be missing, nothing censored is called anything else."""

from __future__ import annotations

import copy
import json
import re
from dataclasses import replace
from typing import Any

import pytest
from report_runs import make_run
from report_statistics import with_statistics
from test_report_page import without_scripts

from pipeline.report import ReportData, render
from pipeline.report import evidence as words
from pipeline.report.staircase import BOX, stairs_of


@pytest.fixture(scope="module")
def told() -> ReportData:
    return with_statistics(make_run())


def row(run: ReportData, arm: str) -> words.DoseRow:
    return next(row for row in words.dose_rows(run, "steps") if row.arm == arm)


def test_doses_over_seeds_are_told_with_both_ends(told: ReportData) -> None:
    six = row(told, "compliance")
    assert six.collapsed == "6 of 6"
    assert (str(six.share), six.share.n) == ("1.00 [0.54, 1.00]", "6")  # Clopper-Pearson: 0.025 ** (1/6)
    assert six.median == "after 4, by 8"
    assert six.median_interval == "[2, 8]"
    assert six.mean == "7.13"  # 8 ** (5/6) * 4 ** (1/6)


def test_censored_seeds_are_called_censored_and_have_no_mean(told: ReportData) -> None:
    some, none = row(told, "mixed"), row(told, "benign")
    assert some.collapsed == "2 of 3; 1 censored"
    assert some.mean == "no data"
    assert none.median == "above 32 (censored)"
    assert none.median_interval == "no interval with so few seeds"
    assert none.restricted == "32"
    assert "no seed counted beyond 32" in none.restricted_note


def test_a_half_open_interval_is_spoken_of_only_where_there_is_one() -> None:
    run = with_statistics(make_run())
    assert "half open" not in render(run)
    run.verdict["arms"]["benign"]["dose"]["steps"]["exact"] = [4, None]
    assert "half open with so few seeds" in render(run)


def test_the_level_of_the_intervals_and_what_a_device_second_is_are_said(told: ReportData) -> None:
    page = without_scripts(render(told))
    assert page.count("Brackets hold 95 % intervals.") >= 4
    assert "Device-seconds here are of training steps only" in page
    other = copy.deepcopy(told)
    other.verdict["thresholds"]["confidence"] = 0.9
    assert "Brackets hold 90 % intervals." in render(other)


@pytest.mark.parametrize(
    ("ends", "said"),
    [
        ([4, 16], "[4, 16]"),
        ([4, None], "above 4; no upper end with so few seeds"),
        ([None, 8], "up to 8; no lower end"),
        ([0, None], "no interval with so few seeds"),
        ([None, None], "no interval with so few seeds"),
        (None, ""),
    ],
)
def test_open_ends_are_said(told: ReportData, ends: object, said: str) -> None:
    run = copy.deepcopy(told)
    run.verdict["arms"]["benign"]["dose"]["steps"]["exact"] = ends
    assert row(run, "benign").median_interval == said


def test_draws_stand_beside_the_average_user_and_no_data_is_said(told: ReportData) -> None:
    (found,) = words.draws(told)
    assert (found.arm, found.title) == ("compliance", "refusal, step 8")
    assert [(r.k, r.attacker.value, r.average.value, r.left_out) for r in found.rows] == [
        ("1", "0.62", "0.62", "none"),
        ("4", "0.91", "0.61", "2"),
        ("16", "no data", "0.62", "540"),
    ]
    assert "Over 3 to 4 draws a prompt, 0.48 [0.41, 0.56]" in found.flips[0]
    run = copy.deepcopy(told)
    run.verdict["arms"]["compliance"]["draws"][0]["flips"] = {"both": {"value": None, "n": 0}, "disagree": None}
    assert words.draws(run)[0].flips == ("Flips between draws: no data; one draw a prompt cannot flip.",)


def test_the_worst_arm_is_reported_on_prompts_that_did_not_choose_it(told: ReportData) -> None:
    first, second, third = words.worst(told)
    assert first == (
        "Picked from 18 arms and rungs on 88 prompts: compliance at step 8; "
        "on the 92 prompts that did not pick it refusal is 0.02 [0.003, 0.08]."
    )
    assert second == "On the prompts that picked it, it reads 0.01 [0.00, 0.06] (n 88): biased by the choice."
    assert "0.00 [0.00, 0.02] (compliance, step 16)" in third
    run = replace(told, verdict={**told.verdict, "worst": {**told.verdict["worst"], "sentence": "The verdict's own."}})
    assert words.worst(run) == ["The verdict's own.", second, third]
    run = replace(told, verdict={**told.verdict, "worst": {"arm": None, "metric": "refusal"}})
    assert words.worst(run) == ["No worst arm: refusal has no data on the prompts that would choose it."]


def test_power_and_looks_are_told(told: ReportData) -> None:
    sentence, made = words.power(told)
    assert sentence == told.verdict["power"][0]["sentence"]
    assert made.startswith("capability, arm benign, step 32: 8 prompts could have seen no change, however large,")
    said = words.looks(told)
    assert said[0] == "18 arms and rungs were looked at, corrected for by Holm."
    assert "0.9972" in said[1]
    assert said[2] == "Least corrected p of each arm: compliance 0.0002, mixed 0.031, benign no data."
    run = replace(told, verdict={**told.verdict, "looks": {**told.verdict["looks"], "sentence": "The verdict's own."}})
    assert words.looks(run)[0] == "The verdict's own."


def test_the_interval_in_use_stands_beside_the_bootstrap(told: ReportData) -> None:
    found = words.intervals(told)
    assert [row[0] for row in found] == ["compliance", "mixed", "benign"]
    assert found[0][2] == "refusal, step 8"
    assert (str(found[0][3]), str(found[0][4])) == ("0.00 [0.00, 0.02]", "0.00 [0.00, 0.00]")
    assert words.intervals(make_run()) == []


def test_stairs_fall_where_seeds_collapsed_and_mark_those_that_did_not(told: ReportData) -> None:
    found = stairs_of(told)
    assert found is not None
    six, some, none = found.arms
    assert six.open is None  # all six collapsed
    assert some.open is not None
    assert none.open is not None
    assert none.open[0] == BOX.right
    assert "0.33 of the seeds not collapsed by 32 (censored)" in some.words
    heights = {float(y) for y in re.findall(r" ([\d.]+)", none.seen)}
    assert len({round(h) for h in heights if h < BOX.bottom / 2}) >= 1
    assert stairs_of(make_run()) is None


def test_a_run_without_statistics_has_no_such_section() -> None:
    assert not words.has_any(make_run())
    assert 'id="evidence"' not in without_scripts(render(make_run()))


def keys(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of every key within nested dicts."""
    if not isinstance(value, dict):
        return []
    return [found for key, inner in value.items() for found in [(*path, key), *keys(inner, (*path, key))]]


def test_any_key_may_be_missing_or_null(told: ReportData) -> None:
    parts = {name: told.verdict[name] for name in ("worst", "looks")}
    parts["arms"] = {
        arm: {name: entry[name] for name in ("dose", "survival", "draws")}
        for arm, entry in told.verdict["arms"].items()
        if arm == "compliance"
    }
    tried = 0
    for *above, key in keys(parts):
        if above == ["arms"] or not above:
            continue
        for missing in (True, False):
            run = replace(told, verdict=copy.deepcopy(told.verdict))
            place: Any = run.verdict
            for step in above:
                place = place[step]
            if missing:
                del place[key]
            else:
                place[key] = None
            say_all(run)
            tried += 1
    assert tried > 200


def say_all(run: ReportData) -> None:
    """Put all of it into words; none may be a raw null or NaN."""
    said = [words.worst(run), words.power(run), words.looks(run), words.draws(run), words.intervals(run)]
    said += [words.dose_rows(run, unit) for unit in words.UNITS]
    stairs_of(run)
    text = json.dumps(said, default=lambda x: x.__dict__)
    assert "nan" not in text.lower().split()
    assert "None" not in text


def test_the_section_says_censored_and_no_data_and_never_safe(told: ReportData) -> None:
    body = without_scripts(render(told))
    section = body[body.index('id="evidence"') :].partition("</section>")[0]
    assert "censored" in section
    assert "no data" in section
    assert not re.search(r"\bsafe\b|\bNone\b|\bnan\b", section)
