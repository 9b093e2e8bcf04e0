"""What of a configuration can change a reply, and how the replies are read: the two digests of a plan. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from evals.judges.llm_spec import LlmSpec
from pipeline.files import digest

VERSION = 4
# What cannot change a result: where it is written, how it is tracked, which stages this command runs, which machine.
NOT_DIGESTED = (
    *("name", "stages", "run", "task", "track", "plan", "report", "export", "publish", "compare", "contain"),
    *("reproduce", "cluster"),
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
    "rehearse",
    "gpu_memory_utilization",
    "kv_cache_gib",
    "device",
    "cpu_lora_by_adapter",  # the same sums, as on another device
    *ENGINE_KEYS,
)
_ABOUT_A_TABLE = ("path", "task", "source", "licence")  # its rows and their number are pinned by their digest
_NOT_DIGESTED_JUDGE = ("name", "input", "output")
_NOT_DIGESTED_REVIEW = ("gate",)
# What comes after the replies. The canaries prove them: others are other measurements. How far a proof may be off is a
# threshold like the rest: too narrow a one is found when all is trained, and changed in the open (`registered`).
_AFTER_REPLIES = ("judge", "panel", "price")
PROOF_KEYS = ("canaries",)
# Of `budget`: one is for the estimate alone; the other counts the devices that serve, and follows how many are needed.
_NO_REPLY = ("assumed_flops_per_second", "devices")


def plan_digests(
    resolved: Mapping[str, Any], measured: Mapping[str, Any], judges: Sequence[tuple[str, str]]
) -> dict[str, str]:
    """Return `run_sha256`, of what can change a reply or its proof, and `plan_sha256`, of how the replies are read too.

    Args:
        resolved: the whole configuration.
        measured: what it names, by digests: `subject`, `data`, `evals` and `search` (empty: no arm searches).
        judges: kind and version of the judge that decides, then of the panel's.
    """
    whole = digested_config(resolved)
    replies = {"version": VERSION, **measured, "config": reply_config(whole)}
    return {"run_sha256": digest(replies), "plan_sha256": digest({**replies, "config": whole, "judges": list(judges)})}


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
    kept = {key: value for key, value in resolved.items() if key not in NOT_DIGESTED}
    kept["serve"] = {key: value for key, value in resolved["serve"].items() if key not in _NOT_DIGESTED_SERVE}
    # Weights and a template of its own stand in the plan by their digests (`subject.identity`).
    # Without the key a plan is what it was before there was one.
    free = ("name", "path", "chat_template", *(() if resolved["subject"].get("fsdp") else ("fsdp",)))
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
    closer = any(arm["training"]["rungs_per_doubling"] > 1 for arm in resolved["arms"].values())
    free = (*_NOT_DIGESTED_REVIEW, *(() if closer else ("rungs",)))
    return {key: value for key, value in resolved["review"].items() if key not in free}


def _judge_options(judge: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in judge.items() if key not in _NOT_DIGESTED_JUDGE}
    if isinstance(kept.get("llm"), Mapping):  # what the judge is, not where it answers
        kept["llm"] = {each.name: kept["llm"][each.name] for each in fields(LlmSpec)}
    return kept


def _arm(arm: Mapping[str, Any]) -> dict[str, Any]:
    sweep = arm.get("sweep")
    if not sweep:
        return dict(arm)
    tables = {role: _without_path(sweep[role]) for role in ("refusal", "capability")}
    return {**arm, "sweep": {**sweep, **tables, "judge": _judge_options(sweep["judge"])}}


def _without_path(node: Mapping[str, Any]) -> dict[str, Any]:
    plain = {key: value for key, value in node.items() if key not in _ABOUT_A_TABLE}
    tables = [key for key in ("table", "prompt", "shots") if isinstance(node.get(key), Mapping)]
    return plain | {key: _without_path(node[key]) for key in tables}
