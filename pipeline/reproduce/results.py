"""What a finished run found, as digests and counts: enough to say whether another run found the same. No text.

Times, and the money that follows from them, are held apart: they are never the same twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from pipeline.contain import containment
from pipeline.files import digest, file_sha256, read_json
from pipeline.journal import Journal
from pipeline.outcomes import read_outcomes
from pipeline.plan.registered import deciding
from pipeline.records import ADAPTER_FILE
from pipeline.rungs import recorded
from pipeline.store import RunFolder

Key = tuple[str, str, str, int]  # rung, eval, sample, draw
Group = tuple[str, str]  # rung, eval
Count = tuple[int, str]  # how many, and the digest of all of them
PointKey = tuple[Any, ...]  # arm, seed (None: pooled), step, eval, metric, kind
POINT: Final = ("arm", "seed", "step", "eval", "metric", "kind")
ESTIMATE: Final = ("value", "low", "high", "n")
_CONTROLS: Final = ("adapter_parity", "ignored_adapter_detected", "zero_adapter_equals_base")


@dataclass(frozen=True)
class Results:
    """What one run found.

    `adapters` is rung to the SHA-256 of its file. `replies` and `labels` are the count and digest of each rung and
    eval. `curves_sha256` covers every point's estimates, `verdict` holds words and steps. `spent` is what it took,
    `collapse` what each arm's collapse costs, both by unit; None is not known. `otherwise` names what decided the
    verdict and is not as registered; "outcomes": they are labelled by another judge than the verdict's. The three
    last are None where only the record is there, without the run's files.
    """

    adapters: Mapping[str, str]
    replies: Mapping[Group, Count]
    labels: Mapping[Group, Count]
    judge: str
    curves_sha256: str
    verdict: Mapping[str, Any]
    spent: Mapping[str, float | None]
    collapse: Mapping[str, Mapping[str, float | None]]
    otherwise: tuple[str, ...] = ()
    each_reply: Mapping[Key, str] | None = None
    each_label: Mapping[Key, str] | None = None
    points: Mapping[PointKey, Mapping[str, Any]] | None = None

    def as_record(self) -> dict[str, Any]:
        """Return the part that `reproduce.json` keeps, JSON-ready."""
        return {
            "adapters": dict(self.adapters),
            "replies": _nested(self.replies),
            "labels": _nested(self.labels),
            "judge": self.judge,
            "curves_sha256": self.curves_sha256,
            "verdict": dict(self.verdict),
            "spent": dict(self.spent),
            "collapse": {arm: dict(units) for arm, units in self.collapse.items()},
            "otherwise": list(self.otherwise),
        }


def from_record(record: Mapping[str, Any]) -> Results:
    """Return the results as a record keeps them.

    Raises:
        KeyError: the record lacks a part (it was written by another version).
    """
    return Results(
        adapters=record["adapters"],
        replies=_flat(record["replies"]),
        labels=_flat(record["labels"]),
        judge=record["judge"],
        curves_sha256=record["curves_sha256"],
        verdict=record["verdict"],
        spent=record["spent"],
        collapse=record["collapse"],
        otherwise=tuple(record["otherwise"]),
    )


def is_finished(folder: RunFolder) -> bool:
    """Say whether the files are there from which results are read."""
    return all(path.exists() for path in (folder.rungs.path, folder.outcomes, folder.curves, folder.verdict))


def read_results(folder: RunFolder, *, weigh: bool = False) -> Results:
    """Read what a finished run found.

    Args:
        weigh: take the adapters' digests from their files, or from when these were destroyed, not from `rungs.jsonl`.

    Raises:
        UserError: a file is missing or damaged.
    """
    verdict, curves = read_json(folder.verdict), read_json(folder.curves)
    each_reply = _each_reply(folder)
    each_label, judge = _each_label(folder)
    points = {
        tuple(point[key] for key in POINT): {key: point[key] for key in (*ESTIMATE, "difference", "retention")}
        for point in curves["points"]
    }
    budget, judged = verdict["budget"], verdict["judge"]["version"]
    return Results(
        adapters=_adapters(folder, weigh=weigh),
        replies=_grouped(each_reply),
        labels=_grouped(each_label),
        judge=judge,
        curves_sha256=digest(sorted(([*key, point] for key, point in points.items()), key=str)),
        verdict=facts(verdict),
        spent={unit: budget[unit]["spent"] for unit in ("device_seconds", "flops", "usd")},
        collapse={arm: _price(entry) for arm, entry in verdict["arms"].items()},
        otherwise=(*deciding(verdict.get("post_hoc") or {}), *(["outcomes"] if judge != judged else [])),
        each_reply=each_reply,
        each_label=each_label,
        points=points,
    )


def facts(verdict: Mapping[str, Any]) -> dict[str, Any]:
    """Return the words and steps of a verdict: all in it that another run must find again, and no time."""
    arms = {
        arm: {
            "verdict": entry["verdict"],
            "step": (entry["collapse"] or {}).get("step"),
            "censored": entry["censored"],
            "seeds": {
                str(seed["seed"]): {"step": (seed["collapse"] or {}).get("step"), "censored": seed["censored"]}
                for seed in entry["per_seed"]
            },
        }
        for arm, entry in verdict["arms"].items()
    }
    controls = {key: verdict["controls"].get(key) for key in _CONTROLS}
    return {"verdict": verdict["verdict"], "arms": arms, "controls": controls}


def _price(entry: Mapping[str, Any]) -> dict[str, float | None]:
    collapse = entry["collapse"] or {}
    return {unit: collapse.get(unit) for unit in ("flops", "device_seconds", "usd")}


def _adapters(folder: RunFolder, *, weigh: bool) -> dict[str, str]:
    found = {}
    weighed = {row["rung"]: row["found_sha256"] for row in containment(folder)["adapters"]} if weigh else {}
    for row in recorded(folder).values():
        if row["artifact"] == "none":
            continue
        file = folder.root / row["path"] / ADAPTER_FILE
        there = file_sha256(file) if weigh and row["path"] and file.is_file() else weighed.get(row["id"])
        found[row["id"]] = there or row["sha256"]
    return found


def _each_reply(folder: RunFolder) -> dict[Key, str]:
    """Return a digest of each reply: of what was asked and what was said, not of the adapter that said it."""
    said = ("prompt_sha256", "reply", "finish_reason", "tokens_out")
    return {
        (row["rung"], row["eval"], row["sample"], row["draw"]): digest([row[key] for key in said])
        for path in sorted(folder.replies.glob("*.jsonl"))
        for row in Journal(path).rows()
    }


def _each_label(folder: RunFolder) -> tuple[dict[Key, str], str]:
    """Return each outcome as its label and value, and the version of the judge that gave it; no value is "nan"."""
    table, scoring = read_outcomes(folder.outcomes)
    rows = table.select("rung", "eval", "sample", "draw", "label", "value").iter_rows()
    return {(rung, name, sample, draw): f"{label} {value}" for rung, name, sample, draw, label, value in rows}, (
        scoring.version
    )


def _grouped(each: Mapping[Key, str]) -> dict[Group, Count]:
    rows: dict[Group, list[Any]] = {}
    for key in sorted(each):
        rows.setdefault(key[:2], []).append([*key, each[key]])
    return {group: (len(found), digest(found)) for group, found in rows.items()}


def _nested(groups: Mapping[Group, Count]) -> dict[str, dict[str, list[Any]]]:
    nested: dict[str, dict[str, list[Any]]] = {}
    for (rung, name), count in groups.items():
        nested.setdefault(rung, {})[name] = list(count)
    return nested


def _flat(nested: Mapping[str, Mapping[str, Any]]) -> dict[Group, Count]:
    return {(rung, name): (n, sha) for rung, evals in nested.items() for name, (n, sha) in evals.items()}
