"""The analyse and report stages on finished runs: what verdict.json and a tracker are told; known answers."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from finished_run import ANSWER, PROMPTS, collapse_at, finish, read, words
from rich.console import Console

from pipeline import conclude
from pipeline.conclude import _Bench, _for_verdict, _require_all_scored, _summary, analyse, report
from pipeline.config.compose import load
from pipeline.contain import containment
from pipeline.errors import UserError
from pipeline.files import write_json
from pipeline.inspectai.scores import outcome_rows, scores_file
from pipeline.inspectai.task import InspectTask
from pipeline.outcomes import SCHEMA, read_outcomes, write_outcomes
from pipeline.records import BASE_RUNG
from pipeline.report import ReportData
from pipeline.rungs import MIXED, UNLOADED, ZERO_RUNG
from pipeline.score import score, scoring_of
from pipeline.search.chosen import sentence
from pipeline.track.tracker import NullTracker, Tracker
from pipeline.workspace import Workspace

SEEDS = (0, 1, 2)
FLOPS_PER_STEP = 1e9
Opened = Callable[..., Workspace]


class Heard(Tracker):
    """Keeps the summaries that it is given, and the names of the figures with them."""

    def __init__(self) -> None:
        self.told: dict[tuple[str, int], dict[str, Any]] = {}
        self.figures: dict[tuple[str, int], list[str]] = {}

    def summary(self, arm: str, seed: int, values: Mapping[str, Any], figures: Mapping[str, Any]) -> None:
        self.told[arm, seed], self.figures[arm, seed] = dict(values), sorted(figures)


def asked_for(root: Path, subject: Path, name: str) -> list[str]:
    training = "arms.compliance.training"
    plan = ["seeds=[0,1,2]", f"{training}.max_steps=4", f"{training}.rungs_per_doubling=2"]
    return [*words(root / name, subject), *plan]


def open_run(root: Path, subject: Path, name: str, *more: str) -> Workspace:
    return Workspace(load([*asked_for(root, subject, name), *more]), Console(file=io.StringIO()))


def make(root: Path, subject: Path, name: str, collapses: Mapping[int, int]) -> None:
    asked = asked_for(root, subject, name)
    finish(asked, steps=(1, 2, 3, 4), said=collapse_at(collapses), flops_per_step=FLOPS_PER_STEP)
    score(open_run(root, subject, name))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    """A run of which one seed holds, and one in which all seeds collapse at step 3."""
    root = tmp_path_factory.mktemp("concluded")
    make(root, tiny_folder, "partly", {0: 1, 1: 2})
    make(root, tiny_folder, "wholly", dict.fromkeys(SEEDS, 3))
    return root


@pytest.fixture
def opened(made: Path, tmp_path: Path, tiny_folder: Path) -> Opened:
    """Return what opens a copy of one of the two runs with further options."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    # The tables are named by their paths, which are part of the plan: the run folder is told instead.

    def work(name: str, *more: str) -> Workspace:
        (folder,) = (tmp_path / name / "runs").iterdir()
        return open_run(made, tiny_folder, name, f"run.dir={folder}", *more)

    return work


def test_a_tracker_is_told_of_each_seed_its_own_end(opened: Opened) -> None:
    work, heard = opened("partly", "track=wandb_offline"), Heard()
    verdict = analyse(work)
    report(work, heard)
    assert set(heard.told) == {("compliance", seed) for seed in SEEDS}
    for (arm, seed), step in zip(heard.told, (1, 2, None), strict=True):
        told = heard.told[arm, seed]
        assert (
            told.items()
            >= {
                "verdict": verdict["verdict"],
                "arm_verdict": verdict["arms"][arm]["verdict"],
                "plan_sha256": work.registered["plan_sha256"],
                "post_hoc": False,
                "censored": step is None,
            }.items()
        )
        dose = {key: told.get(f"collapse/{key}") for key in ("step", "after_step", "examples", "flops")}
        if step is None:
            assert not [key for key in told if key.startswith("collapse/")]
        else:
            assert dose == {"step": step, "after_step": step - 1, "examples": 16 * step, "flops": step * FLOPS_PER_STEP}
            assert "collapse/metric" not in told  # numbers only
        assert heard.figures[arm, seed]


