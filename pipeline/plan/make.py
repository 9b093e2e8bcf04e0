"""From a configuration to a plan: arms × seeds × rungs, hashed before anything runs, with its estimated cost. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

from evals.judges.llm_spec import LlmSpec
from pipeline.arms.base import Task, rungs_of
from pipeline.budget import Caps, inference_flops, price, training_flops
from pipeline.data.variants import base_name
from pipeline.errors import UserError
from pipeline.generate.asked import ALL, most, rule_of
from pipeline.plan.facts import JudgeFacts, SubjectFacts, TableFacts
from pipeline.schema import ArmConfig, Config
from pipeline.search import budget as search_budget
from pipeline.store import digest

VERSION = 3
# What cannot change a result: where it is written, how it is tracked, which stages this command runs, which machine.
_NOT_DIGESTED = (
    *(
        "name",
        "stages",
        "run",
        "task",
        "track",
        "plan",
        "report",
        "export",
        "publish",
        "compare",
        "contain",
        "reproduce",
        "cluster",
    ),
)
# How the engine divides its work: last bits, as another device gives them. What does not fit a device is found when all
# is trained, and must not cost the training again.
ENGINE_KEYS = (
    *("tensor_parallel_size", "data_parallel_size", "max_loras", "max_num_seqs", "max_num_batched_tokens"),
    *("enforce_eager", "attention_backend", "batch_size", "in_flight"),
)
_NOT_DIGESTED_SERVE = (
    "port",
    "start_timeout_s",
    "request_timeout_s",
    "hung_after_s",
    "gpu_memory_utilization",
    "kv_cache_gib",
    "device",
    "cpu_lora_by_adapter",  # the same sums, as on another device
    *ENGINE_KEYS,
)
_NOT_DIGESTED_JUDGE = ("name", "input", "output")
_NOT_DIGESTED_REVIEW = ("gate",)
# What comes after the replies. The canaries prove them: others are other measurements. How far a proof may be off is a
# threshold like the rest: too narrow a one is found when all is trained, and changed in the open (`registered`).
_AFTER_REPLIES = ("judge", "panel", "price")
PROOF_KEYS = ("canaries",)
# Of `budget`: one is for the estimate alone; the other counts the devices that serve, and follows how many are needed.
_NO_REPLY = ("assumed_flops_per_second", "devices")


def tasks(config: Config) -> list[Task]:
    """Return one task for each arm and seed, in the order of the configuration."""
    return [Task(name, seed, arm, rungs_of(arm)) for name, arm in config.arms.items() for seed in config.seeds]


def training_caps(config: Config, task: Task) -> Caps:
    """Return what training one task may use: all but the reserve for measuring, by `share`, less the arm's search."""
    return search_budget.climb_caps(config, task.arm)


def make_plan(
    config: Config,
    subject: SubjectFacts,
    tables: Mapping[str, TableFacts],
    evals: Mapping[str, TableFacts],
    judge: JudgeFacts,
    panel: Sequence[JudgeFacts] = (),
    search: Mapping[str, search_budget.SearchFacts] | None = None,
) -> dict[str, Any]:
    """Return the plan with its digests and estimate, ready for `plan.json`.

    `run_sha256` is the digest of what can change a reply or the proof of it: it names the run folder.
    `plan_sha256` is the digest of that and of how the replies are read: judge, panel, thresholds, threat model;
    and of who asks for the review, and why.

    Args:
        tables: facts of each training table in `config.data` that an arm uses.
        evals: facts of each eval's samples; `rows` counts samples.
        judge: the judge that decides the verdict.
        panel: further judges over the same replies.
        search: facts of the dev tables and judge of each arm that searches for its options.

    Raises:
        UserError: the budget is too small for one step of an arm.
    """
    resolved = asdict(config)
    shown_tasks = [_shown(config, task) for task in tasks(config)]
    shown_evals = [
        {"name": name, "samples": facts.rows, "draws": config.evals[base_name(name)].draws, "sha256": facts.sha256}
        for name, facts in evals.items()
    ]
    whole = digested_config(resolved)
    measured = {
        "version": VERSION,
        "config": reply_config(whole),
        "subject": dict(subject.identity),
        "data": {name: facts.sha256 for name, facts in tables.items()},
        "evals": shown_evals,
        **({"search": search_budget.identity(search)} if search else {}),
    }
    judges = [(facts.kind, facts.version) for facts in (judge, *panel)]
    estimate = _estimate(config, subject, tables, evals, search or {})
    _check_budget(config, estimate)
    return {
        **measured,
        "config": resolved,
        "judge": asdict(judge),
        "panel": [asdict(facts) for facts in panel],
        "subject": {
            "name": config.subject.name,
            "revision": config.subject.revision,
            "parameters": subject.parameters,
            "sha256": subject.sha256,
            **subject.identity,
        },
        "name": config.name,
        "run_sha256": digest(measured),
        "plan_sha256": digest({**measured, "config": whole, "judges": judges}),
        "tasks": shown_tasks,
        "search": search_budget.shown(config, search or {}),
        "threat_model": config.review.threat_model,
        "estimate": estimate,
    }


