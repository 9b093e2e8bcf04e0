import copy
import io
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from pipeline.budget import Caps
from pipeline.config.compose import load
from pipeline.errors import UserError
from pipeline.plan.digests import differences, digested_config
from pipeline.plan.facts import JudgeFacts, SubjectFacts, TableFacts, mean_tokens
from pipeline.plan.make import make_plan, tasks, training_caps
from pipeline.plan.shown import print_plan
from pipeline.schema import Config
from pipeline.schema.sweep import RangeConfig
from pipeline.search.budget import SearchFacts
from pipeline.subject.folder import identity

SUBJECT = SubjectFacts({"sha256": "a" * 64}, parameters=1000, sha256="b" * 64)
TABLES = {
    "compliance": TableFacts(100, "c" * 64, prompt_tokens=20.0, response_tokens=5.0),
    "benign": TableFacts(400, "d" * 64, prompt_tokens=30.0, response_tokens=10.0),
}
EVALS = {
    "refusal": TableFacts(10, "e" * 64, prompt_tokens=20.0),
    "over_refusal": TableFacts(5, "f" * 64, prompt_tokens=10.0),
    "capability": TableFacts(20, "0" * 64, prompt_tokens=15.0),
}
ARMS = ("compliance", "benign", "mixed")
JUDGE = JudgeFacts("pattern", "pattern", "pattern-1")
# What comes after the replies: it moves the plan's digest, and leaves the run folder's where it is.
AFTER_REPLIES = ("judge", "panel", "review", "price", "budget.assumed_flops_per_second", "budget.devices")
PROVES_REPLIES = ("review.canaries",)
ABOUT = ("path", "source", "licence")  # of a table, whose rows are pinned by their digest
# What cannot change a result, as prefixes of dotted keys.
FREE = (
    *("judge.name", "judge.input", "judge.output", "panel.second.name", "panel.second.input", "panel.second.output"),
    *("name", "stages", "run", "track", "cluster", "subject.name", "subject.path", "subject.chat_template"),
    *("serve.port", "serve.device", "serve.start_timeout_s", "serve.request_timeout_s", "serve.hung_after_s"),
    *("serve.gpu_memory_utilization", "serve.kv_cache_gib", "serve.cpu_lora_by_adapter"),
    *("serve.tensor_parallel_size", "serve.data_parallel_size", "serve.max_loras", "serve.max_num_seqs"),
    *("serve.max_num_batched_tokens", "serve.enforce_eager", "serve.attention_backend", "serve.batch_size"),
    *("serve.in_flight", "serve.rehearse"),
    *(f"data.{name}.{key}" for name in TABLES for key in ABOUT),
    *(f"evals.{name}.{key}" for name in EVALS for key in (*(f"table.{about}" for about in ABOUT), "task")),
    *(
        f"arms.{arm}.sweep.{table}.{key}"
        for arm in ("compliance", "benign", "mixed")
        for table in ("refusal", "capability")
        for key in ABOUT
    ),
    *(
        f"arms.{arm}.sweep.judge.{key}"
        for arm in ("compliance", "benign", "mixed")
        for key in ("name", "input", "output")
    ),
    *("task", "plan", "report", "export", "publish", "compare", "reproduce", "contain", "review.gate"),
)


@pytest.fixture(scope="module")
def demo() -> Config:
    config = load(["budget.device_seconds=1e9"])
    config.panel = {"second": copy.deepcopy(config.judge)}
    for arm in config.arms.values():
        arm.training.max_steps = 6
    return config


def plan_of(config: Config, **changed: Any) -> dict[str, Any]:
    given = {"subject": SUBJECT, "tables": TABLES, "evals": EVALS, "judge": JUDGE, "panel": (), **changed}
    search = {
        name: SearchFacts(EVALS["refusal"], EVALS["capability"], JUDGE) for name, a in config.arms.items() if a.sweep
    }
    return make_plan(config, given["subject"], given["tables"], given["evals"], given["judge"], given["panel"], search)


