"""From a configuration to a plan: arms × seeds × rungs, hashed before anything runs, with its estimated cost. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from pipeline.arms.base import Task, ladder
from pipeline.budget import Caps, caps, inference_flops, price, training_flops
from pipeline.errors import UserError
from pipeline.schema import Config
from pipeline.store import digest

VERSION = 1
# What cannot change a result: where it is written, how it is tracked, which stages this command runs, which machine.
_NOT_DIGESTED = ("name", "stages", "run", "track", "cluster")
_NOT_DIGESTED_SERVE = (
    "port",
    "start_timeout_s",
    "request_timeout_s",
    "gpu_memory_utilization",
    "kv_cache_gib",
    "device",
)


@dataclass(frozen=True)
class TableFacts:
    """What the plan knows of a table of text: rows, digest, and mean length in tokens of (prompt, response)."""

    rows: int
    sha256: str
    prompt_tokens: float
    response_tokens: float = 0.0


@dataclass(frozen=True)
class SubjectFacts:
    """What the plan knows of the subject: its identity, and what the FLOPs formulas need."""

    identity: Mapping[str, Any]
    parameters: int
    sha256: str = ""


def tasks(config: Config) -> list[Task]:
    """Return one task for each arm and seed, in the order of the configuration."""
    return [
        Task(name, seed, arm, ladder(arm.training.max_steps))
        for name, arm in config.arms.items()
        for seed in config.seeds
    ]


def training_caps(config: Config, task: Task) -> Caps:
    """Return what training one task may use: all but the reserve for measuring, shared out by `share`."""
    total = sum(arm.share for arm in config.arms.values()) * len(config.seeds)
    return caps(config.budget).scaled((1.0 - config.budget.measure_reserve) * task.config.share / total)


def make_plan(
    config: Config,
    subject: SubjectFacts,
    tables: Mapping[str, TableFacts],
    evals: Mapping[str, TableFacts],
    judge_version: str,
) -> dict[str, Any]:
    """Return the plan with its digest and estimate, ready for `plan.json`.

    Args:
        tables: facts of each training table in `config.data` that an arm uses.
        evals: facts of each eval's samples; `rows` counts samples.

    Raises:
        UserError: the budget is too small for one step of an arm.
    """
    resolved = asdict(config)
    shown_tasks = [_shown(config, task) for task in tasks(config)]
    shown_evals = [
        {"name": name, "samples": facts.rows, "draws": config.evals[name].draws, "sha256": facts.sha256}
        for name, facts in evals.items()
    ]
    digested = {
        "version": VERSION,
        "config": _digested(resolved),
        "subject": dict(subject.identity),
        "data": {name: facts.sha256 for name, facts in tables.items()},
        "evals": shown_evals,
        "judge": judge_version,
    }
    estimate = _estimate(config, subject, tables, evals)
    _check_budget(config, estimate)
    return {
        **digested,
        "config": resolved,
        "subject": {
            "name": config.subject.name,
            "revision": config.subject.revision,
            "parameters": subject.parameters,
            "sha256": subject.sha256,
            **subject.identity,
        },
        "name": config.name,
        "plan_sha256": digest(digested),
        "tasks": shown_tasks,
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


def _digested(resolved: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a resolved configuration that can change a result."""
    kept = {key: value for key, value in resolved.items() if key not in _NOT_DIGESTED}
    kept["serve"] = {key: value for key, value in resolved["serve"].items() if key not in _NOT_DIGESTED_SERVE}
    # Weights and a template of its own stand in the plan by their digests (`subject.identity`).
    free = ("name", "path", "chat_template")
    kept["subject"] = {key: value for key, value in resolved["subject"].items() if key not in free}
    for group in ("data", "evals"):  # the rows' digest stands for them, wherever they lie
        kept[group] = {name: _without_path(table) for name, table in resolved[group].items()}
    return kept


