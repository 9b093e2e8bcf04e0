"""The run that is to be reproduced, read from its folder, and the configuration that runs it again."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from pipeline.config.compose import from_plain
from pipeline.data.variants import base_name
from pipeline.errors import UserError
from pipeline.files import digest, read_json
from pipeline.plan.digests import VERSION, differences, digested_config
from pipeline.plan.earlier import writer
from pipeline.reproduce.consent import check
from pipeline.reproduce.record import VERSION as RECORD_VERSION
from pipeline.reproduce.record import environments
from pipeline.reproduce.results import Results, from_record, is_finished, read_results
from pipeline.schema import REVIEW_STAGES, Config, ExportConfig, PlanConfig, ReportConfig, RunConfig, TrackConfig
from pipeline.schema.cluster import ClusterConfig
from pipeline.schema.contain import ContainConfig
from pipeline.schema.publish import PublishConfig
from pipeline.schema.reproduce import ReproduceConfig
from pipeline.store import RunFolder

# What may be mended once a run is trained, so that its reproduction may need it too; its own plan.json shows it.
_MENDED: Final = ("review.logit_tolerance", "budget.devices")
AGAIN: Final = "finish it with the options that the run was made with"


@dataclass(frozen=True)
class Source:
    """The run as it was: its folder, plan, record (None: written by an older Holdfast) and results."""

    folder: RunFolder
    plan: Mapping[str, Any]
    record: Mapping[str, Any] | None
    results: Results

    @property
    def environments(self) -> list[dict[str, Any]]:
        """The environments that worked on it."""
        return environments(self.plan, self.record)


def read_source(path: str) -> Source:
    """Read a finished run; where its replies are not there, its `reproduce.json` stands for them.

    Raises:
        UserError: there is no run, it is not finished, another command works in it, it was read otherwise than
            registered, or its files are not those that its record was written of.
    """
    folder = RunFolder.of_run(path, "reproduce.run")
    with folder.undisturbed():
        plan = dict(read_json(folder.plan))
        record = dict(read_json(folder.reproduce)) if folder.reproduce.exists() else None
        _check_record(folder, plan, record)
        results = _results(folder, record)
    if results.otherwise:
        raise UserError(
            f"reproduce.run: the verdict in {folder.root} is not read as registered ({', '.join(results.otherwise)})",
            "what is reproduced is the registered plan: read the run as registered first, with "
            "stages=[score,analyse,report] and the options that it was made with",
        )
    return Source(folder, plan, record, results)


def _check_record(folder: RunFolder, plan: Mapping[str, Any], record: Mapping[str, Any] | None) -> None:
    if plan.get("version") != VERSION:
        raise UserError(
            f"{folder.plan} was written by another Holdfast (version {plan.get('version')!r}, here {VERSION!r})",
            f"run it again with {writer(plan)}",
        )
    if record is not None and record.get("version") != RECORD_VERSION:
        raise UserError(
            f"{folder.reproduce} was written by another Holdfast (version {record.get('version')!r}, here "
            f"{RECORD_VERSION!r})",
            f"{AGAIN}: it is then written anew",
        )
    if record is not None and record.get("plan_file_sha256") != digest(plan):
        raise UserError(
            f"{folder.reproduce} is not of the plan.json beside it",
            "one of them was changed or comes from another run; bring back the two that belong together",
        )


def _results(folder: RunFolder, record: Mapping[str, Any] | None) -> Results:
    recorded = (record or {}).get("results")
    if is_finished(folder) and folder.replies.is_dir():
        found = read_results(folder, weigh=True)
        changed = differences(recorded, found.as_record()) if recorded else []
        if changed:
            keys = ", ".join(dict.fromkeys(line.partition(":")[0] for line in changed[:5]))
            raise UserError(
                f"reproduce.run: {folder.root} was changed since its reproduce.json was written ({keys})",
                f"bring the old files back, or {AGAIN}: it then records what stands there",
            )
        return found
    if recorded is None:
        raise UserError(f"reproduce.run: {folder.root} holds no finished run", AGAIN)
    try:
        return from_record(recorded)
    except KeyError as error:
        raise UserError(f"{folder.reproduce} lacks {error}", "it was written by another Holdfast, or damaged") from None


def configuration(source: Source, config: ReproduceConfig, contain: ContainConfig) -> Config:
    """Return the run's own configuration, with `reproduce.change` and a run folder of its own.

    Nothing is tracked or published, no text is shown, and nothing is submitted to a cluster: those were choices of the
    run, not of its reproduction.

    Args:
        contain: what becomes of the adapters here, which the run's plan does not decide.

    Raises:
        UserError: a change is of a key that there is not, or that can change a result; the plan's configuration is
            none that this Holdfast knows, or a check of `pipeline.reproduce.consent` refuses it.
    """
    if "contain" in config.change:
        raise UserError(
            "reproduce.change.contain: what becomes of adapters is no choice of the run's", "give contain.… by itself"
        )
    planned = source.plan["config"]
    wanted = _ordered(deepcopy(dict(planned)), _order(source))
    _put(wanted, config.change)
    refused = [
        line
        for line in differences(digested_config(planned), digested_config(wanted))
        if line.partition(":")[0] not in _MENDED
    ]
    if refused:
        raise UserError(
            "reproduce.change: what can change a result is the plan's:" + "".join(f"\n  - {line}" for line in refused),
            "change only where things lie or are served, e.g. +reproduce.change.subject.path=FOLDER; nothing was run",
        )
    made = _typed(source, wanted)
    made = replace(
        made,
        stages=list(REVIEW_STAGES),
        run=RunConfig(made.run.root, str(output_folder(source, config)), made.run.benchmarks),
        review=replace(made.review, gate=False),
        track=TrackConfig(),
        plan=PlanConfig(),
        report=ReportConfig(),
        export=ExportConfig(),
        publish=PublishConfig(),
        contain=contain,
        reproduce=ReproduceConfig(),
        cluster=ClusterConfig(threads=made.cluster.threads),
    )
    check(made, config.change, source.folder.plan)
    return made


def _typed(source: Source, wanted: Mapping[str, Any]) -> Config:
    try:
        return from_plain(wanted)
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(
            f"{source.folder.plan}: config.{'.'.join(map(str, first['loc']))}: {first['msg']}",
            "the plan was written by another Holdfast, or reproduce.change gives a wrong type",
        ) from None


def _order(source: Source) -> dict[str, list[str]]:
    """Return the order of names that the record keeps; without one, as far as the plan's lists tell."""
    if source.record is not None:
        return dict(source.record["order"])
    plan = source.plan
    return {
        "arms": [task["arm"] for task in plan["tasks"]],
        "evals": [base_name(row["name"]) for row in plan["evals"]],
        "panel": [facts["name"] for facts in plan["panel"]],
    }