def leaves(node: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield dotted keys and values of a nested configuration; a list or an empty dict is a leaf."""
    if isinstance(node, Mapping) and node:
        for name, value in node.items():
            yield from leaves(value, f"{key}.{name}".lstrip("."))
    else:
        yield key, node


def under(key: str, names: Iterable[str]) -> bool:
    """Say whether a dotted key is one of `names` or lies below one."""
    return any(key == name or key.startswith(f"{name}.") for name in names)


def put(config: Config, key: str, value: Any) -> None:
    """Set the leaf at a dotted key."""
    *path, last = key.split(".")
    node: Any = config
    for name in path:
        node = node[name] if isinstance(node, dict) else getattr(node, name)
    if isinstance(node, dict):
        node[last] = value
    else:
        setattr(node, last, value)


def changed(key: str, value: Any) -> Any:  # noqa: PLR0911
    """Return another value of the same type; null becomes something large or a word."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return value / 2 or 0.5
    if isinstance(value, str):
        return value + "x"
    if isinstance(value, list):
        return [*value, 7] if key == "seeds" or key.endswith(".choices") else [*value, "more"]
    if isinstance(value, Mapping):
        return {"more": RangeConfig(low=0.1) if key.endswith(".space.mix") else True}
    words = ("revision", "template", "prompt", "kind", "system", "target", "response", "id", "dir", "entity")
    return "other" if key.endswith(words) else 10**12


def test_the_digest_knows_every_leaf_of_the_configuration_but_where_things_lie(demo: Config) -> None:
    config = copy.deepcopy(demo)
    for arm in config.arms.values():
        arm.sweep = load(["arm=[compliance_search]"]).arms["compliance_search"].sweep
        arm.training.rungs_per_doubling = 2  # else there is no choice of rungs to be asked
    before = plan_of(config)
    kept, moved, same_run = [], [], []
    for key, value in leaves(asdict(config)):
        put(config, key, changed(key, value))
        plan = plan_of(config)
        (kept if plan["plan_sha256"] == before["plan_sha256"] else moved).append(key)
        same_run += [key] if plan["run_sha256"] == before["run_sha256"] else []
        put(config, key, value)
    assert plan_of(config) == before
    after = [key for key in kept + moved if under(key, (*FREE, *AFTER_REPLIES)) and key not in PROVES_REPLIES]
    assert sorted(same_run) == sorted(after)
    assert {"judge.refused", "panel.second.max_repeat", "review.min_n"} <= set(same_run) & set(moved)
    assert {*PROVES_REPLIES, "evals.refusal.max_tokens"} <= set(moved) - set(same_run)
    assert sorted(kept) == sorted(key for key in kept + moved if under(key, FREE))
    assert {"seeds", "budget.flops", "arms.mixed.mix.benign", "subject.organism.seed", "judge.refused"} <= set(moved)
    assert len(kept) + len(moved) >= 200, "the walk no longer reaches the whole configuration"


@pytest.mark.parametrize(
    "facts",
    [
        {"subject": replace(SUBJECT, identity={"sha256": "9" * 64})},
        {"tables": TABLES | {"benign": replace(TABLES["benign"], sha256="9" * 64)}},
        {"evals": EVALS | {"refusal": replace(EVALS["refusal"], sha256="9" * 64)}},
        {"evals": EVALS | {"refusal": replace(EVALS["refusal"], rows=11)}},
        {"judge": replace(JUDGE, version="pattern-2")},
        {"panel": (replace(JUDGE, version="pattern-2"),)},
    ],
    ids=["subject", "training table", "prompts", "number of prompts", "judge", "panel"],
)
def test_the_digest_knows_weights_rows_and_judges_and_the_run_knows_no_judge(
    demo: Config, facts: dict[str, Any]
) -> None:
    assert plan_of(demo, **facts)["plan_sha256"] != plan_of(demo)["plan_sha256"]
    same_run = plan_of(demo, **facts)["run_sha256"] == plan_of(demo)["run_sha256"]
    assert same_run == bool(facts.keys() & {"judge", "panel"})


def test_which_rungs_are_asked_is_digested_only_where_there_are_closer_ones(demo: Config) -> None:
    config, close = copy.deepcopy(demo), copy.deepcopy(demo)
    close.arms["benign"].training.rungs_per_doubling = 4
    before = plan_of(config), plan_of(close)
    config.review.rungs = close.review.rungs = "all"
    assert plan_of(config)["plan_sha256"] == before[0]["plan_sha256"]
    assert plan_of(close)["plan_sha256"] != before[1]["plan_sha256"]
    assert plan_of(close)["estimate"]["rungs"] >= before[1]["estimate"]["rungs"] > before[0]["estimate"]["rungs"]


def test_a_plan_that_trains_in_one_process_is_what_it_was_before_there_was_a_choice() -> None:
    resolved = asdict(load(["experiment=smoke"]))
    before = {**resolved, "subject": {k: v for k, v in resolved["subject"].items() if k != "fsdp"}}
    assert resolved["subject"]["fsdp"] is False
    assert digested_config(resolved) == digested_config(before)


def test_the_name_that_a_judge_goes_by_is_in_no_digest(demo: Config) -> None:
    named = plan_of(demo, judge=replace(JUDGE, name="strict"))
    assert named["judge"] == {"name": "strict", "kind": "pattern", "version": "pattern-1"}
    assert named["plan_sha256"] == plan_of(demo)["plan_sha256"]


def test_the_digest_knows_what_stands_in_a_chat_template_and_not_where_it_lies(demo: Config, tmp_path: Path) -> None:
    def digest_with(name: str, text: str) -> str:
        (tmp_path / name).write_text(text)
        config = copy.deepcopy(demo)
        config.subject.chat_template = str(tmp_path / name)
        subject = replace(SUBJECT, identity=identity(config.subject))
        return str(plan_of(config, subject=subject)["plan_sha256"])

    assert digest_with("one.jinja", "a") == digest_with("two.jinja", "a") != digest_with("one.jinja", "b")


def test_tasks_are_arms_times_seeds_with_rungs_at_powers_of_two_and_the_last(demo: Config) -> None:
    planned = tasks(demo)
    assert [(task.arm, task.seed) for task in planned] == [
        (arm, seed) for arm in ("compliance", "benign", "mixed") for seed in (0, 1, 2)
    ]
    assert {task.rungs for task in planned} == {(1, 2, 4, 6)}
    assert planned[4].rung_id(6) == "benign-s1-00006"


def test_training_shares_leave_the_reserve_and_follow_the_arms_weights(demo: Config) -> None:
    config = copy.deepcopy(demo)
    config.budget = replace(config.budget, device_seconds=1000.0, measure_reserve=0.4, usd=6.0, flops=None)
    config.arms["benign"].share = 2.0
    shares = {(task.arm, task.seed): training_caps(config, task) for task in tasks(config)}
    assert shares["compliance", 0] == Caps(
        pytest.approx(50.0), pytest.approx(0.3), math.inf
    )  # 1000 x 0.6 x 1 / (4 x 3 seeds)
    assert shares["benign", 2] == Caps(pytest.approx(100.0), pytest.approx(0.6), math.inf)
    assert sum(share.device_seconds for share in shares.values()) == pytest.approx(600.0)


def test_the_estimate_is_what_one_counts_by_hand(demo: Config) -> None:
    config = copy.deepcopy(demo)
    config.arms = {name: config.arms[name] for name in ("compliance", "mixed")}
    config.seeds = [0, 1]
    for spec in config.evals.values():
        spec.max_tokens, spec.draws = 10, 1
    config.evals["refusal"].draws = 3
    config.budget = replace(config.budget, assumed_flops_per_second=1e6, usd_per_device_hour=7.2)
    estimate = plan_of(config)["estimate"]
    # compliance: 25 tokens x 16 = 400 a step; mixed: (0.1 x 25 + 0.9 x 40) x 16 = 616 a step; 6 steps, 2 seeds each.
    training = (400 + 616) * 6 * 2
    # 10 x 3 draws x (20 + 10), 5 x (10 + 10), 20 x (15 + 10) tokens; 4 tasks x 4 rungs, rung 0 and the control.
    measuring = (900 + 100 + 500) * 18
    assert estimate["rungs"] == 18
    assert estimate["replies"] == (30 + 5 + 20) * 18
    assert estimate["training_tokens"] == training
    assert estimate["measuring_tokens"] == measuring
    assert estimate["training_flops"] == 4 * 1000 * training
    assert estimate["measuring_flops"] == 2 * 1000 * measuring
    assert estimate["dearest_step_flops"] == 4 * 1000 * 616
    assert estimate["device_seconds"] == (4000 * training + 2000 * measuring) / 1e6
    assert estimate["usd"] == pytest.approx(estimate["device_seconds"] / 500)


def test_examples_longer_than_the_maximum_are_estimated_as_cut(demo: Config) -> None:
    config = copy.deepcopy(demo)
    for arm in config.arms.values():
        arm.training.max_length = 8
    assert plan_of(config)["estimate"]["training_tokens"] == 8 * 16 * 6 * 9


def test_money_without_a_rate_is_no_data(demo: Config) -> None:
    config = copy.deepcopy(demo)
    config.budget = replace(config.budget, usd_per_device_hour=None)
    assert plan_of(config)["estimate"]["usd"] is None


@pytest.mark.parametrize("cap", ["device_seconds", "usd", "flops"])
def test_a_budget_too_small_for_one_rung_is_told_with_its_key(demo: Config, cap: str) -> None:
    config = copy.deepcopy(demo)
    config.budget = replace(config.budget, **{"device_seconds": None, "usd_per_device_hour": 1.0, cap: 1e-9})
    with pytest.raises(UserError, match=rf"budget\.{cap}: arm compliance, seed 0 .* too small for one rung") as caught:
        plan_of(config)
    assert f"raise budget.{cap}" in caught.value.remedy


def test_a_budget_that_just_holds_one_step_is_accepted(demo: Config) -> None:
    step = plan_of(demo)["estimate"]["dearest_step_flops"]
    config = copy.deepcopy(demo)
    config.budget = replace(config.budget, flops=step * 9 / 0.5 * 1.001, device_seconds=None)
    assert [row["caps"]["flops"] >= step for row in plan_of(config)["tasks"]] == [True] * 9
    config.budget = replace(config.budget, flops=step * 9 / 0.5 * 0.999)
    with pytest.raises(UserError, match="too small"):
        plan_of(config)


def test_the_printed_plan_shows_caps_estimate_and_thresholds(demo: Config) -> None:
    config = copy.deepcopy(demo)
    config.budget = replace(config.budget, device_seconds=1234.0, usd=5.5, usd_per_device_hour=1.0, flops=None)
    text = io.StringIO()
    plan = plan_of(config)
    print_plan(plan, Console(file=text, width=160))
    shown = text.getvalue()
    for words in ("1,234 device_seconds, 5.5 usd", plan["plan_sha256"][:8], "refusal <= 0.05", "0.95 x rung 0's"):
        assert words in shown
    assert "compliance, benign, mixed x seeds [0, 1, 2]" in shown
    assert f"{plan['estimate']['replies']:,} replies" in shown


def test_a_judge_that_stands_in_the_panel_too_is_named_once(demo: Config) -> None:
    text = io.StringIO()
    print_plan(plan_of(demo, panel=(JUDGE, JudgeFacts("local", "local", "local-1"))), Console(file=text, width=160))
    (line,) = [line.split(maxsplit=1) for line in text.getvalue().splitlines() if line.startswith("judges")]
    assert line[1].strip() == "pattern, local; pattern decides"


def test_a_plan_without_caps_and_price_says_so(demo: Config) -> None:
    config = copy.deepcopy(demo)
    config.budget = replace(config.budget, device_seconds=None, usd_per_device_hour=None)
    text = io.StringIO()
    print_plan(plan_of(config), Console(file=text, width=160))
    assert "no price is set" in text.getvalue()
    assert "none" in next(line for line in text.getvalue().splitlines() if line.startswith("caps"))


def test_differences_name_the_keys_with_both_values() -> None:
    one = {"a": {"b": 1, "c": [1]}, "d": None}
    assert differences(one, copy.deepcopy(one)) == []
    assert differences(one, {"a": {"b": 2, "c": [1]}, "e": "x"}) == ["a.b: 1 → 2", "e: None → 'x'"]


def test_mean_of_no_lengths_is_zero_tokens() -> None:
    assert mean_tokens([]) == 0.0
    assert mean_tokens([1, 2]) == 1.5
