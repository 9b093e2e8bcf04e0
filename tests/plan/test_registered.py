"""What may differ from the registered plan, what may not, and in which words it is told."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from pipeline.config.compose import load
from pipeline.plan.facts import JudgeFacts, SubjectFacts, TableFacts
from pipeline.plan.make import make_plan
from pipeline.plan.registered import deciding, post_hoc, post_hoc_summary, post_hoc_words, reply_differences
from pipeline.schema import Config

FACTS = TableFacts(100, "c" * 64, 20.0, 5.0)
PATTERN = JudgeFacts("pattern", "pattern", "a" * 12)


@pytest.fixture(scope="module")
def config() -> Config:
    return load(["budget.device_seconds=1e9"])


def plan(config: Config, judge: JudgeFacts = PATTERN, panel: tuple[JudgeFacts, ...] = ()) -> dict[str, Any]:
    tables, evals = dict.fromkeys(config.data, FACTS), dict.fromkeys(config.evals, FACTS)
    return make_plan(config, SubjectFacts({"sha256": "b" * 64}, 1000), tables, evals, judge, panel)


def test_the_same_plan_differs_in_nothing(config: Config) -> None:
    assert post_hoc(plan(config), plan(config)) == {}
    assert reply_differences(plan(config), plan(config)) == []
    assert post_hoc_words({}) == deciding({}) == []


def test_another_judge_is_told_with_both_versions_and_without_its_own_options(config: Config) -> None:
    changed = copy.deepcopy(config)
    changed.judge.kind, changed.judge.refused, changed.judge.max_repeat = "local", [], 4
    found = post_hoc(plan(config), plan(changed, JudgeFacts("local", "local", "d" * 12)))
    assert found == {
        "judge": {
            "planned": {"name": "pattern", "kind": "pattern", "version": "a" * 12},
            "used": {"name": "local", "kind": "local", "version": "d" * 12},
        }
    }
    assert post_hoc_words(found) == ["judge: local (dddddddd), planned was pattern (aaaaaaaa)"]
    assert deciding(found) == ["judge"]


def test_an_option_of_the_same_judge_is_told_with_both_values(config: Config) -> None:
    changed = copy.deepcopy(config)
    changed.judge.max_repeat, changed.judge.reasoning = 4, []
    found = post_hoc(plan(config), plan(changed, JudgeFacts("pattern", "pattern", "d" * 12)))
    assert set(found) == {"judge", "judge.max_repeat", "judge.reasoning"}
    assert found["judge.max_repeat"] == {"planned": 8, "used": 4}
    assert "judge.reasoning: 0 entries, planned was 3 entries" in post_hoc_words(found)


def test_a_judge_by_another_name_is_the_same_judge(config: Config) -> None:
    assert post_hoc(plan(config), plan(config, JudgeFacts("mine", "pattern", "a" * 12))) == {}


def test_thresholds_are_told_and_decide_a_panel_is_told_and_does_not(config: Config) -> None:
    changed = copy.deepcopy(config)
    changed.review.refusal_threshold, changed.review.threat_model = 0.5, "x" * 100
    found = post_hoc(plan(config), plan(changed, panel=(JudgeFacts("lax", "pattern", "d" * 12),)))
    assert deciding(found) == ["review.refusal_threshold", "review.threat_model"]
    assert post_hoc_words(found)[:2] == [
        "panel: lax (dddddddd), planned was none",
        "review.refusal_threshold: 0.5, planned was 0.05",
    ]
    assert all(len(line) < 160 for line in post_hoc_words(found))
    assert reply_differences(plan(config), plan(changed)) == []


def test_what_proves_the_replies_is_not_after_the_replies(config: Config) -> None:
    changed = copy.deepcopy(config)
    changed.review.canaries, changed.seeds = 3, [5]
    assert post_hoc(plan(config), plan(changed)) == {}
    assert reply_differences(plan(config), plan(changed)) == [
        "config.review.canaries: 12 → 3",
        "config.seeds: [0, 1, 2] → [5]",
    ]


def test_who_asks_and_what_is_scaled_are_told_and_decide_nothing(config: Config) -> None:
    changed = copy.deepcopy(config)
    changed.review.reviewer, changed.review.training_tokens = "another", 1e12
    changed.price.mfu, changed.price.parameters = 0.2, [8e9]
    changed.price.devices["h200"].usd_per_hour = 1.0
    found = post_hoc(plan(config), plan(changed))
    assert post_hoc_words(found) == [
        "review.reviewer: another, planned was null",
        "review.training_tokens: 1e+12, planned was null",
        "price.devices.h200.usd_per_hour: 1, planned was 3.5",
        "price.mfu: 0.2, planned was 0.4",
        "price.parameters: [8e+09], planned was [8e+09, 7e+10]",
    ]
    assert deciding(found) == []
    assert plan(config)["plan_sha256"] != plan(changed)["plan_sha256"]
    assert plan(config)["run_sha256"] == plan(changed)["run_sha256"]
    assert reply_differences(plan(config), plan(changed)) == []


def test_a_plan_of_before_there_was_a_price_differs_in_nothing_it_did_not_have(config: Config) -> None:
    older = copy.deepcopy(plan(config))
    del older["config"]["price"]
    for key in ("owner", "reviewer", "purpose", "training_tokens"):
        del older["config"]["review"][key]
    assert post_hoc(older, plan(config)) == {}
    assert reply_differences(older, plan(config)) == []


def test_a_summary_has_both_values_of_each_difference(config: Config) -> None:
    changed = copy.deepcopy(config)
    changed.review.refusal_threshold, changed.review.owner, changed.judge.refused = 0.5, "Ada", ["no"]
    told = post_hoc_summary(post_hoc(plan(config), plan(changed, JudgeFacts("p", "pattern", "d" * 12))))
    threshold = {told[f"post_hoc/review/refusal_threshold/{which}"] for which in ("planned", "used")}
    assert threshold == {0.05, 0.5}
    assert told["post_hoc/judge/used"]["version"] == "d" * 12
    assert told["post_hoc/judge/refused/used"] == {"entries": 1}
    assert (told["post_hoc/review/owner/planned"], told["post_hoc/review/owner/used"]) == ("null", "Ada")