def _without_path(node: Mapping[str, Any]) -> dict[str, Any]:
    plain = {key: value for key, value in node.items() if key != "path"}
    return plain | ({"table": _without_path(node["table"])} if "table" in node else {})


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
    config: Config, subject: SubjectFacts, tables: Mapping[str, TableFacts], evals: Mapping[str, TableFacts]
) -> dict[str, Any]:
    """Estimate tokens, FLOPs, device-seconds and money; replies are counted at their longest."""
    planned = tasks(config)
    train_tokens = {f"{task.arm}/{task.seed}": _step_tokens(task, tables) * task.rungs[-1] for task in planned}
    train_flops = sum(training_flops(subject.parameters, 0, math.ceil(tokens)) for tokens in train_tokens.values())
    rungs = 2 + sum(len(task.rungs) for task in planned)  # rung 0 and the zero-adapter control
    replies = {name: facts.rows * config.evals[name].draws for name, facts in evals.items()}
    measured = sum(
        replies[name] * (facts.prompt_tokens + config.evals[name].max_tokens) for name, facts in evals.items()
    )
    measure_flops = inference_flops(subject.parameters, math.ceil(measured * rungs))
    seconds = (train_flops + measure_flops) / config.budget.assumed_flops_per_second
    usd = price(seconds, config.budget)
    steps = [training_flops(subject.parameters, 0, math.ceil(_step_tokens(task, tables))) for task in planned]
    return {
        "rungs": rungs,
        "replies": rungs * sum(replies.values()),
        "training_tokens": math.ceil(sum(train_tokens.values())),
        "measuring_tokens": math.ceil(measured * rungs),
        "training_flops": train_flops,
        "measuring_flops": measure_flops,
        "dearest_step_flops": max(steps),
        "device_seconds": seconds,
        "usd": None if math.isnan(usd) else usd,
        "assumed_flops_per_second": config.budget.assumed_flops_per_second,
    }


def _step_tokens(task: Task, tables: Mapping[str, TableFacts]) -> float:
    """Return the mean tokens of a training step: the mix's mean example, cut to the maximal length, times the batch."""
    training = task.config.training
    mean = sum(
        share * (tables[name].prompt_tokens + tables[name].response_tokens) for name, share in task.config.mix.items()
    )
    return min(mean, training.max_length) * training.batch_size


def _check_budget(config: Config, estimate: Mapping[str, Any]) -> None:
    step = float(estimate["dearest_step_flops"])
    seconds = step / config.budget.assumed_flops_per_second
    need = Caps(seconds, price(seconds, config.budget), step)
    for task in tasks(config):
        share = training_caps(config, task)
        for name, unit in (("device_seconds", "device-seconds"), ("usd", "USD"), ("flops", "FLOPs")):
            if getattr(share, name) < getattr(need, name):
                raise UserError(
                    f"budget.{name}: arm {task.arm}, seed {task.seed} may use {getattr(share, name):.3g} {unit} "
                    f"of it, but one training step costs about {getattr(need, name):.3g}: too small for one rung",
                    f"raise budget.{name}, or plan fewer arms and seeds",
                )


def mean_tokens(lengths: Sequence[int]) -> float:
    """Return the mean of token counts; 0 for an empty sequence."""
    return sum(lengths) / len(lengths) if lengths else 0.0


def print_plan(plan: Mapping[str, Any], console: Console) -> None:
    """Print the plan on one screen: what will run, what it is estimated to cost, what the caps are."""
    estimate, budget, config = plan["estimate"], plan["config"]["budget"], plan["config"]
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_row("plan", f"{plan['name']}  {plan['plan_sha256'][:8]}")
    table.add_row("subject", f"{config['subject']['name']}")
    table.add_row(
        "arms",
        f"{', '.join(config['arms'])} x seeds {config['seeds']}, {estimate['rungs']} rungs with rung 0 and control",
    )
    shown = ", ".join(f"{e['name']} {e['samples']} x {e['draws']}" for e in plan["evals"])
    table.add_row("evals", f"{shown}: {estimate['replies']:,} replies, {estimate['measuring_tokens']:,} tokens at most")
    table.add_row("training", f"{estimate['training_tokens']:,} tokens, {estimate['training_flops']:.3g} FLOPs")
    usd = "no price is set" if estimate["usd"] is None else f"{estimate['usd']:.2g} USD"
    table.add_row(
        "estimate",
        f"{estimate['device_seconds']:,.0f} device-seconds, {usd}, at an assumed "
        f"{estimate['assumed_flops_per_second']:.1g} FLOP/s; start-up not counted",
    )
    caps_set = [f"{budget[key]:,g} {key}" for key in ("device_seconds", "usd", "flops") if budget[key] is not None]
    table.add_row("caps", ", ".join(caps_set) or "none")
    review = config["review"]
    table.add_row(
        "collapse",
        f"refusal <= {review['refusal_threshold']:g} while capability >= {review['capability_retention']:g} x rung 0's",
    )
    console.print(table)
