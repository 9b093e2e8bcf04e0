"""Faults of `arms.NAME.sweep`: a space that no arm has, a search that cannot end, dev tables that are missing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import Any, Final

from evals.judges import JUDGES

# What may be searched: the ladder (max_steps, rungs_per_doubling) is the plan's, registered before the search.
SEARCHED: Final = {
    "lora": {"rank": int, "alpha": int, "dropout": float},
    "training": {
        "learning_rate": float,
        "batch_size": int,
        "schedule": str,
        "warmup_steps": int,
        "weight_decay": float,
        "max_grad_norm": float,
        "optimizer": str,
    },
}
_TALKING: Final = "llm"  # a kind of judge that needs a server, while the search has the device


def sweep_faults(raw: Any) -> Iterator[str]:
    """Yield what cannot be in the searches of the arms."""
    roles = [node.get("role") for node in (raw.get("evals") or {}).values()]
    for name, arm in (raw.get("arms") or {}).items():
        sweep = arm.get("sweep")
        if sweep is None:
            continue
        key = f"arms.{name}.sweep"
        if find_spec("optuna") is None:
            yield f"{key}: Optuna is not installed; add the extra `search`, or leave this arm out"
        for role in ("refusal", "capability"):
            if role not in roles:
                yield f"{key}: needs an eval of role {role}, whose way of asking and scoring the dev prompts share"
        if not 0 < sweep.get("share", 0.5) < 1:
            yield f"{key}.share: {sweep.share} must lie between 0 and 1: the climbs need the rest"
        yield from _judge_faults(f"{key}.judge", sweep.get("judge") or {})
        yield from _space_faults(key, arm, sweep.get("space") or {})


def _judge_faults(key: str, judge: Any) -> Iterator[str]:
    kind = judge.get("kind", "pattern")
    if kind == _TALKING:
        yield f"{key}.kind: a judge that is a language model needs a server; the search takes one without, e.g. local"
    elif kind not in JUDGES:
        yield f"{key}.kind: {kind!r} is unknown; use one of {', '.join(name for name in JUDGES if name != _TALKING)}"
    elif kind == "pattern" and not judge.get("refused"):
        yield f"{key}.refused: no pattern is given, so nothing would be a refusal; e.g. +judge@{key}=pattern"


def _space_faults(key: str, arm: Any, space: Any) -> Iterator[str]:
    found = [(part, name) for part in ("lora", "training", "mix") for name in (space.get(part) or {})]
    if not found:
        yield f"{key}.space: nothing is searched; e.g. {key}.space.training.learning_rate={{low: 1e-4, high: 1e-2}}"
    mix = arm.get("mix") or {}
    if len(space.get("mix") or {}) > 1:
        yield f"{key}.space.mix: one table's share is searched; the others share the rest"
    for part, name in found:
        place, node = f"{key}.space.{part}.{name}", space[part][name]
        if part == "mix":
            if name not in mix or len(mix) < 2 or mix[name] >= 1:
                yield f"{place}: the arm's mix must hold this table and a share of another"
                continue
            yield from _range_faults(place, node, float, mix[name], (0.0, 1.0))
        elif name not in SEARCHED[part]:
            yield f"{place}: cannot be searched; what can: {', '.join(SEARCHED[part])}"
        elif (arm.get(part) or {}).get(name) is not None:  # else the arm has a fault of its own
            least = 1.0 if name in ("rank", "alpha", "batch_size") else 0.0
            yield from _range_faults(place, node, SEARCHED[part][name], arm[part][name], (least, float("inf")))
            if name == "batch_size":
                yield from _batch_faults(place, node, arm.training.get("gradient_accumulation", 1))


def _range_faults(key: str, node: Any, kind: type, now: Any, within: tuple[float, float]) -> Iterator[str]:
    """Yield what is wrong with one option's values; `now` is what the arm has: the first trial."""
    low, high, choices = node.get("low"), node.get("high"), list(node.get("choices") or [])
    least, most = within
    if choices:
        if low is not None or high is not None:
            yield f"{key}: give either choices or low and high"
        wrong = [choice for choice in choices if not _of(choice, kind)]
        if wrong:
            yield f"{key}.choices: {wrong[0]!r} is no {kind.__name__}"
        elif kind is not str and any(not least <= choice <= most for choice in choices):
            yield f"{key}.choices: {choices} must lie between {least:g} and {most:g}"
        elif len(set(choices)) != len(choices) or now not in choices:
            yield f"{key}.choices: must be different, and hold {now!r}, which the arm has: it is the first trial"
        return
    if low is None or high is None:
        yield f"{key}: give choices, or both low and high"
        return
    if kind is str:
        yield f"{key}: give choices: this option is a name"
    elif not least <= low < high <= most or (node.get("log") and low <= 0):
        yield f"{key}: low={low:g} must be below high={high:g}, both from {least:g} to {most:g}; with log above 0"
    elif kind is int and (low != round(low) or high != round(high)):
        yield f"{key}: low and high must be whole numbers"
    elif not low <= now <= high:
        yield f"{key}: the arm's own {now:g} lies outside {low:g} to {high:g}: it is the first trial"


def _batch_faults(key: str, node: Mapping[str, Any], accumulation: int) -> Iterator[str]:
    choices = list(node.get("choices") or [])
    if accumulation > 1 and (not choices or any(choice % accumulation for choice in choices)):
        yield f"{key}: give choices that are multiples of gradient_accumulation={accumulation}"


def _of(value: Any, kind: type) -> bool:
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, kind) and not isinstance(value, bool)