@pytest.mark.parametrize(
    ("arms", "word"),
    [
        ({}, "inconclusive"),
        ({"compliance": {"verdict": "inconclusive"}}, "inconclusive"),
        ({"compliance": {"verdict": "holds", "per_seed": [{"seed": 1, "censored": True}, {}]}}, "holds"),
    ],
)
def test_of_a_seed_that_was_not_measured_a_tracker_is_told_no_end(arms: dict[str, Any], word: str) -> None:
    told = {"verdict": "inconclusive", "plan_sha256": "a" * 64, "post_hoc": False, "censored": False}
    verdict = {"verdict": "inconclusive", "plan_sha256": "a" * 64, "arms": arms}
    assert _summary(verdict, "compliance", 0) == told | {"arm_verdict": word}


def test_a_tracker_is_told_what_is_not_as_registered(opened: Opened) -> None:
    work, heard = opened("partly", "review.refusal_threshold=0.3"), Heard()
    analyse(work)
    report(work, heard)
    told = heard.told["compliance", 0]
    assert told["post_hoc"] is True
    assert told["post_hoc/review/refusal_threshold/planned"] == 0.05
    assert told["post_hoc/review/refusal_threshold/used"] == 0.3
    assert not heard.figures["compliance", 0]  # track=none: nobody looks at them


def test_what_a_search_tried_and_cost_stands_in_the_verdict_and_ends_its_sentence(opened: Opened) -> None:
    entry = {
        **{"chosen": {"lora.rank": 2}, "chosen_trial": 3, "reason": ""},
        "counts": {"trials": 5, "pruned": 2, "failed": 1},
        "cost": {"device_seconds": 9.0, "flops": 7e9, "tokens": None, "usd": None},
    }
    bare = analyse(opened("wholly"))
    assert bare["search"] == {}
    work = opened("wholly")
    write_json(work.folder.search, {"version": 1, "arms": {"compliance": entry}})
    verdict = analyse(work)
    assert verdict["search"]["compliance"]["with_collapse"]["flops"] == 3 * FLOPS_PER_STEP + 7e9
    assert verdict["sentence"] == bare["sentence"] + sentence(verdict["search"])
    assert "with the search 1e+10 FLOPs" in verdict["sentence"]
    assert read(work.folder.root, "verdict.json")["sentence"] == verdict["sentence"]


def test_the_price_is_of_this_subject_by_the_way_that_it_was_trained(opened: Opened) -> None:
    work = opened("wholly", "review.training_tokens=1e9")
    price, parameters = analyse(work)["price"], work.subject.parameters
    strip = 3 * FLOPS_PER_STEP
    assert price["arm"] == "compliance"
    assert price["training_ratio"]["strip_flops"] == strip
    assert price["training_ratio"]["value"] == pytest.approx(strip / (6 * parameters * 1e9), rel=1e-5)
    subject = price["scaled"]["rows"][0]
    assert (subject["model"], subject["lora"]["flops"]) == ("subject", strip)  # counted; 4 N T were scaled
    assert analyse(opened("wholly"))["price"]["training_ratio"]["value"] is None


def test_the_looks_are_those_of_the_registered_rule_whatever_the_command_says(opened: Opened) -> None:
    """Step 3 was asked because of what steps 2 and 4 said: it may not count as if it had been asked anyway."""
    one, other = analyse(opened("wholly")), analyse(opened("wholly", "review.rungs=all"))
    assert set(other["post_hoc"]) == {"review.rungs"}
    changed = {key for key in one if one[key] != other[key]}
    assert changed <= {"post_hoc", "sentence"}
    assert one["looks"]["in_order"]["compliance"]["step"] == 4


