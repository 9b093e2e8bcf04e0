"""The table of faults, as JSON and Markdown."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.files import write_atomic, write_json
from tests.torture.checks import COUNTED

NO_MOUNT = "file systems cannot be mounted here (not root): no full disk, no read-only folder"


def load(path: Path, about: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the faults tried before with the same seed and share of servers; none otherwise."""
    if not path.exists():
        return {}
    there = json.loads(path.read_text(encoding="utf-8"))
    same = all(there["about"].get(key) == about[key] for key in ("seed", "own_server_each", "versions"))
    return dict(there["faults"]) if same else {}


def save(path: Path, about: Mapping[str, Any], results: Mapping[str, Any], mounts: bool) -> None:
    """Write the results as JSON to `path` and as Markdown beside it, atomically."""
    write_json(path, {"about": dict(about), "faults": dict(results)})
    write_atomic(path.with_suffix(".md"), markdown(about, results, mounts))


def markdown(about: Mapping[str, Any], results: Mapping[str, Mapping[str, Any]], mounts: bool = True) -> str:
    """Return one line a kind: how many, how many passed, and counts of what must be 0."""
    kinds: dict[str, list[Mapping[str, Any]]] = {}
    for row in results.values():
        kinds.setdefault(row["kind"], []).append(row)
    head = ["fault", "n", "passed", *COUNTED, "vLLM server"]
    lines = [
        f"# Faults, {about['date']}",
        "",
        f"{len(results)} faults drawn with seed {about['seed']}, {about['cpus']} CPUs, device {about['device']}.",
        "Attached: the real generate stage against one long-lived vLLM; own: the command starts its own.",
        *([] if mounts else ["", f"Left out: {NO_MOUNT}."]),
        "",
        "| " + " | ".join(head) + " |",
        "| --- |" + " ---: |" * (len(head) - 2) + " --- |",
    ]
    for kind, rows in [*sorted(kinds.items()), ("**all**", list(results.values()))]:
        lines.append("| " + " | ".join([kind, *_counts(rows), _servers(rows)]) + " |")
    return "\n".join(lines) + "\n"


def _counts(rows: list[Mapping[str, Any]]) -> list[str]:
    wrong = [sum(len(row["problems"].get(name, ())) for row in rows) for name in COUNTED]
    return [str(len(rows)), str(sum(not row["problems"] for row in rows)), *map(str, wrong)]


def _servers(rows: list[Mapping[str, Any]]) -> str:
    return ", ".join(sorted({"own" if row["own_server"] else "attached" for row in rows}))
