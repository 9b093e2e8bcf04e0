"""`arms.NAME.sweep`: composes, is checked as a whole, stands in the plan and its digests, and takes its own share."""

from __future__ import annotations

import copy
import math
from dataclasses import asdict, replace
from typing import Any

import pytest

from pipeline.config.compose import load
from pipeline.errors import UserError
from pipeline.plan.facts import JudgeFacts, SubjectFacts, TableFacts
from pipeline.plan.make import make_plan, tasks, training_caps
from pipeline.plan.protocol import protocol
from pipeline.schema import Config
from pipeline.search.budget import SearchFacts, arm_caps, search_caps

SWEEP = "arms.compliance_search.sweep"
WORDS = ("arm=[compliance,compliance_search]", "seeds=[0,1]")
TABLE = TableFacts(100, "c" * 64, prompt_tokens=20.0, response_tokens=5.0)
JUDGE = JudgeFacts("pattern", "pattern", "pattern-1")
FACTS = {"compliance_search": SearchFacts(replace(TABLE, rows=10), replace(TABLE, rows=20), JUDGE)}


@pytest.fixture
def config() -> Config:
    return load([*WORDS, "budget.device_seconds=1e9"])


def plan_of(config: Config, facts: dict[str, SearchFacts] = FACTS) -> dict[str, Any]:
    tables, evals = dict.fromkeys(config.data, TABLE), dict.fromkeys(config.evals, TABLE)
    return make_plan(config, SubjectFacts({"sha256": "a" * 64}, 1000), tables, evals, JUDGE, (), facts)