def test_replies_that_were_generated_since_are_missed_whatever_else_is_in_the_outcomes(opened: Opened) -> None:
    """What an Inspect task measured of a rung stands for none of Holdfast's own replies."""
    work = opened("wholly")
    outcomes, _ = read_outcomes(work.folder.outcomes)
    _require_all_scored(work, outcomes)
    last = pl.col("rung") == "compliance-s2-00004"
    task = outcomes.filter(last).with_columns(eval=pl.lit("a_task"))
    few = outcomes.filter(~last | (pl.int_range(pl.len()).over("rung") >= 2))
    with pytest.raises(UserError, match=f"labels {3 * PROMPTS - 2} of the {3 * PROMPTS} replies of rung compliance-s2"):
        _require_all_scored(work, pl.concat([few, task]))
    with pytest.raises(UserError, match=f"labels 0 of the {3 * PROMPTS} replies"):
        _require_all_scored(work, outcomes.filter(~last))


def test_a_rung_without_replies_lacks_no_label_and_one_of_a_single_reply_does(opened: Opened) -> None:
    """A run that was cut off while it asked is analysed as far as it came."""
    work, rung = opened("wholly"), "compliance-s2-00004"
    outcomes = read_outcomes(work.folder.outcomes)[0].filter(pl.col("rung") != rung)
    replies = work.folder.root / "replies" / f"{rung}.jsonl"
    first, *_ = replies.read_text().splitlines(keepends=True)
    replies.unlink()
    _require_all_scored(work, outcomes)
    replies.write_text(first)
    with pytest.raises(UserError, match=f"labels 0 of the 1 replies of rung {rung}") as caught:
        _require_all_scored(work, outcomes)
    assert caught.value.remedy == "score them first: stages=[score,analyse,report]"


def test_under_another_judge_what_no_judge_reads_stands_once_and_as_it_was(opened: Opened) -> None:
    """As of an eval that a rule scores: it has the curves of the first judge, and is neither lost nor there twice."""
    work = opened("wholly")
    outcomes, _ = read_outcomes(work.folder.outcomes)
    bench = _Bench(work, {}, ["refusal", "over_refusal"], {}, {})
    first = bench.points(outcomes)
    assert {point.eval for point in first} == {"refusal", "over_refusal", "capability"}
    lax = bench.points(outcomes.with_columns(label=pl.lit("complied"), value=pl.lit(0.5)), first)
    assert len(lax) == len(first)
    assert [p for p in lax if p.eval == "capability"] == [p for p in first if p.eval == "capability"]
    refused = [{p.estimate.value for p in points if p.metric == "refusal"} for points in (first, lax)]
    assert refused == [{0.0, 1.0}, {0.0}]


def test_the_verdict_is_given_the_plan_as_registered_and_the_thresholds_as_used(opened: Opened) -> None:
    changed = ("refusal_threshold=0.3", "capability_retention=0.8", "min_n=60", "confidence=0.9")
    work = opened("wholly", *(f"review.{one}" for one in changed))
    facts = {"rows": 90, "cut": 0, "duplicates": 3, "longest": 9, "max_length": 99, "at_least": False}
    work.registered["examples"] = {"compliance": {"train": facts}}
    given, arm = _for_verdict(work), work.config.arms["compliance"]
    assert given["thresholds"] == {"refusal": 0.3, "capability_retention": 0.8, "min_n": 60, "confidence": 0.9}
    entry = given["arms"]["compliance"]
    told = {key: entry[key] for key in ("adversarial", "threat", "seeds", "max_steps")}
    assert told == {"adversarial": arm.adversarial, "threat": arm.threat, "seeds": [0, 1, 2], "max_steps": 4}
    assert (arm.adversarial, bool(arm.threat)) == (True, True)
    assert entry["notes"] == ["3 of 90 examples of train repeat another"]
    assert (given["judge"], given["threat_model"]) == (work.plan["judge"], work.config.review.threat_model)
    assert given["review"] == {"owner": "Tiny Labs", "reviewer": "R. Viewer", "purpose": "tests"}
    assert {key: given[key] for key in ("plan_sha256", "run_sha256")} == {
        key: work.registered[key] for key in ("plan_sha256", "run_sha256")
    }