def _ordered(node: dict[str, Any], order: Mapping[str, list[str]], key: str = "") -> dict[str, Any]:
    """Return nested mappings with their keys in the order that is given for them, the rest behind."""
    first = [name for name in dict.fromkeys(order.get(key, ())) if name in node]
    names = [*first, *(name for name in node if name not in first)]
    return {
        name: _ordered(node[name], order, f"{key}.{name}".lstrip(".")) if isinstance(node[name], dict) else node[name]
        for name in names
    }


def _put(node: dict[str, Any], change: Mapping[str, Any], above: str = "") -> None:
    """Set the keys of a nested mapping in another one, which must have them."""
    for name, value in change.items():
        key = f"{above}.{name}".lstrip(".")
        if name not in node:
            raise UserError(f"reproduce.change: the plan has no key {key}", "see `config` in its plan.json")
        if isinstance(value, Mapping) and isinstance(node[name], dict):
            _put(node[name], value, key)
        else:
            node[name] = value


def output_folder(source: Source, config: ReproduceConfig) -> Path:
    """Return the reproduction's run folder.

    Raises:
        UserError: it is the run's own or lies in that, or it holds something that is no run.
    """
    root = source.folder.root
    folder = Path(config.output).expanduser().absolute() if config.output else root.with_name(f"{root.name}-again")
    if folder.resolve().is_relative_to(root.resolve()):
        raise UserError("reproduce.output: it is the run's own folder, or lies in it", "name another, or leave it out")
    if folder.exists() and not folder.is_dir():
        raise UserError(f"reproduce.output: {folder} is a file", "name a folder")
    strangers = [] if not folder.is_dir() else [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    if strangers and not RunFolder(folder).plan.exists():
        raise UserError(f"reproduce.output: {folder} holds other files and no run", "name a new or an empty folder")
    return folder
