"""From a configuration to a plan: arms × seeds × rungs, hashed before anything runs, with its estimated cost. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from pipeline.arms.base import Task, rungs_of
from pipeline.budget import UNITS, Caps, price
from pipeline.data.variants import base_name
from pipeline.errors import UserError
from pipeline.flops import inference_flops, training_flops
from pipeline.generate.asked import ALL, most, rule_of
from pipeline.plan.digests import VERSION, plan_digests
from pipeline.plan.facts import JudgeFacts, SubjectFacts, TableFacts
from pipeline.schema import ArmConfig, Config
from pipeline.search import budget as search_budget


def tasks(config: Config) -> list[Task]:
    """Return one task for each arm and seed, in the order of the configuration."""
    return [task_of(config, name, seed, arm) for name, arm in config.arms.items() for seed in config.seeds]


def task_of(config: Config, name: str, seed: int, arm: ArmConfig) -> Task:
    """Return one climb of an arm: of the plan, or of its search with other options."""
    return Task(name, seed, arm, rungs_of(arm), training_processes(config))


def training_processes(config: Config) -> int:
    """Return how many processes train together: one, or one for each device that a fine-tune is counted on."""
    return (config.budget.training_devices or 1) if config.subject.fsdp else 1


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
    measured = {
        "data": {name: facts.sha256 for name, facts in tables.items()},
        "evals": shown_evals,
        "search": search_budget.identity(search) if search else {},
    }
    judges = [(facts.kind, facts.version) for facts in (judge, *panel)]
    estimate = _estimate(config, subject, tables, evals, search or {})
    _check_budget(config, estimate)
    return {
        "version": VERSION,
        "data": measured["data"],
        "evals": shown_evals,
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
        **plan_digests(resolved, measured | {"subject": dict(subject.identity)}, judges),
        "tasks": shown_tasks,
        "search": search_budget.shown(config, search or {}),
        "threat_model": config.review.threat_model,
        "estimate": estimate,
    }


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
        for name, unit in UNITS.items():
            if getattr(share, name) < getattr(need, name):
                raise UserError(
                    f"budget.{name}: {who} may use {getattr(share, name):.3g} {unit} "
                    f"of it, but one training step costs about {getattr(need, name):.3g}: too small for one rung",
                    f"raise budget.{name}, or plan fewer arms and seeds",
                )


def at_most(plan: Mapping[str, Any]) -> str:
    """Return "at most " where it hangs on the replies which rungs are asked."""
    return "at most " if plan["estimate"]["rungs"] < 2 + sum(len(task["rungs"]) for task in plan["tasks"]) else ""
