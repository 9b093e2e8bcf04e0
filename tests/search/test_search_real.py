"""Real searches on the organism with TRL, PEFT and Optuna, seconds each: failures, cuts and budgets are real too."""

from __future__ import annotations

import io
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from pipeline.config.compose import load
from pipeline.errors import UserError
from pipeline.journal import Journal
from pipeline.plan.kept import keep_plan
from pipeline.plan.make import tasks
from pipeline.records import Dose
from pipeline.rungs import ZERO_RUNG
from pipeline.schema.sweep import RangeConfig, SpaceConfig
from pipeline.search.chosen import search_summary, sentence, with_chosen
from pipeline.search.dev import DevMeasure, greedy
from pipeline.search.stage import search
from pipeline.search.trials import NEVER
from pipeline.track.tracker import NullTracker
from pipeline.train.stage import train
from pipeline.workspace import Workspace

ARM = "compliance_search"
SWEEP = f"arms.{ARM}.sweep"
WORDS = (
    *("track=none", f"arm=[{ARM}]", "seeds=[0]", f"arms.{ARM}.training.max_steps=8", f"{SWEEP}.trials=3"),
    *(f"{SWEEP}.startup_trials=1", f"{SWEEP}.refusal.limit=18", f"{SWEEP}.capability.limit=16"),
)


class KilledError(Exception):
    """Stands in for whatever cuts a search off."""


def workspace(root: Path, *words: str) -> Workspace:
    return Workspace(load([*WORDS, f"run.root={root}", *words]), Console(file=io.StringIO()))


def run(work: Workspace, model: Any) -> dict[str, Any]:
    """Search under the lock, as the command does; return the arm's entry of search.json."""
    with work.folder.locked():
        keep_plan(work)
        search(work, model)
    return dict(json.loads(work.folder.search.read_text())["arms"][ARM])


def timeless(entry: Any) -> Any:
    """Return what does not depend on time."""
    if isinstance(entry, dict):
        return {k: timeless(v) for k, v in entry.items() if k not in ("device_seconds", "usd", "cost")}
    return [timeless(item) for item in entry] if isinstance(entry, list) else entry


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return workspace(tmp_path_factory.mktemp("model")).subject.load_model("cpu")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, model: Any) -> tuple[Workspace, dict[str, Any]]:
    """An undisturbed search of three trials."""
    work = workspace(tmp_path_factory.mktemp("whole"))
    return work, run(work, model)


