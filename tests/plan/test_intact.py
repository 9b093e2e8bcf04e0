"""What counts as registered is what was written: a plan.json that was edited is told, before anything rests on it."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from commands import run_main
from finished_run import finish, read, words

from pipeline.config.compose import load
from pipeline.files import digest
from pipeline.plan.facts import JudgeFacts, SubjectFacts, TableFacts
from pipeline.plan.intact import digests
from pipeline.plan.make import make_plan
from pipeline.search.budget import SearchFacts

FACTS = TableFacts(100, "c" * 64, 20.0, 5.0)
JUDGE = JudgeFacts("mine", "pattern", "a" * 12)
LATER = "stages=[score,analyse]"


@pytest.mark.parametrize(
    ("identity", "asked"),
    [
        ({"organism": "d" * 64}, []),
        ({"sha256": "d" * 64}, ["budget.devices=2", "arms.compliance.training.rungs_per_doubling=2"]),
        ({"hub": "a/b", "revision": "d" * 40}, ["panel={second:${judge}}", "budget.training_devices=2"]),
        ({"hub": "a/b", "revision": "d" * 40, "chat_template": "e" * 64}, ["arm=[compliance_search,benign]"]),
    ],
)
def test_both_digests_can_be_taken_again_from_plan_json(identity: dict[str, str], asked: list[str]) -> None:
    config = load(["budget.device_seconds=1e9", *(word for word in asked if not word.startswith("panel"))])
    if any(word.startswith("panel") for word in asked):
        config.panel = {"second": copy.deepcopy(config.judge)}
    search = {name: SearchFacts(FACTS, FACTS, JUDGE) for name, arm in config.arms.items() if arm.sweep}
    tables, evals = dict.fromkeys(config.data, FACTS), dict.fromkeys(config.evals, FACTS)
    panel = tuple(JUDGE for _ in config.panel)
    made = make_plan(config, SubjectFacts(identity, 1000, "f" * 64), tables, evals, JUDGE, panel, search)
    assert bool(search) is ("arm=[compliance_search,benign]" in asked)
    written = json.loads(json.dumps(made, sort_keys=True))
    assert digests(written) == {key: made[key] for key in ("run_sha256", "plan_sha256")}


@pytest.fixture
def overrides(tmp_path: Path, tiny_folder: Path) -> list[str]:
    return words(tmp_path, tiny_folder)


def edit(run: Path, change: Any) -> dict[str, Any]:
    plan = read(run, "plan.json")
    change(plan)
    (run / "plan.json").write_text(json.dumps(plan))
    return dict(plan)


def test_thresholds_that_were_written_into_the_registered_plan_are_found(
    overrides: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """With the edit the verdict at another threshold read as registered: nothing was post hoc."""
    run = finish(overrides)
    loose = [*overrides, "review.refusal_threshold=0.5"]
    run_main([*loose, LATER], monkeypatch, capfd)
    assert list(read(run, "verdict.json")["post_hoc"]) == ["review.refusal_threshold"]
    before = (run / "verdict.json").read_bytes()
    edit(run, lambda plan: plan["config"]["review"].update(refusal_threshold=0.5))
    said = run_main([*loose, LATER], monkeypatch, capfd, code=2).err
    assert f"{run}/plan.json was changed since it was written: its content has the plan_sha256" in said
    assert "bring the old file back" in said
    assert (run / "verdict.json").read_bytes() == before


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda plan: plan["config"].update(seeds=[7]), "its content has the run_sha256"),
        (lambda plan: plan["judge"].update(version="0" * 12), "its content has the plan_sha256"),
        (lambda plan: plan.pop("panel"), "it lacks a part of a plan ('panel')"),
        (lambda plan: plan.update(created="2020-01-01 00:00:00+00:00"), "reproduce.json has another digest of it"),
    ],
)
def test_what_was_edited_is_told(
    change: Any, told: str, overrides: list[str], monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    run = finish(overrides)
    run_main([*overrides, "stages=[score]"], monkeypatch, capfd)
    assert read(run, "reproduce.json")["plan_file_sha256"] == digest(read(run, "plan.json"))
    edit(run, change)
    assert told in run_main([*overrides, "stages=[score]"], monkeypatch, capfd, code=2).err


def test_a_plan_of_another_holdfast_is_told_as_that(
    overrides: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    edit(finish(overrides), lambda plan: plan.update(version=1))
    said = run_main([*overrides, "stages=[score]"], monkeypatch, capfd, code=2).err
    assert "written by another Holdfast" in said
    assert "was changed since" not in said