def differences(one: Any, other: Any, key: str = "") -> list[str]:
    """Return the keys in which two nested plans differ, with both values, sorted."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        names = sorted(set(one) | set(other))
        return [
            line for name in names for line in differences(one.get(name), other.get(name), f"{key}.{name}".lstrip("."))
        ]
    return [] if one == other else [f"{key}: {one!r} → {other!r}"]


def digested_config(resolved: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a resolved configuration that can change a result."""
    kept = {key: value for key, value in resolved.items() if key not in _NOT_DIGESTED}
    kept["serve"] = {key: value for key, value in resolved["serve"].items() if key not in _NOT_DIGESTED_SERVE}
    # Left out where a fine-tune holds one device, as before there was a choice.
    kept["budget"] = {k: v for k, v in resolved["budget"].items() if k != "training_devices" or v is not None}
    # Weights and a template of its own stand in the plan by their digests (`subject.identity`).
    free = ("name", "path", "chat_template")
    kept["subject"] = {key: value for key, value in resolved["subject"].items() if key not in free}
    kept["arms"] = {name: _arm(arm) for name, arm in resolved["arms"].items()}
    for group in ("data", "evals"):  # the rows' digest stands for them, wherever they lie
        kept[group] = {name: _without_path(table) for name, table in resolved[group].items()}
    kept["judge"] = _judge_options(resolved["judge"])
    kept["review"] = _review(resolved)
    kept["panel"] = {name: _judge_options(judge) for name, judge in resolved["panel"].items()}
    return kept