def told(*overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        load([*WORDS, *overrides])
    return caught.value.what


@pytest.mark.parametrize(
    ("override", "fault"),
    [
        (f"{SWEEP}.trials=0", f"{SWEEP}.trials: 0 must be 1 or more"),
        (f"{SWEEP}.repeats=0", f"{SWEEP}.repeats: 0 must be 1 or more"),
        (f"{SWEEP}.share=1", f"{SWEEP}.share: 1 must lie between 0 and 1"),
        (f"{SWEEP}.share=.nan", f"{SWEEP}.share: "),
        (f"{SWEEP}.capability_goal=0", f"{SWEEP}.capability_goal: 0 must be above 0"),
        (f"{SWEEP}.judge.kind=llm", f"{SWEEP}.judge.kind: a judge that is a language model needs a server"),
        (f"{SWEEP}.judge.kind=guess", f"{SWEEP}.judge.kind: 'guess' is unknown; use one of"),
        (f"{SWEEP}.judge.refused=[]", f"{SWEEP}.judge.refused: no pattern is given"),
        (f"{SWEEP}.space.training.max_steps.low=1", f"{SWEEP}.space.training.max_steps: cannot be searched"),
        (f"{SWEEP}.space.lora.rank.choices=[2,4]", f"{SWEEP}.space.lora.rank.choices: must be different, and hold 8"),
        (f"{SWEEP}.space.lora.rank.choices=[8,0]", f"{SWEEP}.space.lora.rank.choices: [8, 0] must lie between 1"),
        (f"{SWEEP}.space.lora.rank.choices=[8,big]", f"{SWEEP}.space.lora.rank.choices: 'big' is no int"),
        (f"{SWEEP}.space.lora.rank.low=1", f"{SWEEP}.space.lora.rank: give either choices or low and high"),
        (f"{SWEEP}.space.lora.dropout.low=0", f"{SWEEP}.space.lora.dropout: give choices, or both low and high"),
        (f"{SWEEP}.space.training.learning_rate.low=0.01", "the arm's own 0.001 lies outside 0.01 to 0.03"),
        (f"{SWEEP}.space.training.learning_rate.low=0", "with log above 0"),
        (f"{SWEEP}.space.training.learning_rate.high=1e-5", "must be below high=1e-05"),
        (f"{SWEEP}.space.training.schedule={{low: 1, high: 2}}", "give choices: this option is a name"),
        (f"{SWEEP}.space.mix.compliance={{low: 0.1, high: 1}}", "must hold this table and a share of another"),
        (f"{SWEEP}.space={{training: null, lora: null}}", f"{SWEEP}.space"),
        (f"{SWEEP}.triels=3", f"{SWEEP}.triels: unknown key; did you mean trials?"),
        ("arms.compliance_search.training.gradient_accumulation=4", "multiples of gradient_accumulation=4"),
    ],
)
def test_every_fault_is_told_with_its_key(override: str, fault: str) -> None:
    assert fault in told(override)


def test_all_faults_are_told_at_once() -> None:
    said = told(f"{SWEEP}.trials=0", f"{SWEEP}.share=2", f"{SWEEP}.space.lora.rank.choices=[2]", "sedes=[1]")
    assert "the configuration has 4 faults" in said


def test_a_search_needs_what_it_measures_with() -> None:
    said = told("eval=[inspect]", "task=a/b")
    assert f"{SWEEP}: needs an eval of role refusal" in said
    assert f"{SWEEP}: needs an eval of role capability" in said


def test_a_missing_optuna_is_told_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.config.sweep.find_spec", lambda _: None)
    assert f"{SWEEP}: Optuna is not installed; add the extra `search`" in told()
    assert load(["arm=[compliance]"]), "without a sweep nothing needs it"


def test_search_and_climbs_share_what_the_arm_may_use(config: Config) -> None:
    config.budget = replace(config.budget, device_seconds=1000.0, measure_reserve=0.4, usd=6.0, flops=None)
    sweep = config.arms["compliance_search"].sweep
    assert sweep is not None
    sweep.share = 0.25
    searched = search_caps(config, "compliance_search")
    climbs = [training_caps(config, task) for task in tasks(config) if task.arm == "compliance_search"]
    assert searched.device_seconds == pytest.approx(75.0)  # 1000 x 0.6 / 2 arms x 0.25
    assert [caps.device_seconds for caps in climbs] == pytest.approx([112.5, 112.5])
    assert searched.usd + sum(caps.usd for caps in climbs) == pytest.approx(1.8)
    assert math.isinf(searched.flops)
    assert arm_caps(config, "compliance").device_seconds == pytest.approx(300.0)
    assert search_caps(config, "compliance").device_seconds == 0.0, "an arm without a search may not search"


def test_the_digests_know_the_space_the_dev_prompts_and_their_judge(config: Config) -> None:
    before = plan_of(config)["run_sha256"]
    other = copy.deepcopy(config)
    sweep = other.arms["compliance_search"].sweep
    assert sweep is not None
    sweep.refusal.path, sweep.judge.name = "elsewhere.jsonl", "another name"
    assert plan_of(other)["run_sha256"] == before, "where a table lies and what a judge is called change nothing"
    for change in (
        lambda s: setattr(s.space.training["learning_rate"], "low", 1e-4),
        lambda s: setattr(s, "trials", 7),
        lambda s: setattr(s, "refusal_goal", 0.1),
        lambda s: s.judge.refused.append("no"),
        lambda s: setattr(s.refusal, "limit", 5),
    ):
        moved = copy.deepcopy(config)
        change(moved.arms["compliance_search"].sweep)
        assert plan_of(moved)["run_sha256"] != before
    facts = FACTS["compliance_search"]
    for other_facts in (
        replace(facts, refusal=replace(TABLE, rows=10, sha256="d" * 64)),
        replace(facts, capability=replace(TABLE, rows=20, sha256="d" * 64)),
        replace(facts, judge=replace(JUDGE, version="pattern-2")),
    ):
        assert plan_of(config, {"compliance_search": other_facts})["run_sha256"] != before


def test_a_threshold_that_is_changed_later_leaves_the_run_where_it_is(config: Config) -> None:
    before = plan_of(config)["run_sha256"]
    config.review.refusal_threshold, config.review.capability_retention = 0.2, 0.5
    assert plan_of(config)["run_sha256"] == before, "the search has goals of its own"


def test_the_estimate_counts_the_search_at_its_longest(config: Config) -> None:
    for spec in config.evals.values():
        spec.max_tokens = 10
    estimate = plan_of(config)["estimate"]
    # 6 x 2 climbs: 32 steps of 16 x 25 tokens, 4 N each; 6 rungs x (10 + 20) prompts of 20 + 10 tokens, 2 N each.
    assert estimate["search_flops"] == 6 * 2 * (4000 * 32 * 400 + 6 * 2000 * 30 * 30)
    flops = estimate["training_flops"] + estimate["measuring_flops"] + estimate["search_flops"]
    assert estimate["device_seconds"] == pytest.approx(flops / config.budget.assumed_flops_per_second)


def test_a_share_too_small_for_one_step_is_told(config: Config) -> None:
    step = plan_of(config)["estimate"]["dearest_step_flops"]
    config.budget = replace(config.budget, device_seconds=None, flops=step * 100)
    sweep = config.arms["compliance_search"].sweep
    assert sweep is not None
    sweep.share = 0.01
    with pytest.raises(UserError, match=r"budget\.flops: the search of arm compliance_search may use .* too small"):
        plan_of(config)


def test_the_plan_and_its_protocol_tell_the_search(config: Config) -> None:
    plan = plan_of(config)
    found = plan["search"]["compliance_search"]
    assert found["space"]["training.learning_rate"]["high"] == 3e-2
    assert found["dev"] == {
        "refusal": {"prompts": 10, "sha256": "c" * 64},
        "capability": {"prompts": 20, "sha256": "c" * 64},
    }
    text = protocol(plan, "printed now")
    assert "options searched first: 6 trials of 2 seeds over lora.rank" in text
    assert "10 dev prompts for refusal" in text
    assert asdict(search_caps(config, "compliance_search"))["device_seconds"] == found["caps"]["device_seconds"]