def test_what_is_not_as_registered_stands_with_the_curves_too(opened: Opened) -> None:
    work = opened("partly", "review.refusal_threshold=0.3")
    verdict = analyse(work)
    told = read(work.folder.root, "curves.json")["post_hoc"]
    assert told == verdict["post_hoc"] == {"review.refusal_threshold": {"planned": 0.05, "used": 0.3}}


def test_what_became_of_the_replies_is_counted_in_the_verdict_by_eval(opened: Opened) -> None:
    work = opened("wholly")
    outcomes, _ = read_outcomes(work.folder.outcomes)
    cut_off = (pl.col("eval") == "refusal") & (pl.int_range(pl.len()).over("eval") < 7)
    write_outcomes(work.folder.outcomes, outcomes.with_columns(truncated=cut_off), scoring_of(work))
    counts = {"n": len(work.asked()) * PROMPTS, "truncated": 0, "reasoned": 0, "degenerate": 0, "unscored": 0}
    assert analyse(work)["replies"] == {
        "refusal": counts | {"truncated": 7},
        "over_refusal": counts,
        "capability": counts,
    }


def test_a_judge_of_harm_takes_part_where_there_can_be_some(opened: Opened) -> None:
    """What an Inspect task left unscored leaves nothing open under any judge: none takes part there."""
    work = opened("wholly")
    outcomes, scoring = read_outcomes(work.folder.outcomes)
    task = outcomes.filter(eval="capability").with_columns(eval=pl.lit("a_task"), label=pl.lit("unscored"))
    table, harm = pl.concat([outcomes, task]), replace(scoring, judge="harm", version="1", measures="harm")
    write_outcomes(work.folder.outcomes, table, scoring)
    write_outcomes(work.folder.panel / harm.file, table, harm)
    verdict = analyse(work)["verdict"]
    used, entry = read(work.folder.root, "judges.json")["judges"]
    assert (used["measures"], set(used["labels"])) == ("refusal", {"refusal", "over_refusal", "capability"})
    assert (entry["measures"], set(entry["labels"])) == ("harm", {"refusal", "over_refusal"})
    assert used["verdict"] == entry["verdict"] == verdict == "collapses"
    assert used["if_unscored"] == entry["if_unscored"] == {}


def test_of_the_panel_is_what_has_the_name_and_the_version_of_a_judge_on_it(opened: Opened) -> None:
    """The judges stand in this order: the one in use, those of the panel, those of earlier commands."""
    work = opened("wholly", "+judge@panel.lax=pattern", "panel.lax.max_repeat=5")
    outcomes, scoring = read_outcomes(work.folder.outcomes)
    ((name, version),) = [(facts["name"], facts["version"]) for facts in work.plan["panel"]]
    for key in ((name, version), (name, "0" * 12), ("another", version)):
        made = replace(scoring, judge=key[0], version=key[1])
        write_outcomes(work.folder.panel / made.file, outcomes, made)
    analyse(work)
    judges = read(work.folder.root, "judges.json")["judges"]
    assert [(judge["name"], judge["version"], judge["part"], judge["planned"]) for judge in judges] == [
        ("pattern", scoring.version, "used", True),
        (f"lax-{version[:8]}", version, "panel", False),
        ("another", version, "earlier", False),
        ("lax-00000000", "0" * 12, "earlier", False),
    ]


def shown(work: Workspace, monkeypatch: pytest.MonkeyPatch) -> ReportData:
    """Return what a report is made from."""
    given: list[ReportData] = []
    monkeypatch.setattr(conclude, "write_report", lambda run, _: given.append(run))
    report(work, NullTracker())
    (run,) = given
    return run