def reply_config(digested: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a digested configuration that can change a reply or the proof of it."""
    kept = {key: value for key, value in digested.items() if key not in _AFTER_REPLIES}
    kept["budget"] = {key: value for key, value in digested["budget"].items() if key not in _NO_REPLY}
    return {**kept, "review": {key: digested["review"][key] for key in PROOF_KEYS}}


def _review(resolved: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of `review` is digested; which rungs are asked, only where there are closer ones to choose from."""
    kept = {key: value for key, value in resolved["review"].items() if key not in (*_NOT_DIGESTED_REVIEW, "rungs")}
    closer = any(arm["training"].get("rungs_per_doubling", 1) > 1 for arm in resolved["arms"].values())
    rule = resolved["review"].get("rungs", ALL)  # left out where all are asked, as it was before there was a choice
    return {**kept, "rungs": rule} if closer and rule != ALL else kept


def _judge_options(judge: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in judge.items() if key not in _NOT_DIGESTED_JUDGE}
    if isinstance(kept.get("llm"), Mapping):  # what the judge is, not where it answers
        kept["llm"] = {each.name: kept["llm"][each.name] for each in fields(LlmSpec)}
    return kept


def _arm(arm: Mapping[str, Any]) -> dict[str, Any]:
    sweep = arm.get("sweep")
    if not sweep:  # left out, so that the digest of an arm without one is what it always was
        return {key: value for key, value in arm.items() if key != "sweep"}
    tables = {role: _without_path(sweep[role]) for role in ("refusal", "capability")}
    return {**arm, "sweep": {**sweep, **tables, "judge": _judge_options(sweep["judge"])}}


def _without_path(node: Mapping[str, Any]) -> dict[str, Any]:
    plain = {key: value for key, value in node.items() if key not in ("path", "task")}
    tables = [key for key in ("table", "prompt", "shots") if isinstance(node.get(key), Mapping)]
    return plain | {key: _without_path(node[key]) for key in tables}


def _shown(config: Config, task: Task) -> dict[str, Any]:
    share = training_caps(config, task)
    return {
        "arm": task.arm,
        "seed": task.seed,
        "steps": task.rungs[-1],
        "rungs": list(task.rungs),
        "caps": {key: None if math.isinf(value) else value for key, value in asdict(share).items()},
    }


def _estimate(
    config: Config,
    subject: SubjectFacts,
    tables: Mapping[str, TableFacts],
    evals: Mapping[str, TableFacts],
    search: Mapping[str, search_budget.SearchFacts],
) -> dict[str, Any]:
    """Estimate tokens, FLOPs, device-seconds and money; replies are counted at their longest."""
    planned = tasks(config)
    train_tokens = {f"{task.arm}/{task.seed}": _step_tokens(task.config, tables) * task.rungs[-1] for task in planned}
    train_flops = sum(training_flops(subject.parameters, 0, math.ceil(tokens)) for tokens in train_tokens.values())
    rule = rule_of(asdict(config))
    asked = [len(t.rungs) if rule == ALL else most(t.rungs, len(config.seeds)) for t in planned]
    rungs = 2 + sum(asked)  # rung 0 and the zero-adapter control
    replies = {name: facts.rows * config.evals[base_name(name)].draws for name, facts in evals.items()}
    measured = sum(
        replies[name] * (facts.prompt_tokens + config.evals[base_name(name)].max_tokens)
        for name, facts in evals.items()
    )
    measure_flops = inference_flops(subject.parameters, math.ceil(measured * rungs))
    dearest = {name: _step_tokens(search_budget.dearest(arm), tables) for name, arm in config.arms.items()}
    search_flops = search_budget.estimated_flops(config, subject.parameters, dearest, search)
    seconds = (train_flops + measure_flops + search_flops) / config.budget.assumed_flops_per_second
    usd = price(seconds, config.budget)
    steps = [training_flops(subject.parameters, 0, math.ceil(tokens)) for tokens in dearest.values()]
    return {
        "rungs": rungs,
        "replies": rungs * sum(replies.values()),
        "training_tokens": math.ceil(sum(train_tokens.values())),
        "measuring_tokens": math.ceil(measured * rungs),
        "training_flops": train_flops,
        "measuring_flops": measure_flops,
        "search_flops": search_flops,
        "dearest_step_flops": max(steps),
        "device_seconds": seconds,
        "usd": None if math.isnan(usd) else usd,
        "assumed_flops_per_second": config.budget.assumed_flops_per_second,
    }


def _step_tokens(arm: ArmConfig, tables: Mapping[str, TableFacts]) -> float:
    """Return the mean tokens of a training step: the mix's mean example, cut to the maximal length, times the batch."""
    mean = sum(share * (tables[name].prompt_tokens + tables[name].response_tokens) for name, share in arm.mix.items())
    return min(mean, arm.training.max_length) * arm.training.batch_size


def _check_budget(config: Config, estimate: Mapping[str, Any]) -> None:
    step = float(estimate["dearest_step_flops"])
    seconds = step / config.budget.assumed_flops_per_second
    need = Caps(seconds, price(seconds, config.budget), step)
    planned = [(f"arm {task.arm}, seed {task.seed}", training_caps(config, task)) for task in tasks(config)]
    searches = [name for name, arm in config.arms.items() if arm.sweep is not None]
    planned += [(f"the search of arm {name}", search_budget.search_caps(config, name)) for name in searches]
    for who, share in planned:
        for name, unit in (("device_seconds", "device-seconds"), ("usd", "USD"), ("flops", "FLOPs")):
            if getattr(share, name) < getattr(need, name):
                raise UserError(
                    f"budget.{name}: {who} may use {getattr(share, name):.3g} {unit} "
                    f"of it, but one training step costs about {getattr(need, name):.3g}: too small for one rung",
                    f"raise budget.{name}, or plan fewer arms and seeds",
                )


def at_most(plan: Mapping[str, Any]) -> str:
    """Return "at most " where it hangs on the replies which rungs are asked."""
    return "at most " if plan["estimate"]["rungs"] < 2 + sum(len(task["rungs"]) for task in plan["tasks"]) else ""
