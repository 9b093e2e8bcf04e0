"""Reads the spec of a W&B Report: its panels, the metrics that they draw, and the spec without what is random."""

from __future__ import annotations

import re
from typing import Any

_IDS = {"id", "__id__", "refId"}
_HEX = re.compile(r"\b[0-9a-f]{8,64}\b")
_DATE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\+00:00")
_SPENT = re.compile(r"(- (?:device time|money): ).*?(?= of |, no cap)")  # measured anew by each run


def masked(node: Any, key: str = "") -> Any:
    """Return a spec without random ids, digests, dates and what was spent."""
    if isinstance(node, dict):
        return {name: masked(value, name) for name, value in node.items()}
    if isinstance(node, list):
        return [masked(value, key) for value in node]
    if isinstance(node, str):
        if key in _IDS:
            return "<id>"
        for pattern, stands in ((_SPENT, r"\1<spent>"), (_DATE, "<date>"), (_HEX, "<hex>")):
            node = pattern.sub(stands, node)
    return node


def grids(spec: dict[str, Any]) -> list[tuple[list[str], list[dict[str, Any]]]]:
    """Return each panel grid: the ids of its runs, and its panels."""
    found = []
    for block in spec["blocks"]:
        if block["type"] == "panel-grid":
            [runs] = block["metadata"]["runSets"]
            [only] = runs["filters"]["filters"]
            found.append((only["value"], block["metadata"]["panelBankSectionConfig"]["panels"]))
    return found


def drawn(panel: dict[str, Any]) -> list[str]:
    """Return the names of all that a panel reads of a run."""
    config = panel["config"]
    axes = [config[axis].removeprefix("summary:") for axis in ("xAxis", "yAxis") if axis in config]
    return [*axes, *config.get("metrics", []), *config.get("mediaKeys", [])]