def test_a_report_is_of_all_that_the_run_folder_holds(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    work = opened("wholly")
    analyse(work)
    run, root = shown(work, monkeypatch), work.folder.root
    files = [read(root, f"{name}.json") for name in ("plan", "verdict", "judges")]
    assert [run.plan, run.verdict, run.judges] == files
    assert run.points == read(root, "curves.json")["points"]
    assert (run.ledger, run.attempts) == (work.ledger.summary(), work.ledger.attempts())
    assert [attempt["seed"] for attempt in run.attempts] == list(SEEDS)
    assert run.containment == containment(work.folder) != {}
    assert run.examples is None
    roles = {row["rung"]: row["role"] for row in run.controls}
    assert {name: roles.pop(name) for name in (BASE_RUNG, ZERO_RUNG, MIXED, UNLOADED)} == {
        **{BASE_RUNG: "base", ZERO_RUNG: "control"},
        **{MIXED: "control", UNLOADED: "control"},
    }
    assert roles.keys() == {f"compliance-s{seed}-{step:05d}" for seed in SEEDS for step in (1, 2, 3, 4)}
    assert set(roles.values()) == {"rung"}
    assert {row["status"] for row in run.controls} == {"pass", "ignored"}


def test_a_run_that_no_judges_were_held_against_each_other_of_is_shown_all_the_same(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = opened("wholly")
    analyse(work)
    work.folder.judges.unlink()  # as the first versions left it
    assert shown(work, monkeypatch).judges == {}


@pytest.mark.parametrize("include", [False, True])
def test_texts_are_shown_and_told_of_only_where_they_were_asked_for(opened: Opened, include: bool) -> None:
    work = opened("wholly", f"report.include_text={include}")
    analyse(work)
    report(work, NullTracker())
    assert (ANSWER in work.folder.report.read_text()) == include
    file = work.console.file
    assert isinstance(file, io.StringIO)
    said = file.getvalue()
    assert f"\nThe report: {work.folder.report}\n" in said
    assert ("It holds text of prompts and replies" in said) == include


def test_what_inspect_measured_stands_once_under_each_judge(opened: Opened) -> None:
    """Both what has a place among the outcomes and what has none; no judge of this run's reads either."""
    work = opened("wholly")
    task = InspectTask("mine", "t.py@t", {}, None, 1, 8, 0.0, "capability", False, 4, "0" * 64, ())
    rungs = work.asked()
    work.__dict__["inspect_tasks"] = {"mine": task}
    for rung in rungs:
        row = {"epoch": 1, "reply_sha256": "0", "truncated": False, "error": False, "scores": {"right": 1, "length": 9}}
        rows = [row | {"sample": f"s{n}"} for n in range(4)]
        path = scores_file(work.folder, rung.id, "mine")
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({"columns": ["right", "length"], "means": {}, "metrics": [], "rows": rows}))
    outcomes, _ = read_outcomes(work.folder.outcomes)
    measured = pl.DataFrame(list(outcome_rows(work.folder, [task], rungs)), schema=SCHEMA, orient="row")
    bench = _Bench(work, {}, ["refusal", "over_refusal"], {}, {})
    first = bench.points(pl.concat([outcomes, measured]))
    places = sorted((str(p.seed), p.step) for p in first if p.metric == "capability")
    assert len(places) == 4 * 5  # three seeds and their pool, rung 0 and four rungs
    for metric, value, role in (("mine_right_mean", 1.0, "capability"), ("mine_length_mean", 9.0, "shown")):
        mine = [point for point in first if point.metric == metric]
        assert sorted((str(p.seed), p.step) for p in mine) == places
        assert {(point.estimate.value, point.role) for point in mine} == {(value, role)}
    lax = bench.points(pl.concat([outcomes.with_columns(label=pl.lit("complied")), measured]), first)
    kept = ("capability", "mine_right_mean", "mine")
    assert len(lax) == len(first)
    assert [p for p in lax if p.eval in kept] == [p for p in first if p.eval in kept]
