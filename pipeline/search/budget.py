"""What a search may use, and what it is estimated to cost. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from pipeline.arms.base import rungs_of
from pipeline.budget import Caps, caps
from pipeline.flops import inference_flops, training_flops
from pipeline.schema import ArmConfig, Config
from pipeline.search.space import ranges, with_options

if TYPE_CHECKING:
    from pipeline.plan.facts import JudgeFacts, TableFacts


@dataclass(frozen=True)
class SearchFacts:
    """What the plan knows of one arm's search: its dev tables (with the tokens of a prompt) and its judge."""

    refusal: TableFacts
    capability: TableFacts
    judge: JudgeFacts


def arm_caps(config: Config, arm: str) -> Caps:
    """Return what an arm may use in training, its search and all its climbs together."""
    total = sum(node.share for node in config.arms.values())
    return caps(config.budget).scaled((1.0 - config.budget.measure_reserve) * config.arms[arm].share / total)


def search_caps(config: Config, arm: str) -> Caps:
    """Return what an arm's search may use: its share of what the arm may use."""
    sweep = config.arms[arm].sweep
    return arm_caps(config, arm).scaled(0.0 if sweep is None else sweep.share)


def climb_caps(config: Config, arm: str) -> Caps:
    """Return what one climb of an arm may use: what the search leaves, shared by the seeds."""
    sweep = config.arms[arm].sweep
    left = 1.0 if sweep is None else 1.0 - sweep.share
    return arm_caps(config, arm).scaled(left / len(config.seeds))


def dearest(arm: ArmConfig) -> ArmConfig:
    """Return the arm with the most examples a step that its search may try."""
    sweep = arm.sweep
    if sweep is None or "batch_size" not in sweep.space.training:
        return arm
    searched = ranges(sweep)["training.batch_size"]
    most = max(searched.choices) if searched.choices else round(searched.high or 0)
    return with_options(arm, {"training.batch_size": most})


def shown(config: Config, facts: Mapping[str, SearchFacts]) -> dict[str, Any]:
    """Return what the plan says of each search: caps, dev prompts, judge; JSON-ready."""
    return {
        arm: {
            "trials": sweep.trials,
            "repeats": sweep.repeats,
            "space": {key: asdict(searched) for key, searched in ranges(sweep).items()},
            "caps": {k: None if math.isinf(v) else v for k, v in asdict(search_caps(config, arm)).items()},
            "dev": {role: {"prompts": t.rows, "sha256": t.sha256} for role, t in _tables(facts[arm]).items()},
            "judge": asdict(facts[arm].judge),
        }
        for arm, sweep in ((name, node.sweep) for name, node in config.arms.items())
        if sweep is not None
    }


def identity(facts: Mapping[str, SearchFacts]) -> dict[str, Any]:
    """Return what of the searches, beside the configuration, can change a reply: dev prompts and judge."""
    return {
        arm: {
            **{role: table.sha256 for role, table in _tables(found).items()},
            "judge": [found.judge.kind, found.judge.version],
        }
        for arm, found in facts.items()
    }


def estimated_flops(
    config: Config, parameters: int, step_tokens: Mapping[str, float], facts: Mapping[str, SearchFacts]
) -> float:
    """Return the FLOPs of all searches at their longest: each trial climbs its whole ladder, measured at each rung.

    Args:
        config: the configuration.
        parameters: of the subject.
        step_tokens: tokens of one training step by arm, with the most examples a step.
        facts: of the dev tables.
    """
    total = 0.0
    for arm, found in facts.items():
        node = config.arms[arm]
        assert node.sweep is not None
        lengths = {node_eval.role: node_eval.max_tokens for node_eval in config.evals.values()}
        measure = sum(t.rows * (t.prompt_tokens + lengths.get(role, 0)) for role, t in _tables(found).items())
        steps = node.training.max_steps
        climb = training_flops(parameters, 0, math.ceil(step_tokens[arm] * steps))
        looks = len(rungs_of(node)) * inference_flops(parameters, math.ceil(measure))
        total += node.sweep.trials * node.sweep.repeats * (climb + looks)
    return total


def words(found: Mapping[str, Any], share: float) -> str:
    """Return what a plan says of one search in words: `found` is an entry of its `search`."""
    dev = " and ".join(f"{table['prompts']} dev prompts for {role}" for role, table in found["dev"].items())
    over = ", ".join(found["space"])
    tried = f"{found['trials']} trials of {found['repeats']} seeds over {over}"
    return f"{tried}, within {100 * share:g} % of the arm's training; {dev}"


def _tables(facts: SearchFacts) -> dict[str, TableFacts]:
    return {"refusal": facts.refusal, "capability": facts.capability}
