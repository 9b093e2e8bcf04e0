"""One finished run, read from its folder and nothing else: no subject, no server, no judge, nothing written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import polars as pl

from pipeline.cluster.task import status_of
from pipeline.errors import UserError
from pipeline.files import read_json
from pipeline.outcomes import Scoring, read_outcomes
from pipeline.plan.digests import VERSION
from pipeline.plan.earlier import writer
from pipeline.report import ReportData
from pipeline.rungs import recorded
from pipeline.store import RunFolder

AGAIN: Final = "finish it: holdfast run.again= with its folder, and stages=[score,analyse,report]"


@dataclass(frozen=True)
class FinishedRun:
    """One of the two runs.

    `letter` is A or B. `points` and `collapses` are those of `curves.json`. `doses` holds, by (arm, seed), the dose
    at each step in the units that its keys name; None is no price. `spent` is the ledger's sum over all
    attempts as the verdict has it, killed ones included. `searches` holds what search.json says of each arm that
    searched for its options, `record` is reproduce.json, and `gpus` are the models of GPU on which an array's tasks
    trained.
    """

    letter: str
    folder: Path
    plan: Mapping[str, Any]
    verdict: Mapping[str, Any]
    points: Sequence[Mapping[str, Any]]
    collapses: Mapping[tuple[str, int | None], Mapping[str, Any]]
    outcomes: pl.DataFrame
    scoring: Scoring
    doses: Mapping[tuple[str, int], Mapping[int, Mapping[str, float | None]]]
    spent: Mapping[str, float | None]
    searches: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    record: Mapping[str, Any] | None = None
    gpus: Sequence[str] = ()

    @property
    def name(self) -> str:
        """The subject's name."""
        return str(self.plan["subject"]["name"])

    @property
    def label(self) -> str:
        """The letter with the subject's name, as sentences use it: "B (hardened)"."""
        return f"{self.letter} ({self.name})"

    @property
    def report(self) -> ReportData:
        """The run as the report's functions read it."""
        return ReportData(dict(self.plan), dict(self.verdict), [dict(point) for point in self.points])

    def arms(self) -> list[str]:
        """Return the arms in the plan's order."""
        return list(dict.fromkeys(str(task["arm"]) for task in self.plan["tasks"]))


def read_run(path: str, letter: str) -> FinishedRun:
    """Read a finished run.

    Raises:
        UserError: there is none, another command works in it, a file is missing or damaged, or its files are not of
            one another (scored again, but not analysed again).
    """
    folder = RunFolder.of_run(path, "compare.runs")
    with folder.undisturbed():
        plan = dict(read_json(folder.plan))
        _require_version(folder, plan)  # first: what another version wrote may look damaged to this one
        verdict, curves = (dict(read_json(file)) for file in (folder.verdict, folder.curves))
        outcomes, scoring = read_outcomes(folder.outcomes)
        rungs = list(recorded(folder).values())
        searches = read_json(folder.search)["arms"] if folder.search.exists() else {}
        record = read_json(folder.reproduce) if folder.reproduce.exists() else None
        tasks = {f"{task['arm']}/{task['seed']}" for task in plan["tasks"]}
        gpus = sorted({gpu for task in tasks for gpu in status_of(folder.root, task).get("devices", ())})
    _check(folder, plan, verdict, scoring)
    return FinishedRun(
        letter=letter,
        folder=folder.root,
        plan=plan,
        verdict=verdict,
        points=curves["points"],
        collapses={(row["arm"], row["seed"]): row["collapse"] for row in curves["collapses"] if row["collapse"]},
        outcomes=outcomes,
        scoring=scoring,
        doses=_doses(rungs),
        spent={unit: verdict["budget"][unit]["spent"] for unit in ("device_seconds", "flops", "usd")},
        searches=searches,
        record=record,
        gpus=gpus,
    )


def _require_version(folder: RunFolder, plan: Mapping[str, Any]) -> None:
    if plan.get("version") != VERSION:
        raise UserError(
            f"{folder.plan} was written by another Holdfast (version {plan.get('version')!r}, here {VERSION!r})",
            f"compare two runs of one version: of that one with {writer(plan)}",
        )


def _check(folder: RunFolder, plan: Mapping[str, Any], verdict: Mapping[str, Any], scoring: Scoring) -> None:
    if verdict.get("plan_sha256") != plan["plan_sha256"]:
        raise UserError(f"{folder.verdict} is not of the plan beside it", AGAIN)
    if verdict["judge"]["version"] != scoring.version:
        raise UserError(
            f"{folder.verdict} rests on judge {verdict['judge']['name']} ({verdict['judge']['version'][:8]}), "
            f"outcomes.parquet is by {scoring}",
            AGAIN,
        )


def _doses(rungs: Sequence[Mapping[str, Any]]) -> dict[tuple[str, int], dict[int, Mapping[str, float | None]]]:
    doses: dict[tuple[str, int], dict[int, Mapping[str, float | None]]] = {}
    for rung in rungs:
        if rung["role"] == "rung":
            doses.setdefault((rung["arm"], rung["seed"]), {})[rung["step"]] = rung["dose"]
    return doses
