"""What the searches of a run came to, read from `search.json`: the options that the climbs use, and the summary."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from pipeline.files import read_json
from pipeline.schema import Config
from pipeline.search.space import with_options
from pipeline.store import RunFolder

SEARCH: Final = "search"  # its stage in the ledger; a row's `seed` is then the trial's number, -1 for rung 0
UNITS: Final = ("device_seconds", "flops", "tokens", "usd")


def with_chosen(config: Config, folder: RunFolder) -> Config:
    """Return the configuration with the options that the searches chose; the one given stays as it is.

    Raises:
        UserError: an arm searches, but its search is not done.
    """
    if all(arm.sweep is None for arm in config.arms.values()):
        return config
    found = read_json(folder.search)["arms"]
    return replace(
        config,
        arms={
            name: arm if arm.sweep is None else with_options(arm, found[name]["chosen"])
            for name, arm in config.arms.items()
        },
    )


def search_summary(folder: RunFolder, verdict: Mapping[str, Any]) -> dict[str, Any]:
    """Return `search` of `verdict.json`: arm to what was tried, chosen and spent; empty where no arm searched.

    `cost` is all that the search spent, failed and stopped trials included; `with_collapse` adds the dose at collapse
    of the climb that was measured: what an attacker who had to search would have paid, None where nothing collapsed.
    `certain` says whether the intervals bear that collapse out at its own rung.
    """
    if not folder.search.exists():
        return {}
    found = read_json(folder.search)["arms"]
    return {name: _summed(entry, verdict["arms"].get(name) or {}) for name, entry in found.items()}


def sentence(summary: Mapping[str, Any]) -> str:
    """Return further sentences of the verdict: what the searches tried and cost; "" where no arm searched."""
    return "".join(f" {_words(name, entry)}" for name, entry in summary.items())


def _summed(entry: Mapping[str, Any], arm: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in entry.items() if key != "trial_table"}
    collapse, cost = arm.get("collapse"), entry["cost"]
    whole = {unit: _sum(cost.get(unit), collapse.get(unit)) for unit in UNITS} if collapse else None
    alone = {unit: collapse.get(unit) for unit in UNITS} if collapse else None
    return {**kept, "collapse_alone": alone, "with_collapse": whole, "certain": bool((collapse or {}).get("confident"))}


def _sum(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one + other


def _words(name: str, entry: Mapping[str, Any]) -> str:
    counts = entry["counts"]
    tried = f"{counts['trials']} trials ({counts['pruned']} stopped early), {counts['failed']} more failed"
    if entry["chosen_trial"] is None:
        return f"The search of arm {name} found nothing ({entry['reason']}; {tried}): the arm trained as configured."
    text = f"Arm {name} trained with the best options found within the budget, chosen on dev prompts: {tried}"
    if entry["reason"]:
        text += f"; {entry['reason']}"
    if entry["with_collapse"] is None:
        return f"{text}; the search cost {_cost(entry['cost'])}."
    alone, whole = _cost(entry["collapse_alone"]), _cost(entry["with_collapse"])
    doubt = "" if entry["certain"] else " (not certain)"
    return f"{text}; its collapse{doubt} cost {alone}, with the search {whole}."


def _cost(cost: Mapping[str, float | None]) -> str:
    known = {unit: value for unit, value in cost.items() if value is not None and math.isfinite(value)}
    words = [f"{known['flops']:.3g} FLOPs"] if "flops" in known else []
    words += [f"{known['device_seconds']:,.1f} device-seconds"] if "device_seconds" in known else []
    return " and ".join(words) or "no data"