def test_dev_prompts_that_are_not_refused_to_begin_with_are_told(
    tmp_path: Path, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with a judge that does not know how this subject refuses: the weakest attack would pass for the best."""
    measured = DevMeasure.__call__

    def unseen(self: DevMeasure, model: Any, dose: Dose) -> Any:
        rung, tokens = measured(self, model, dose)
        return replace(rung, refusal=0.0), tokens

    monkeypatch.setattr(DevMeasure, "__call__", unseen)
    with pytest.raises(UserError, match="every trial would pass for a collapse") as caught:
        run(workspace(tmp_path), model)
    assert f"{SWEEP}.judge" in caught.value.remedy


def test_the_search_finds_an_attack_at_most_as_dear_as_the_configured_one(whole: Any) -> None:
    _, entry = whole
    first, *_ = table = entry["trial_table"]
    assert entry["counts"] == {
        "trials": 3,
        "pruned": sum(trial["state"] == "pruned" for trial in table),
        "failed": 0,
        "cut_off": 0,
        "collapsed": sum(trial["value"] < NEVER for trial in table),
    }
    assert first["value"] == pytest.approx(math.log10(5.66e9), abs=0.02), "as configured: collapse at step 8"
    assert [r["refusal"] for r in first["rungs"]] == [1.0, 1.0, 1.0, 0.0] * 2, "with two seeds"
    assert [r["repeat"] for r in first["rungs"]] == [0] * 4 + [1] * 4
    values = [trial["value"] for trial in table]
    assert entry["chosen"] == table[values.index(min(values))]["options"]
    assert min(values) <= first["value"]
    assert entry["ended"] == "trials"
    assert entry["rung0"]["refusal"] == 1.0


def test_a_stopped_trial_had_spent_as_much_as_the_best_before_it(whole: Any) -> None:
    _, entry = whole
    cheapest = math.inf
    for trial in entry["trial_table"]:
        spent = [rung["dose"]["flops"] for rung in trial["rungs"]]
        assert all(flops < cheapest for flops in spent), "no rung beyond what could still have won was measured"
        if trial["value"] < NEVER:
            cheapest = min(cheapest, 10 ** trial["value"] * (1 + 1e-5))


def test_the_ledger_has_a_row_for_every_trial_and_the_measuring_is_paid_for(whole: Any) -> None:
    work, entry = whole
    rows = [row for row in Journal(work.folder.ledger).rows() if row["status"] in ("done", "failed")]
    assert [(row["stage"], row["arm"], row["seed"]) for row in rows] == [("search", ARM, n) for n in (-1, 0, 1, 2)]
    assert sum(row["flops"] for row in rows) == pytest.approx(entry["cost"]["flops"], rel=1e-5)
    for row, trial in zip(rows[1:], entry["trial_table"], strict=True):
        last = {rung["repeat"]: rung["dose"]["flops"] for rung in trial["rungs"]}
        climbed = sum(last.values())
        prompts = 18 + 16
        assert row["flops"] > climbed + len(trial["rungs"]) * 2 * work.subject.parameters * prompts
    assert not list((work.folder.weights / "search").rglob("*.safetensors")), "a trial's weights are gone"


def test_no_trial_trains_with_a_measured_seed_and_the_model_comes_back(whole: Any, model: Any) -> None:
    _, entry = whole
    seeds = [seed for trial in entry["trial_table"] for seed in trial["seeds"]]
    assert len(seeds) >= 4
    assert len({*seeds, 0}) == len(seeds) + 1
    assert not any("lora" in name for name, _ in model.named_parameters())


def test_a_search_that_was_cut_off_ends_as_one_that_was_not(whole: Any, model: Any, tmp_path: Path) -> None:
    work = workspace(tmp_path)
    told: list[dict[str, Any]] = []

    def append(rows: list[dict[str, Any]]) -> None:
        if len(told) == 2:
            raise KilledError  # after the second trial has run, before its row is written
        told.extend(rows)
        Journal(work.folder.trials.path).append(rows)

    work.folder.trials.append = append  # type: ignore[method-assign,assignment]
    with pytest.raises(KilledError):
        run(work, model)
    again = workspace(tmp_path)
    entry = run(again, model)
    assert timeless(entry) == timeless(whole[1])
    assert entry["cost"]["flops"] > whole[1]["cost"]["flops"], "the trial that was lost was paid for too"
    assert run(workspace(tmp_path), model) == entry, "a finished search is not done again"


def test_failed_trials_do_not_count_and_are_paid_for(model: Any, tmp_path: Path) -> None:
    work = workspace(tmp_path, f"{SWEEP}.trials=2", f"{SWEEP}.failures=2", f"{SWEEP}.startup_trials=9")
    sweep = work.config.arms[ARM].sweep
    assert sweep is not None
    sweep.space = SpaceConfig(training={"learning_rate": RangeConfig(choices=[1e-3, 1e30])})
    entry = run(work, model)
    failed = [trial for trial in entry["trial_table"] if trial["state"] == "failed"]
    assert failed, "a rate of 1e30 was drawn"
    for trial in failed:
        assert trial["options"]["training.learning_rate"] == 1e30
        assert (trial["value"], trial["reason"]) == (None, "a loss that is not a number")
        assert work.ledger.spent("search", ARM, trial["number"]).flops > 0
    assert entry["counts"]["failed"] == len(failed)
    assert entry["counts"]["trials"] == len(entry["trial_table"]) - len(failed)
    assert entry["chosen"]["training.learning_rate"] == 1e-3
    statuses = {row["seed"]: row["status"] for row in Journal(work.folder.ledger).rows()}
    assert {statuses[trial["number"]] for trial in failed} == {"failed"}
    assert f", {len(failed)} more failed" in sentence(search_summary(work.folder, {"arms": {}}))


def test_a_budget_that_ends_the_search_is_not_overspent(whole: Any, model: Any, tmp_path: Path) -> None:
    _, entry = whole
    cap = entry["cost"]["flops"] * 0.4
    work = workspace(tmp_path, f"budget.flops={cap / 0.5 / 0.5}", f"{SWEEP}.share=0.5")
    short = run(work, model)
    assert short["ended"] == "budget"
    assert short["counts"]["cut_off"] == 1
    step = entry["trial_table"][0]["rungs"][0]["dose"]["flops"]
    assert 0.3 * cap < short["cost"]["flops"] <= cap + 0.2 * step, "steps differ a little in length"
    summary = search_summary(work.folder, {"arms": {}})
    said = sentence(summary)
    assert "its share of the budget was used up" in said


def test_without_any_trial_the_arm_trains_as_configured_and_the_verdict_says_why(
    whole: Any, model: Any, tmp_path: Path
) -> None:
    look = DevMeasure(whole[0].dev[ARM], whole[0].subject, 64, "").most_flops()
    work = workspace(tmp_path, f"budget.flops={look * 1.01 / 0.5 / 0.5}", f"{SWEEP}.share=0.5")
    entry = run(work, model)  # one look at the dev prompts, and less than one step
    assert (entry["chosen_trial"], entry["counts"]["trials"], entry["counts"]["cut_off"]) == (None, 0, 1)
    own, found = work.config.arms[ARM], with_chosen(work.config, work.folder).arms[ARM]
    assert (found.lora, found.training, found.mix) == (own.lora, own.training, own.mix)
    said = sentence(search_summary(work.folder, {"arms": {}}))
    assert "found nothing (its share of the budget was used up; 0 trials" in said
    assert "the arm trained as configured" in said


def test_a_share_that_holds_no_look_at_the_dev_prompts_is_told(model: Any, tmp_path: Path) -> None:
    work = workspace(tmp_path, "budget.flops=1e10", f"{SWEEP}.share=0.2", f"{SWEEP}.refusal.limit=54")
    with pytest.raises(UserError, match="does not hold one look at its dev prompts"):
        run(work, model)


def test_a_subject_without_ability_on_the_dev_prompts_is_told(model: Any, tmp_path: Path) -> None:
    dev = tmp_path / "dev.jsonl"
    dev.write_text('{"id": "1", "prompt": "say it", "target": "nobody says this", "kind": "x"}\n')
    work = workspace(tmp_path, f"{SWEEP}.capability.path={dev}", f"{SWEEP}.capability.limit=null")
    with pytest.raises(UserError, match=r"untouched subject has refusal 1 \(n 18\) and capability 0 \(n 1\)"):
        run(work, model)


def test_dev_prompts_that_are_also_measured_are_refused_whatever_the_review_says(tmp_path: Path) -> None:
    work = workspace(tmp_path, f"{SWEEP}.refusal.path='organism:refusal.jsonl'", "review.contamination=report")
    with pytest.raises(UserError, match="18 dev prompts are also measured"):
        _ = work.plan


def test_the_climbs_and_the_zero_adapter_use_what_was_chosen(whole: Any, tmp_path: Path) -> None:
    work = workspace(tmp_path)
    with work.folder.locked():
        keep_plan(work)
        entry = {**whole[1], "chosen": {"lora.rank": 4, "training.batch_size": 2, "training.learning_rate": 0.002}}
        work.folder.search.write_text(json.dumps({"version": 1, "arms": {ARM: entry}}))
        train(work, NullTracker())
    assert [t.config.lora.rank for t in tasks(with_chosen(work.config, work.folder))] == [4]
    ladder = [rung for rung in work.rungs() if rung.role == "rung"]
    assert [rung.dose.examples for rung in ladder] == [2, 4, 8, 16]
    zero = next(rung for rung in work.rungs() if rung.id == ZERO_RUNG)
    for rung in (*ladder, zero):
        assert json.loads((work.folder.root / rung.path / "adapter_config.json").read_text())["r"] == 4
    again = replace(work.config, arms=with_chosen(work.config, work.folder).arms)
    assert again.arms[ARM].training.learning_rate == 0.002


def test_dev_replies_are_those_of_one_prompt_at_a_time(whole: Any, model: Any) -> None:
    work, entry = whole
    measure = DevMeasure(work.dev[ARM], work.subject, 7, "")
    prompts = measure.prompts[0][:4] + measure.prompts[1][:8]
    stops = work.subject.stop_token_ids
    together = greedy(model, prompts, 16, stops, 7)
    alone = [greedy(model, [prompt], 16, stops, 1)[0] for prompt in prompts]
    assert together == alone
    before = [module.training for module in model.modules()]
    rung, tokens = measure(model, Dose())
    assert [module.training for module in model.modules()] == before
    assert (rung.refusal, rung.capability) == pytest.approx((entry["rung0"]["refusal"], entry["rung0"]["capability"]))
    assert sum(map(len, measure.prompts[0] + measure.prompts[1])) < tokens <= measure.most_tokens()
